"""The experts of a small MoE layer on a CPU, forward and backward: sorted blocks against all experts on all tokens and
against JAX's ragged product. CPU seconds of one thread, the best of several, in one run; no bar, a choice explained.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tutorials"))

from deepseekmoe import model  # before jax: it asks for one thread

import jax  # isort: skip
import jax.numpy as jnp
import numpy as np

TOKENS = 1024


def everything(x: Any, experts: Any, choices: Any, gates: Any) -> Any:
    """All experts on all tokens, most of it times zero."""
    dense = jnp.zeros((x.shape[0], experts["gate"].shape[0])).at[jnp.arange(x.shape[0])[:, None], choices].set(gates)
    inner = jax.nn.silu(jnp.einsum("td,ehd->eth", x, experts["gate"])) * jnp.einsum("td,ehd->eth", x, experts["up"])
    return jnp.einsum("eth,edh,te->td", inner, experts["down"], dense)


def ragged(x: Any, experts: Any, choices: Any, gates: Any) -> Any:
    """Sorted tokens, `jax.lax.ragged_dot`."""
    order = jnp.argsort(choices.ravel(), stable=True)
    sizes = jnp.bincount(choices.ravel(), length=experts["gate"].shape[0])
    gate, up, down = (jnp.swapaxes(experts[name], 1, 2) for name in ("gate", "up", "down"))
    inputs = x[order // choices.shape[1]]
    inner = jax.nn.silu(jax.lax.ragged_dot(inputs, gate, sizes)) * jax.lax.ragged_dot(inputs, up, sizes)
    outputs = jax.lax.ragged_dot(inner, down, sizes)
    back = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
    return jnp.einsum("tk,tkd->td", gates, outputs[back].reshape(*choices.shape, -1))


def seconds(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """(CPU seconds of one forward and backward pass, the best of five; the value)."""
    step = jax.jit(jax.value_and_grad(lambda x, e, c, g: jnp.sum(jnp.sin(work(x, e, c, g))), argnums=(0, 1, 3)))
    value, _ = jax.block_until_ready(step(*arguments))
    best = float("inf")
    for _ in range(5):
        since = time.process_time()
        jax.block_until_ready(step(*arguments))
        best = min(best, time.process_time() - since)
    return best, float(value)


def main() -> None:
    config, rng = model.Config(), np.random.default_rng(0)
    experts = model.init(config, 0)["blocks"][1]["routed"]
    x = jnp.asarray(rng.standard_normal((TOKENS, config.width)), jnp.float32)
    scores = jnp.asarray(rng.random((TOKENS, config.routed)) + np.linspace(0, 0.5, config.routed), jnp.float32)
    gates, choices = jax.lax.top_k(scores, config.k)
    blocks, value = seconds(lambda x, e, c, g: model.dispatched(x, e, c, g, config.block), x, experts, choices, gates)
    print(f"{TOKENS} tokens, {config.routed} experts of {config.hidden}, {config.k} per token, width {config.width}")
    print(f"sorted blocks of {config.block} rows   {blocks * 1e3:8.1f} ms")
    for name, work in (("all experts", everything), ("ragged_dot", ragged)):
        spent, other = seconds(work, x, experts, choices, gates)
        if abs(other - value) > 1e-3 * abs(value):
            raise SystemExit(f"{name} computes {other}, the blocks {value}")
        print(f"{name:28} {spent * 1e3:8.1f} ms   {spent / blocks:5.1f} times the blocks")


if __name__ == "__main__":
    main()
