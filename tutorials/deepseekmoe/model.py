"""A decoder with DeepSeekMoE layers in JAX: bytes in, logits of the next byte out.

    h_0 = embedding,   h <- h + attention(norm h),   h <- h + F(norm h);   logits = norm(h) embedding^T

F is a dense network in the first block and a DeepSeekMoE layer (`moe`, the formula of `reference.moe`) in the others.
Weights are nested dicts of arrays; their dtype is the dtype of the computation.
Source: DeepSeekMoE (arXiv 2401.06066); sigmoid gate and selection bias as in arXiv 2408.15664.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Weights = dict[str, Any]
BYTES = 256


@dataclass(frozen=True)
class Config:
    """D, attention heads, hidden size H of one expert, E routed and S shared experts, K chosen, MoE blocks, sequence."""

    width: int = 64
    heads: int = 4
    hidden: int = 64
    routed: int = 64
    shared: int = 2
    k: int = 6
    layers: int = 2
    sequence: int = 128
    block: int = 32  # rows of the expert batches that are multiplied at once

    def to_dict(self) -> dict[str, int]:
        """Plain values, as JSON keeps them."""
        return asdict(self)


TINY = Config(width=16, heads=2, hidden=8, routed=8, shared=1, k=2, layers=1, sequence=32, block=8)


class Routing(NamedTuple):
    """Of one MoE layer: its inputs [T, D]; scores [T, E] without bias; choices int32 [T, K] in descending biased score;
    loads int32 [E]."""

    inputs: jax.Array
    scores: jax.Array
    choices: jax.Array
    loads: jax.Array


def init(config: Config, seed: int, dtype: Any = np.float32) -> Weights:
    """Normal weights of deviation 1 / sqrt(fan-in); a router's logits start with deviation 0.2."""
    rng = np.random.default_rng([seed, 0x6D6F65])
    d, h = config.width, config.hidden
    residual = 1 / np.sqrt(2 * (config.layers + 1))

    def normal(*shape: int, scale: float = 1.0) -> Any:
        return jnp.asarray(rng.standard_normal(shape) * scale / np.sqrt(shape[-1]), dtype)

    def experts(count: int, size: int) -> Weights:
        return {
            "gate": normal(count, size, d), "up": normal(count, size, d), "down": normal(count, d, size, scale=residual)
        }  # fmt: skip

    blocks = []
    for layer in range(config.layers + 1):
        block = {
            "attention_norm": jnp.ones(d, dtype), "norm": jnp.ones(d, dtype),
            "qkv": normal(3 * d, d), "out": normal(d, d, scale=residual),
        }  # fmt: skip
        if layer == 0:
            block["dense"] = experts(1, 4 * d)
        else:
            block["router"] = normal(config.routed, d, scale=0.2)
            block["shared"] = experts(config.shared, h)
            block["routed"] = experts(config.routed, h)
        blocks.append(block)
    return {"embedding": normal(BYTES, d), "norm": jnp.ones(d, dtype), "blocks": blocks}


def normalise(x: jax.Array, weight: jax.Array) -> jax.Array:
    """RMS norm of the last axis."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * weight


def rotate(x: jax.Array) -> jax.Array:
    """Rotary positions for x [batch, sequence, heads, size]."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] / 10_000 ** (np.arange(half) / half)
    cos, sin = (jnp.asarray(f(angle), x.dtype)[:, None, :] for f in (np.cos, np.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def attention(x: jax.Array, block: Weights, heads: int) -> jax.Array:
    """Causal self-attention of x [batch, sequence, D]."""
    batch, sequence, width = x.shape
    q, k, v = jnp.split((x @ block["qkv"].T).reshape(batch, sequence, 3 * heads, width // heads), 3, axis=2)
    mixed = jax.nn.dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
    return mixed.reshape(batch, sequence, width) @ block["out"].T


def network(x: jax.Array, experts: Weights) -> jax.Array:
    """sum over the stacked experts of W2 (silu(W1 x) * (W3 x)) for x [T, D]: one network with all hidden units."""
    gate, up = (experts[name].reshape(-1, x.shape[1]) for name in ("gate", "up"))
    down = jnp.moveaxis(experts["down"], 0, 1).reshape(x.shape[1], -1)
    return (jax.nn.silu(x @ gate.T) * (x @ up.T)) @ down.T


class Plan(NamedTuple):
    """Where the pairs (token, chosen expert) lie in blocks that belong to one expert each.

    owner int [blocks]: whose block; tokens int [blocks, rows]: the token of each row, T where there is none;
    row int [T, K]: the row of each pair, counted over all blocks.
    """

    owner: jax.Array
    tokens: jax.Array
    row: jax.Array


def plan(choices: jax.Array, experts: int, rows: int) -> Plan:
    """Sort the pairs by expert and round each expert up to whole blocks: no pair is dropped, whatever the loads.

    ceil(A_1 / rows) + ... + ceil(A_E / rows) <= floor(T K / rows) + E blocks always suffice, a static number.
    """
    tokens, k = choices.shape
    pairs, blocks = tokens * k, tokens * k // rows + experts
    order = jnp.argsort(choices.ravel(), stable=True)
    expert = choices.ravel()[order]
    counts = jnp.bincount(expert, length=experts)
    ends = jnp.cumsum(-(-counts // rows))  # blocks up to and including each expert
    before = ends - -(-counts // rows)
    place = before[expert] * rows + jnp.arange(pairs) - (jnp.cumsum(counts) - counts)[expert]
    owner = jnp.minimum(jnp.searchsorted(ends, jnp.arange(blocks), side="right"), experts - 1)
    filled = jnp.full(blocks * rows, tokens).at[place].set(order // k)
    return Plan(owner, filled.reshape(blocks, rows), jnp.zeros_like(order).at[order].set(place).reshape(tokens, k))


def dispatched(x: jax.Array, experts: Weights, choices: jax.Array, gates: jax.Array, rows: int) -> jax.Array:
    """sum_{k chosen} g_ik F_k(x_i) for x [T, D], choices and gates [T, K]: every block times its own expert's weights."""
    where = plan(choices, experts["gate"].shape[0], rows)
    inputs = x.at[where.tokens].get(mode="fill", fill_value=0)  # [blocks, rows, D]
    gate, up, down = (
        experts[name].at[where.owner].get(indices_are_sorted=True, mode="promise_in_bounds")  # halves the backward pass
        for name in ("gate", "up", "down")
    )
    inner = jax.nn.silu(jnp.einsum("brd,bhd->brh", inputs, gate)) * jnp.einsum("brd,bhd->brh", inputs, up)
    outputs = jnp.einsum("brh,bdh->brd", inner, down).reshape(-1, x.shape[1])
    return jnp.einsum("tk,tkd->td", gates, outputs[where.row])


def moe(x: jax.Array, block: Weights, bias: jax.Array, config: Config) -> tuple[jax.Array, Routing]:
    """One DeepSeekMoE layer on x [T, D] with selection bias [E]: equal to `reference.moe.forward`.

    No gradient reaches the bias or passes through the choice.
    """
    scores = jax.nn.sigmoid(x @ block["router"].T)
    _, choices = jax.lax.top_k(jax.lax.stop_gradient(scores) + bias, config.k)  # ties by lower index
    chosen = jnp.take_along_axis(scores, choices, axis=1)
    gates = chosen / chosen.sum(axis=1, keepdims=True)
    y = network(x, block["shared"]) + dispatched(x, block["routed"], choices, gates, config.block)
    return y, Routing(x, scores, choices, jnp.bincount(choices.ravel(), length=config.routed))


def forward(weights: Weights, tokens: jax.Array, biases: jax.Array, config: Config) -> tuple[jax.Array, list[Routing]]:
    """Logits [batch, sequence, 256] for tokens uint8 [batch, sequence] with biases [layers, E], and each layer's routing."""
    h = weights["embedding"][tokens.astype(jnp.int32)] * np.sqrt(config.width).astype(weights["norm"].dtype)
    routings: list[Routing] = []
    for block in weights["blocks"]:
        h = h + attention(normalise(h, block["attention_norm"]), block, config.heads)
        x = normalise(h, block["norm"]).reshape(-1, config.width)
        if "dense" in block:
            y = network(x, block["dense"])
        else:
            y, routing = moe(x, block, biases[len(routings)], config)
            routings.append(routing)
        h = h + y.reshape(h.shape)
    return normalise(h, weights["norm"]) @ weights["embedding"].T, routings


def auxiliary(routing: Routing) -> jax.Array:
    """E sum_k f_k P_k with f_k = A_k / (T K) and P_k = mean_i s_ik / sum_j s_ij: `balancing.switch_loss` at alpha = 1."""
    share = routing.loads / routing.choices.size
    return (
        routing.loads.size
        * share.astype(routing.scores.dtype)
        @ jnp.mean(routing.scores / routing.scores.sum(axis=1, keepdims=True), axis=0)
    )


def loss(
    weights: Weights, text: jax.Array, biases: jax.Array, alpha: jax.Array, config: Config
) -> tuple[jax.Array, tuple[jax.Array, list[Routing]]]:
    """(bits per byte + alpha sum over layers of `auxiliary`, (bits per byte, routings)) for text uint8 [batch, sequence + 1]."""
    logits, routings = forward(weights, text[:, :-1], biases, config)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), text[:, 1:, None].astype(jnp.int32), axis=2)
    nats = -log_p.mean()
    penalty = alpha * sum(auxiliary(routing) for routing in routings)
    return nats + penalty, (nats / np.log(2).astype(nats.dtype), routings)
