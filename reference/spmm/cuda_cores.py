"""Exact oracles of kernels that multiply on CUDA cores: Sputnik, and SparTA, which adds such a rest to 2:4 sparsity."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.spmm.matrices import (
    Matrix,
    Patterns,
    Range,
    add_partials,
    check_splits,
    operands,
    round_f32,
    row_chunks,
)
from loadsparse.reference.spmm.tensor_cores import selected_sum, two_four_positions
from loadsparse.reference.tensorcore import arithmetic as tc


def fma_f32(a: tc.Floats, b: tc.Floats, c: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fused multiply-add a b + c with one rounding to float32; a and b are float64 values of 16-bit formats.

    Rounding the sum to float64 first does no harm. It could only by landing on a false tie, h above a float32 with an
    error below h 2^-28; then the smaller of product and c would reach from h or more to below h 2^-28, over 29 digits,
    but the product has at most 22 and c 24.
    """
    return (a * b + c).astype(np.float32)


def csr_sum(left: Patterns, right: Patterns, ranges: tuple[Range, ...], in_format: str) -> NDArray[np.float32]:
    """FP32 sums over the stored elements of every row: a chain of fused multiply-adds per range, ascending k."""
    values = tc.decode(right, in_format)
    partials = []
    with np.errstate(invalid="ignore", over="ignore"):
        for start, stop in ranges:
            bits = left[:, start:stop]
            count = np.count_nonzero(bits, axis=1)
            order = np.argsort(bits == 0, axis=1, kind="stable")[:, : count.max(initial=0)]  # stored k's, ascending
            items = tc.decode(np.take_along_axis(bits, order, axis=1), in_format)
            c = np.zeros((len(left), right.shape[1]), np.float32)
            for i in range(order.shape[1]):
                live = np.flatnonzero(count > i)
                c[live] = fma_f32(items[live, i, None], values[start + order[live, i]], c[live])
            partials.append(c)
        return add_partials(partials)


def sputnik(
    a: Matrix,
    b: Matrix,
    *,
    splits: Sequence[Range] | None = None,
    rows: Any = None,
    in_format: str = "f16",
    out_format: str = "f16",
) -> Matrix:
    """CSR on CUDA cores: for each output a chain of FP32 fused multiply-adds over the stored elements, k ascending.

    The chain starts at +0; unstored (+0) elements are skipped, so 0 x infinity does not arise. `splits` are k ranges
    whose sums are added in order in float32 (one range: the whole row, as Sputnik does; row swizzles and tilings of N
    do not change a bit). The total is rounded once to `out_format`. Architectures do not differ.

    >>> import numpy as np
    >>> sputnik(np.float16([[1, 0, 2]]), np.float16([[3], [np.inf], [5]]))
    array([[13.]], dtype=float16)
    """
    left, right = operands(a, b, rows, in_format)
    ranges = check_splits(splits, right.shape[0])
    total = np.empty((len(left), right.shape[1]), np.float32)
    for part in row_chunks(left):
        total[part] = csr_sum(left[part], right, ranges, in_format)
    return round_f32(total, out_format)


def two_four_parts(a: Patterns) -> tuple[Patterns, Patterns]:
    """Split patterns A [M, K] into a 2:4 part (first two stored elements of every group of four) and the rest."""
    padded = np.pad(a, ((0, 0), (0, -a.shape[1] % 4)))
    chosen = np.zeros(padded.shape, bool)
    np.put_along_axis(chosen.reshape(len(a), -1, 4), two_four_positions(padded), True, axis=-1)
    chosen = chosen[:, : a.shape[1]]
    zero = np.uint16(0)
    return np.where(chosen, a, zero), np.where(chosen, zero, a)


def sparta(
    a: Matrix,
    b: Matrix,
    *,
    arch: str,
    splits: Sequence[Range] | None = None,
    rows: Any = None,
    in_format: str = "f16",
    out_format: str = "f16",
) -> Matrix:
    """SparTA: the 2:4 part of A on mma.sp (as two_four), the rest in CSR on CUDA cores (as sputnik).

    Per range the float32 sum of both parts is one partial; partials are added in order, the total rounded once. Ranges
    must not cut a group of four (ValueError).
    """
    left, right = operands(a, b, rows, in_format)
    ranges = check_splits(splits, right.shape[0], 4)
    total = np.empty((len(left), right.shape[1]), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for part in row_chunks(left):
            structured, rest = two_four_parts(left[part])
            partials = []
            for one in ranges:
                on_tensor_cores = selected_sum(structured, right, arch, (one,), in_format)
                partials.append(on_tensor_cores + csr_sum(rest, right, (one,), in_format))
            total[part] = add_partials(partials)
    return round_f32(total, out_format)
