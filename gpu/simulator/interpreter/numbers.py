"""Bit patterns and numbers: helpers that turn 32 lanes of uint64 bits into integers or floats and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[np.uint64]
"""Bit patterns of 32 lanes."""
Flags = NDArray[np.bool_]
"""One truth value per lane."""
Operation = Callable[..., Lanes]

NAN = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFFFFFF, "f64": 0x7FF8000000000000, "tf32": 0x7FFFFFFF}
FORMATS = {
    "f16": (11, -14, 15),
    "bf16": (8, -126, 127),
    "tf32": (11, -126, 127),
    "f32": (24, -126, 127),
    "f64": (53, -1022, 1023),
    "e4m3": (4, -6, 8),
    "e5m2": (3, -14, 15),
}
"""Precision in bits (hidden one included), least and greatest exponent."""


def mask(width: int) -> np.uint64:
    return np.uint64((1 << width) - 1)


def signed(bits: Lanes, width: int) -> NDArray[np.int64]:
    """Two's complement of the low `width` bits."""
    shift = np.int64(64 - width)
    return (bits.view(np.int64) << shift) >> shift


def unsigned(values: NDArray[np.int64], width: int) -> Lanes:
    return values.astype(np.int64).view(np.uint64) & mask(width)


def to_double(bits: Lanes, kind: str) -> NDArray[np.float64]:
    """Exact values; f64 is reinterpreted, all narrower formats fit in a double."""
    if kind == "f64":
        return bits.view(np.float64)
    if kind == "f16":
        return bits.astype(np.uint16).view(np.float16).astype(np.float64)
    if kind == "e5m2":
        return to_double(bits << np.uint64(8), "f16")
    if kind == "e4m3":
        size = bits & np.uint64(0x7F)
        value = 256.0 * to_double((bits & np.uint64(0x80)) << np.uint64(8) | size << np.uint64(7), "f16")
        return np.where(size == 0x7F, np.nan, value)
    if kind == "bf16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    if kind == "tf32":
        return (bits.astype(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def from_double(values: NDArray[np.float64], kind: str, rounding: str = "rn") -> Lanes:
    """Bits of `values` rounded to a format; NaN becomes the canonical one.

    A value that stands for an exact one must be rounded to odd (see `odd_sum`) unless it is exact.
    """
    if kind == "f64":
        bits = values.view(np.uint64).copy()
    else:
        rounded = _round(values, kind, rounding)
        if kind == "f16":
            bits = rounded.astype(np.float16).view(np.uint16).astype(np.uint64)
        else:
            bits = rounded.astype(np.float32).view(np.uint32).astype(np.uint64)
            bits = bits >> np.uint64(16) if kind == "bf16" else bits
    bits[np.isnan(values)] = NAN[kind]
    return bits


def to_eight_bits(values: NDArray[np.float64], kind: str) -> Lanes:
    """Bits of `values` rounded to e4m3 or e5m2; what is too large becomes the largest number, NaN 0x7F (.satfinite)."""
    largest = {"e4m3": 448.0, "e5m2": 57344.0}[kind]
    rounded = np.clip(_round(values, kind, "rn"), -largest, largest)
    if kind == "e5m2":
        bits = from_double(rounded, "f16") >> np.uint64(8)
    else:
        half = from_double(rounded / 256.0, "f16")
        bits = half >> np.uint64(8) & np.uint64(0x80) | half >> np.uint64(7) & np.uint64(0x7F)
    return np.where(np.isnan(values), np.uint64(0x7F), bits)


def _round(values: NDArray[np.float64], kind: str, rounding: str) -> NDArray[np.float64]:
    """Nearest, toward zero, down, up or nearest-ties-away multiple of the format's spacing at each value."""
    precision, least, greatest = FORMATS[kind]
    _, exponent = np.frexp(values)
    spacing = np.maximum(exponent - 1, least) - (precision - 1)
    finite = np.isfinite(values)
    spacing = np.where(finite, spacing, 0)
    scaled = np.ldexp(np.where(finite, values, 0.0), -spacing)
    rounders: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]
    rounders = {"rn": np.rint, "rz": np.trunc, "rm": np.floor, "rp": np.ceil, "rna": _ties_away}
    whole = rounders[rounding](scaled)
    result = np.where(finite, np.copysign(np.ldexp(whole, spacing), values), values)
    largest = np.ldexp(2.0 - np.ldexp(1.0, 1 - precision), greatest)
    over = finite & (np.abs(result) > largest)
    keep = (rounding == "rz") | ((rounding == "rm") & (values > 0)) | ((rounding == "rp") & (values < 0))
    return np.where(over, np.copysign(np.where(keep, largest, np.inf), values), result)


def _ties_away(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.copysign(np.floor(np.abs(values) + 0.5), values)


def odd_sum(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """a + b rounded to odd: rounding the result again to at most 51 bits, in any direction, is exact.

    The error of the rounded sum is exact by Knuth's TwoSum; where it is not zero and the sum's last bit is even, the
    neighbour on the error's side is the odd one.
    """
    total = a + b
    virtual = total - a
    error = (a - (total - virtual)) + (b - virtual)
    bits = total.view(np.uint64).copy()
    fix = np.isfinite(total) & (error != 0) & ((bits & np.uint64(1)) == 0)
    away = (error > 0) == (total > 0)
    bits[fix & away] += np.uint64(1)
    bits[fix & ~away] -= np.uint64(1)
    return bits.view(np.float64)


def flush(bits: Lanes, kind: str) -> Lanes:
    """Subnormals become zero of the same sign (.ftz)."""
    precision, _, _ = FORMATS[kind]
    width = {"f16": 16, "bf16": 16, "f64": 64}.get(kind, 32)
    sign = np.uint64(1 << (width - 1))
    magnitude = bits & np.uint64((1 << (width - 1)) - 1)
    return np.where(magnitude < np.uint64(1 << (precision - 1)), bits & sign, bits)


def saturate(bits: Lanes, kind: str) -> Lanes:
    """Clamp to [+0, 1]; NaN becomes +0 (.sat)."""
    value = to_double(bits, kind)
    one = from_double(np.ones_like(value), kind)
    result = np.where(value >= 1.0, one, bits)
    return np.where(value > 0.0, result, np.uint64(0))


def rectify(bits: Lanes, kind: str) -> Lanes:
    """Negative values become +0, NaN stays (.relu)."""
    value = to_double(bits, kind)
    return np.where(value <= 0.0, np.uint64(0), bits)


def halves(bits: Lanes) -> tuple[Lanes, Lanes]:
    """Low and high 16 bits of a packed pair."""
    return bits & np.uint64(0xFFFF), (bits >> np.uint64(16)) & np.uint64(0xFFFF)
