"""Exact oracles of kernels that multiply on Tensor Cores: dense, load-as-sparse (LSCD) and 2:4 sparse."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.spmm.matrices import (
    Matrix,
    Patterns,
    Range,
    add_partials,
    check_semantics,
    check_splits,
    operands,
    round_f32,
)
from loadsparse.reference.tensorcore import arithmetic as tc

MMA_K = 16  # k's per mma.sync step of m16n8k16; also the k's that a step of mma.sp.m16n8k32 selects

Step = Callable[[Patterns, Patterns], tuple[tc.Operand, tc.Operand]]


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
    ascending order, the last one padded with zeros; a stop beyond K asks for steps of zeros. The partial sums are added
    in order in float32 (nearest even) and the total is rounded once to `out_format`: "f16" -> float16, "bf16" -> uint16
    patterns, "f32" -> float32, each [M or rows, N].

    semantics "dense": an absent zero times infinity or NaN is NaN, as in the dense product that the Tensor Cores do;
    "stored": products with an unstored element of A (all bits zero; -0 is stored) are skipped.

    Raises ValueError (shapes, splits, unknown words) or TypeError (dtypes).

    >>> import numpy as np
    >>> lscd(np.float16([[1, 0, 2]]), np.float16([[3], [4], [5]]), arch="sm_80")
    array([[13.]], dtype=float16)
    """
    skip = check_semantics(semantics)
    left, right = operands(a, b, rows, in_format)

    def step(a_bits: Patterns, b_bits: Patterns) -> tuple[tc.Operand, tc.Operand]:
        x, y = _operand(a_bits, in_format)[:, :, None], _operand(b_bits, in_format)[:, None, :]
        if skip and not np.isfinite(y.values).all():  # else a skipped product is a zero, which adds nothing anyway
            stored = (a_bits != 0)[:, :, None]
            y = tc.Operand(np.where(stored, y.values, 0.0), np.where(stored, y.exponents, tc.ZERO_EXPONENT))
        return x, y

    model = tc.model(arch, in_format, "f32")
    return round_f32(_chains(left, right, check_splits(splits, right.shape[0]), MMA_K, step, model), out_format)


def dense(
    a: Matrix,
    b: Matrix,
    *,
    arch: str,
    splits: Sequence[Range] | None = None,
    rows: Any = None,
    in_format: str = "f16",
    out_format: str = "f16",
) -> Matrix:
    """Dense Tensor Core product in mma.m16n8k16 steps: the same sums as lscd, for A that was never sparse."""
    return lscd(a, b, arch=arch, splits=splits, rows=rows, in_format=in_format, out_format=out_format)


def two_four_positions(a: Patterns) -> NDArray[np.intp]:
    """Positions (0..3, ascending) that a 2:4 encoding of A [M, K] selects in every group of four: [M, K/4, 2].

    They are the first two stored (not +0) elements; where there are fewer, the lowest free positions join, holding
    zero. K must be a multiple of 4.
    """
    groups = (a != 0).reshape(len(a), -1, 4)
    preference = np.argsort(~groups, axis=-1, kind="stable")  # stored positions first, then free ones, each ascending
    return np.sort(preference[..., :2], axis=-1)


def two_four(
    a: Matrix,
    b: Matrix,
    *,
    arch: str,
    splits: Sequence[Range] | None = None,
    rows: Any = None,
    in_format: str = "f16",
    out_format: str = "f16",
) -> Matrix:
    """2:4 sparse product on mma.sp.m16n8k32: of every four k's, the two that `two_four_positions` names.

    As lscd, in steps of 32 k's, of which each row of A selects 16. That hardware adds these 16 by the dense rule is an
    assumption: no measurement is published. A selected zero times infinity is NaN; what is not selected is not read.
    Raises ValueError where a group of four holds more than two stored elements or a split cuts it.
    """
    left, right = operands(a, b, rows, in_format)
    padded = np.pad(left, ((0, 0), (0, -left.shape[1] % 4)))
    crowded = np.argwhere((padded != 0).reshape(len(padded), -1, 4).sum(axis=-1) > 2)
    if len(crowded):
        raise ValueError(f"A is not 2:4 sparse: row {crowded[0, 0]}, k {4 * crowded[0, 1]} to {4 * crowded[0, 1] + 3}")
    total = selected_sum(left, right, arch, check_splits(splits, right.shape[0], 4), in_format)
    return round_f32(total, out_format)


def selected_sum(
    left: Patterns, right: Patterns, arch: str, ranges: tuple[Range, ...], in_format: str
) -> NDArray[np.float32]:
    """FP32 sums of the k's selected by `two_four_positions`, in mma.sp steps of 32 k's: float32 [rows, N]."""

    def step(a_bits: Patterns, b_bits: Patterns) -> tuple[tc.Operand, tc.Operand]:
        k = two_four_positions(np.ascontiguousarray(a_bits.T)) + 4 * np.arange(2 * MMA_K // 4)[:, None]
        selected = k.reshape(-1, MMA_K).T  # [16, rows]
        x = _operand(np.take_along_axis(a_bits, selected, axis=0), in_format)[:, :, None]
        return x, _operand(b_bits, in_format)[selected]  # [16, rows, N]

    return _chains(left, right, ranges, 2 * MMA_K, step, tc.model(arch, in_format, "f32"))


def _operand(bits: Patterns, fmt: str) -> tc.Operand:
    return tc.operand(tc.decode(bits, fmt), tc.FORMATS[fmt])


def _chains(
    left: Patterns, right: Patterns, ranges: tuple[Range, ...], width: int, step: Step, model: tc.Model
) -> NDArray[np.float32]:
    """Chain mma steps of `width` k's over every range and add the partial sums: float32 [rows, N]."""
    height, columns = len(left), right.shape[1]
    result = np.empty((height, columns), np.float32)
    chunk = max(1, tc.CHUNK_TERMS // (MMA_K * max(columns, 1)))
    with np.errstate(invalid="ignore", over="ignore"):
        for top in range(0, height, chunk):
            part = slice(top, top + chunk)
            partials = []
            for start, stop in ranges:
                c = np.zeros((len(left[part]), columns))
                for k in range(start, stop, width):
                    inside = max(0, min(k + width, stop, len(right)) - k)
                    missing = ((0, width - inside), (0, 0))
                    x, y = step(np.pad(left[part, k : k + inside].T, missing), np.pad(right[k : k + inside], missing))
                    c = tc.chain(x, y, c, model, "f32")
                partials.append(c.astype(np.float32))
            result[part] = add_partials(partials)
    return result
