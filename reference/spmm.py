"""Oracles for C = A B with sparse A: one per algorithm.

A is [M, K], B is [K, N]. Matrices are float16, or bfloat16 as uint16 bit patterns with in_format="bf16". Exact oracles
return the very bits a kernel must write; `rows=` computes a sample of the rows only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from loadsparse.reference.tensorcore import arithmetic as tc
from numpy.typing import NDArray

Matrix = NDArray[Any]
Range = tuple[int, int]

MMA_K = 16  # k's per mma.sync step of m16n8k16


def bit_patterns(matrix: Matrix, fmt: str, name: str) -> NDArray[np.uint16]:
    """Return the uint16 patterns of a float16 matrix (fmt "f16") or of one that holds them already ("bf16")."""
    wanted: dict[str, type] = {"f16": np.float16, "bf16": np.uint16}
    if fmt not in wanted:
        raise ValueError(f"unknown format {fmt!r} of {name}: choose 'f16' or 'bf16'")
    array = np.asarray(matrix)
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix, not an array of shape {array.shape}")
    if array.dtype != wanted[fmt]:
        raise TypeError(f"{name} must be {np.dtype(wanted[fmt])} for format {fmt!r}, not {array.dtype}")
    return array.view(np.uint16)


def round_f32(values: NDArray[np.float32], out_format: str) -> Matrix:
    """Round to nearest even: "f16" -> float16, "bf16" -> uint16 patterns, "f32" -> float32; NaN as GPUs write it."""
    nan = np.isnan(values)
    if out_format == "f32":
        return np.where(nan, np.uint32(0x7FFFFFFF), values.view(np.uint32)).view(np.float32)
    if out_format == "f16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16).view(np.uint16)
        return np.where(nan, np.uint16(0x7FFF), half).view(np.float16)
    if out_format == "bf16":
        bits = values.view(np.uint32).astype(np.int64)
        upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        return np.where(nan, np.uint16(0x7FFF), upper.astype(np.uint16))
    raise ValueError(f"unknown output format {out_format!r}: choose 'f16', 'bf16' or 'f32'")


def check_splits(splits: Sequence[Range] | None, depth: int) -> tuple[Range, ...]:
    """Return the k ranges of a split-K product; they must cover 0..K-1 in order (empty ranges are allowed)."""
    if splits is None:
        return ((0, depth),)
    ranges = tuple((int(start), int(stop)) for start, stop in splits)
    edge = 0
    for start, stop in ranges:
        if start != edge or stop < start:
            raise ValueError(f"splits must cover 0..{depth} in order: found ({start}, {stop}) after {edge}")
        edge = stop
    if edge != depth:
        raise ValueError(f"splits must cover 0..{depth} in order: they end at {edge}")
    return ranges


def lscd(
    a: Matrix,
    b: Matrix,
    *,
    arch: str,
    splits: Sequence[Range] | None = None,
    rows: Any = None,
    in_format: str = "f16",
    out_format: str = "f16",
    semantics: str = "dense",
) -> Matrix:
    """Load-as-sparse, compute-as-dense: the exact product of m16n8k16 Tensor Core steps.

    For every range (start, stop) of `splits` an FP32 accumulator starts at +0 and takes mma steps of 16 k's in
    ascending order, the last one padded with zeros. The partial sums are added in order in float32 (nearest even) and
    the total is rounded once to `out_format`: "f16" -> float16, "bf16" -> uint16 patterns, "f32" -> float32, each [M or rows, N].
    semantics "dense": an absent zero times infinity or NaN is NaN, as in the dense product that the Tensor Cores do;
    "stored": products with an unstored element of A (all bits zero; -0 is stored) are skipped.

    Raises ValueError (shapes, splits, unknown words) or TypeError (dtypes).

    >>> import numpy as np
    >>> lscd(np.float16([[1, 0, 2]]), np.float16([[3], [4], [5]]), arch="sm_80")
    array([[13.]], dtype=float16)
    """
    if semantics not in ("dense", "stored"):
        raise ValueError(f"unknown semantics {semantics!r}: choose 'dense' or 'stored'")
    left, right = bit_patterns(a, in_format, "A"), bit_patterns(b, in_format, "B")
    if left.shape[1] != right.shape[0]:
        raise ValueError(f"A {left.shape} and B {right.shape} do not multiply: K differs")
    if rows is not None:
        left = left[rows]
    ranges = check_splits(splits, right.shape[0])
    m = tc.model(arch, in_format, "f32")
    fmt = tc.FORMATS[in_format]
    height, width = len(left), right.shape[1]
    result = np.empty((height, width), np.float32)
    step = max(1, tc.CHUNK_TERMS // (MMA_K * max(width, 1)))
    with np.errstate(invalid="ignore", over="ignore"):
        for top in range(0, height, step):
            part = slice(top, top + step)
            partials = [_chain_range(left[part], right, r, m, fmt, semantics == "stored") for r in ranges]
            total = partials[0]
            for partial in partials[1:]:
                total = total + partial
            result[part] = total
    return round_f32(result, out_format)


def _chain_range(
    left: NDArray[np.uint16], right: NDArray[np.uint16], k_range: Range, m: tc.Model, fmt: tc.Format, skip: bool
) -> NDArray[np.float32]:
    """Partial sums of one k range: the mma steps of a split, chained."""
    start, stop = k_range
    c = np.zeros((len(left), right.shape[1]))
    for k in range(start, stop, MMA_K):
        end = min(k + MMA_K, stop)
        missing = ((0, k + MMA_K - end), (0, 0))
        a_bits = np.pad(left[:, k:end].T, missing)  # [16, rows]
        b_bits = np.pad(right[k:end], missing)  # [16, N]
        a = tc.operand(tc.decode(a_bits, fmt.name), fmt)[:, :, None]
        b = tc.operand(tc.decode(b_bits, fmt.name), fmt)[:, None, :]
        if skip and not np.isfinite(b.values).all():  # else a skipped product is a zero, which adds nothing anyway
            stored = (a_bits != 0)[:, :, None]
            b = tc.Operand(np.where(stored, b.values, 0.0), np.where(stored, b.exponents, tc.ZERO_EXPONENT))
        c = tc.chain(a, b, c, m, "f32")
    return c.astype(np.float32)
