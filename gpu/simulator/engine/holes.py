"""Which bits of a result are not defined (*holes*), where an instruction moves, masks or keeps apart the bits of its
sources.  Only the run that settles what one defined bit per register made doubtful has such code.
"""

from __future__ import annotations

from collections.abc import Callable

from loadsparse.gpu.simulator.engine.ir import splat, vec
from loadsparse.gpu.simulator.engine.lowering import SPREADS, TABLE, Lowering, element_of
from loadsparse.gpu.simulator.program import WIDTH, Immediate, Instruction, Operand, Register

Spread = Callable[[Lowering, Instruction], str | None]
"""Holes of the result, as wide as the type of the instruction; None: one hole makes the whole result undefined."""


def spreads(*names: str) -> Callable[[Spread], Spread]:
    def register(function: Spread) -> Spread:
        SPREADS.update(dict.fromkeys(names, function))
        return function

    return register


class Moved(Lowering):
    """Lowers an instruction once more, for the holes of its operands: the first `data` that it reads are moved, the
    others say where to; a hole in these makes the result undefined."""

    def __init__(self, x: Lowering, data: int) -> None:
        super().__init__(x.frame, x.code, x.mask, x.live_out)
        self.x, self.data, self.seen = x, data, 0
        self.result = ""
        self.lost: list[str] = []

    def get(self, operand: Operand | None, type_: str) -> str:
        self.seen += 1
        if self.seen <= self.data:
            return self.x.holes_of(operand, type_)
        self.lost.append(self.x.missing_lanes(operand, type_))
        return self.x.get(operand, type_)

    def put_result(self, instruction: Instruction, value: str, defined: str | None = None) -> None:
        self.result = value


@spreads("shl", "shr", "shf", "prmt", "bfe", "bfi", "brev", "selp", "slct")
def moved(x: Lowering, instruction: Instruction) -> str:
    proxy = Moved(x, 2 if instruction.name in ("shf", "prmt", "bfi", "selp", "slct") else 1)
    TABLE[instruction.name](proxy, instruction)
    element = element_of_result(instruction)
    result = proxy.result
    for flags in proxy.lost:
        if flags != splat("i1", 0):
            result = x.code.select(flags, element, splat(element, -1), result)
    return result


def element_of_result(instruction: Instruction) -> str:
    destination = instruction.operands[0]
    if not isinstance(destination, Register):
        raise TypeError(f"{destination!r} is no register")
    return element_of(destination)


def _sources(x: Lowering, instruction: Instruction, count: int = 0) -> tuple[str, list[str], list[str]]:
    """(type, values, holes) of the sources."""
    type_ = instruction.modifiers[-1]
    operands = instruction.operands[1 : 1 + count] if count else instruction.operands[1:]
    vector = vec(f"i{WIDTH[type_]}")
    return vector, [x.get(o, type_) for o in operands], [x.holes_of(o, type_) for o in operands]


def _any(x: Lowering, vector: str, holes: list[str]) -> str:
    total = holes[0]
    for other in holes[1:]:
        total = x.code.op("or", vector, total, other)
    return total


def _not(x: Lowering, vector: str, value: str) -> str:
    return x.code.op("xor", vector, value, splat(vector.split(" x ")[1][:-1], -1))


@spreads("and", "or")
def hidden(x: Lowering, instruction: Instruction) -> str:
    """A defined 0 (of `or`: 1) hides what is behind it."""
    vector, values, holes = _sources(x, instruction)
    return hide(x, instruction.name, vector, values, holes)


def hide(x: Lowering, name: str, vector: str, values: list[str], holes: list[str]) -> str:
    code, result = x.code, _any(x, vector, holes)
    if name == "xor":
        return result
    for value, hole in zip(values, holes, strict=True):
        way = value if name == "and" else _not(x, vector, value)
        result = code.op("and", vector, result, code.op("or", vector, way, hole))
    return result


@spreads("xor", "not")
def kept(x: Lowering, instruction: Instruction) -> str:
    vector, _, holes = _sources(x, instruction)
    return _any(x, vector, holes)


@spreads("lop3")
def three_way_logic(x: Lowering, instruction: Instruction) -> str | None:
    """A bit of the result is a hole if, holes taken either way, the table gives both 0 and 1."""
    table = instruction.operands[4]
    if not isinstance(table, Immediate):
        return None
    vector, values, holes = _sources(x, instruction, 3)
    code = x.code
    ones = [code.op("or", vector, v, h) for v, h in zip(values, holes, strict=True)]
    zeros = [code.op("or", vector, _not(x, vector, v), h) for v, h in zip(values, holes, strict=True)]
    may = [splat("i32", 0), splat("i32", 0)]
    for index in range(8):
        ways = [one if index & bit else zero for one, zero, bit in zip(ones, zeros, (4, 2, 1), strict=True)]
        way = code.op("and", vector, code.op("and", vector, ways[0], ways[1]), ways[2])
        side = table.value >> index & 1
        may[side] = code.op("or", vector, may[side], way)
    return code.op("and", vector, *may)


def _upward(x: Lowering, vector: str, holes: str) -> str:
    """Carries spread upward: every bit from the lowest hole on."""
    return x.code.op("or", vector, holes, x.code.op("sub", vector, "zeroinitializer", holes))


def _is_plain_integer(instruction: Instruction) -> bool:
    words = instruction.modifiers
    return words[-1][0] in "us" and not words[-1].endswith("x2") and not {"sat", "cc", "hi", "wide"} & set(words)


@spreads("add", "sub", "neg", "mul", "mad")
def upward(x: Lowering, instruction: Instruction) -> str | None:
    if instruction.modifiers[-1].endswith("x2"):
        return halves(x, instruction)
    if not _is_plain_integer(instruction):
        return None
    vector, values, holes = _sources(x, instruction)
    if instruction.name not in ("mul", "mad"):
        return _upward(x, vector, _any(x, vector, holes))
    code = x.code
    reach = []
    for hole, value, other in ((holes[0], values[1], holes[1]), (holes[1], values[0], holes[0])):
        may = code.op("or", vector, value, other)
        lowest = code.op("and", vector, may, code.op("sub", vector, "zeroinitializer", may))
        reach.append(code.op("mul", vector, hole, lowest))
    return _upward(x, vector, _any(x, vector, [*reach, *holes[2:]]))


def by_fields(x: Lowering, holes: str, count: int, wide: int, to: int) -> str:
    """Field n of the result, of `to` bits, is a hole where field n, of `wide` bits, has one."""
    code, fields = x.code, f"{32 * count} x"
    flags = code.v(f"bitcast {vec(f'i{count * wide}')} {holes} to <{fields} i{wide}>")
    flags = code.v(f"icmp ne <{fields} i{wide}> {flags}, zeroinitializer")
    spread = code.v(f"sext <{fields} i1> {flags} to <{fields} i{to}>")
    return code.v(f"bitcast <{fields} i{to}> {spread} to {vec(f'i{count * to}')}")


@spreads("fma", "min", "max", "abs", "ex2", "tanh")
def halves(x: Lowering, instruction: Instruction) -> str | None:
    """Packed pairs: each half by itself."""
    if not instruction.modifiers[-1].endswith("x2"):
        return None
    vector, _, holes = _sources(x, instruction)
    return by_fields(x, _any(x, vector, holes), 2, 16, 16)


@spreads("vabsdiff2", "vabsdiff4")
def differences(x: Lowering, instruction: Instruction) -> str | None:
    if "add" in instruction.modifiers:
        return None
    parts = int(instruction.name[-1])
    holes = [x.holes_of(o, "b32") for o in instruction.operands[1:3]]
    return by_fields(x, _any(x, vec("i32"), holes), parts, 32 // parts, 32 // parts)


@spreads("cvt")
def converted(x: Lowering, instruction: Instruction) -> str:
    """Integers move their bits; pairs keep theirs apart."""
    code = x.code
    target, source = (m for m in instruction.modifiers if m in WIDTH)
    element, half = f"i{WIDTH[target]}", WIDTH[target] // 2
    holes = [x.holes_of(o, source) for o in instruction.operands[1:]]
    if target.endswith("x2") and source.endswith("x2"):
        return by_fields(x, holes[0], 2, WIDTH[source] // 2, half)
    if target.endswith("x2"):
        upper, lower = (_whole(x, hole, f"i{WIDTH[source]}", f"i{half}") for hole in holes)
        return x.pack([lower, upper], half)
    if {target[0], source[0]} <= {"u", "s"} and "sat" not in instruction.modifiers:
        if WIDTH[target] <= WIDTH[source]:
            return x.resize(holes[0], f"i{WIDTH[source]}", element)
        kind = "sext" if source.startswith("s") else "zext"
        return code.v(f"{kind} {vec(f'i{WIDTH[source]}')} {holes[0]} to {vec(element)}")
    return _whole(x, holes[0], f"i{WIDTH[source]}", element)


def _whole(x: Lowering, holes: str, element: str, to: str) -> str:
    """All ones where there is any hole."""
    flags = x.code.v(f"icmp ne {vec(element)} {holes}, zeroinitializer")
    return x.code.v(f"sext {vec('i1')} {flags} to {vec(to)}")
