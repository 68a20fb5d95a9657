"""Which bits of a result are not defined, where an instruction moves, masks or keeps apart the bits of its sources.

A *hole* is a bit that is not defined.  Everywhere else one hole in a source makes the whole result undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from loadsparse.gpu.simulator.interpreter.numbers import Lanes, Operation, mask
from loadsparse.gpu.simulator.interpreter.warp import WARP
from loadsparse.gpu.simulator.program import WIDTH

U = np.uint64
NO_HOLES = np.zeros(WARP, U)
Holes = Callable[[Sequence[Lanes], Sequence[Lanes]], Lanes]
"""(values of the sources, their holes) -> holes of the result."""

MOVED = {
    "mov": (0,), "cvt": (0,), "shl": (0,), "shr": (0,), "shf": (0, 1), "prmt": (0, 1), "bfe": (0,), "bfi": (0, 1),
    "brev": (0,),
}  # fmt: skip
"""Sources whose bits an instruction moves; the others say where to."""
PAIRWISE = frozenset({"add", "sub", "mul", "fma", "min", "max", "abs", "neg", "ex2", "tanh"})


def rule(name: str, modifiers: tuple[str, ...], width: int, operation: Operation) -> Holes | None:
    """How holes spread through an instruction with a result of `width` bits; None: one makes the result undefined."""
    kinds = [m for m in modifiers if m in WIDTH]
    if name == "cvt" and kinds[0].endswith("x2"):
        half = WIDTH[kinds[0]] // 2
        return by_fields(2, half, WIDTH[kinds[1]] // 2) if kinds[1].endswith("x2") else joined(half)
    if name == "cvt" and not ({kinds[0][0], kinds[1][0]} <= {"u", "s"} and "sat" not in modifiers):
        return by_fields(1, width, WIDTH[kinds[1]])
    if name in MOVED:
        return moved(operation, MOVED[name], width)
    if name in LOGIC:
        return LOGIC[name]
    if name in ("vabsdiff2", "vabsdiff4") and set(modifiers) <= {"u32", "s32"}:
        parts = int(name[-1])
        return lambda values, holes: by_fields(parts, 32 // parts, 32 // parts)(values, holes[:2])
    if name in PAIRWISE and kinds[-1].endswith("x2"):
        return by_fields(2, 16, 16)
    if kinds[-1][0] in "us" and not {"sat", "hi", "wide"} & set(modifiers):
        return UPWARD.get(name)
    return None


def moved(operation: Operation, data: tuple[int, ...], width: int) -> Holes:
    """The instruction itself, done to holes; a hole in what says where to makes the result undefined."""

    def spread(values: Sequence[Lanes], holes: Sequence[Lanes]) -> Lanes:
        mixed = [holes[n] if n in data else value for n, value in enumerate(values)]
        lost = sum((holes[n] for n in range(len(holes)) if n not in data), NO_HOLES) != 0
        return np.where(lost, mask(width), operation(*mixed))

    return spread


def by_fields(count: int, to: int, wide: int) -> Holes:
    """Field n of the result, of `to` bits, is made of field n, of `wide` bits, of every source."""

    def spread(values: Sequence[Lanes], holes: Sequence[Lanes]) -> Lanes:
        every, total = sum_of(holes), NO_HOLES
        for n in range(count):
            total = total | np.where((every >> U(n * wide)) & mask(wide) != 0, mask(to) << U(n * to), U(0))
        return total

    return spread


def joined(half: int) -> Holes:
    """cvt of two numbers to a pair: the first becomes its upper half."""

    def spread(values: Sequence[Lanes], holes: Sequence[Lanes]) -> Lanes:
        upper, lower = (np.where(hole != 0, mask(half), U(0)) for hole in holes)
        return upper << U(half) | lower

    return spread


def sum_of(holes: Sequence[Lanes]) -> Lanes:
    """What is a hole in any of them."""
    total: Lanes = np.bitwise_or.reduce(np.broadcast_arrays(*holes), axis=0)
    return total


def _and(values: Sequence[Lanes], holes: Sequence[Lanes]) -> Lanes:
    """A defined 0 hides what is behind it."""
    (a, b), (x, y) = values, holes
    result: Lanes = (x | y) & (a | x) & (b | y)
    return result


def _or(values: Sequence[Lanes], holes: Sequence[Lanes]) -> Lanes:
    """A defined 1 hides what is behind it."""
    (a, b), (x, y) = values, holes
    result: Lanes = (x | y) & (~a | x) & (~b | y)
    return result


def lop3(values: Sequence[Lanes], holes: Sequence[Lanes]) -> Lanes:
    """A bit of the result is a hole if, holes taken either way, the table gives both 0 and 1."""
    table = int(values[3][0])
    may = [np.zeros_like(values[0]), np.zeros_like(values[0])]
    for index in range(8):
        ways = [
            (value if index & bit else ~value) | hole
            for value, hole, bit in zip(values[:3], holes[:3], (4, 2, 1), strict=True)
        ]
        may[table >> index & 1] |= ways[0] & ways[1] & ways[2]
    return may[0] & may[1] & mask(32)


def _upward(holes: Lanes) -> Lanes:
    """Carries spread upward: every bit from the lowest hole on."""
    return holes | (U(0) - holes)


def _lowest(bits: Lanes) -> Lanes:
    return bits & (U(0) - bits)


def _product(values: Sequence[Lanes], holes: Sequence[Lanes]) -> Lanes:
    """Holes of one factor reach no bit below the lowest one of theirs and the other's."""
    (a, b), (x, y) = values[:2], holes[:2]
    return _upward(x * _lowest(b | y) | y * _lowest(a | x))


LOGIC: dict[str, Holes] = {
    "and": _and,
    "or": _or,
    "xor": lambda values, holes: sum_of(holes),
    "not": lambda values, holes: holes[0],
}
UPWARD: dict[str, Holes] = {
    "add": lambda values, holes: _upward(sum_of(holes)),
    "sub": lambda values, holes: _upward(sum_of(holes)),
    "neg": lambda values, holes: _upward(holes[0]),
    "mul": _product,
    "mad": lambda values, holes: _upward(_product(values, holes) | holes[2]),
}
