"""Integer arithmetic and comparison: each builder turns an opcode into a function of bit patterns.

A builder receives the instruction's modifiers and returns a function of its source operands (uint64 bit patterns,
already cut to the width of the type) that gives the destination's bit pattern.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes, Operation, mask, signed, unsigned
from loadsparse.gpu.simulator.program import WIDTH

U = np.uint64
ONE = U(1)


def kind_of(modifiers: tuple[str, ...]) -> tuple[int, bool]:
    """(width, is signed) of the instruction's type, its last modifier."""
    kind = modifiers[-1]
    return WIDTH[kind], kind.startswith("s")


def add(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = kind_of(modifiers)
    if "sat" in modifiers and is_signed:
        low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
        return lambda a, b: unsigned(np.clip(signed(a, width) + signed(b, width), low, high), width)
    return lambda a, b: (a + b) & mask(width)


def of_pairs(build: Callable[[tuple[str, ...]], Operation]) -> Callable[[tuple[str, ...]], Operation]:
    """The packed form of an operation: s16x2 and u16x2 are two numbers in a register; .relu cuts negative ones to 0."""

    def packed(modifiers: tuple[str, ...]) -> Operation:
        one, cut = build((modifiers[-1].removesuffix("x2"),)), "relu" in modifiers

        def apply(*sources: Lanes) -> Lanes:
            total = np.zeros_like(sources[0])
            for shift in (U(0), U(16)):
                half = one(*((s >> shift) & mask(16) for s in sources))
                half = np.where(half >> U(15) != 0, U(0), half) if cut else half
                total |= half << shift
            return total

        return apply

    return packed


def sub(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = kind_of(modifiers)
    if "sat" in modifiers and is_signed:
        low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
        return lambda a, b: unsigned(np.clip(signed(a, width) - signed(b, width), low, high), width)
    return lambda a, b: (a - b) & mask(width)


def high_product(a: Lanes, b: Lanes, width: int, is_signed: bool) -> Lanes:
    """Upper `width` bits of the product of two `width`-bit numbers."""
    if width < 64:
        if is_signed:
            return unsigned((signed(a, width) * signed(b, width)) >> np.int64(width), width)
        return (a * b) >> U(width)
    low, shift = U(0xFFFFFFFF), U(32)
    a0, a1, b0, b1 = a & low, a >> shift, b & low, b >> shift
    middle = a1 * b0 + ((a0 * b0) >> shift)
    middle2 = a0 * b1 + (middle & low)
    result: Lanes = a1 * b1 + (middle >> shift) + (middle2 >> shift)
    if is_signed:
        result = result - np.where(a >> U(63), b, U(0)) - np.where(b >> U(63), a, U(0))
    return result


def mul(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = kind_of(modifiers)
    if "wide" in modifiers:
        if is_signed:
            return lambda a, b: unsigned(signed(a, width) * signed(b, width), 2 * width)
        return lambda a, b: a * b
    if "hi" in modifiers:
        return lambda a, b: high_product(a, b, width, is_signed)
    return lambda a, b: (a * b) & mask(width)


def mad(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = kind_of(modifiers)
    product = mul(modifiers)
    if "sat" in modifiers and "hi" in modifiers and is_signed:
        low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
        return lambda a, b, c: unsigned(np.clip(signed(product(a, b), width) + signed(c, width), low, high), width)
    result = mask(2 * width if "wide" in modifiers else width)
    return lambda a, b, c: (product(a, b) + c) & result


def mul24(modifiers: tuple[str, ...]) -> Operation:
    _, is_signed = kind_of(modifiers)

    def product(a: Lanes, b: Lanes) -> Lanes:
        if is_signed:
            wide = unsigned(signed(a, 24) * signed(b, 24), 64)
        else:
            wide = (a & mask(24)) * (b & mask(24))
        return (wide >> U(16)) & mask(32) if "hi" in modifiers else wide & mask(32)

    return product


def mad24(modifiers: tuple[str, ...]) -> Operation:
    product = mul24(modifiers)
    return lambda a, b, c: (product(a, b) + c) & mask(32)


def div(modifiers: tuple[str, ...]) -> Operation:
    """Quotient toward zero; by zero it is all ones."""
    width, is_signed = kind_of(modifiers)

    def quotient(a: Lanes, b: Lanes) -> Lanes:
        zero = b == 0
        if not is_signed:
            return np.where(zero, mask(width), a // np.where(zero, ONE, b))
        x, y = signed(a, width), signed(b, width)
        negative = (x < 0) != (y < 0)
        size = _magnitude(x) // np.where(zero, ONE, _magnitude(y))
        return np.where(zero, mask(width), np.where(negative, U(0) - size, size) & mask(width))

    return quotient


def rem(modifiers: tuple[str, ...]) -> Operation:
    """Remainder with the sign of the dividend; by zero it is the dividend."""
    width, is_signed = kind_of(modifiers)

    def remainder(a: Lanes, b: Lanes) -> Lanes:
        zero = b == 0
        if not is_signed:
            return np.where(zero, a, a % np.where(zero, ONE, b))
        x, y = signed(a, width), signed(b, width)
        size = _magnitude(x) % np.where(zero, ONE, _magnitude(y))
        return np.where(zero, a, np.where(x < 0, U(0) - size, size) & mask(width))

    return remainder


def _magnitude(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Lanes:
    bits = values.view(U)
    return np.where(values < 0, U(0) - bits, bits)


def minimum(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = kind_of(modifiers)
    if is_signed:
        return _relu(modifiers, lambda a, b: unsigned(np.minimum(signed(a, width), signed(b, width)), width), width)
    return lambda a, b: np.minimum(a, b)


def maximum(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = kind_of(modifiers)
    if is_signed:
        return _relu(modifiers, lambda a, b: unsigned(np.maximum(signed(a, width), signed(b, width)), width), width)
    return lambda a, b: np.maximum(a, b)


def _relu(modifiers: tuple[str, ...], operation: Operation, width: int) -> Operation:
    if "relu" not in modifiers:
        return operation
    return lambda a, b: unsigned(np.maximum(signed(operation(a, b), width), 0), width)


def absolute(modifiers: tuple[str, ...]) -> Operation:
    width, _ = kind_of(modifiers)
    return lambda a: _magnitude(signed(a, width)) & mask(width)


def negate(modifiers: tuple[str, ...]) -> Operation:
    width, _ = kind_of(modifiers)
    return lambda a: (U(0) - a) & mask(width)


def sad(modifiers: tuple[str, ...]) -> Operation:
    """c + |a - b|."""
    low, high = minimum(modifiers), maximum(modifiers)
    width, _ = kind_of(modifiers)
    return lambda a, b, c: (c + high(a, b) - low(a, b)) & mask(width)


def _parts(bits: Lanes, width: int, is_signed: bool) -> list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Little-endian fields of a 32-bit word as numbers."""
    fields = [(bits >> U(shift)) & mask(width) for shift in range(0, 32, width)]
    return [signed(field, width) if is_signed else field.view(np.int64) for field in fields]


def dp4a(modifiers: tuple[str, ...]) -> Operation:
    """c + sum of four byte products."""
    a_signed, b_signed = (kind == "s32" for kind in modifiers[-2:])

    def dot(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        total = c.view(np.int64).copy()
        for x, y in zip(_parts(a, 8, a_signed), _parts(b, 8, b_signed), strict=True):
            total += x * y
        return unsigned(total, 32)

    return dot


def dp2a(modifiers: tuple[str, ...]) -> Operation:
    """c + two products of a's halves with the low or high two bytes of b."""
    a_signed, b_signed = (kind == "s32" for kind in modifiers[-2:])
    first = 2 if "hi" in modifiers else 0

    def dot(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        total = c.view(np.int64).copy()
        for x, y in zip(_parts(a, 16, a_signed), _parts(b, 8, b_signed)[first : first + 2], strict=True):
            total += x * y
        return unsigned(total, 32)

    return dot


def compare(how: str, kind: str) -> Callable[[Lanes, Lanes], Flags]:
    """a `how` b on integers or bits."""
    width = WIDTH[kind]
    relation = {
        "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
        "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
    }[how]  # fmt: skip
    if kind.startswith("s") and how not in ("lo", "ls", "hi", "hs"):
        return lambda a, b: relation(signed(a, width), signed(b, width))
    return lambda a, b: relation(a, b)
