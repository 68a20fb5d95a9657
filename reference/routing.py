"""Routing of tokens to experts: gates, biased top-K, expert loads and how even they are.

Symbols: T tokens, E experts, K experts per token, s[T, E] scores, p[E] bias, A[E] loads, L = K T / E the balanced load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def sigmoid(logits: npt.ArrayLike) -> Floats:
    """Gate 1 / (1 + exp(-x)), element-wise; the gate of DeepSeek-V3 and of loss-free balancing.

    >>> sigmoid([0.0]).tolist()
    [0.5]
    """
    x = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(x))  # <= 1, cannot overflow
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softmax(logits: npt.ArrayLike) -> Floats:
    """Gate exp(x_k) / sum_j exp(x_j) along the last axis.

    >>> softmax([[0.0, 0.0]]).tolist()
    [[0.5, 0.5]]
    """
    x = np.asarray(logits, dtype=np.float64)
    grown = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=-1, keepdims=True), dtype=np.float64)


def sqrt_softplus(logits: npt.ArrayLike) -> Floats:
    """Gate sqrt(log(1 + exp(x))), element-wise.

    >>> round(float(sqrt_softplus([0.0])[0]) ** 2, 6)
    0.693147
    """
    return np.asarray(np.sqrt(np.logaddexp(0.0, np.asarray(logits, dtype=np.float64))), dtype=np.float64)


def checked_scores(scores: npt.ArrayLike, k: int) -> Array:
    """The scores as a matrix [T, E] of finite numbers with 1 <= K <= E; ValueError names what is wrong."""
    s = np.asarray(scores)
    if s.ndim != 2:
        raise ValueError(f"scores must be a matrix [tokens, experts], got {s.ndim} dimension(s), shape {s.shape}")
    if s.dtype.kind not in "fiu":
        raise ValueError(f"scores must be real numbers, got dtype {s.dtype}")
    if s.shape[1] == 0 or not 1 <= k <= s.shape[1]:
        raise ValueError(f"k must lie between 1 and the number of experts {s.shape[1]}, got {k}")
    if s.dtype.kind == "f" and not np.isfinite(s).all():
        token, expert = np.argwhere(~np.isfinite(s))[0]
        raise ValueError(f"scores[{token}, {expert}] is {s[token, expert]}; scores must be finite")
    return s


def add_bias(scores: Array, bias: npt.ArrayLike | None) -> Array:
    """s + p, the selection score [T, E]: integers stay integers, everything else is at least float64 when p is.

    Integers add as int64; ValueError where a sum might not fit.
    """
    if bias is None:
        return scores
    p = np.asarray(bias)
    if p.shape != (scores.shape[1],):
        raise ValueError(f"bias must have shape ({scores.shape[1]},), one value per expert, got {p.shape}")
    if p.dtype.kind not in "fiu" or (p.dtype.kind == "f" and not np.isfinite(p).all()):
        raise ValueError("bias must hold finite real numbers")
    if scores.dtype.kind in "iu" and p.dtype.kind in "iu":
        reach = [max(abs(int(x.min())), abs(int(x.max()))) if x.size else 0 for x in (scores, p)]
        if sum(reach) >= 2**63:
            raise ValueError(f"integer scores up to {reach[0]} plus bias up to {reach[1]} do not fit into int64")
        return scores.astype(np.int64) + p.astype(np.int64)
    return np.asarray(scores + p)


def descending(values: Array, axis: int) -> Integers:
    """Indices that sort descending along an axis, ties by lower index: the mirror of an ascending stable sort.

    Nothing is negated, as -x is x again for the smallest integer and wraps for unsigned ones.

    >>> descending(np.array([0, 255, 255], np.uint8), 0).tolist()
    [1, 2, 0]
    """
    mirrored = np.argsort(np.flip(values, axis), axis=axis, kind="stable")
    return np.asarray(values.shape[axis] - 1 - np.flip(mirrored, axis), dtype=np.int64)


def keep_groups(biased: Array, groups: int, top_groups: int, best: int) -> Array:
    """Group-limited selection: -inf outside the `top_groups` groups of largest score.

    Experts are split into `groups` equal runs; the score of a group is the sum of its `best` largest selection scores
    (ties: lower group first). Source: DeepSeek-V3, arXiv 2412.19437, node-limited routing.
    """
    tokens, experts = biased.shape
    if groups < 1 or experts % groups:
        raise ValueError(f"{experts} experts cannot be split into {groups} equal groups")
    size = experts // groups
    if not 1 <= top_groups <= groups or not 1 <= best <= size:
        raise ValueError(f"need 1 <= top_groups <= {groups} and 1 <= group_best <= {size}")
    grouped = biased.astype(np.float64).reshape(tokens, groups, size)
    strength = np.sort(grouped, axis=2)[:, :, size - best :].sum(axis=2)
    order = descending(strength, 1)
    kept = np.zeros((tokens, groups), dtype=bool)
    np.put_along_axis(kept, order[:, :top_groups], True, axis=1)
    return np.where(kept[:, :, None], grouped, -np.inf).reshape(tokens, experts)


def top_k(
    scores: npt.ArrayLike,
    k: int,
    bias: npt.ArrayLike | None = None,
    *,
    groups: int | None = None,
    top_groups: int | None = None,
    group_best: int = 2,
) -> Integers:
    """The K experts of largest s_ik + p_k of every token, in descending order, ties by lower index.

    scores: [T, E] finite floats or integers (integers are compared exactly). bias: [E], added to choose and never to
    weigh.
    groups, top_groups: optional group-limited selection (see `keep_groups`). Returns int64 [T, K].
    Raises ValueError on a wrong shape, a NaN or an infinity, or K outside 1..E. Source: arXiv 2408.15664, Algorithm 1.

    >>> top_k([[0.3, 0.5, 0.5]], 2).tolist()
    [[1, 2]]
    >>> top_k([[0.3, 0.5, 0.5]], 1, bias=[0.3, 0.0, 0.0]).tolist()
    [[0]]
    """
    s = checked_scores(scores, k)
    biased = add_bias(s, bias)
    if groups is not None:
        if top_groups is None or top_groups * (s.shape[1] // max(groups, 1)) < k:
            raise ValueError(f"top_groups must be given and its groups must hold at least k = {k} experts")
        biased = keep_groups(biased, groups, top_groups, group_best)
    return descending(biased, 1)[:, :k]


def gate_weights(
    scores: npt.ArrayLike, choices: npt.ArrayLike, *, normalise: bool = True, scale: float = 1.0
) -> Floats:
    """Output weights [T, K] of the chosen experts: their scores WITHOUT bias, divided by their sum if `normalise`.

    Raises ValueError where they sum to 0 and cannot be divided.

    >>> gate_weights([[0.2, 0.6, 0.9]], [[1, 0]]).round(2).tolist()
    [[0.75, 0.25]]
    """
    s, c = np.asarray(scores, dtype=np.float64), np.asarray(choices)
    weights = np.take_along_axis(s, c, axis=1)
    if normalise:
        total = weights.sum(axis=1, keepdims=True)
        if not total.all():
            raise ValueError(
                f"the scores chosen by token {int(np.argmin(total != 0))} sum to 0: nothing to normalise by"
            )
        weights = weights / total
    return np.asarray(weights * scale, dtype=np.float64)


def loads(choices: npt.ArrayLike, experts: int, mask: npt.ArrayLike | None = None) -> Integers:
    """A_k = number of tokens that chose expert k, int64 [E]; tokens where mask [T] is False (padding) do not count.

    >>> loads([[0, 2], [2, 1]], 4).tolist()
    [1, 1, 2, 0]
    """
    c = np.asarray(choices)
    if c.dtype.kind not in "iu":
        raise ValueError(f"choices must be integers, got dtype {c.dtype}")
    if mask is not None:
        keep = np.asarray(mask)
        if keep.dtype != np.bool_ or keep.shape != c.shape[:1]:
            raise ValueError(f"mask must be bool of shape {c.shape[:1]}, got {keep.dtype} {keep.shape}")
        c = c[keep]
    if c.size and not 0 <= c.min() <= c.max() < experts:
        raise ValueError(f"choices must lie in 0..{experts - 1}, found {c.min()}..{c.max()}")
    return np.bincount(c.ravel(), minlength=experts).astype(np.int64)


def max_violation(loads: npt.ArrayLike) -> float:
    """MaxVio = (max_k A_k - mean A) / mean A; 0 is perfect balance, E/K - 1 the worst. Source: arXiv 2408.15664.

    >>> max_violation([2, 4, 0])
    1.0
    """
    counts = checked_loads(loads)
    mean = counts.sum() / counts.size
    return float((counts.max() - mean) / mean)


def checked_loads(loads: npt.ArrayLike) -> Integers:
    """The loads as int64 [E], at least one token counted; ValueError names what is wrong (counts in bf16 lose
    tokens)."""
    counts = np.asarray(loads)
    if counts.ndim != 1 or counts.size == 0 or counts.dtype.kind not in "iu":
        raise ValueError(f"loads must be integers [experts], got dtype {counts.dtype}, shape {counts.shape}")
    if counts.min() < 0 or counts.sum() == 0:
        raise ValueError("loads must be counts >= 0 with at least one token")
    return counts.astype(np.int64)


@dataclass(frozen=True)
class Balance:
    """How even the loads are. All without unit; idle is a number of experts."""

    max_violation: float  # (max - mean) / mean
    min_violation: float  # (mean - min) / mean
    gini: float  # 0 even, 1 - 1/E everything on one expert
    idle: int  # experts without a token
    utilisation: float  # mean / max: busy share when everybody waits for the fullest expert


def balance(loads: npt.ArrayLike) -> Balance:
    """MaxVio, Gini, idle experts and utilisation of the loads [E], together.

    Give the counts of one batch for the batch figures, their sum over a data set for the global ones.

    >>> balance([1, 1, 2, 0])
    Balance(max_violation=1.0, min_violation=1.0, gini=0.375, idle=1, utilisation=0.5)
    """
    counts = checked_loads(loads)
    experts, mean = counts.size, counts.sum() / counts.size
    ranks = 2 * np.arange(1, experts + 1) - experts - 1
    return Balance(
        max_violation=max_violation(counts),
        min_violation=float((mean - counts.min()) / mean),
        gini=float((ranks * np.sort(counts)).sum() / (experts * counts.sum())),
        idle=int((counts == 0).sum()),
        utilisation=float(mean / counts.max()),
    )
