"""How balanced the sign rule gets on fixed scores (statements D4, D5, D6).

D4: from p = 0 the biases keep max - min <= 2R + 2u (R + 2u if K = 1; proportional rule: 2R + eps T), R = max s - min s.
D5: every expert reaches |A_k - L| <= m_k(u) within N0 steps and never leaves; for u small against the separation of
the scores
    m_k(u) <= E - 1 tokens. D6: at optimal prices generic scores tie at most E - 1 tokens, whatever the tie-break
    makes of them.
All functions take integer scores and integer steps for exact answers, or floats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing
from loadsparse.theory import lagrangian

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trajectory:
    """biases [N + 1, E] before each step and after the last; loads int64 [N + 1, E] at each of them."""

    biases: Array
    loads: Integers

    @property
    def spreads(self) -> Array:
        """max p - min p at every step, [N + 1]."""
        return np.asarray(self.biases.max(axis=1) - self.biases.min(axis=1))


def trajectory(scores: npt.ArrayLike, k: int, steps: int, *, u: Any = None, eps: Any = None) -> Trajectory:
    """`steps` steps from p = 0 on fixed scores [T, E]: the sign rule with u, or Delta = eps (E L - E A) / E with eps.

    Integer scores with an integer u stay integers. Give exactly one of u and eps.
    """
    if (u is None) == (eps is None):
        raise ValueError("give either u (sign rule) or eps (proportional rule, in counts)")
    s = np.asarray(scores)
    p = np.zeros(s.shape[1], dtype=np.int64 if lagrangian.is_exact(s) and isinstance(u, int) else np.float64)
    biases, loads = [p], [routing.loads(routing.top_k(s, k, p), s.shape[1])]
    for _ in range(steps):
        counts = loads[-1]
        p = p + (lagrangian.sign_change(counts, u) if eps is None else eps * (counts.mean() - counts))
        biases.append(p)
        loads.append(routing.loads(routing.top_k(s, k, p), s.shape[1]))
    return Trajectory(np.asarray(biases), np.asarray(loads))


def spread_bound(scores: npt.ArrayLike, k: int, *, u: Any = 0, eps: Any = 0) -> Any:
    """D4: the largest max p - min p that the rule can reach from 0; with u = eps = 0 that of any optimal price vector.

    2R + 2u (sign), 2R + eps T (proportional); R in place of 2R for K = 1, and for K = E - 1 at an optimum.
    """
    s = np.asarray(scores)
    reach = s.max() - s.min()
    once = k == 1 or (k == s.shape[1] - 1 and u == 0 and eps == 0)
    return (1 if once else 2) * reach + 2 * u + eps * s.shape[0]


def most_in_window(values: npt.ArrayLike, width: Any) -> int:
    """Most entries of [n] values that one closed interval of that width holds.

    >>> most_in_window([0, 1, 5, 6, 6], 1)
    3
    """
    v = np.sort(np.asarray(values))
    return int((np.searchsorted(v, v + width, side="right") - np.arange(v.size)).max())


def bands(scores: npt.ArrayLike, u: Any) -> Integers:
    """D5: b_k = sum over j != k of the most s_ik - s_ij in a window of 2u, int64 [E]; m_k(u) <= b_k, in tokens."""
    s = np.asarray(scores)
    experts = s.shape[1]
    return np.asarray(
        [sum(most_in_window(s[:, k] - s[:, j], 2 * u) for j in range(experts) if j != k) for k in range(experts)],
        dtype=np.int64,
    )


def entry_steps(scores: npt.ArrayLike, u: Any) -> int:
    """D5: N0 = ceil((E - 1)(R + 2u) / (2u)) + 1, after which every expert is in its band."""
    s = np.asarray(scores)
    experts, reach = s.shape[1], s.max() - s.min()
    if lagrangian.is_exact(s) and isinstance(u, int):
        return -(-(experts - 1) * (int(reach) + 2 * u) // (2 * u)) + 1
    return math.ceil((experts - 1) * (reach + 2 * u) / (2 * u)) + 1


def separation(scores: npt.ArrayLike) -> Any:
    """D5: delta = smallest |(s_ik - s_ij) - (s_i'k - s_i'j)| over k != j and i != i'; below delta / 2 for u the bands
    are at most E - 1 tokens. 0 where the scores are not generic."""
    s = np.asarray(scores)
    if s.shape[0] < 2:
        raise ValueError("separation compares tokens: it needs at least two")
    pairs = [(k, j) for k in range(s.shape[1]) for j in range(k)]
    return min(np.diff(np.sort(s[:, k] - s[:, j])).min() for k, j in pairs)


def imbalance(loads: Integers) -> Integers:
    """E |A - L| in integers, [..., E]."""
    counts = np.asarray(loads, dtype=np.int64)
    return np.asarray(np.abs(counts.shape[-1] * counts - counts.sum(axis=-1, keepdims=True)))


@dataclass(frozen=True)
class Cycle:
    """The limit cycle of the sign rule: from step `start` on the loads and centred biases repeat every `period`
    steps."""

    start: int
    period: int
    loads: Integers  # [period, E]


def limit_cycle(scores: npt.ArrayLike, k: int, u: int, most: int = 100_000) -> Cycle:
    """The cycle that D4 promises for integer scores and an integer u; RuntimeError if it is longer than `most` steps.

    >>> limit_cycle(np.tile([4, 0], (100, 1)), 1, 10).period
    2
    """
    s = np.asarray(scores)
    if not lagrangian.is_exact(s) or not isinstance(u, int):
        raise ValueError("limit cycles are found in integers: give integer scores and an integer u")
    p = np.zeros(s.shape[1], dtype=np.int64)
    seen: dict[bytes, int] = {}
    loads: list[Integers] = []
    for n in range(most):
        key = (p - p[0]).tobytes()  # an offset of all biases changes nothing
        if key in seen:
            return Cycle(seen[key], n - seen[key], np.asarray(loads[seen[key] :]))
        seen[key] = n
        loads.append(routing.loads(routing.top_k(s, k, p), s.shape[1]))
        p = p + lagrangian.sign_change(loads[-1], u)
    raise RuntimeError(f"no cycle within {most} steps")


@dataclass(frozen=True)
class Ties:
    """Tokens undecided at a price vector. tokens: indices; slots = sum over them of (experts at the boundary - 1);
    lowest, highest int64 [E]: smallest and largest load that a tie-break can give one expert."""

    tokens: Integers
    slots: int
    lowest: Integers
    highest: Integers


def ties(scores: npt.ArrayLike, k: int, prices: npt.ArrayLike, tolerance: Any = 0) -> Ties:
    """D6 at prices [E]: who is tied, to within `tolerance` (0 for integers).

    At an optimum lowest <= L <= highest for every expert; for generic scores slots <= E - 1.
    """
    s = np.asarray(scores)
    biased = routing.add_bias(s, prices)
    ranked = -np.sort(-biased, axis=1)
    inner, outer = ranked[:, k - 1, None], ranked[:, k, None]
    tied = (inner - outer)[:, 0] <= tolerance
    edge = (biased >= outer - tolerance) & (biased <= inner + tolerance) & tied[:, None]
    sure = (biased >= inner) & ~edge
    lowest = sure.sum(axis=0)
    return Ties(
        np.flatnonzero(tied),
        int((edge.sum(axis=1) - 1)[tied].sum()),
        np.asarray(lowest, dtype=np.int64),
        np.asarray(lowest + edge.sum(axis=0), dtype=np.int64),
    )
