"""Balancers side by side on one score matrix, judged against the exact balanced assignment.

The matrix may be a memory map of millions of tokens: it is read in blocks, and never copied as a whole unless the
exact optimum is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loadsparse.reference import balancing, routing
from loadsparse.theory import assignment, score_laws, selection

Array = npt.NDArray[Any]
BLOCK = 65536  # tokens read at once


@dataclass(frozen=True)
class Row:
    """One balancer after some steps, on the whole matrix. `to_dict()` is what JSON gets.

    dual_gap = (D(p) - OPT) / |OPT| and kept = (sum of the chosen scores) / OPT need the exact optimum, else None.
    kept may exceed 1 where the loads are not balanced.
    """

    balancer: str
    step: int
    max_violation: float
    idle: int
    gini: float
    dual: float
    score: float
    dual_gap: float | None
    kept: float | None
    bias_spread: float

    def to_dict(self) -> dict[str, Any]:
        """The row as plain numbers and strings."""
        return asdict(self)


@dataclass(frozen=True)
class Seen:
    """One pass over the whole matrix at a bias: loads int64 [E], D(p), and the score kept."""

    loads: npt.NDArray[np.int64]
    dual: float
    score: float


def evaluate(scores: Array, k: int, bias: Array) -> Seen:
    """Loads, dual value and kept score of topK(s + p), streamed: sum s x = sum (s + p) x - <p, A>."""
    experts = scores.shape[1]
    loads, top = np.zeros(experts, dtype=np.int64), 0.0
    for start in range(0, scores.shape[0], BLOCK):
        part = selection.sweep(selection.contiguous(scores[start : start + BLOCK], k), k, bias)
        loads += part.loads
        top += part.top
    mean = k * scores.shape[0] / experts
    return Seen(loads, top - mean * float(bias.sum()), top - float(bias @ loads))


def marks(steps: int, most: int = 24) -> list[int]:
    """0, steps, and about `most` steps between them, evenly spaced in log n."""
    spaced = np.geomspace(1, max(steps, 1), num=most).round().astype(int).tolist()
    return sorted({0, *spaced, steps})


def rows_of_batch(scores: Array, batch: int | None, rng: np.random.Generator) -> Callable[[], Array]:
    """A source of batches: the whole matrix every time, or `batch` rows of it in a fresh random order (blocks of
    rows)."""
    if batch is None or batch >= scores.shape[0]:
        whole = selection.contiguous(scores, 1) if scores.dtype.kind == "f" else np.asarray(scores, dtype=np.float64)
        return lambda: whole
    return lambda: np.asarray(scores[np.sort(rng.choice(scores.shape[0], batch, replace=False))])


def compare(
    scores: npt.ArrayLike,
    k: int,
    balancers: Iterable[str] | Mapping[str, balancing.Balancer] | None = None,
    steps: int = 300,
    seed: int = 0,
    batch: int | None = None,
    exact: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Trajectories of balancers on scores [T, E] with K experts per token.

    balancers: names in `balancing.BALANCERS` (default: all), or your own as {name: balancer}. Every step shows a
    balancer one batch: the whole matrix, or `batch` rows drawn without replacement (seeded, the same for all). Rows
    come at steps 0, 1, ... evenly in log n, each evaluated on the whole matrix; the last row, "optimum", is the exact
    assignment if `exact`.
    progress(done, total) is called now and then. Raises ValueError for a bad matrix, K, name or number of steps.

    >>> rows = compare([[0.9, 0.1], [0.8, 0.3]], 1, ["sign"], steps=0)
    >>> [(r.balancer, r.step, r.max_violation) for r in rows]
    [('sign', 0, 1.0), ('optimum', 0, 0.0)]
    """
    s = np.asanyarray(scores)
    score_laws.check(s, k)
    if steps < 0 or (batch is not None and batch < 1):
        raise ValueError(f"steps must be >= 0 and batch >= 1, got steps = {steps}, batch = {batch}")
    chosen = balancers if isinstance(balancers, Mapping) else None
    if chosen is None:
        names = list(balancing.BALANCERS) if balancers is None else list(balancers)
        chosen = {name: balancing.get(name, k) for name in names}
    best = assignment.solve(s, k, seed=seed) if exact else None
    shown, total, done = set(marks(steps)), len(chosen) * max(steps, 1), 0
    rows = []

    def row(name: str, step: int, seen: Seen, bias: Array) -> Row:
        figures = routing.balance(seen.loads)
        opt = None if best is None else best.value
        return Row(
            balancer=name,
            step=step,
            max_violation=figures.max_violation,
            idle=figures.idle,
            gini=figures.gini,
            dual=seen.dual,
            score=seen.score,
            dual_gap=(seen.dual - opt) / abs(opt) if opt else None,
            kept=seen.score / opt if opt else None,
            bias_spread=float(bias.max() - bias.min()),
        )

    for name, balancer in chosen.items():
        draw = rows_of_batch(s, batch, np.random.default_rng(seed))
        state = balancer.init(s.shape[1])
        rows.append(row(name, 0, evaluate(s, k, state.bias), state.bias))
        for step in range(1, steps + 1):
            part = draw()
            seen = part if balancer.needs == "scores" else selection.loads(part, k, state.bias)
            state = balancer.step(state, seen)
            done += 1
            if step in shown:
                rows.append(row(name, step, evaluate(s, k, state.bias), state.bias))
                if progress is not None:
                    progress(done, total)
    if best is not None:
        loads = routing.loads(best.choices, s.shape[1])
        rows.append(row("optimum", 0, Seen(loads, best.value + best.gap, best.value), best.prices))
    return rows
