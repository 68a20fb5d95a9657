"""Integer, bit and comparison instructions: each builder turns an opcode into a function of bit patterns.

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


def _kind(modifiers: tuple[str, ...]) -> tuple[int, bool]:
    """(width, is signed) of the instruction's type, its last modifier."""
    kind = modifiers[-1]
    return WIDTH[kind], kind.startswith("s")


def add(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = _kind(modifiers)
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


def absolute_differences(parts: int) -> Callable[[tuple[str, ...]], Operation]:
    """vabsdiff2, vabsdiff4: |a - b| of every field of a word; with .add their sum and c."""

    def build(modifiers: tuple[str, ...]) -> Operation:
        kinds, width = [m for m in modifiers if m != "add"], 32 // parts

        def differences(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
            pairs = zip(*(_parts(v, width, k == "s32") for v, k in zip((a, b), kinds[1:], strict=True)), strict=True)
            found = [unsigned(np.abs(x - y), 32) for x, y in pairs]
            if "add" in modifiers:
                return (c + sum(found, np.zeros_like(c))) & mask(32)
            total = np.zeros_like(c)
            for index, value in enumerate(found):
                total |= (value & mask(width)) << U(index * width)
            return total

        return differences

    return build


def sub(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = _kind(modifiers)
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
    width, is_signed = _kind(modifiers)
    if "wide" in modifiers:
        if is_signed:
            return lambda a, b: unsigned(signed(a, width) * signed(b, width), 2 * width)
        return lambda a, b: a * b
    if "hi" in modifiers:
        return lambda a, b: high_product(a, b, width, is_signed)
    return lambda a, b: (a * b) & mask(width)


def mad(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = _kind(modifiers)
    product = mul(modifiers)
    if "sat" in modifiers and "hi" in modifiers and is_signed:
        low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
        return lambda a, b, c: unsigned(np.clip(signed(product(a, b), width) + signed(c, width), low, high), width)
    result = mask(2 * width if "wide" in modifiers else width)
    return lambda a, b, c: (product(a, b) + c) & result


def mul24(modifiers: tuple[str, ...]) -> Operation:
    _, is_signed = _kind(modifiers)

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
    width, is_signed = _kind(modifiers)

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
    width, is_signed = _kind(modifiers)

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
    width, is_signed = _kind(modifiers)
    if is_signed:
        return _relu(modifiers, lambda a, b: unsigned(np.minimum(signed(a, width), signed(b, width)), width), width)
    return lambda a, b: np.minimum(a, b)


def maximum(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = _kind(modifiers)
    if is_signed:
        return _relu(modifiers, lambda a, b: unsigned(np.maximum(signed(a, width), signed(b, width)), width), width)
    return lambda a, b: np.maximum(a, b)


def _relu(modifiers: tuple[str, ...], operation: Operation, width: int) -> Operation:
    if "relu" not in modifiers:
        return operation
    return lambda a, b: unsigned(np.maximum(signed(operation(a, b), width), 0), width)


def absolute(modifiers: tuple[str, ...]) -> Operation:
    width, _ = _kind(modifiers)
    return lambda a: _magnitude(signed(a, width)) & mask(width)


def negate(modifiers: tuple[str, ...]) -> Operation:
    width, _ = _kind(modifiers)
    return lambda a: (U(0) - a) & mask(width)


def sad(modifiers: tuple[str, ...]) -> Operation:
    """c + |a - b|."""
    low, high = minimum(modifiers), maximum(modifiers)
    width, _ = _kind(modifiers)
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


def bitwise(name: str) -> Callable[[tuple[str, ...]], Operation]:
    function: Operation = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[name]
    return lambda modifiers: function


def invert(modifiers: tuple[str, ...]) -> Operation:
    width, _ = _kind(modifiers)
    return lambda a: ~a & mask(width)


def cnot(modifiers: tuple[str, ...]) -> Operation:
    return lambda a: (a == 0).astype(U)


def lop3(a: Lanes, b: Lanes, c: Lanes, table: Lanes) -> Lanes:
    """Any function of three bits: bit a<<2|b<<1|c of the table."""
    result = np.zeros_like(a)
    number = int(table[0])
    for index in range(8):
        if number >> index & 1:
            x = a if index & 4 else ~a
            y = b if index & 2 else ~b
            z = c if index & 1 else ~c
            result = result | (x & y & z)
    return result & mask(32)


def shl(modifiers: tuple[str, ...]) -> Operation:
    width, _ = _kind(modifiers)
    return lambda a, b: np.where(b < U(width), (a << np.minimum(b, U(width - 1))) & mask(width), U(0))


def shr(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = _kind(modifiers)
    if is_signed:
        return lambda a, b: unsigned(signed(a, width) >> np.minimum(b, U(width - 1)).view(np.int64), width)
    return lambda a, b: np.where(b < U(width), a >> np.minimum(b, U(width - 1)), U(0))


def shf(modifiers: tuple[str, ...]) -> Operation:
    """Funnel shift of the 64-bit value b:a; .l gives the upper, .r the lower word."""

    def shift(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        amount = c & U(31) if "wrap" in modifiers else np.minimum(c, U(32))
        wide = (b << U(32)) | a
        if "l" in modifiers:
            return (wide << amount) >> U(32)
        return (wide >> amount) & mask(32)

    return shift


def prmt(modifiers: tuple[str, ...]) -> Operation:
    """Four bytes picked from {b, a} by nibbles, or by one of the fixed modes."""
    mode = next((m for m in modifiers if m != "b32"), None)
    patterns = {
        "f4e": [(0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 6)],
        "b4e": [(0, 7, 6, 5), (1, 0, 7, 6), (2, 1, 0, 7), (3, 2, 1, 0)],
        "rc8": [(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3)],
        "ecl": [(0, 1, 2, 3), (1, 1, 2, 3), (2, 2, 2, 3), (3, 3, 3, 3)],
        "ecr": [(0, 0, 0, 0), (0, 1, 1, 1), (0, 1, 2, 2), (0, 1, 2, 3)],
        "rc16": [(0, 1, 0, 1), (2, 3, 2, 3), (0, 1, 0, 1), (2, 3, 2, 3)],
    }

    def permute(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        wide = (b << U(32)) | a
        result = np.zeros_like(a)
        for position in range(4):
            if mode is None:
                nibble = (c >> U(4 * position)) & U(15)
            else:
                table = np.array([row[position] for row in patterns[mode]], dtype=U)
                nibble = table[(c & U(3)).astype(np.intp)]
            byte = (wide >> ((nibble & U(7)) * U(8))) & U(0xFF)
            sign = np.where(byte >> U(7), U(0xFF), U(0))
            result = result | (np.where(nibble >> U(3), sign, byte) << U(8 * position))
        return result

    return permute


def popc(modifiers: tuple[str, ...]) -> Operation:
    return lambda a: np.bitwise_count(a).astype(U)


def _top_bit(a: Lanes) -> Lanes:
    """Index of the highest one bit (0 for 0)."""
    result, rest = np.zeros_like(a), a.copy()
    for step in (32, 16, 8, 4, 2, 1):
        large = (rest >> U(step)) != 0
        rest = np.where(large, rest >> U(step), rest)
        result = result + np.where(large, U(step), U(0))
    return result


def clz(modifiers: tuple[str, ...]) -> Operation:
    width, _ = _kind(modifiers)
    return lambda a: np.where(a == 0, U(width), U(width - 1) - _top_bit(a))


def bfind(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = _kind(modifiers)

    def find(a: Lanes) -> Lanes:
        value = np.where((a >> U(width - 1)) != 0, ~a & mask(width), a) if is_signed else a
        top = _top_bit(value)
        top = U(width - 1) - top if "shiftamt" in modifiers else top
        return np.where(value == 0, mask(32), top)

    return find


def fns(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """Position of the c-th set bit of a at or after (c < 0: before) bit b; all ones if there is none."""
    result = np.full_like(a, 0xFFFFFFFF)
    for lane in range(a.size):
        word, base, offset = int(a[lane]), int(b[lane]), int(signed(c, 32)[lane])
        if offset == 0:
            found = [base] if base < 32 and word >> base & 1 else []
            count = 1
        else:
            order = range(base, 32) if offset > 0 else range(min(base, 31), -1, -1)
            found, count = [bit for bit in order if word >> bit & 1], abs(offset)
        if len(found) >= count:
            result[lane] = found[count - 1]
    return result


def brev(modifiers: tuple[str, ...]) -> Operation:
    width, _ = _kind(modifiers)

    def reverse(a: Lanes) -> Lanes:
        result = np.zeros_like(a)
        for bit in range(width):
            result = result | (((a >> U(bit)) & ONE) << U(width - 1 - bit))
        return result

    return reverse


def bfe(modifiers: tuple[str, ...]) -> Operation:
    """Field of `len` bits at `pos`; signed fields repeat bit min(pos + len - 1, msb)."""
    width, is_signed = _kind(modifiers)

    def extract(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        pos, length = b & U(0xFF), c & U(0xFF)
        inside = pos < U(width)
        shifted = np.where(inside, a >> np.minimum(pos, U(width - 1)), U(0))
        ones = np.where(length >= U(64), ~U(0), (ONE << np.minimum(length, U(63))) - ONE) & mask(width)
        if not is_signed:
            plain: Lanes = shifted & ones
            return plain
        top = np.minimum(pos + length - ONE, U(width - 1))
        sign = (a >> top) & ONE
        available = np.where(inside, U(width) - pos, U(0))
        kept = np.minimum(length, available)
        field = np.where(kept >= U(64), ~U(0), (ONE << np.minimum(kept, U(63))) - ONE)
        filled = np.where(sign != 0, ~field & mask(width), U(0))
        return np.where(length == 0, U(0), (shifted & field) | filled)

    return extract


def bfi(modifiers: tuple[str, ...]) -> Operation:
    """b with `len` bits at `pos` replaced by the low bits of a."""
    width, _ = _kind(modifiers)

    def insert(a: Lanes, b: Lanes, c: Lanes, d: Lanes) -> Lanes:
        pos, length = c & U(0xFF), d & U(0xFF)
        ones = np.where(length >= U(64), ~U(0), (ONE << np.minimum(length, U(63))) - ONE)
        shift = np.minimum(pos, U(63))
        field = np.where(pos < U(width), (ones << shift) & mask(width), U(0))
        result: Lanes = (b & ~field) | ((a << shift) & field)
        return result

    return insert


def bmsk(modifiers: tuple[str, ...]) -> Operation:
    def build(a: Lanes, b: Lanes) -> Lanes:
        if "wrap" in modifiers:
            a, b = a & U(31), b & U(31)
        else:
            a, b = np.minimum(a, U(32)), np.minimum(b, U(32))
        return (((ONE << b) - ONE) << a) & mask(32)

    return build


def szext(modifiers: tuple[str, ...]) -> Operation:
    _, is_signed = _kind(modifiers)

    def extend(a: Lanes, b: Lanes) -> Lanes:
        width = b & U(31) if "wrap" in modifiers else np.minimum(b, U(32))
        field = (ONE << width) - ONE
        top = (a >> np.maximum(width, ONE) - ONE) & ONE
        sign = np.where((top != 0) & (width > 0), ~field & mask(32), U(0)) if is_signed else U(0)
        return (a & field) | sign

    return extend


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
