"""setp, set: comparisons; and the dispatch between integer and float forms of shared opcode names."""

from __future__ import annotations

from collections.abc import Callable

from loadsparse.gpu.simulator.engine import floats as fp
from loadsparse.gpu.simulator.engine import holes, integers, packed
from loadsparse.gpu.simulator.engine.ir import splat, vec
from loadsparse.gpu.simulator.engine.lowering import TABLE, Lowering, lowers
from loadsparse.gpu.simulator.program import WIDTH, Instruction

_INTEGER = {
    "eq": "eq",
    "ne": "ne",
    "lt": "lt",
    "le": "le",
    "gt": "gt",
    "ge": "ge",
    "lo": "lt",
    "ls": "le",
    "hi": "gt",
    "hs": "ge",
}
_FLOAT = {"eq": "oeq", "ne": "one", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "equ": "ueq", "neu": "une",
          "ltu": "ult", "leu": "ule", "gtu": "ugt", "geu": "uge", "num": "ord", "nan": "uno"}  # fmt: skip


_TRUE = {"f16": 0x3C00, "bf16": 0x3F80, "f32": 0x3F800000}
"""What `set` writes for true as a float."""


def _compare(x: Lowering, instruction: Instruction, type_: str, how: str) -> str:
    """<32 x i1> of ``a how b``; of packed pairs <64 x i1>, the lower half first."""
    first, second = instruction.operands[1:3]
    a, b = x.get(first, type_), x.get(second, type_)
    if type_.startswith(("f", "bf")):
        count = 64 if type_.endswith("x2") else 32
        if count == 64:
            a, b = (x.code.v(f"bitcast {vec('i32')} {value} to <64 x i16>") for value in (a, b))
        algebra = fp.Floats(x.code, type_.removesuffix("x2"), count)
        if "ftz" in instruction.modifiers:
            a, b = algebra.flush(a), algebra.flush(b)
        (a, element), (b, _) = algebra.widen(a), algebra.widen(b)
        return algebra.compare(_FLOAT[how], element, a, b)
    relation = _INTEGER[how]
    if relation not in ("eq", "ne"):
        signed = type_.startswith("s") and how not in ("lo", "ls", "hi", "hs")
        relation = ("s" if signed else "u") + relation
    return x.code.v(f"icmp {relation} {vec(f'i{WIDTH[type_]}')} {a}, {b}")


@lowers("setp", "set")
def compare(x: Lowering, instruction: Instruction) -> None:
    """setp d|q, a, b, c: d = (a cmp b) boolop c, q = !(a cmp b) boolop c; set writes all ones or 1.0.

    Of packed pairs, d is about the lower halves and q about the upper ones; set writes both halves.
    """
    code, modifiers, operands = x.code, instruction.modifiers, instruction.operands
    how = modifiers[0]
    flags = _compare(x, instruction, modifiers[-1], how)
    first, second = x.second(operands[0])
    defined = x.defined_of(*operands[1:])
    one = vec("i1")
    results, lost = [flags], _holes(x, instruction)
    if modifiers[-1].endswith("x2"):
        halves = (", ".join(f"i32 {2 * lane + half}" for lane in range(32)) for half in (0, 1))
        results = [
            code.v(f"shufflevector <64 x i1> {flags}, <64 x i1> poison, <32 x i32> <{order}>") for order in halves
        ]
    elif second is not None:
        results.append(code.op("xor", one, flags, splat("i1", 1)))
    if len(operands) > 3:
        boolean = next(m for m in modifiers[1:] if m in ("and", "or", "xor"))
        third = x.get(operands[3], "pred")
        if lost:
            unsure = x.holes_of(operands[3], "pred")
            pairs = zip(results, lost, strict=False)
            lost = [holes.hide(x, boolean, one, [value, third], [hole, unsure]) for value, hole in pairs]
        results = [code.op(boolean, one, value, third) for value in results]
    if instruction.name == "set":
        type_ = modifiers[-2]
        width = 16 if modifiers[-1].endswith("x2") else WIDTH[type_]
        element = f"i{width}"
        true = _TRUE.get(type_.removesuffix("x2"), 2**width - 1)
        values = [code.select(flag, element, splat(element, true), splat(element, 0)) for flag in results]
        spread = [code.v(f"sext {one} {hole} to {vec(element)}") for hole in lost]
        if len(values) == 2:
            return x.put_operand(first, x.pack(values, width), "i32", defined, x.pack(spread, width) if lost else None)
        return x.put_operand(first, values[0], element, defined, spread[0] if lost else None)
    for target, value, hole in zip((first, second), results, lost or (None, None), strict=False):
        x.put_operand(target, value, "i1", defined, hole)
    return None


def _holes(x: Lowering, instruction: Instruction) -> list[str]:
    """Lanes in which each of the two comparisons is not defined, in the fine form; else nothing."""
    if not x.frame.fine:
        return []
    type_ = instruction.modifiers[-1]
    element = f"i{WIDTH[type_]}"
    total = x.code.op("or", vec(element), *(x.holes_of(o, type_) for o in instruction.operands[1:3]))
    parts = [x.part(total, element, n, 16) for n in (0, 1)] if type_.endswith("x2") else [total, total]
    narrow = "i16" if type_.endswith("x2") else element
    return [x.code.v(f"icmp ne {vec(narrow)} {part}, zeroinitializer") for part in parts]


def _either(
    integer: Callable[[Lowering, Instruction], None], floating: Callable[[Lowering, Instruction], None]
) -> Callable[[Lowering, Instruction], None]:
    def dispatch(x: Lowering, instruction: Instruction) -> None:
        if instruction.modifiers[-1] in ("s16x2", "u16x2"):
            return packed.of_pairs(x, instruction)
        return (floating if fp.is_float(instruction) else integer)(x, instruction)

    return dispatch


TABLE["add"] = TABLE["sub"] = _either(integers.add, fp.float_sum)
TABLE["mul"] = _either(integers.multiply, fp.float_sum)
TABLE["mad"] = _either(integers.multiply, fp.fused)
TABLE["div"] = _either(integers.divide, fp.float_divide)
TABLE["abs"] = TABLE["neg"] = _either(integers.unary, fp.float_sign)
TABLE["min"] = TABLE["max"] = _either(integers.extreme, fp.float_extreme)
