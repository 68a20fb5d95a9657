"""Several integers in one register: s16x2, u16x2, vabsdiff2, vabsdiff4."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.ir import vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.program import Instruction


def of_pairs(x: Lowering, instruction: Instruction) -> None:
    """add, min, max of s16x2 and u16x2."""
    code, type_ = x.code, instruction.modifiers[-1]
    v = "<64 x i16>"
    a, b = (code.v(f"bitcast {vec('i32')} {x.get(o, 'b32')} to {v}") for o in instruction.operands[1:3])
    if instruction.name == "add":
        value = code.op("add", v, a, b)
    else:
        value = code.intrinsic(f"llvm.{type_[0]}{instruction.name}.v64i16", v, (v, a), (v, b))
    if "relu" in instruction.modifiers:
        value = code.intrinsic("llvm.smax.v64i16", v, (v, value), (v, "zeroinitializer"))
    x.put_result(instruction, code.v(f"bitcast {v} {value} to {vec('i32')}"))


@lowers("vabsdiff2", "vabsdiff4")
def absolute_differences(x: Lowering, instruction: Instruction) -> None:
    """|a - b| of every field of a word; with .add their sum and c."""
    code, parts = x.code, int(instruction.name[-1])
    if not set(instruction.modifiers) <= {"u32", "s32", "add"}:
        raise refuse(instruction)
    kinds = [m for m in instruction.modifiers if m != "add"][1:]
    count = 32 * parts
    narrow, wide = f"<{count} x i{32 // parts}>", f"<{count} x i32>"
    values = []
    for operand, kind in zip(instruction.operands[1:3], kinds, strict=True):
        fields = code.v(f"bitcast {vec('i32')} {x.get(operand, 'b32')} to {narrow}")
        values.append(code.v(f"{'sext' if kind == 's32' else 'zext'} {narrow} {fields} to {wide}"))
    size = code.intrinsic(f"llvm.abs.v{count}i32", wide, (wide, code.op("sub", wide, *values)), ("i1", "false"))
    if "add" not in instruction.modifiers:
        packed = code.v(f"trunc {wide} {size} to {narrow}")
        return x.put_result(instruction, code.v(f"bitcast {narrow} {packed} to {vec('i32')}"))
    total = x.get(instruction.operands[3], "b32")
    for part in range(parts):
        order = ", ".join(f"i32 {parts * lane + part}" for lane in range(32))
        field = code.v(f"shufflevector {wide} {size}, {wide} poison, <32 x i32> <{order}>")
        total = code.op("add", vec("i32"), total, field)
    return x.put_result(instruction, total)
