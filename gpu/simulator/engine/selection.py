"""Moves, choices between two values, transposition among lanes, and which window an address lies in."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.blocks import written
from loadsparse.gpu.simulator.engine.floats import Floats
from loadsparse.gpu.simulator.engine.ir import FULL, lanes, splat, vec
from loadsparse.gpu.simulator.engine.lowering import WINDOW, Lowering, lowers
from loadsparse.gpu.simulator.engine.products import known_lanes
from loadsparse.gpu.simulator.program import WIDTH, Instruction, Operand
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, LOCAL, PARAM, SHARED


@lowers("mov", "cvta")
def move(x: Lowering, instruction: Instruction) -> None:
    """mov (scalars, vector pack and unpack, addresses of variables) and cvta."""
    target, source = instruction.operands[:2]
    type_ = instruction.modifiers[-1]
    value = _converted_address(x, instruction) if instruction.name == "cvta" else x.get(source, type_)
    holes = x.holes_of(source, type_) if x.frame.fine and instruction.name == "mov" else None
    x.put_operand(target, value, f"i{WIDTH[type_]}", x.defined_of(source), holes)


def _converted_address(x: Lowering, instruction: Instruction) -> str:
    """cvta: generic addresses carry the window's allocation number; window offsets do not."""
    modifiers = instruction.modifiers
    space = next(b for m in modifiers if (b := m.partition("::")[0]) in WINDOW)
    element = f"i{WIDTH[modifiers[-1]]}"
    base = WINDOW[space] << ALLOCATION_BITS if space in ("shared", "local", "param") else 0
    step = (-base if "to" in modifiers else base) & (2 ** WIDTH[modifiers[-1]] - 1)
    return x.code.op("add", vec(element), x.get(instruction.operands[1], modifiers[-1]), splat(element, step))


@lowers("selp", "slct")
def choose(x: Lowering, instruction: Instruction) -> None:
    """selp: a where the predicate holds, else b; slct: a where c >= 0.  Defined where c and the chosen side are."""
    code, first, second, third = x.code, *instruction.operands[1:4]
    by_sign = instruction.name == "slct"
    type_ = instruction.modifiers[-2 if by_sign else -1]
    a, b = x.get(first, type_), x.get(second, type_)
    flags = _not_negative(x, instruction, third) if by_sign else x.get(third, "pred")
    defined = FULL
    sides = x.defined_of(first), x.defined_of(second)
    if sides != (FULL, FULL):
        defined = code.mask_blend(code.bits(flags), sides[0], sides[1])
    defined = code.mask_and(defined, x.defined_of(third))
    x.put_result(instruction, code.select(flags, f"i{WIDTH[type_]}", a, b), defined=defined)


def _not_negative(x: Lowering, instruction: Instruction, operand: Operand) -> str:
    kind = instruction.modifiers[-1]
    c = x.get(operand, kind)
    if kind == "s32":
        return x.code.v(f"icmp sge {vec('i32')} {c}, zeroinitializer")
    algebra = Floats(x.code, "f32", 32)
    value, element = algebra.widen(algebra.flush(c) if "ftz" in instruction.modifiers else c)
    return algebra.compare("oge", element, value, "zeroinitializer")


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
    operand, destination = instruction.operands[1], written(instruction)[0]
    value, holes = x.of_group("i32", x.get(operand, "b32")), None
    if x.frame.fine:
        holes = x.of_group("i32", x.holes_of(operand, "b32"))
    known = known_lanes(x, (operand,))
    if "trans" in instruction.modifiers:
        value, known = _transposed(x, value), _both_known(x, known)
        holes = None if holes is None else _transposed(x, holes)
    x.put(destination, value, known, holes)


PLACES = [(2 * (lane & 3) + half) * 8 + (lane >> 2) for lane in range(32) for half in (0, 1)]
"""Row-major element of the matrix that each half of each lane has after a transposition."""


def _transposed(x: Lowering, value: str) -> str:
    code, pairs, order = x.code, "<64 x i16>", ", ".join(f"i32 {place}" for place in PLACES)
    value = code.v(f"bitcast {vec('i32')} {value} to {pairs}")
    value = code.v(f"shufflevector {pairs} {value}, {pairs} poison, <64 x i32> <{order}>")
    return code.v(f"bitcast {pairs} {value} to {vec('i32')}")


def _both_known(x: Lowering, known: str) -> str:
    """Lanes that get both of their elements from lanes of a mask."""
    if known == FULL:
        return known
    code, flags, one = x.code, x.code.flags(known), vec("i1")
    orders = (lanes("i32", [place // 2 for place in side]) for side in (PLACES[::2], PLACES[1::2]))
    sides = (code.v(f"shufflevector {one} {flags}, {one} poison, {vec('i32')} {order}") for order in orders)
    return code.bits(code.op("and", one, *sides))
