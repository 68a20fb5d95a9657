"""Arithmetic in several words: add.cc, addc, sub.cc, subc, mad.cc, madc."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.ir import splat, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.program import WIDTH, Instruction


@lowers("addc", "subc", "madc")
def carry(x: Lowering, instruction: Instruction) -> None:
    """add.cc, addc, sub.cc, subc, mad.cc, madc: the carry flag of each lane, which lives within a block here.

    a - b is a + ~b + 1, and carries so.
    """
    code, name, type_ = x.code, instruction.name, instruction.modifiers[-1]
    element = f"i{WIDTH[type_]}"
    v, takes = vec(element), name.endswith("c")
    values = [x.get(o, type_) for o in instruction.operands[1:]]
    if takes and not x.carry:
        raise refuse(instruction, "a carry from another block")
    if name.startswith("mad"):
        values = [_product(x, values[0], values[1], type_, "hi" in instruction.modifiers), values[2]]
    first, second = values
    minus = name.startswith("sub")
    if minus:
        second = code.op("xor", v, second, splat(element, -1))
    total = code.op("add", v, first, second)
    flag = code.v(f"icmp ult {v} {total}, {first}")
    if takes or minus:
        one = code.v(f"zext {vec('i1')} {x.carry} to {v}") if takes else splat(element, 1)
        before, total = total, code.op("add", v, total, one)
        flag = code.op("or", vec("i1"), flag, code.v(f"icmp ult {v} {total}, {before}"))
    if "cc" in instruction.modifiers:
        if x.mask != x.group_mask:
            if not x.carry:
                raise refuse(instruction, "a carry under a guard")
            flag = code.select(code.flags(x.mask), "i1", flag, x.carry)
        x.carry = flag
    x.put_result(instruction, total)


def _product(x: Lowering, a: str, b: str, type_: str, high: bool) -> str:
    """The lower or upper half of a product."""
    code, width = x.code, WIDTH[type_]
    narrow, big = vec(f"i{width}"), vec(f"i{2 * width}")
    if not high:
        return code.op("mul", narrow, a, b)
    extend = "sext" if type_.startswith("s") else "zext"
    wide = code.op("mul", big, *(code.v(f"{extend} {narrow} {value} to {big}") for value in (a, b)))
    return code.v(f"trunc {big} {code.op('lshr', big, wide, splat(f'i{2 * width}', width))} to {narrow}")
