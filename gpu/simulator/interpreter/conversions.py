"""cvt: conversions between integers and floats of every width, with rounding, clamping and packing."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.forms import EIGHT_BIT_PAIRS
from loadsparse.gpu.simulator.interpreter.floats import round_fraction, rounding_of
from loadsparse.gpu.simulator.interpreter.numbers import (
    FORMATS,
    NAN,
    Lanes,
    Operation,
    flush,
    from_double,
    mask,
    odd_sum,
    rectify,
    saturate,
    signed,
    to_double,
    to_eight_bits,
    unsigned,
)
from loadsparse.gpu.simulator.program import WIDTH

U = np.uint64
Doubles = NDArray[np.float64]


def convert(modifiers: tuple[str, ...]) -> Operation:
    """cvt: integers and floats of every width, with rounding, clamping and packing."""
    target, source = modifiers[-2:]
    rounding = rounding_of(modifiers)
    whole = next((m for m in modifiers if m in ("rni", "rzi", "rmi", "rpi")), None)
    ftz = "ftz" in modifiers
    if target in EIGHT_BIT_PAIRS:
        return _to_eight_bits(target.removesuffix("x2"), source, "relu" in modifiers)
    if source in EIGHT_BIT_PAIRS:
        return _from_eight_bits(source.removesuffix("x2"), "relu" in modifiers)
    if target.endswith("x2"):
        half = target.removesuffix("x2")

        def pack(a: Lanes, b: Lanes) -> Lanes:
            high, low = (_float_to_float(x, source, half, rounding, whole, ftz, modifiers) for x in (a, b))
            return low | (high << U(16))

        return pack
    is_float = {kind: kind in FORMATS for kind in (target, source)}
    if is_float[source] and is_float[target]:
        return lambda a: _float_to_float(a, source, target, rounding, whole, ftz, modifiers)
    if is_float[source]:
        return lambda a: _float_to_integer(
            flush(a, source) if ftz and source == "f32" else a, source, target, whole or "rzi"
        )
    if is_float[target]:
        return lambda a: _finish(_integer_to_float(a, source, target, rounding), target, modifiers)
    return lambda a: _integer_to_integer(a, source, target, "sat" in modifiers)


def _to_eight_bits(kind: str, source: str, relu: bool) -> Operation:
    """Two f32, or one f16x2, to e4m3x2 or e5m2x2: the first (the upper half) becomes the upper byte."""

    def narrow(a: Lanes, origin: str) -> Lanes:
        return to_eight_bits(to_double(rectify(a, origin) if relu else a, origin), kind)

    if source == "f32":
        return lambda a, b: narrow(a, "f32") << U(8) | narrow(b, "f32")
    return lambda a: narrow(a >> U(16) & U(0xFFFF), "f16") << U(8) | narrow(a & U(0xFFFF), "f16")


def _from_eight_bits(kind: str, relu: bool) -> Operation:
    """e4m3x2 or e5m2x2 to f16x2, exactly."""

    def widen(a: Lanes) -> Lanes:
        bits = from_double(to_double(a & U(0xFF), kind), "f16")
        return rectify(bits, "f16") if relu else bits

    return lambda a: widen(a >> U(8)) << U(16) | widen(a)


def _finish(bits: Lanes, kind: str, modifiers: tuple[str, ...]) -> Lanes:
    if "sat" in modifiers:
        bits = saturate(bits, kind)
    return rectify(bits, kind) if "relu" in modifiers else bits


def _float_to_float(
    a: Lanes, source: str, target: str, rounding: str, whole: str | None, ftz: bool, modifiers: tuple[str, ...]
) -> Lanes:
    if ftz and source == "f32":
        a = flush(a, source)
    value = to_double(a, source)
    if whole is not None:
        value = _to_whole(value, whole)
    if source == target and whole is None:
        bits = np.where(np.isnan(value), U(NAN[target]), a)
    elif target == "f64":
        bits = from_double(value, target)
    else:
        bits = from_double(value, target, rounding)
        if target == "tf32":
            bits = np.where(np.isnan(value), U(NAN["tf32"]), bits)
    if ftz and target == "f32":
        bits = flush(bits, target)
    if "satfinite" in modifiers:
        bits = _clamp_finite(bits, value, target)
    return _finish(bits, target, modifiers)


def _clamp_finite(bits: Lanes, value: Doubles, kind: str) -> Lanes:
    precision, _, greatest = FORMATS[kind]
    largest = from_double(np.array([np.ldexp(2.0 - np.ldexp(1.0, 1 - precision), greatest)]), kind)[0]
    top = U(1 << (WIDTH[kind] - 1))
    over = np.isinf(to_double(bits, kind)) & ~np.isnan(value)
    return np.where(over, largest | (bits & top), bits)


def _to_whole(value: Doubles, whole: str) -> Doubles:
    return {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[whole](value)


def _float_to_integer(a: Lanes, source: str, target: str, whole: str) -> Lanes:
    """Clamps; NaN gives 0, except from f64 or to 64 bits: the most negative bit pattern."""
    width, is_signed = WIDTH[target], target.startswith("s")
    value = to_double(a, source)
    number = _to_whole(value, whole)
    low = -(2.0 ** (width - 1)) if is_signed else 0.0
    high = 2.0 ** (width - 1) if is_signed else 2.0**width
    inside = (number >= low) & (number < high)
    safe = np.where(inside, number, 0.0)
    bits = safe.astype(np.int64).view(U) if is_signed else safe.astype(U)
    least = U(int(low) & ((1 << width) - 1))
    most = U(int(high) - 1)
    bits = np.where(inside, bits & mask(width), np.where(number < low, least, most))
    nan = U(1 << (width - 1)) if source == "f64" or width == 64 else U(0)
    return np.where(np.isnan(value), nan, bits)


def _integer_to_float(a: Lanes, source: str, target: str, rounding: str) -> Lanes:
    width, is_signed = WIDTH[source], source.startswith("s")
    if width <= 32:
        value = signed(a, width).astype(np.float64) if is_signed else a.astype(np.float64)
        return from_double(value, target, rounding)
    negative = is_signed & (a >> U(63) != 0)
    size = np.where(negative, U(0) - a, a)
    high = (size >> U(32)).astype(np.float64) * 2.0**32
    low = (size & mask(32)).astype(np.float64)
    sign = np.where(negative, -1.0, 1.0)
    if target != "f64":
        return from_double(odd_sum(sign * high, sign * low), target, rounding)
    if rounding == "rn":
        return from_double(sign * (high + low), "f64")
    exact = [round_fraction(Fraction(int(n) * int(s)), rounding) if n else 0.0 for n, s in zip(size, sign, strict=True)]
    return from_double(np.array(exact), "f64")


def _integer_to_integer(a: Lanes, source: str, target: str, clamp: bool) -> Lanes:
    width, source_width = WIDTH[target], WIDTH[source]
    source_signed, target_signed = source.startswith("s"), target.startswith("s")
    wide = signed(a, source_width) if source_signed else a
    if not clamp:
        return (wide.view(U) if source_signed else a) & mask(width)
    low = -(1 << (width - 1)) if target_signed else 0
    high = (1 << (width - 1)) - 1 if target_signed else (1 << width) - 1
    if not source_signed:
        return np.minimum(a, U(high))
    clamped = np.clip(signed(a, source_width), max(low, -(1 << 63)), min(high, (1 << 63) - 1))
    return unsigned(clamped, width)
