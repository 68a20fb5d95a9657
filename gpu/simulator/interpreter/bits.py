"""Bit instructions: logic, shifts, bytes, fields and counts; builders as in `integers`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from loadsparse.gpu.simulator.interpreter.integers import ONE, U, kind_of
from loadsparse.gpu.simulator.interpreter.numbers import Lanes, Operation, mask, signed, unsigned


def bitwise(name: str) -> Callable[[tuple[str, ...]], Operation]:
    function: Operation = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[name]
    return lambda modifiers: function


def invert(modifiers: tuple[str, ...]) -> Operation:
    width, _ = kind_of(modifiers)
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
    width, _ = kind_of(modifiers)
    return lambda a, b: np.where(b < U(width), (a << np.minimum(b, U(width - 1))) & mask(width), U(0))


def shr(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = kind_of(modifiers)
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
    width, _ = kind_of(modifiers)
    return lambda a: np.where(a == 0, U(width), U(width - 1) - _top_bit(a))


def bfind(modifiers: tuple[str, ...]) -> Operation:
    width, is_signed = kind_of(modifiers)

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
    width, _ = kind_of(modifiers)

    def reverse(a: Lanes) -> Lanes:
        result = np.zeros_like(a)
        for bit in range(width):
            result = result | (((a >> U(bit)) & ONE) << U(width - 1 - bit))
        return result

    return reverse


def bfe(modifiers: tuple[str, ...]) -> Operation:
    """Field of `len` bits at `pos`; signed fields repeat bit min(pos + len - 1, msb)."""
    width, is_signed = kind_of(modifiers)

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
    width, _ = kind_of(modifiers)

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
    _, is_signed = kind_of(modifiers)

    def extend(a: Lanes, b: Lanes) -> Lanes:
        width = b & U(31) if "wrap" in modifiers else np.minimum(b, U(32))
        field = (ONE << width) - ONE
        top = (a >> np.maximum(width, ONE) - ONE) & ONE
        sign = np.where((top != 0) & (width > 0), ~field & mask(32), U(0)) if is_signed else U(0)
        return (a & field) | sign

    return extend
