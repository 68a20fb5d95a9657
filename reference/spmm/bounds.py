"""The float64 oracle and a proved bound on how far a right kernel may be from it (derivation: bounds.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.spmm.cuda_cores import two_four_parts
from loadsparse.reference.spmm.matrices import (
    Matrix,
    Patterns,
    Range,
    check_semantics,
    check_splits,
    operands,
    row_chunks,
)
from loadsparse.reference.tensorcore import arithmetic as tc

Floats = NDArray[np.float64]

SEGMENT = 64  # k's between two looks at the exact prefix sum: a multiple of every mma step and block
F32_LIMIT = 2.0**128 * (1 - 2.0**-24)  # a float32 sum below this cannot overflow, however it is rounded
LIMITS = {"f16": 65520.0, "bf16": 2.0**128 * (1 - 2.0**-9), "f32": F32_LIMIT}  # from here on, rounding gives infinity
ROUNDING = {"f16": (2.0**-11, 2.0**-25), "bf16": (2.0**-8, 2.0**-134), "f32": (0.0, 0.0)}  # relative, absolute


def dense64(a: Matrix, b: Matrix, *, rows: Any = None, in_format: str = "f16", semantics: str = "dense") -> Floats:
    """A B in float64 [M or rows, N]: the accurate product that every kernel is measured against.

    semantics "stored" skips products with unstored (+0) elements of A, so that 0 x infinity does not arise. Products
    are exact; the sum errs by at most K 2^-53 sum |a b|, which error_bound includes.
    """
    skip = check_semantics(semantics)
    left, right = operands(a, b, rows, in_format)
    y = tc.decode(right, in_format)
    tame = np.isfinite(y).all(axis=1) if skip else np.ones(len(y), bool)
    product = np.empty((len(left), y.shape[1]))
    with np.errstate(invalid="ignore"):
        for part in row_chunks(left):
            x = tc.decode(left[part], in_format)
            total = x @ y if tame.all() else x[:, tame] @ y[tame]
            for k in np.flatnonzero(~tame):
                stored = np.flatnonzero(left[part, k])
                total[stored] += x[stored, k, None] * y[k]
            product[part] = total
    return product


@dataclass(frozen=True)
class Partial:
    """A sum and its distance: exact values S, |computed - S| <= error, and sum |a b|; float64 [rows, N] each."""

    exact: Floats
    error: Floats
    magnitude: Floats


@dataclass(frozen=True)
class Chain:
    """Rounding of a chain of blocks: `block` k's each, terms cut at 2^-fraction of the largest, sums at 2^-kept."""

    block: int
    cut: float
    kept: float
    lost: float  # absolute error of a subnormal sum


CUDA_CORES = Chain(block=1, cut=0.0, kept=2.0**-24, lost=2.0**-150)


def tensor_core_chain(arch: str, in_format: str, sparse: bool = False) -> Chain:
    """The chain of mma.sync on `arch` with float32 accumulators; mma.sp's blocks reach over twice the k's."""
    m = tc.model(arch, in_format, "f32")
    return Chain(m.block * (2 if sparse else 1), 2.0**-m.fraction, 2.0**-m.kept, 2.0**-149)


def parts(left: Patterns, algorithm: str, arch: str, fmt: str) -> list[tuple[Patterns, Chain]]:
    """The matrices that an algorithm splits A into, and the chain that multiplies each."""
    if algorithm in ("lscd", "dense"):
        return [(left, tensor_core_chain(arch, fmt))]
    if algorithm == "two_four":
        return [(left, tensor_core_chain(arch, fmt, sparse=True))]
    if algorithm == "sputnik":
        return [(left, CUDA_CORES)]
    if algorithm == "sparta":
        structured, rest = two_four_parts(left)
        return [(structured, tensor_core_chain(arch, fmt, sparse=True)), (rest, CUDA_CORES)]
    raise ValueError(f"unknown algorithm {algorithm!r}: choose 'lscd', 'dense', 'two_four', 'sputnik' or 'sparta'")


def chain_error(left: Patterns, right: Patterns, k_range: Range, chain: Chain, fmt: str) -> Partial:
    """Bound one accumulator chain over k_range (bounds.md, steps 1 to 4)."""
    shape = (len(left), right.shape[1])
    exact, error, magnitude, peak = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    smallest = 2.0 ** tc.FORMATS[fmt].min_exponent
    start, stop = k_range[0], min(k_range[1], len(right))  # zeros beyond K err by nothing
    for k in range(start, stop, SEGMENT):
        part = slice(k, min(k + SEGMENT, stop))
        missing = ((0, (part.start - part.stop) % chain.block), (0, 0))
        x = _finite(np.ascontiguousarray(np.pad(left[:, part].T, missing)), fmt)  # [k, rows]
        y = _finite(np.pad(right[part], missing), fmt)  # [k, N]
        ax, ay = np.abs(x), np.abs(y)
        blocks_x, blocks_y = (v.reshape(-1, chain.block, v.shape[1]) for v in (ax, ay))
        live = (blocks_x > 0).sum(axis=1)  # n_j: nonzero products of block j, at most; [blocks, rows]
        busy = (live > 0).astype(np.float64)
        cut = (live + busy) * chain.cut
        largest_x, largest_y = _at_least(blocks_x.max(axis=1), smallest), _at_least(blocks_y.max(axis=1), smallest)
        after = np.cumsum(cut[::-1], axis=0)[::-1] - cut  # sum of cut over the blocks that follow
        since = np.cumsum(busy[::-1], axis=0)[::-1]  # busy blocks from this one on
        weighted = (blocks_x * (after + chain.kept * since)[:, None]).reshape(ax.shape)
        entering = np.abs(exact) + error
        steps = (cut.sum(axis=0) + chain.kept * busy.sum(axis=0))[:, None]
        tiny = (cut.sum(axis=0) * 2.0**-126 + busy.sum(axis=0) * chain.lost)[:, None]
        error = (error + entering * steps + weighted.T @ ay + (cut * largest_x).T @ largest_y + tiny) * (1 + 2.0**-16)
        added = ax.T @ ay
        exact = exact + x.T @ y
        magnitude = magnitude + added
        peak = np.maximum(peak, (entering + added) * (1 + 2.0**-16))
    return Partial(exact, np.where(peak < F32_LIMIT, error, np.inf), magnitude)


def add(first: Partial, second: Partial) -> Partial:
    """A float32 addition, rounded to nearest."""
    exact = first.exact + second.exact
    error = first.error + second.error
    reach = np.abs(exact) + error
    error = np.where(reach < F32_LIMIT, error + 2.0**-24 * reach, np.inf)
    return Partial(exact, error, first.magnitude + second.magnitude)


def error_bound(
    a: Matrix,
    b: Matrix,
    *,
    arch: str,
    splits: Sequence[Range] | None = None,
    rows: Any = None,
    in_format: str = "f16",
    out_format: str = "f16",
    semantics: str = "dense",
    algorithm: str = "lscd",
) -> Floats:
    """Bound |C - dense64(a, b)| for the result C of an algorithm with the same arguments: float64 [M or rows, N].

    `algorithm` names the oracle whose order of additions is meant: "lscd", "dense", "two_four", "sputnik" (for which
    arch does not matter) or "sparta". The bound is 0 where the float64 product is NaN or infinite (C must be the same)
    and infinite where C is not judged: a float32 accumulator may overflow, or 2:4 padding may meet a NaN or infinity of
    B. `accurate` applies these rules. Derivation: bounds.md beside this file.
    """
    left, right = operands(a, b, rows, in_format)
    ranges = check_splits(splits, right.shape[0], 4 if algorithm in ("two_four", "sparta") else 1)
    reference = dense64(a, b, rows=rows, in_format=in_format, semantics=semantics)
    bound = np.empty(reference.shape)
    for part in row_chunks(left):
        pieces = parts(left[part], algorithm, arch, in_format)
        partials = []
        for one in ranges:
            sums = [chain_error(piece, right, one, chain, in_format) for piece, chain in pieces]
            partials.append(reduce(add, sums))
        bound[part] = _finish(reduce(add, partials), right.shape[0], out_format)
    if algorithm in ("two_four", "sparta"):
        bound[:, ~np.isfinite(tc.decode(right, in_format)).all(axis=0)] = np.inf
    return np.where(np.isfinite(reference) | np.isinf(bound), bound, 0.0)


def order_free_bound(
    a: Matrix,
    b: Matrix,
    *,
    rows: Any = None,
    in_format: str = "f16",
    out_format: str = "f16",
    semantics: str = "dense",
) -> Floats:
    """As error_bound, for a product computed elsewhere: any order and grouping of FP32 sums or Tensor Core blocks.

    n 2^-21 sum |a b| for n nonzero products (bounds.md, last section): wide, since nothing is known of the order.
    """
    left, right = operands(a, b, rows, in_format)
    reference = dense64(a, b, rows=rows, in_format=in_format, semantics=semantics)
    smallest = 2.0 ** tc.FORMATS[in_format].min_exponent
    y = _at_least(np.abs(_finite(right, in_format)), smallest)
    bound = np.empty(reference.shape)
    for part in row_chunks(left):
        x = _finite(left[part], in_format)
        count = np.count_nonzero(x, axis=1)[:, None].astype(np.float64)
        raised = _at_least(np.abs(x), smallest) @ y
        growth = np.exp(count * 2.0**-22)
        error = count * (2.0**-21 * raised * growth + 2.0**-147)
        error = np.where(raised * growth < F32_LIMIT, error, np.inf)
        bound[part] = _finish(Partial(reference[part], error, raised), right.shape[0], out_format)
    return np.where(np.isfinite(reference) | np.isinf(bound), bound, 0.0)


def accurate(c: Matrix, reference: Floats, bound: Floats, *, out_format: str = "f16") -> NDArray[np.bool_]:
    """Judge a product element by element: is C within `bound` of the float64 `reference`? bool [M, N].

    c is float16, uint16 patterns ("bf16") or float32. NaN must meet NaN and infinity the same infinity; infinity is
    also right where |reference| + bound reaches the format's overflow threshold, and nothing is judged where the bound
    is infinite. Raises ValueError for shapes that differ.
    """
    if out_format not in LIMITS:
        raise ValueError(f"unknown output format {out_format!r}: choose one of {', '.join(LIMITS)}")
    value = tc.decode(c, "bf16") if out_format == "bf16" else np.asarray(c).astype(np.float64)
    if value.shape != reference.shape:
        raise ValueError(f"C is {value.shape}, the reference {reference.shape}")
    with np.errstate(invalid="ignore"):
        same = (value == reference) | (np.isnan(value) & np.isnan(reference))
        near = np.abs(value - reference) <= bound
        over = np.isinf(value) & (value * reference > 0) & (np.abs(reference) + bound >= LIMITS[out_format])
        # where the reference is within its error of zero its sign says nothing, but there nothing can overflow
        return np.isinf(bound) | np.where(np.isfinite(reference), near & np.isfinite(value) | over, same)


def _finish(total: Partial, depth: int, out_format: str) -> Floats:
    """Add the final rounding and the float64 reference's own error."""
    if out_format not in ROUNDING:
        raise ValueError(f"unknown output format {out_format!r}: choose one of {', '.join(ROUNDING)}")
    relative, absolute = ROUNDING[out_format]
    error = (total.error + (depth + 2) * 2.0**-52 * total.magnitude) * (1 + 2.0**-20)
    computed = np.minimum(np.abs(total.exact) + error, LIMITS[out_format])
    return error + np.where(total.magnitude > 0, np.maximum(relative * computed, absolute), 0.0)


def _finite(bits: Patterns, fmt: str) -> Floats:
    """Values, with NaN and infinity as 0: where they matter the result is judged by equality."""
    values = tc.decode(bits, fmt)
    return np.where(np.isfinite(values), values, 0.0)


def _at_least(magnitudes: Floats, smallest: float) -> Floats:
    """Raise nonzero magnitudes to the smallest normal number, whose exponent subnormals share."""
    return np.where(magnitudes > 0, np.maximum(magnitudes, smallest), 0.0)
