"""What all SpMM oracles share: matrices as bit patterns, k ranges, the final rounding."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]
Patterns = NDArray[np.uint16]
Range = tuple[int, int]

MOST_PADDING = 4096
CHUNK = 1 << 22  # elements of A at once, so that memory stays bounded


def bit_patterns(matrix: Matrix, fmt: str, name: str) -> Patterns:
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


def operands(a: Matrix, b: Matrix, rows: Any, fmt: str) -> tuple[Patterns, Patterns]:
    """Check A [M, K] and B [K, N] and return their patterns, A's only for the chosen rows."""
    left, right = bit_patterns(a, fmt, "A"), bit_patterns(b, fmt, "B")
    if left.shape[1] != right.shape[0]:
        raise ValueError(f"A {left.shape} and B {right.shape} do not multiply: K differs")
    return (left if rows is None else left[rows]), right


def row_chunks(left: Patterns) -> Iterator[slice]:
    """Slices of A's rows that hold at most CHUNK elements (and at least a row)."""
    step = max(1, CHUNK // max(1, left.shape[1]))
    return (slice(top, top + step) for top in range(0, len(left), step))


def check_splits(splits: Sequence[Range] | None, depth: int, multiple: int = 1) -> tuple[Range, ...]:
    """Return the k ranges of a split-K product; they must cover 0..K-1 in order (empty ranges are allowed).

    The last ones may reach beyond K, by less than MOST_PADDING: a kernel that works in whole tiles of K multiplies zeros
    there, which turns a sum of -0 into +0.
    Every range must start at a multiple of `multiple`: 4 for 2:4 sparsity, whose groups a range must not cut.
    """
    if splits is None:
        return ((0, depth),)
    ranges = tuple((int(start), int(stop)) for start, stop in splits)
    edge = 0
    for start, stop in ranges:
        if start != edge or stop < start:
            raise ValueError(f"splits must cover 0..{depth} in order: found ({start}, {stop}) after {edge}")
        if start % multiple and start < depth:
            raise ValueError(f"splits must start at multiples of {multiple}: ({start}, {stop}) cuts a group")
        edge = stop
    if not depth <= edge < depth + MOST_PADDING or not ranges:
        raise ValueError(f"splits must cover 0..{depth} in order: they end at {edge}")
    return ranges


def check_semantics(semantics: str) -> bool:
    """Return whether products with unstored elements of A are skipped."""
    if semantics not in ("dense", "stored"):
        raise ValueError(f"unknown semantics {semantics!r}: choose 'dense' or 'stored'")
    return semantics == "stored"


def add_partials(partials: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Add split-K partial sums in order, each step rounded to float32 (nearest even)."""
    total = partials[0]
    for partial in partials[1:]:
        total = total + partial
    return total


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
