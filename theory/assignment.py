"""The balanced assignment, solved exactly for millions of scores, with a certificate that anyone can check.

    max sum_ik s_ik x_ik   subject to   sum_k x_ik = K,   floor(L) <= sum_i x_ik <= ceil(L),   x_ik in {0, 1},   L = K
    T / E.

Dual ascent finds prices at which few tokens are undecided (at an optimal price at most E - 1 are tied, D6); shortest
augmenting paths decide those in integers. Optimality is proved by the prices: D(prices) = value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing
from loadsparse.theory import dual_ascent, selection, transport
from loadsparse.theory.dual_ascent import Limits

Array = npt.NDArray[Any]
MOST_ARCS = 2_000_000  # pairs of candidates sorted in one round


@dataclass(frozen=True)
class Assignment:
    """choices int64 [T, K] in descending s + prices; prices float64 [E], biases to add; value = sum of the chosen
    scores; gap = D(prices) - value >= 0, an upper bound on what is missing from the optimum (rounding apart)."""

    choices: npt.NDArray[np.int64]
    prices: npt.NDArray[np.float64]
    value: float
    gap: float


def limits(tokens: int, experts: int, k: int, capacity: npt.ArrayLike | None = None) -> Limits:
    """Loads in [floor(KT/E), ceil(KT/E)], or in [0, capacity] (integers, a scalar or [E]); ValueError if nothing
    fits."""
    if capacity is None:
        mean = k * tokens / experts
        lower = np.full(experts, k * tokens // experts, dtype=np.int64)
        upper = np.full(experts, -(-k * tokens // experts), dtype=np.int64)
        return Limits(lower, upper, np.full(experts, mean), np.full(experts, mean))
    given = np.asarray(capacity)
    if given.dtype.kind not in "iu" or given.shape not in ((), (experts,)) or given.min() < 0:
        raise ValueError(
            f"capacity must be integers >= 0, one or {experts} of them, got {given.dtype} of shape {given.shape}"
        )
    upper = np.minimum(np.broadcast_to(given, experts), tokens).astype(np.int64)
    if upper.sum() < k * tokens:
        raise ValueError(f"capacities hold {upper.sum()} of the {k * tokens} places that {tokens} tokens need")
    lower = np.zeros(experts, dtype=np.int64)
    return Limits(lower, upper, lower.astype(np.float64), upper.astype(np.float64))


def offset(prices: Array, allowed: Limits, places: int) -> Array:
    """The prices moved by the common offset that minimises the dual: as many below zero as must carry their upper
    load."""
    order = np.sort(prices)
    room = np.cumsum((allowed.upper - allowed.lower)[np.argsort(prices, kind="stable")])
    full = int(np.searchsorted(room, places - allowed.lower.sum()))
    return np.asarray(prices - order[min(full, order.size - 1)])


def dual(scores: npt.ArrayLike, k: int, prices: npt.ArrayLike, allowed: Limits) -> float:
    """D(p) = sum_i topKsum(s_i + p) - sum_k (lower_k max(p_k, 0) + upper_k min(p_k, 0)), in NumPy, rows a block at a
    time."""
    s, p = np.asarray(scores), np.asarray(prices, dtype=np.float64)
    experts = s.shape[1]
    tops = []
    for start in range(0, s.shape[0], 4096):
        biased = s[start : start + 4096] + p
        tops.append(float(np.partition(biased, experts - k, axis=1)[:, experts - k :].sum()))
    paid = np.where(p > 0, allowed.lower, allowed.upper) * p
    return math.fsum(tops) - math.fsum(paid.tolist())


def kept(scores: Array, choices: Array) -> float:
    """sum_ik s_ik x_ik, block sums added without rounding."""
    taken = np.take_along_axis(scores, choices, axis=1)
    return math.fsum(np.asarray(taken, dtype=np.float64).sum(axis=1).tolist())


def too_tied(gaps: Array, experts: int) -> bool:
    """More tokens sit exactly on a boundary than generic scores allow (D6)."""
    return int((gaps <= 0).sum()) > 8 * experts + 64


def resolve(
    scores: Array, k: int, prices: Array, allowed: Limits, whole: bool, strict: bool
) -> tuple[Array, Array] | None:
    """Decide the undecided tokens: (choices [T, K], prices [E]); None where `strict` and ties are too many.

    whole: the scores are integers, and the prices shall be integers too.
    """
    tokens, experts = scores.shape
    largest = max(abs(float(scores.max())), abs(float(scores.min()))) or 1.0
    factor = math.ldexp(1.0, 52 - math.frexp(largest)[1])  # scores as integers below 2^52
    grid = max(1, int(factor)) if whole else 1
    price = np.append(np.rint(offset(prices, allowed, k * tokens) * (factor / grid)).astype(np.int64) * grid, 0)
    choices = selection.sweep(scores, k, prices, choices=True).choices
    worst, best = np.empty(tokens, dtype=np.int64), np.empty(tokens, dtype=np.int64)
    wanted, reach, first_round = 32 * experts, 0, True
    while True:
        if scores.size > selection.SMALL:
            transport.boundary(scores, factor, price, choices, worst, best)
        else:
            transport.boundary_of(scores, 0, tokens, factor, price, choices, worst, best)
        loads = routing.loads(choices, experts)
        if first_round:
            high = allowed.upper
            flow = np.where(
                price[:-1] > 0, allowed.lower, np.where(price[:-1] < 0, high, np.clip(loads, allowed.lower, high))
            )
            first_round = False
        excess = np.append(loads - flow, flow.sum() - k * tokens)
        if not excess.any():
            return choices, (price[:-1] - price[-1]) / factor
        gaps = worst - best
        if strict and too_tied(gaps, experts):
            return None
        count = min(tokens, max(wanted, 2 * int(np.abs(excess).sum())))
        reach = max(2 * reach, int(np.partition(gaps, count - 1)[count - 1]) + 1)  # doubled, so that rounds are few
        while True:
            reach = -(-reach // grid) * grid
            near = np.flatnonzero(gaps <= reach)
            start, expert, cost, inside = transport.candidates(scores, factor, price, choices, near, worst, best, reach)
            sizes = np.diff(start)
            if int((sizes * (sizes - 1)).sum()) <= MOST_ARCS or reach == grid:
                break
            reach = max(1, reach // 4)
        arcs = transport.arcs(start, expert, cost, experts)
        transport.augment(start, expert, cost, inside, *arcs, price, excess, flow, allowed.lower, allowed.upper, reach)
        transport.write_back(near, start, expert, inside, choices)
        wanted *= 2


def solve(scores: npt.ArrayLike, k: int, capacity: npt.ArrayLike | None = None, seed: int = 0) -> Assignment:
    """The best assignment of K experts to every token with loads in [floor(KT/E), ceil(KT/E)], or in [0, capacity].

    scores [T, E], finite, 1 <= K < E; capacity: int, or int [E]; seed: of the sample that warm-starts the prices.
    The result is optimal for the scores rounded to 52 bits below the largest, hence within K T 2^-52 max |s|, and
    exactly for integers below 2^52; matrices full of ties are first told apart by noise of 2^-36 max |s|. `gap`
    bounds what is missing, whatever happened on the way. Raises ValueError on bad scores, K or capacities.

    >>> found = solve([[3.0, 0.0], [2.0, 0.0]], 1)
    >>> found.choices.ravel().tolist(), found.value
    ([0, 1], 3.0)
    """
    s = selection.contiguous(scores, k)
    tokens, experts = s.shape
    if not np.isfinite(s.min(initial=0.0)) or not np.isfinite(s.max(initial=0.0)):
        routing.checked_scores(s, k)
    if k >= experts:
        raise ValueError(f"k must be below the number of experts {experts}, got {k}: otherwise nothing is to choose")
    if tokens == 0:
        raise ValueError("scores hold no tokens")
    exponent = math.frexp(max(abs(float(s.max())), abs(float(s.min()))))[1]
    if abs(exponent) > 400:  # far from 1 powers of two leave the range of float64: solve the same problem near 1
        near = solve(np.ldexp(s.astype(np.float64), -exponent), k, capacity, seed)
        prices = np.ldexp(near.prices, exponent)
        return Assignment(near.choices, prices, kept(s, near.choices), math.ldexp(near.gap, exponent))
    allowed = limits(tokens, experts, k, capacity)
    whole = np.asarray(scores).dtype.kind in "iu"
    found = resolve(s, k, dual_ascent.prices(s, k, allowed, seed), allowed, whole, strict=True)
    if found is None:
        noise = np.random.default_rng(seed).random(s.shape)
        noise *= max(abs(float(s.max())), abs(float(s.min())), 1e-300) * 2.0**-36
        noise += s
        found = resolve(noise, k, dual_ascent.prices(noise, k, allowed, seed), allowed, False, strict=False)
        assert found is not None
    choices, prices = np.sort(found[0], axis=1).astype(np.int64), found[1]
    order = np.argsort(-(np.take_along_axis(s, choices, axis=1) + prices[choices]), axis=1, kind="stable")
    choices = np.take_along_axis(choices, order, axis=1)
    value = kept(s, choices)
    paid = np.where(prices > 0, allowed.lower, allowed.upper) * prices
    return Assignment(choices, prices, value, selection.sweep(s, k, prices).top - math.fsum(paid.tolist()) - value)


def certify(scores: npt.ArrayLike, k: int, result: Assignment, capacity: npt.ArrayLike | None = None) -> float:
    """Prove the assignment optimal, or raise ValueError that says why it is not; returns the relative gap.

    Checks, sharing no code with the solver: K distinct experts per token, loads within the limits (in integers), the
    value as stated, and D(prices) - value <= 1e-9 sum |chosen scores| (below 1, hence 0, for integers). Weak duality
    does the rest.
    """
    s, c = routing.checked_scores(scores, k), np.asarray(result.choices)
    tokens, experts = s.shape
    allowed = limits(tokens, experts, k, capacity)
    if c.shape != (tokens, k) or c.dtype.kind not in "iu":
        raise ValueError(f"choices must be integers of shape {(tokens, k)}, got {c.dtype} {c.shape}")
    ranked = np.sort(c, axis=1)
    if ranked[:, 0].min() < 0 or ranked[:, -1].max() >= experts or (np.diff(ranked, axis=1) == 0).any():
        raise ValueError(f"every token needs {k} different experts in 0..{experts - 1}")
    loads = np.bincount(c.ravel(), minlength=experts)
    if (loads < allowed.lower).any() or (loads > allowed.upper).any():
        bad = int(np.flatnonzero((loads < allowed.lower) | (loads > allowed.upper))[0])
        raise ValueError(f"expert {bad} has load {loads[bad]}, allowed {allowed.lower[bad]}..{allowed.upper[bad]}")
    value = kept(s, c)
    size = float(np.abs(np.take_along_axis(s, c, axis=1).astype(np.float64)).sum())
    if abs(value - result.value) > 1e-12 * size:
        raise ValueError(f"value is {value!r}, not {result.value!r}")
    gap = dual(s, k, result.prices, allowed) - value
    allowance = min(1e-9 * size, 0.999) if s.dtype.kind in "iu" else 1e-9 * size
    if gap > allowance:
        raise ValueError(
            f"not proved optimal: the dual of the prices exceeds the value by {gap:.3g}, relative {gap / size:.2g}"
        )
    return float(gap / size) if size else 0.0
