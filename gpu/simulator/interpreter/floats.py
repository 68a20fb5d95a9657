"""Floating-point instructions of every width, as functions of bit patterns.

Sums and products of formats narrower than f64 are formed in float64, rounded to odd where they are not exact, and
rounded once to the format: that gives the IEEE result in every rounding.  f64 itself is NumPy's, except for fma and
the directed roundings, which are done with Python integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.interpreter.numbers import (
    FORMATS,
    NAN,
    Flags,
    Lanes,
    Operation,
    flush,
    from_double,
    mask,
    odd_sum,
    rectify,
    saturate,
    to_double,
)
from loadsparse.gpu.simulator.program import WIDTH

U = np.uint64
ROUNDINGS = ("rn", "rz", "rm", "rp", "rna")
Doubles = NDArray[np.float64]


def rounding_of(modifiers: tuple[str, ...]) -> str:
    return next((m for m in modifiers if m in ROUNDINGS), "rn")


def elementwise(modifiers: tuple[str, ...], compute: Callable[..., Lanes]) -> Operation:
    """Wraps `compute(kind, *bits)` with .ftz, .sat, .relu and the two halves of packed types."""
    kind = modifiers[-1].removesuffix("x2")

    def one(*sources: Lanes) -> Lanes:
        if "ftz" in modifiers:
            sources = tuple(flush(source, kind) for source in sources)
        result = compute(kind, *sources)
        if "ftz" in modifiers:
            result = flush(result, kind)
        if "sat" in modifiers:
            result = saturate(result, kind)
        return rectify(result, kind) if "relu" in modifiers else result

    if not modifiers[-1].endswith("x2"):
        return one

    def pair(*sources: Lanes) -> Lanes:
        low = one(*(source & U(0xFFFF) for source in sources))
        high = one(*((source >> U(16)) & U(0xFFFF) for source in sources))
        return low | (high << U(16))

    return pair


def _exact_double(a: float, b: float, c: float, rounding: str) -> float:
    """a * b + c for finite doubles, rounded once, by exact fractions."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        product_negative = math.copysign(1.0, a) * math.copysign(1.0, b) < 0
        addend_negative = math.copysign(1.0, c) < 0
        negative = addend_negative if product_negative == addend_negative else rounding == "rm"
        return -0.0 if negative else 0.0
    return round_fraction(exact, rounding)


def round_fraction(exact: Fraction, rounding: str) -> float:
    """The double nearest to, or next below, above or toward zero from, a fraction that is not zero."""
    negative, size = exact < 0, abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    exponent = max(exponent, -1022)
    scaled = size / Fraction(2) ** (exponent - 52)
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    twice = 2 * rest
    if rounding == "rn":
        up = twice > scaled.denominator or (twice == scaled.denominator and whole & 1 == 1)
    else:
        up = rest != 0 and rounding == ("rm" if negative else "rp")
    whole += up
    largest = (1 << 53) - 1
    if exponent > 1023 or (exponent == 1023 and whole > largest):
        finite = rounding == "rz" or rounding == ("rp" if negative else "rm")
        value = math.ldexp(largest, 1023 - 52) if finite else math.inf
    else:
        value = math.ldexp(whole, exponent - 52)
    return -value if negative else value


def _double_operation(a: Doubles, b: Doubles, c: Doubles, rounding: str) -> Doubles:
    """a * b + c in f64, lane by lane."""
    finite = np.isfinite(a) & np.isfinite(b)
    result = np.where(
        finite & np.isinf(c), c, a * b + c
    )  # the product of finite numbers does not overflow before the sum
    for lane in np.flatnonzero(finite & np.isfinite(c)):
        result[lane] = _exact_double(float(a[lane]), float(b[lane]), float(c[lane]), rounding)
    return result


def _zero_sign(total: Doubles, a: Doubles, b: Doubles, rounding: str) -> Doubles:
    """A sum that cancels exactly is -0 when rounding down."""
    if rounding != "rm":
        return total
    return np.where((total == 0) & (np.signbit(a) | np.signbit(b)), -0.0, total)


def sum_of(sign: float, modifiers: tuple[str, ...]) -> Operation:
    rounding = rounding_of(modifiers)

    def compute(kind: str, a: Lanes, b: Lanes) -> Lanes:
        x, y = to_double(a, kind), sign * to_double(b, kind)
        if kind == "f64":
            total = x + y if rounding == "rn" else _double_operation(x, np.ones_like(x), y, rounding)
        else:
            total = _zero_sign(odd_sum(x, y), x, y, rounding)
        return from_double(total, kind, rounding)

    return elementwise(modifiers, compute)


def add(modifiers: tuple[str, ...]) -> Operation:
    return sum_of(1.0, modifiers)


def sub(modifiers: tuple[str, ...]) -> Operation:
    return sum_of(-1.0, modifiers)


def mul(modifiers: tuple[str, ...]) -> Operation:
    rounding = rounding_of(modifiers)

    def compute(kind: str, a: Lanes, b: Lanes) -> Lanes:
        x, y = to_double(a, kind), to_double(b, kind)
        product = x * y
        if kind == "f64" and rounding != "rn":
            product = _double_operation(x, y, np.copysign(np.zeros_like(x), product), rounding)
        return from_double(product, kind, rounding)

    return elementwise(modifiers, compute)


def fma(modifiers: tuple[str, ...]) -> Operation:
    rounding = rounding_of(modifiers)

    def compute(kind: str, a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        x, y, z = (to_double(bits, kind) for bits in (a, b, c))
        if kind == "f64":
            return from_double(_double_operation(x, y, z, rounding), kind)
        product = x * y
        return from_double(_zero_sign(odd_sum(product, z), product, z, rounding), kind, rounding)

    return elementwise(modifiers, compute)


def div(modifiers: tuple[str, ...]) -> Operation:
    """a / b; .approx and .full give the rounded quotient too, which lies within their bounds."""
    rounding = rounding_of(modifiers)

    def compute(kind: str, a: Lanes, b: Lanes) -> Lanes:
        x, y = to_double(a, kind), to_double(b, kind)
        return from_double(_divide(x, y, kind, rounding), kind, rounding)

    return elementwise(modifiers, compute)


def _divide(x: Doubles, y: Doubles, kind: str, rounding: str) -> Doubles:
    """Quotient as a double: exact rounding for f64, rounded to odd for f32."""
    quotient = x / y
    if kind != "f64":
        return _odd_by(quotient, lambda lane, q: Fraction(x[lane]) - Fraction(q) * Fraction(y[lane]), y)
    if rounding == "rn":
        return quotient
    result = quotient.copy()
    for lane in np.flatnonzero(np.isfinite(x) & np.isfinite(y) & (y != 0) & (x != 0)):
        result[lane] = round_fraction(Fraction(x[lane]) / Fraction(y[lane]), rounding)
    return result


def _odd_by(values: Doubles, remainder: Callable[[int, float], Fraction], scale: Doubles) -> Doubles:
    """Rounds to odd with the sign of an exact remainder (times the sign of `scale`)."""
    result = values.copy()
    bits = result.view(U)
    for lane in np.flatnonzero(np.isfinite(values) & (values != 0) & np.isfinite(scale)):
        rest = remainder(int(lane), float(values[lane]))
        if rest != 0 and not bits[lane] & U(1):
            grows = (rest > 0) == (scale[lane] > 0)
            away = grows == (values[lane] > 0)
            bits[lane] += U(1) if away else U(0xFFFFFFFFFFFFFFFF)
    return result


def rcp(modifiers: tuple[str, ...]) -> Operation:
    divide = div(modifiers)
    kind = modifiers[-1]
    return lambda a: divide(from_double(np.ones(a.shape), kind), a)


def sqrt(modifiers: tuple[str, ...]) -> Operation:
    rounding = rounding_of(modifiers)

    def compute(kind: str, a: Lanes) -> Lanes:
        x = to_double(a, kind)
        root = np.sqrt(x)
        if kind != "f64":
            root = _odd_by(root, lambda lane, r: Fraction(x[lane]) - Fraction(r) ** 2, np.ones_like(x))
        elif rounding != "rn":
            root = _directed_root(x, root, rounding)
        return from_double(root, kind, rounding)

    return elementwise(modifiers, compute)


def _directed_root(x: Doubles, root: Doubles, rounding: str) -> Doubles:
    result = root.copy()
    for lane in np.flatnonzero(np.isfinite(root) & (root > 0)):
        rest = Fraction(x[lane]) - Fraction(root[lane]) ** 2
        if rest > 0 and rounding == "rp":
            result[lane] = math.nextafter(root[lane], math.inf)
        elif rest < 0 and rounding in ("rz", "rm"):
            result[lane] = math.nextafter(root[lane], 0.0)
    return result


def approximate(function: Callable[[Doubles], Doubles]) -> Callable[[tuple[str, ...]], Operation]:
    """`.approx` functions: the float64 function, rounded once; within the bounds PTX documents."""

    def build(modifiers: tuple[str, ...]) -> Operation:
        return elementwise(modifiers, lambda kind, a: from_double(function(to_double(a, kind)), kind))

    return build


def absolute(modifiers: tuple[str, ...]) -> Operation:
    return _sign_bit(modifiers, lambda bits, top: bits & ~top)


def negate(modifiers: tuple[str, ...]) -> Operation:
    return _sign_bit(modifiers, lambda bits, top: bits ^ top)


def _sign_bit(modifiers: tuple[str, ...], change: Callable[[Lanes, np.uint64], Lanes]) -> Operation:
    def compute(kind: str, a: Lanes) -> Lanes:
        return change(a, U(1 << (WIDTH[kind] - 1)))

    return elementwise(modifiers, compute)


def copysign(modifiers: tuple[str, ...]) -> Operation:
    """b with the sign of a."""
    top = U(1 << (WIDTH[modifiers[-1]] - 1))
    return lambda a, b: (a & top) | (b & ~top)


def testp(modifiers: tuple[str, ...]) -> Operation:
    what, kind = modifiers
    tiny = FORMATS[kind][0] - 1

    def test(a: Lanes) -> Lanes:
        value = to_double(a, kind)
        subnormal = (a & mask(WIDTH[kind] - 1)) < U(1 << tiny)
        flags: Flags = {
            "finite": np.isfinite(value),
            "infinite": np.isinf(value),
            "number": ~np.isnan(value),
            "notanumber": np.isnan(value),
            "normal": np.isfinite(value) & ~subnormal,
            "subnormal": subnormal & (value != 0),
        }[what]
        return flags.astype(U)

    return test


def extreme(name: str) -> Callable[[tuple[str, ...]], Operation]:
    """min and max: the number beside a NaN (with .NaN: NaN), and -0 below +0."""

    def build(modifiers: tuple[str, ...]) -> Operation:
        def two(kind: str, a: Lanes, b: Lanes) -> Lanes:
            width = WIDTH[kind]
            if "abs" in modifiers:
                top = U(1 << (width - 1))
                sign = (a ^ b) & top if "xorsign" in modifiers else U(0)
                a, b = a & ~top, b & ~top
            else:
                sign = U(0)
            x, y = to_double(a, kind), to_double(b, kind)
            below = (x < y) | ((x == y) & np.signbit(x))
            first = below if name == "min" else ~below
            result = np.where(first, a, b) | sign
            x_nan, y_nan = np.isnan(x), np.isnan(y)
            nan = U(NAN[kind])
            if "NaN" in modifiers:
                return np.where(x_nan | y_nan, nan, result)
            return np.where(x_nan & y_nan, nan, np.where(x_nan, b, np.where(y_nan, a, result)))

        def compute(kind: str, *sources: Lanes) -> Lanes:
            result = sources[0]
            for source in sources[1:]:
                result = two(kind, result, source)
            return result

        return elementwise(modifiers, compute)

    return build


def compare(how: str, kind: str, ftz: bool) -> Callable[[Lanes, Lanes], Flags]:
    """a `how` b; ordered comparisons are false on NaN, those with u are true."""

    def relation(a: Lanes, b: Lanes) -> Flags:
        if ftz:
            a, b = flush(a, kind), flush(b, kind)
        x, y = to_double(a, kind), to_double(b, kind)
        nan = np.isnan(x) | np.isnan(y)
        if how in ("num", "nan"):
            return nan if how == "nan" else ~nan
        plain = {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}[how[:2]]
        result: Flags = (plain | nan) if how.endswith("u") else (plain & ~nan)
        return result

    return relation
