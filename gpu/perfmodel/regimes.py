"""Where balance helps, is neutral and hurts: one MoE layer, per balancer, kernel, sparsity and regime.

The time of the routed experts of one layer, relative to unbalanced routing.  Below 1 balance pays; above 1 it hurts.
Assumptions: those of `moe`, and popularity 1/rank without a balancer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.perfmodel import moe
from loadsparse.gpu.perfmodel.gpu import Gpu, PerfError, load
from loadsparse.gpu.perfmodel.kernel import COLUMNS, canonical, is_whole, outside, untested_sizes
from loadsparse.gpu.perfmodel.models import Model, get
from loadsparse.reference import routing as route

Integers = NDArray[np.int64]
NEUTRAL = 0.02


@dataclass(frozen=True)
class Regime:
    """One cell: tokens at once on `gpus` expert-parallel GPUs.

    seconds, relative   of the routed experts of a layer; divided by those of unbalanced routing
    activated           experts that received a token, mean
    max_violation       largest load / mean load - 1, mean
    notes               where the question leaves what the model was tested on
    """

    tokens: int
    gpus: int
    balancer: str | None
    kernel: str
    sparsity: float
    seconds: float
    relative: float
    activated: float
    max_violation: float
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """ "helps", "neutral" (within 2%) or "hurts"."""
        if abs(self.relative - 1) <= NEUTRAL:
            return "neutral"
        return "helps" if self.relative < 1 else "hurts"


def regime(
    tokens: int,
    gpus: int,
    balancer: str | None,
    kernel: str = "flash-llm",
    sparsity: float = 0.8,
    *,
    model: str | Model = "deepseek-moe-16b",
    gpu: str | Gpu = "a100-80gb",
    popularity: str = "1/rank",
) -> Regime:
    """The cell of one question.  Raises PerfError for a model without experts, or no tokens."""
    shape, device = get(model), load(gpu)
    if not is_whole(tokens, 1, 2**48):
        raise PerfError(f"tokens must be a whole number from 1 to 2^48, got {tokens!r}")
    if not shape.experts:
        raise PerfError(f"{shape.name} has no experts: choose a MoE model")
    seconds = _seconds(tokens, gpus, moe.Routing(popularity, balancer), kernel, sparsity, shape, device)
    plain = _seconds(tokens, gpus, moe.Routing(popularity), kernel, sparsity, shape, device)
    drawn = [
        moe.loads(tokens, shape.experts, shape.top_k, moe.Routing(popularity, balancer), d) for d in range(moe.DRAWS)
    ]
    return Regime(
        tokens,
        gpus,
        balancer,
        kernel,
        sparsity,
        seconds,
        seconds / plain,
        fmean(float((loads > 0).sum()) for loads in drawn),
        fmean(route.max_violation(loads) for loads in drawn),
        _notes(drawn, kernel, sparsity, shape, device),
    )


def _notes(drawn: Sequence[Integers], kernel: str, sparsity: float, model: Model, gpu: Gpu) -> tuple[str, ...]:
    """No grouped launch was ever timed; and what its single products have that no measured one had."""
    widths = np.concatenate([loads[loads > 0] for loads in drawn])
    found = ["experts run as one grouped kernel per matrix; none was timed, and no layer with experts"]
    if widths.min() < COLUMNS[0] or widths.max() > COLUMNS[1]:
        found.append(f"experts receive other numbers of tokens than the measured {COLUMNS[0]} to {COLUMNS[1]}")
    found += outside(canonical(kernel), COLUMNS[0], sparsity, gpu)
    for m, k in model.mlp_matmuls(1, model.expert_ffn):
        found += untested_sizes(m, k)
    return tuple(dict.fromkeys(found))


def _seconds(
    tokens: int, gpus: int, routing: moe.Routing, kernel: str, sparsity: float, model: Model, gpu: Gpu
) -> float:
    matrices = model.mlp_matmuls(1, model.expert_ffn)
    batches = [moe.loads(tokens, model.experts, model.top_k, routing, draw) for draw in range(moe.DRAWS)]
    return fmean(moe.expert_parallel(each, matrices, kernel, 1 - sparsity, gpu, gpus).seconds for each in batches)


def table(
    balancers: Sequence[str | None] = (None, "sign", "proportional", "quantile"),
    kernels: Sequence[tuple[str, float]] = (
        ("cublas", 0.0),
        ("flash-llm", 0.7),
        ("flash-llm", 0.8),
        ("flash-llm", 0.9),
        ("bitmap", 0.8),
    ),
    cases: Sequence[tuple[int, int]] = (
        (16, 1),
        (64, 1),
        (512, 1),
        (4096, 1),
        (64, 8),
        (512, 8),
        (4096, 8),
        (32768, 8),
    ),
) -> list[Regime]:
    """Every combination of (tokens, GPUs), balancer and (kernel, sparsity)."""
    return [
        regime(tokens, gpus, balancer, kernel, sparsity)
        for tokens, gpus in cases
        for kernel, sparsity in kernels
        for balancer in balancers
    ]


def main() -> None:
    """Print the table."""
    print(
        f"{'tokens':>6} {'GPUs':>4} {'kernel':10} {'sparsity':>8} {'balancer':14} {'us':>9} {'relative':>8}  activated  MaxVio"
    )
    rows = table()
    for row in rows:
        print(
            f"{row.tokens:6} {row.gpus:4} {row.kernel:10} {row.sparsity:8.0%} {row.balancer or 'none':14} "
            f"{row.seconds * 1e6:9.1f} {row.relative:8.2f}  {row.activated:9.1f}  {row.max_violation:6.2f}  {row.verdict}"
        )
    for note in dict.fromkeys(note for row in rows for note in row.notes):
        print(f"note: {note}")


if __name__ == "__main__":
    main()
