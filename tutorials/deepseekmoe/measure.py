"""What theory says about one training batch: the dual against the exact optimum, D2, D3, and regret in hindsight."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing
from loadsparse.theory import assignment, lagrangian, online, preference, selection

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One MoE layer at one training step: scores s [T, E] and bias p before it, p + Delta and moved scores after it.

    dual, optimum: D(p) / T and OPT / T, exact. reach: max s - min s. spread: max p - min p.
    Fixed scores, where the bias moved: falls = D(p + Delta) <= D(p) (D2); few, keeps = the sufficient conditions D2(b),
    D2(a); pairs, obey: switching pairs and those that follow the preference rule (D3 says all).
    Moving scores: the same tokens after the optimiser's step: moved_pairs, moved_obey; moved_wrong: share of the experts
    that gained tokens though overloaded, or lost some though underloaded. NaN where there is nothing to say.
    """

    dual: float
    optimum: float
    reach: float
    spread: float
    falls: float = np.nan
    few: float = np.nan
    keeps: float = np.nan
    pairs: float = np.nan
    obey: float = np.nan
    moved_pairs: float = np.nan
    moved_obey: float = np.nan
    moved_wrong: float = np.nan


FIELDS = tuple(field.name for field in fields(Measured))


def measure(scores: npt.ArrayLike, k: int, bias: Floats, change: Floats | None, moved: npt.ArrayLike) -> list[float]:
    """The fields of `Measured` in order. change: Delta [E], None for an arm without bias; moved: scores after the step."""
    s, after = np.asarray(scores, dtype=np.float64), np.asarray(moved, dtype=np.float64)
    tokens = s.shape[0]
    best = assignment.solve(s, k)
    found = {
        "dual": float(lagrangian.dual(s, k, bias)) / tokens,
        "optimum": best.value / tokens,
        "reach": float(s.max() - s.min()),
        "spread": float(np.ptp(bias)),
    }
    if change is not None and change.any():
        step = lagrangian.step(s, k, bias, change)
        first = routing.top_k(s, k, bias)
        fixed = preference.switches(s, bias, change, first, routing.top_k(s, k, bias + change))
        then = routing.top_k(after, k, bias + change)
        moving = preference.switches(s, bias, change, first, then)
        wrong = preference.wrong_way(step.loads, routing.loads(then, s.shape[1]))
        found |= {
            "falls": float(step.after <= step.before), "few": float(step.few_switches), "keeps": float(step.keeps_direction),
            "pairs": fixed.token.size, "obey": int(fixed.obey.sum()),
            "moved_pairs": moving.token.size, "moved_obey": int(moving.obey.sum()), "moved_wrong": float(wrong.mean()),
        }  # fmt: skip
    return list(asdict(Measured(**found)).values())


def regret(batches: npt.ArrayLike, k: int, biases: Floats) -> float:
    """sum_n D_n(p^n) - min_p sum_n D_n(p) per token, exact, for batches [N, T, E] and the biases [N, E] they met.

    Negative where a bias that moved with the scores was better than every fixed one.
    """
    b = np.asarray(batches, dtype=np.float64)
    _, least = online.hindsight(b, k)
    mean = k / b.shape[2]
    met = sum(
        selection.sweep(part, k, p).top / b.shape[1] - mean * float(p.sum()) for part, p in zip(b, biases, strict=True)
    )
    return met - least


def max_violations(loads: npt.NDArray[np.integer]) -> Floats:
    """MaxVio of loads [..., E]."""
    counts = np.asarray(loads, dtype=np.float64)
    return counts.max(axis=-1) / counts.mean(axis=-1) - 1
