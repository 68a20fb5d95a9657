"""The product of a mixture of experts: every expert's weights times the columns of its own tokens."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.spmm.bounds import error_bound
from loadsparse.reference.spmm.matrices import Matrix, Range
from loadsparse.reference.spmm.tensor_cores import lscd


def expert_columns(counts: Sequence[int], columns: int) -> list[slice]:
    """Columns of every expert, for tokens sorted by expert; counts[e] >= 0 tokens each, `columns` in all.

    >>> expert_columns([2, 0, 1], 3)
    [slice(0, 2, None), slice(2, 2, None), slice(2, 3, None)]
    """
    if any(count < 0 for count in counts) or sum(counts) != columns:
        raise ValueError(f"counts must be at least 0 and add up to the {columns} columns of B: {list(counts)[:8]}")
    edges = [0, *np.cumsum(np.asarray(counts, dtype=np.int64)).tolist()]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def grouped(
    experts: Sequence[Matrix],
    b: Matrix,
    counts: Sequence[int],
    *,
    arch: str,
    splits: Sequence[Sequence[Range]] | None = None,
    in_format: str = "f16",
    out_format: str = "f16",
    semantics: str = "dense",
) -> Matrix:
    """C[:, of e] = A_e B[:, of e]: A_e [M, K] for every expert, B [K, N] with tokens sorted by expert -> C [M, N].

    counts[e] is how many columns expert e owns, 0 included. Each product is `lscd` with the K ranges splits[e].

    >>> one, two = np.float16([[1, 1]]), np.float16([[0, 3]])
    >>> grouped([one, two], np.float16([[1, 2, 3], [4, 5, 6]]), [1, 2], arch="sm_80").tolist()
    [[5.0, 15.0, 18.0]]
    """
    how = {"arch": arch, "in_format": in_format, "out_format": out_format, "semantics": semantics}
    return _by_expert(lscd, experts, b, counts, splits, how)


def grouped_bound(
    experts: Sequence[Matrix],
    b: Matrix,
    counts: Sequence[int],
    *,
    arch: str,
    splits: Sequence[Sequence[Range]] | None = None,
    in_format: str = "f16",
    out_format: str = "f16",
    semantics: str = "dense",
) -> NDArray[np.float64]:
    """`error_bound` of `grouped` with the same arguments: float64 [M, N]."""
    how = {"arch": arch, "in_format": in_format, "out_format": out_format, "semantics": semantics}
    return _by_expert(error_bound, experts, b, counts, splits, how)


def _by_expert(
    product: Callable[..., NDArray[Any]],
    experts: Sequence[Matrix],
    b: Matrix,
    counts: Sequence[int],
    splits: Sequence[Sequence[Range]] | None,
    how: dict[str, Any],
) -> NDArray[Any]:
    """product(A_e, B[:, of e], splits=splits[e]) side by side: [M, N]."""
    if not len(experts) or len(experts) != len(counts):
        raise ValueError(f"{len(experts)} experts and {len(counts)} counts: each expert needs one")
    if not any(counts):
        raise ValueError("counts are all 0: there is nothing to multiply")
    if splits is not None and len(splits) != len(experts):
        raise ValueError(f"{len(splits)} lists of K ranges for {len(experts)} experts: each expert needs one")
    ranges: Sequence[Sequence[Range] | None] = splits if splits is not None else [None] * len(experts)
    owned = zip(experts, expert_columns(counts, b.shape[1]), ranges, strict=True)
    found = [product(a, b[:, own], splits=one, **how) for a, own, one in owned if own.start < own.stop]
    return np.concatenate(found, axis=1)
