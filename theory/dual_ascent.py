"""Prices near the optimum of the balanced assignment: a sample first, then Newton's method on the dual of all tokens.

    D(p) = sum_i topKsum(s_i + p) - sum_k (lower_k max(p_k, 0) + upper_k min(p_k, 0)),   subgradient A(p) - load wanted.

D is piecewise linear, but over many tokens its slope changes like that of a smooth function whose Hessian is the
Laplacian of a graph on the experts: the weight of (k, j) is the number of tokens per unit of price at the boundary
between k and j (D8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from loadsparse.theory import selection

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """Loads allowed: lower_k <= A_k <= upper_k, int64 [E]; and the loads aimed at while searching, float64 [E]."""

    lower: npt.NDArray[np.int64]
    upper: npt.NDArray[np.int64]
    low: Floats
    high: Floats

    def cost(self, p: Floats) -> float:
        """sum_k (low_k max(p_k, 0) + high_k min(p_k, 0))."""
        return float(self.low @ np.maximum(p, 0) + self.high @ np.minimum(p, 0))

    def excess(self, p: Floats, loads: Array) -> Floats:
        """A - (the load that p asks for): low where p > 0, high where p < 0, the nearest allowed where p = 0."""
        wanted = np.where(p > 0, self.low, np.where(p < 0, self.high, np.clip(loads, self.low, self.high)))
        return np.asarray(loads - wanted, dtype=np.float64)

    @property
    def equal(self) -> bool:
        """Every load is prescribed: a common offset of the prices then changes nothing."""
        return bool((self.low == self.high).all())


def quantile_sweeps(scores: Array, k: int, limits: Limits, sweeps: int) -> Floats:
    """Coordinate descent on a sample of tokens: alpha_i, then each price exactly (quantile balancing)."""
    tokens, experts = scores.shape
    high = np.clip(np.rint(limits.high).astype(np.int64), 0, tokens - 1)
    low = np.clip(np.rint(limits.low).astype(np.int64) - 1, 0, tokens - 1)
    columns = np.arange(experts)
    beta = np.zeros(experts)
    for _ in range(sweeps):
        best = -np.partition(beta - scores, [k - 1, k], axis=1)[:, k - 1 : k + 1]
        worth = np.sort(scores - best.mean(axis=1)[:, None], axis=0)[::-1]
        # a load of `high` needs beta >= its (high + 1)-th largest worth, a load of `low` beta <= its low-th largest
        beta = np.clip(0.0, worth[high, columns], np.where(limits.low > 0, worth[low, columns], np.inf))
        if limits.equal:
            beta = (worth[high, columns] + worth[low, columns]) / 2
    return -beta


@njit(cache=True)
def conjugate_gradients(matrix, right):
    """Solve a symmetric positive definite system to 1e-3, Jacobi-preconditioned, on one thread (a BLAS would wake more)."""
    n = right.size
    x, rest, scale = np.zeros(n), right.copy(), np.empty(n)
    for i in range(n):
        scale[i] = 1 / matrix[i, i]
    way = scale * rest
    size = (rest * way).sum()
    enough = 1e-6 * size
    for _ in range(4 * n):
        if size <= enough:
            break
        image = np.empty(n)
        for i in range(n):
            image[i] = (matrix[i] * way).sum()
        length = size / (way * image).sum()
        x += length * way
        rest -= length * image
        scaled = scale * rest
        grown = (rest * scaled).sum()
        way = scaled + grown / size * way
        size = grown
    return x


def newton_step(pairs: Array, window: float, excess: Floats, free: npt.NDArray[np.bool_], pinned: bool) -> Floats:
    """Solve Laplacian(pairs) change = -excess over the free experts; `pinned` keeps the others where they are."""
    weight = (pairs + pairs.T) / (2 * window)
    degree = weight.sum(axis=1)
    laplacian = np.diag(degree) - weight
    active = np.flatnonzero(free)
    matrix = laplacian[np.ix_(active, active)]
    matrix[np.diag_indices_from(matrix)] += 1e-6 * degree.max() + (0.0 if pinned else 1e-3 * degree.mean())
    change = np.zeros(excess.size)
    change[active] = conjugate_gradients(matrix, -excess[active])
    return change


def newton(
    scores: Array, k: int, p: Floats, limits: Limits, passes: int, enough: float, window: float
) -> tuple[Floats, float]:
    """At most `passes` sweeps over the tokens, each one damped Newton step; stops at a total excess below `enough`.

    window: width of the boundary that is counted, a guess; returns the prices and the window that fits them.
    """
    tokens, experts = scores.shape
    if limits.equal:
        p = p - p.mean()
    best, best_p, change, length = np.inf, p, np.zeros(experts), 1.0
    for _ in range(passes):
        seen = selection.sweep(scores, k, p, window, gaps=True)
        value = seen.top - limits.cost(p)
        if value > best:  # overshoot: go back half way
            length /= 2
            p = best_p + length * change
            continue
        excess = limits.excess(p, seen.loads)
        amount = float(np.abs(excess).sum())
        best, best_p = value, p
        if amount <= enough:
            break
        near = min(tokens, int(max(8 * experts, amount / 4)))
        right = float(np.partition(seen.gaps, near - 1)[near - 1])
        if right <= 0:
            break
        if not right / 8 <= window <= right * 2:
            seen = selection.sweep(scores, k, p, right)
            window = right
        free = np.ones(experts, dtype=bool) if limits.equal else (excess != 0) | (p != 0)
        change = newton_step(seen.pairs, window, excess, free, not limits.equal)
        change = np.clip(change, -32 * window, 32 * window)
        window, length = right / 2, 1.0
        p = best_p + change
        if not limits.equal:
            p = np.where((best_p != 0) & (np.sign(p) != np.sign(best_p)), 0.0, p)
    return best_p, window


def prices(scores: Array, k: int, limits: Limits, seed: int, passes: int = 8) -> Floats:
    """Prices [E] near the optimum for scores [T, E]: quantile sweeps on a sample, Newton on larger ones, then on
    all."""
    tokens, experts = scores.shape
    rng = np.random.default_rng(seed)
    order = rng.permutation(tokens)
    size = max(1024, 8 * experts)
    p, window, first = np.zeros(experts), 0.0, True
    while True:
        size = min(tokens, size)
        part = scores if size == tokens else np.ascontiguousarray(scores[np.sort(order[:size])])
        share = size / tokens
        aimed = Limits(limits.lower, limits.upper, limits.low * share, limits.high * share)
        if first:
            p, first = quantile_sweeps(part, k, aimed, sweeps=2), False
        # a sample of n tokens is off by sqrt(n) loads in all; what is left at the end, shortest paths do faster
        enough = 24.0 * experts if size == tokens else 0.5 * np.sqrt(k * size * experts)
        p, window = newton(part, k, p, aimed, passes, enough, window)
        if size == tokens:
            return p
        size *= 8
