"""Moves, choices between two values, transposition among lanes, and which window an address lies in."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.floats import Floats
from loadsparse.gpu.simulator.engine.ir import FULL, lanes, splat, vec
from loadsparse.gpu.simulator.engine.lowering import WINDOW, Lowering, lowers
from loadsparse.gpu.simulator.engine.products import known_lanes
from loadsparse.gpu.simulator.program import WIDTH, Instruction
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, LOCAL, PARAM, SHARED


@lowers("mov", "cvta")
def move(x: Lowering, instruction: Instruction) -> None:
    x.move(instruction)


@lowers("selp")
def select(x: Lowering, instruction: Instruction) -> None:
    """d = p ? a : b"""
    _choose(x, instruction, instruction.modifiers[-1], x.get(instruction.operands[3], "pred"))


@lowers("slct")
def select_by_sign(x: Lowering, instruction: Instruction) -> None:
    """d = c >= 0 ? a : b"""
    type_, by = instruction.modifiers[-2:]
    c = x.get(instruction.operands[3], by)
    if by == "f32":
        algebra = Floats(x.code, "f32", 32)
        value, element = algebra.widen(algebra.flush(c) if "ftz" in instruction.modifiers else c)
        flags = algebra.compare("oge", element, value, "zeroinitializer")
    else:
        flags = x.code.v(f"icmp sge {vec('i32')} {c}, zeroinitializer")
    _choose(x, instruction, type_, flags)


def _choose(x: Lowering, instruction: Instruction, type_: str, flags: str) -> None:
    """a where the flags are set, else b; defined where the flag and the chosen side are."""
    first, second, decides = instruction.operands[1:4]
    defined = FULL
    sides = x.defined_of(first), x.defined_of(second)
    if sides != (FULL, FULL):
        defined = x.code.mask_blend(x.code.bits(flags), sides[0], sides[1])
    defined = x.code.mask_and(defined, x.defined_of(decides))
    value = x.code.select(flags, f"i{WIDTH[type_]}", x.get(first, type_), x.get(second, type_))
    x.put_result(instruction, value, defined=defined)


@lowers("isspacep")
def is_in_space(x: Lowering, instruction: Instruction) -> None:
    """Which window an address lies in; module globals and constants count as global."""
    code, wide = x.code, vec("i64")
    space = instruction.modifiers[0].partition("::")[0]
    number = code.op("lshr", wide, x.get(instruction.operands[1], "b64"), splat("i64", ALLOCATION_BITS))

    def lies_in(window: int) -> str:
        return code.v(f"icmp eq {wide} {number}, {splat('i64', window)}")

    if space in ("shared", "local", "param"):
        return x.put_result(instruction, lies_in(WINDOW[space]))
    if space == "const":
        return x.put_result(instruction, splat("i1", 0))
    elsewhere = lies_in(0)
    for window in (SHARED, LOCAL, PARAM):
        elsewhere = code.op("or", vec("i1"), elsewhere, lies_in(window))
    return x.put_result(instruction, code.op("xor", vec("i1"), elsewhere, splat("i1", 1)))


@lowers("movmatrix")
def transpose(x: Lowering, instruction: Instruction) -> None:
    """An 8 x 8 matrix of 16-bit elements in one register; lane 4 r + c / 2 holds row r, columns c and c + 1."""
    code, operand = x.code, instruction.operands[1]
    value = x.of_group("i32", x.get(operand, "b32"))
    known = known_lanes(x, (operand,))
    if "trans" in instruction.modifiers:
        places = [(2 * (lane & 3) + half) * 8 + (lane >> 2) for lane in range(32) for half in (0, 1)]
        pairs, order = "<64 x i16>", ", ".join(f"i32 {place}" for place in places)
        value = code.v(f"bitcast {vec('i32')} {value} to {pairs}")
        value = code.v(f"shufflevector {pairs} {value}, {pairs} poison, <64 x i32> <{order}>")
        value = code.v(f"bitcast {pairs} {value} to {vec('i32')}")
        if known != FULL:
            flags, one = code.flags(known), vec("i1")
            sides = [
                code.v(
                    f"shufflevector {one} {flags}, {one} poison, {vec('i32')} {lanes('i32', [p // 2 for p in side])}"
                )
                for side in (places[::2], places[1::2])
            ]
            known = code.bits(code.op("and", one, *sides))
    x.put_result(instruction, value, known)
