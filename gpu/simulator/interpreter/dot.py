"""How a Tensor Core adds: exact products, one common exponent, truncation, one final rounding.

A block of K_b products and an addend c are aligned to the largest exponent among them, cut to F fraction bits toward
zero and added as integers.  Longer K is a chain of blocks, each taking the result of the one before as c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.interpreter.numbers import NAN, Lanes, from_double, to_double

Integers = NDArray[np.int64]
U = np.uint64
FIELDS = {"f16": (10, 15), "bf16": (7, 127), "tf32": (10, 127), "f32": (23, 127)}
"""Stored fraction bits and exponent bias."""
HIDDEN = -(1 << 30)
"""Exponent of a term that is zero."""


@dataclass(frozen=True, slots=True)
class TensorCore:
    """`fraction` bits are kept under the largest exponent; `least` bounds that exponent from below (f32, f16 out)."""

    fraction: int
    block: dict[str, int]
    least: dict[str, int]


AMPERE = TensorCore(24, {"f16": 8, "bf16": 8, "tf32": 4}, {"f32": -132, "f16": -20})
HOPPER = TensorCore(25, {"f16": 16, "bf16": 16, "tf32": 8}, {"f32": -133, "f16": -21})
TENSOR_CORES = {
    **dict.fromkeys(("sm_80", "sm_86", "sm_87", "sm_89"), AMPERE),
    **dict.fromkeys(("sm_90", "sm_90a", "sm_100", "sm_100a"), HOPPER),
}


def decode(bits: Lanes, kind: str) -> tuple[Integers, Integers]:
    """(signed significand, exponent of its leading place); zeros have exponent HIDDEN.  tf32 drops its low 13 bits."""
    fraction, bias = FIELDS[kind]
    if kind == "tf32":
        bits = bits >> U(13)
    width = 16 if kind in ("f16", "bf16") else 19 if kind == "tf32" else 32
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


def add_block(core: TensorCore, a: Lanes, b: Lanes, c: Lanes, kind: str, out: str) -> Lanes:
    """One block: a[..., k], b[..., k] and c[...] as bit patterns -> bit patterns of `out`."""
    fraction, _ = FIELDS[kind]
    (ma, ea), (mb, eb), (mc, ec) = decode(a, kind), decode(b, kind), decode(c, out)
    product = ma * mb
    exponent = np.where(product == 0, HIDDEN, ea + eb)
    top = np.maximum(np.maximum(exponent.max(axis=-1), ec), core.least[out])
    unit = top - core.fraction
    terms = align(product, np.where(product == 0, 0, exponent - 2 * fraction) - unit[..., None])
    total = terms.sum(axis=-1) + align(mc, np.where(mc == 0, 0, ec - FIELDS[out][0]) - unit)
    value = np.ldexp(total.astype(np.float64), unit)
    result = from_double(value, out, "rz" if out == "f32" else "rn")
    if out == "f32":
        infinite = np.where(value < 0, U(0xFF800000), U(0x7F800000))
        result = np.where(np.abs(value) >= 2.0**128, infinite, result)
    result = np.where(total == 0, U(0), result)
    with np.errstate(all="ignore"):
        special = (to_double(a, kind) * to_double(b, kind)).sum(axis=-1) + to_double(c, out)
        factors = np.isfinite(to_double(a, kind)).all(axis=-1) & np.isfinite(to_double(b, kind)).all(axis=-1)
        ordinary = factors & np.isfinite(to_double(c, out))
    infinity = np.where(special < 0, U(_infinity(out) | _sign(out)), U(_infinity(out)))
    return np.where(ordinary, result, np.where(np.isnan(special), U(NAN[out]), infinity))


def _infinity(kind: str) -> int:
    return 0x7C00 if kind == "f16" else 0x7F800000


def _sign(kind: str) -> int:
    return 0x8000 if kind == "f16" else 0x80000000


def dot(arch: str, a: Lanes, b: Lanes, c: Lanes, kind: str, out: str) -> Lanes:
    """Bits of sum_k a[..., k] b[..., k] + c[...] as the Tensor Cores of `arch` give it."""
    core = TENSOR_CORES[arch]
    step = core.block[kind]
    for start in range(0, a.shape[-1], step):
        c = add_block(core, a[..., start : start + step], b[..., start : start + step], c, kind, out)
    return c


def convert_addend(c: Lanes, source: str, target: str) -> Lanes:
    """An addend of the other float width, exactly or rounded to nearest."""
    return c if source == target else from_double(to_double(c, source), target)
