"""Top-K of biased scores for millions of tokens: one parallel sweep over the matrix, compiled by Numba.

A sweep reads each row once. Its halves are folded onto each other by maximum down to 16 (or more) values; the (K +
1)-th largest of those maxima is a lower bound of the (K + 1)-th largest score, so only the few scores that reach it
are ranked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import get_num_threads, njit, prange

from loadsparse.reference import routing
from loadsparse.theory.compression import LANES, append_reaching

Array = npt.NDArray[Any]
SMALL = 1 << 18  # scores; below, waking other threads costs more than they save


@njit(cache=True)
def _head(scores, i, p, size, width, b, fold, picked, order):
    """order[0:size] = the `size` largest of scores[i] + p, descending, ties by lower index.

    b [padded E], NaN behind E, which reaches no bound; fold, picked: scratch of that length + 64 and + 8; order has a
    slot more, for what is not wanted.
    """
    experts = scores.shape[1]
    for e in range(experts):
        b[e] = scores[i, e] + p[e]
    least = -np.inf
    if width > 0:  # fold halves onto each other: `width` maxima of disjoint sets
        half = b.size // 2
        for l in range(half):
            fold[l] = b[l + half] if b[l + half] > b[l] else b[l]
        while half > width:
            half //= 2
            for l in range(half):
                fold[l] = fold[l] if fold[l] > fold[l + half] else fold[l + half]
        least = np.inf
        for l in range(width):
            larger = 0
            for m in range(width):
                larger += fold[m] > fold[l]
            least = min(least, fold[l] if larger < size else np.inf)  # no branch: it could not be predicted
    found = 0
    if width > 0:
        for e in range(0, b.size, LANES):
            found = append_reaching(b, e, least, picked, found)
    else:
        for e in range(experts):
            picked[e] = e
        found = experts
    if found <= 64:
        padded = (found + 7) // 8 * 8
        for a in range(found):
            fold[a] = b[picked[a]]
        for a in range(found, padded):
            fold[a] = -np.inf
        for q in range(size):
            order[q] = -1
        for a in range(found):
            rank = 0
            for c in range(padded):
                rank += fold[c] > fold[a]
            order[min(rank, size)] = picked[a]
        missing = 0
        for q in range(size):
            missing += order[q] < 0
        if missing == 0:  # else equal scores took the same rank
            return
    held = 0
    for a in range(found):
        at = held
        while at > 0 and b[order[at - 1]] < b[picked[a]]:
            at -= 1
        if at < size:
            held = min(held + 1, size)
            for q in range(held - 1, at, -1):
                order[q] = order[q - 1]
            order[at] = picked[a]


@njit(cache=True)
def _block(scores, first, last, p, k, window, choices, gaps, loads, pairs):
    """Sweep the tokens first..last: adds to loads [E] and pairs [E, E], fills choices, gaps; returns the top-K sum."""
    experts = scores.shape[1]
    size = min(k + 1, experts)
    width = 0
    for tried in (64, 32, 16):
        if 4 * size <= 3 * tried and 2 * tried <= experts:
            width = tried
    padded = max(width, 1)
    while padded < experts:
        padded *= 2
    b = np.full(padded, np.nan)
    fold = np.empty(padded + 64)
    picked = np.empty(padded + LANES, dtype=np.int64)
    order = np.empty(size + 1, dtype=np.int64)
    top = 0.0
    for i in range(first, last):
        _head(scores, i, p, size, width, b, fold, picked, order)
        for q in range(k):
            loads[order[q]] += 1
            top += b[order[q]]
        if choices.shape[0] > 0:
            for q in range(k):
                choices[i, q] = order[q]
        if k < experts:
            gap = b[order[k - 1]] - b[order[k]]
            if gaps.shape[0] > 0:
                gaps[i] = gap
            if gap <= window:
                pairs[order[k - 1], order[k]] += 1
    return top


@njit(cache=True, parallel=True)
def _sweep(scores, p, k, window, choices, gaps, loads, tops, pairs):
    """All tokens, in blocks: loads [B, E], top-K sums [B], boundary pairs [B, E, E]."""
    tokens, blocks = scores.shape[0], loads.shape[0]
    for n in prange(blocks):
        first, last = tokens * n // blocks, tokens * (n + 1) // blocks
        tops[n] = _block(scores, first, last, p, k, window, choices, gaps, loads[n], pairs[n])


@dataclass(frozen=True)
class Sweep:
    """What one pass at a bias p says. loads int64 [E]; top = sum_i topKsum(s_i + p); pairs int64 [E, E]: tokens whose
    K-th and (K+1)-th best experts are (k, j) and differ by at most the window; gaps [T] and choices [T, K], empty
    unless asked for."""

    loads: npt.NDArray[np.int64]
    top: float
    pairs: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.float64]
    choices: npt.NDArray[np.int32]


def sweep(scores: Array, k: int, bias: Array, window: float = -1.0, gaps: bool = False, choices: bool = False) -> Sweep:
    """One pass over scores [T, E] (float32 or float64, C order) with bias float64 [E]; no pair counts for a negative
    window."""
    tokens, experts = scores.shape
    blocks = 4 * get_num_threads() if scores.size > SMALL else 1
    chosen, gap = np.empty((tokens if choices else 0, k), dtype=np.int32), np.empty(tokens if gaps else 0)
    loads, tops = np.zeros((blocks, experts), dtype=np.int64), np.zeros(blocks)
    pairs = np.zeros((blocks, experts, experts) if window >= 0 else (blocks, 1, 1), dtype=np.int32)
    p = np.ascontiguousarray(bias, dtype=np.float64)
    if blocks == 1:
        tops[0] = _block(scores, 0, tokens, p, k, window, chosen, gap, loads[0], pairs[0])
    else:
        _sweep(scores, p, k, window, chosen, gap, loads, tops, pairs)
    return Sweep(loads.sum(axis=0), float(tops.sum()), pairs.sum(axis=0, dtype=np.int64), gap, chosen)


def loads(scores: npt.ArrayLike, k: int, bias: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """routing.loads(routing.top_k(scores, k, bias), E), many times faster; scores are not checked for NaN.

    >>> loads([[0.3, 0.5, 0.5]], 1, [0.0, 0.0, 0.0]).tolist()
    [0, 1, 0]
    """
    s = contiguous(scores, k)
    return sweep(s, k, np.asarray(bias)).loads


def contiguous(scores: npt.ArrayLike, k: int) -> Array:
    """The scores as a C-contiguous float32 or float64 matrix (integers become float64), without a copy where they are
    one."""
    s = np.asarray(scores)
    if s.ndim != 2 or not 1 <= k <= s.shape[1]:
        routing.checked_scores(s, k)
    return np.ascontiguousarray(s, dtype=np.float32 if s.dtype == np.float32 else np.float64)
