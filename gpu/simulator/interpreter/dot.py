"""How a Tensor Core adds: exact products, one common exponent, truncation, one final rounding.

A block of K_b products and an addend c are aligned to the largest exponent among them, cut to F fraction bits toward
zero and added as integers.  Longer K is a chain of blocks, each taking the result of the one before as c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.interpreter.numbers import NAN, Lanes, from_double, to_double
from loadsparse.gpu.simulator.program import WIDTH

Integers = NDArray[np.int64]
U = np.uint64
FIELDS = {"e4m3": (3, 7), "e5m2": (2, 15), "f16": (10, 15), "bf16": (7, 127), "tf32": (10, 127), "f32": (23, 127)}
"""Stored fraction bits and exponent bias."""
HIDDEN = -(1 << 30)
"""Exponent of a term that is zero."""


@dataclass(frozen=True, slots=True)
class TensorCore:
    """`fraction` bits are kept under the largest exponent; `least` bounds that exponent from below (f32, f16 out); an
    f32 result is cut to `kept` fraction bits."""

    fraction: int
    block: dict[str, int]
    least: dict[str, int]
    kept: int = 23


AMPERE = TensorCore(24, {"f16": 8, "bf16": 8, "tf32": 4}, {"f32": -132, "f16": -20})
BLACKWELL = TensorCore(25, {"f16": 16, "bf16": 16, "tf32": 8}, {"f32": -133, "f16": -21})
HOPPER = TensorCore(25, {**BLACKWELL.block, "e4m3": 32, "e5m2": 32}, BLACKWELL.least)
ADA_EIGHT_BITS = TensorCore(13, {"e4m3": 16, "e5m2": 16}, AMPERE.least, kept=13)
TENSOR_CORES = {
    **dict.fromkeys(("sm_80", "sm_86", "sm_87", "sm_89"), AMPERE),
    **dict.fromkeys(("sm_90", "sm_90a"), HOPPER),
    **dict.fromkeys(("sm_100", "sm_100a"), BLACKWELL),
}


def core_of(arch: str, kind: str) -> TensorCore:
    """How `arch` multiplies inputs of a kind; KeyError where it cannot, or where nobody has published how."""
    core = ADA_EIGHT_BITS if arch == "sm_89" and kind in ADA_EIGHT_BITS.block else TENSOR_CORES[arch]
    if kind not in core.block:
        raise KeyError(f"no published arithmetic of {kind} on {arch}")
    return core


def decode(bits: Lanes, kind: str) -> tuple[Integers, Integers]:
    """(signed significand, exponent of its leading place); zeros have exponent HIDDEN.  tf32 drops its low 13 bits."""
    fraction, bias = FIELDS[kind]
    if kind == "tf32":
        bits = bits >> U(13)
    width = 19 if kind == "tf32" else WIDTH[kind]
    field = ((bits >> U(fraction)) & U((1 << (width - 1 - fraction)) - 1)).astype(np.int64)
    significand = (bits & U((1 << fraction) - 1)).astype(np.int64)
    significand = np.where(field > 0, significand | (1 << fraction), significand)
    exponent = np.where(significand == 0, HIDDEN, np.maximum(field, 1) - bias)
    negative = (bits >> U(width - 1)) & U(1) != 0
    return np.where(negative, -significand, significand), exponent


def align(significand: Integers, point: Integers) -> Integers:
    """significand * 2**point, truncated toward zero to an integer."""
    left = np.clip(point, 0, 62)
    right = np.clip(-point, 0, 63)
    size = (np.abs(significand) << left) >> right
    return np.where(significand < 0, -size, size)


def add_block(core: TensorCore, a: Lanes, b: Lanes, c: Lanes, kinds: tuple[str, str], out: str) -> Lanes:
    """One block: a[..., k], b[..., k] and c[...] as bit patterns -> bit patterns of `out`."""
    fractions = FIELDS[kinds[0]][0] + FIELDS[kinds[1]][0]
    (ma, ea), (mb, eb), (mc, ec) = decode(a, kinds[0]), decode(b, kinds[1]), decode(c, out)
    product = ma * mb
    exponent = np.where(product == 0, HIDDEN, ea + eb)
    top = np.maximum(np.maximum(exponent.max(axis=-1), ec), core.least[out])
    unit = top - core.fraction
    terms = align(product, np.where(product == 0, 0, exponent - fractions) - unit[..., None])
    total = terms.sum(axis=-1) + align(mc, np.where(mc == 0, 0, ec - FIELDS[out][0]) - unit)
    value = np.ldexp(total.astype(np.float64), unit)
    result = from_double(_cut(value, core.kept), out, "rz" if out == "f32" else "rn")
    if out == "f32":
        infinite = np.where(value < 0, U(0xFF800000), U(0x7F800000))
        result = np.where(np.abs(value) >= 2.0**128, infinite, result)
    result = np.where(total == 0, U(0), result)
    with np.errstate(all="ignore"):
        left, right = to_double(a, kinds[0]), to_double(b, kinds[1])
        special = (left * right).sum(axis=-1) + to_double(c, out)
        factors = np.isfinite(left).all(axis=-1) & np.isfinite(right).all(axis=-1)
        ordinary = factors & np.isfinite(to_double(c, out))
    infinity = np.where(special < 0, U(_infinity(out) | _sign(out)), U(_infinity(out)))
    return np.where(ordinary, result, np.where(np.isnan(special), U(NAN[out]), infinity))


def _cut(value: NDArray[np.float64], kept: int) -> NDArray[np.float64]:
    """Truncated toward zero to `kept` fraction bits under its exponent in f32."""
    if kept == 23:
        return value
    unit = np.maximum(np.frexp(value)[1] - 1, -126) - kept
    cut: NDArray[np.float64] = np.ldexp(np.trunc(np.ldexp(value, -unit)), unit)
    return cut


def _infinity(kind: str) -> int:
    return 0x7C00 if kind == "f16" else 0x7F800000


def _sign(kind: str) -> int:
    return 0x8000 if kind == "f16" else 0x80000000


def dot(arch: str, a: Lanes, b: Lanes, c: Lanes, kinds: tuple[str, str], out: str) -> Lanes:
    """Bits of sum_k a[..., k] b[..., k] + c[...] as the Tensor Cores of `arch` give it; `kinds` are those of a and b."""
    core = core_of(arch, kinds[0])
    step = core.block[kinds[0]]
    for start in range(0, a.shape[-1], step):
        c = add_block(core, a[..., start : start + step], b[..., start : start + step], c, kinds, out)
    return c


def convert_addend(c: Lanes, source: str, target: str) -> Lanes:
    """An addend of the other float width, exactly or rounded to nearest."""
    return c if source == target else from_double(to_double(c, source), target)
