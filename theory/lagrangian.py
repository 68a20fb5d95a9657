"""The Lagrangian of the balanced assignment and what one bias step does to it (statements D1, D2, D7).

    Lg(x, p) = sum_ik (s_ik + p_k) x_ik - L sum_k p_k,      D(p) = max_x Lg(x, p) = sum_i topKsum(s_i + p) - L sum_k
    p_k.

D is convex, piecewise linear, D >= OPT with equality at the optimal p, and A(p) - L is a subgradient. Scores and
biases that are integers are computed with exactly (the results are fractions), floats in float64 with compensated sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing

Array = npt.NDArray[Any]
Number = float | Fraction


def is_exact(*arrays: Array) -> bool:
    """True where all arrays hold integers, so that every statement can be checked without rounding."""
    return all(a.dtype.kind in "iu" for a in arrays)


def total(values: Iterable[Any], exact: bool) -> Number:
    """Sum without rounding (integers to a Fraction) or correctly rounded (floats)."""
    return Fraction(sum(int(v) for v in values)) if exact else math.fsum(values)


def mean_load(scores: Array, k: int) -> Fraction:
    """L = K T / E as a fraction."""
    return Fraction(k * scores.shape[0], scores.shape[1])


def value(scores: npt.ArrayLike, choices: npt.ArrayLike) -> Number:
    """sum_ik s_ik x_ik of the choices [T, K]: the score kept by an assignment."""
    s = np.asarray(scores)
    return total(np.take_along_axis(s, np.asarray(choices), axis=1).ravel().tolist(), is_exact(s))


def lagrangian(scores: npt.ArrayLike, choices: npt.ArrayLike, bias: npt.ArrayLike) -> Number:
    """Lg(x, p) for choices [T, K] and a bias [E]."""
    s, c, p = np.asarray(scores), np.asarray(choices), np.asarray(bias)
    exact, mean = is_exact(s, p), mean_load(s, c.shape[1])
    biased = np.take_along_axis(routing.add_bias(s, p), c, axis=1).ravel().tolist()
    if exact:
        return total(biased, True) - mean * total(p.tolist(), True)
    return math.fsum(biased + [-float(mean) * v for v in p.tolist()])


def dual(scores: npt.ArrayLike, k: int, bias: npt.ArrayLike) -> Number:
    """D(p) = sum_i (sum of the K largest s_ik + p_k) - L sum_k p_k, an upper bound on OPT for every p.

    scores [T, E], bias [E]; a Fraction where both hold integers, else a float. Raises ValueError like `routing.top_k`.

    >>> dual([[3.0, 0.0], [2.0, 0.0]], 1, [0.0, 2.0])
    3.0
    """
    return lagrangian(scores, routing.top_k(scores, k, bias), bias)


@dataclass(frozen=True)
class Step:
    """Both sides of D1 and D2 for p -> p + Delta. Numbers are Fractions where scores and biases were integers.

    D1: after - before = slope + switching, switching >= 0, slope <= after - before <= next_slope.
    D2: after <= before exactly where switching <= -slope. Sufficient: next_slope <= 0 (no overshoot:
    `keeps_direction`), or vacated * (max Delta - min Delta) <= -slope (few switches: `few_switches`).
    """

    before: Number  # D(p)
    after: Number  # D(p + Delta)
    slope: Number  # <A - L, Delta>, -sum eps_k g_k^2 for ALF-LB
    next_slope: Number  # <A+ - L, Delta>
    switching: Number  # S = sum_ik (s_ik + p+_k)(x+_ik - x_ik)
    vacated: int  # slots (token, expert) that were left
    spread: Number  # max Delta - min Delta
    loads: npt.NDArray[np.int64]
    next_loads: npt.NDArray[np.int64]

    @property
    def keeps_direction(self) -> bool:
        """D2 (a): sum eps_k g_k g+_k >= 0."""
        return self.next_slope <= 0

    @property
    def few_switches(self) -> bool:
        """D2 (b): N_sw (max Delta - min Delta) <= sum eps_k g_k^2."""
        return self.vacated * self.spread <= -self.slope


def membership(choices: npt.ArrayLike, experts: int) -> npt.NDArray[np.bool_]:
    """x as a matrix bool [T, E] of the choices [T, K]."""
    c = np.asarray(choices)
    chosen = np.zeros((c.shape[0], experts), dtype=bool)
    np.put_along_axis(chosen, c, True, axis=1)
    return chosen


def step(scores: npt.ArrayLike, k: int, bias: npt.ArrayLike, change: npt.ArrayLike) -> Step:
    """Everything D1 and D2 speak of, for one step from bias [E] by change [E] on fixed scores [T, E]."""
    s, p, delta = np.asarray(scores), np.asarray(bias), np.asarray(change)
    exact, mean = is_exact(s, p, delta), mean_load(s, k)
    moved = p + delta
    old, new = routing.top_k(s, k, p), routing.top_k(s, k, moved)
    x, y = membership(old, s.shape[1]), membership(new, s.shape[1])
    biased = routing.add_bias(s, moved)
    gained, lost = biased[y & ~x].tolist(), biased[x & ~y].tolist()
    loads, next_loads = routing.loads(old, s.shape[1]), routing.loads(new, s.shape[1])

    def along(counts: Array) -> Number:
        exact_sum = sum(
            ((int(a) - mean) * Fraction(d) for a, d in zip(counts, delta.tolist(), strict=True)), Fraction(0)
        )
        return exact_sum if exact else float(exact_sum)

    return Step(
        before=lagrangian(s, old, p),
        after=lagrangian(s, new, moved),
        slope=along(loads),
        next_slope=along(next_loads),
        switching=total(gained + [-v for v in lost], exact),
        vacated=len(lost),
        spread=Fraction(int(delta.max()) - int(delta.min())) if exact else float(delta.max() - delta.min()),
        loads=loads,
        next_loads=next_loads,
    )


def sign_change(loads: npt.ArrayLike, u: Any) -> Array:
    """Delta = u sign(L - A) of the sign rule; integers for an integer u."""
    counts = routing.checked_loads(loads)
    return np.asarray(u * np.sign(counts.sum() - counts.size * counts))


def non_monotone_example(tokens: int, margin: Any, u: Any) -> tuple[Array, Number]:
    """The counterexample to unconditional monotonicity: scores [T, 2], and the rise T (u - a) of D in the first sign
    step.

    E = 2, K = 1, every token prefers expert 0 by the same margin a with 0 < a < u; from p = 0 all of them switch.

    >>> non_monotone_example(100, 4, 10)[1]
    Fraction(600, 1)
    """
    if not 0 < margin < u:
        raise ValueError(f"needs 0 < margin < u, got margin = {margin}, u = {u}")
    scores = np.tile(np.asarray([margin, 0 * margin]), (tokens, 1))
    rise = tokens * (Fraction(u) - Fraction(margin))
    return scores, rise if is_exact(scores) else float(rise)


@dataclass(frozen=True)
class Quality:
    """Both sides of D7: value - OPT = (D(p) - OPT) - <p, A - L>, hence value >= OPT - (1/2) spread(p) ||A - L||_1."""

    value: Number  # sum s x(p)
    dual: Number  # D(p)
    pairing: Number  # <p, A - L>
    bound: Number  # (1/2) (max p - min p) ||A - L||_1


def primal_quality(scores: npt.ArrayLike, k: int, bias: npt.ArrayLike) -> Quality:
    """D7 at p: value = dual - pairing exactly, and OPT - value <= bound whatever OPT is."""
    s, p = np.asarray(scores), np.asarray(bias)
    exact, mean = is_exact(s, p), mean_load(s, k)
    choices = routing.top_k(s, k, p)
    excess = [int(a) - mean for a in routing.loads(choices, s.shape[1])]
    prices = [Fraction(v) for v in p.tolist()]
    pairing = sum((a * v for a, v in zip(excess, prices, strict=True)), Fraction(0))
    bound = (max(prices) - min(prices)) * sum((abs(a) for a in excess), Fraction(0)) / 2
    return Quality(
        value(s, choices),
        lagrangian(s, choices, p),
        pairing if exact else float(pairing),
        bound if exact else float(bound),
    )


def subgradient_bound(distance: float, rates: npt.ArrayLike, scores: npt.ArrayLike, k: int) -> float:
    """D7: min_n D(p^n) - OPT <= (||p0 - p*||^2 + sum_n eps_n^2 G^2) / (2 sum_n eps_n), G^2 = T^2 K (1 - K/E).

    distance: ||p0 - p*||_2 (both centred); rates: scalar eps_n of every proportional step Delta = eps_n (L - A).
    """
    eps, s = np.asarray(rates, dtype=np.float64), np.asarray(scores)
    tokens, experts = s.shape
    steepest = tokens**2 * k * (1 - k / experts)
    return float((distance**2 + steepest * np.sum(eps**2)) / (2 * np.sum(eps)))
