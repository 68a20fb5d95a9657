"""Pruning: which weights become +0. Every function returns a pruned copy and removes an exact number of weights.

Of each group (the whole matrix, one row, or one block) of n weights, floor(sparsity * n + 1/2) with the lowest score
become +0, where `sparsity` is read as the decimal number it prints as; among equal scores the lower index (row-major
inside the group) goes first. A weight that was 0 already counts as removed. bf16 weights are uint16 bit patterns.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Scope = Literal["matrix", "row", "block"]


def magnitude(
    weights: NDArray[Any], sparsity: float, *, scope: Scope = "matrix", block: tuple[int, int] = (128, 64)
) -> NDArray[Any]:
    """Remove the weights of smallest |W|, per matrix, per row, or per block of `block` (rows, columns).

    weights: float16, float32, float64 or uint16 (bf16 patterns) [M, K]. Raises ValueError for NaN, another dtype or
    rank, or a sparsity outside [0, 1].

    >>> magnitude(np.array([[3.0, -1.0], [1.0, 2.0]]), 0.5)
    array([[3., 0.],
           [0., 2.]])
    """
    return _remove(weights, np.abs(_values(weights)), sparsity, scope, block)


def wanda(
    weights: NDArray[Any],
    activation_norms: NDArray[Any],
    sparsity: float,
    *,
    scope: Scope = "row",
    block: tuple[int, int] = (128, 64),
) -> NDArray[Any]:
    """Remove the weights of smallest |W[i, j]| * ||X[j]||_2, by default within each output row.

    activation_norms: non-negative [K], the L2 norm of each input feature over calibration tokens. Raises ValueError as
    `magnitude`, and for norms of another shape, negative or not finite. Source: Sun et al., arXiv 2306.11695, eq. 1.
    """
    return _remove(weights, _wanda_score(weights, activation_norms), sparsity, scope, block)


def nm(weights: NDArray[Any], n: int, m: int, activation_norms: NDArray[Any] | None = None) -> NDArray[Any]:
    """Keep the n best of every m consecutive weights of a row (2:4 is nm(w, 2, 4)); at most n in a shorter last group.

    The score is |W|, or Wanda's where norms are given; among equal scores the lower index goes first. Raises ValueError
    unless 0 <= n <= m and m >= 1.
    """
    if not 0 <= n <= m or m < 1:
        raise ValueError(f"N:M wants 0 <= N <= M and M >= 1, not {n}:{m}")
    score = np.abs(_values(weights)) if activation_norms is None else _wanda_score(weights, activation_norms)
    rows, columns = score.shape
    padded = np.full((rows, -(-columns // m) * m), -1.0)  # below every score: padding is removed first
    padded[:, :columns] = score
    keep = ~_lowest(padded.reshape(-1, m), m - n).reshape(padded.shape)[:, :columns]
    return np.where(keep, weights, weights.dtype.type(0))


def random(
    weights: NDArray[Any],
    sparsity: float,
    seed: int,
    *,
    scope: Scope = "matrix",
    block: tuple[int, int] = (128, 64),
) -> NDArray[Any]:
    """Remove weights at random places, drawn from `seed`: the same exact counts as `magnitude`, another pattern."""
    return _remove(weights, np.random.default_rng(seed).random(_values(weights).shape), sparsity, scope, block)


def removed(count: int, sparsity: float) -> int:
    """How many of `count` weights are removed: floor(sparsity * count + 1/2).

    >>> removed(10, 0.25), removed(1000, 0.9995)
    (3, 1000)
    """
    share = Fraction(repr(float(sparsity))) if np.isfinite(sparsity) else Fraction(-1)
    if not 0 <= share <= 1:
        raise ValueError(f"a sparsity lies in [0, 1], not {sparsity}")
    return int(share * count + Fraction(1, 2))


def _values(weights: NDArray[Any]) -> NDArray[np.float64]:
    if weights.dtype == np.uint16:
        values = (weights.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    elif np.issubdtype(weights.dtype, np.floating):
        values = weights.astype(np.float64)
    else:
        raise ValueError(f"weights are floats or bf16 bit patterns (uint16), not {weights.dtype}")
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"weights have the shape [M, K] with M, K >= 1, not {list(values.shape)}")
    if (nan := np.isnan(values)).any():
        row, column = np.argwhere(nan)[0]
        raise ValueError(f"weight ({row}, {column}) is NaN, which has no magnitude")
    return values


def _wanda_score(weights: NDArray[Any], activation_norms: NDArray[Any]) -> NDArray[np.float64]:
    values, norms = _values(weights), np.asarray(activation_norms, np.float64)
    if norms.shape != (values.shape[1],) or not np.isfinite(norms).all() or (norms < 0).any():
        raise ValueError(f"activation norms are {values.shape[1]} finite numbers >= 0, one per column of the weights")
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.abs(values) * norms, nan=0.0, posinf=np.inf)  # inf * 0: the feature is never active


def _remove(
    weights: NDArray[Any], score: NDArray[np.float64], sparsity: float, scope: Scope, block: tuple[int, int]
) -> NDArray[Any]:
    rows, columns = score.shape
    if scope not in ("matrix", "row", "block"):
        raise ValueError(f"scope is matrix, row or block, not {scope!r}")
    if scope == "matrix":
        block = (rows, columns)
    drop = np.empty(score.shape, np.bool_)
    if scope == "row":
        drop[:] = _lowest(score, removed(columns, sparsity))
    else:
        if min(block) < 1:
            raise ValueError(f"a block has at least one row and one column, not {block}")
        for i in range(0, rows, block[0]):
            for j in range(0, columns, block[1]):
                part = score[i : i + block[0], j : j + block[1]]
                lowest = _lowest(part.reshape(1, -1), removed(part.size, sparsity))
                drop[i : i + block[0], j : j + block[1]] = lowest.reshape(part.shape)
    return np.where(drop, weights.dtype.type(0), weights)


def _lowest(score: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Mask of the `count` lowest scores of each row, the lower index first among equals."""
    drop = np.zeros(score.shape, np.bool_)
    np.put_along_axis(drop, np.argsort(score, axis=1, kind="stable")[:, :count], True, axis=1)
    return drop
