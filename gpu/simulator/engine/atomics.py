"""atom and red: lanes one after the other, each through a small combining function (old, b, c) -> new."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout, runtime
from loadsparse.gpu.simulator.engine.floats import Floats
from loadsparse.gpu.simulator.engine.ir import Code, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.engine.memory import (
    call_helper,
    check_bits,
    helper,
    missing,
    order_by,
    put_addresses,
    report_undefined,
    space_of,
    strength,
)
from loadsparse.gpu.simulator.program import WIDTH, Instruction

_NAMES = ("add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas")
B_PLACE, C_PLACE, OLD_PLACE = layout.W_DATA, layout.W_DATA + 256, layout.W_DATA + 512


def _combine(name: str, operation: str, type_: str, flush: bool) -> Code:
    """The combining function of one operation and type."""
    code = Code()
    width = WIDTH[type_]
    element = f"i{width}"
    old, b, c = (code.cast("trunc", f"%{v}", "i64", element) for v in ("old", "b", "c"))
    if type_.startswith(("f", "bf")):
        result = _combine_floats(code, operation, type_, flush, old, b)
    else:
        result = _combine_integers(code, operation, type_, old, b, c)
    wide = code.cast("zext", result, element, "i64")
    head = f"define internal i64 @{name}(i64 %old, i64 %b, i64 %c) alwaysinline nounwind {{"
    code.lines = [head, *code.lines, f"  ret i64 {wide}", "}"]
    return code


def _combine_floats(code: Code, operation: str, type_: str, flush: bool, old: str, b: str) -> str:
    scalar, width = type_.removesuffix("x2"), WIDTH[type_]
    count = 2 if type_.endswith("x2") else 1
    algebra = Floats(code, scalar, count)
    bits = algebra.vector(f"i{WIDTH[scalar]}")
    values = [code.v(f"bitcast i{width} {v} to {bits}") for v in (old, b)]
    if flush:
        values = [algebra.flush(v) for v in values]
    (first, element), (second, _) = (algebra.widen(v) for v in values)
    if operation == "add":
        value = algebra.operate("fadd", element, first, second)
    else:
        value = algebra.intrinsic("minimumnum" if operation == "min" else "maximumnum", element, first, second)
    result = algebra.narrow(value, element)
    if flush:
        result = algebra.flush(result)
    return code.v(f"bitcast {bits} {result} to i{width}")


def _combine_integers(code: Code, operation: str, type_: str, old: str, b: str, c: str) -> str:
    element = f"i{WIDTH[type_]}"
    match operation:
        case "add" | "and" | "or" | "xor":
            return code.op(operation, element, old, b)
        case "min" | "max":
            kind = ("s" if type_.startswith("s") else "u") + operation
            return code.intrinsic(f"llvm.{kind}.{element}", element, (element, old), (element, b))
        case "inc":
            wraps = code.v(f"icmp uge {element} {old}, {b}")
            return code.v(f"select i1 {wraps}, {element} 0, {element} {code.op('add', element, old, '1')}")
        case "dec":
            zero = code.v(f"icmp eq {element} {old}, 0")
            above = code.v(f"icmp ugt {element} {old}, {b}")
            wraps = code.v(f"or i1 {zero}, {above}")
            return code.v(f"select i1 {wraps}, {element} {b}, {element} {code.op('sub', element, old, '1')}")
        case "exch":
            return b
        case _:
            same = code.v(f"icmp eq {element} {old}, {b}")
            return code.v(f"select i1 {same}, {element} {c}, {element} {old}")


@lowers("atom", "red")
def atomic(x: Lowering, instruction: Instruction) -> None:
    modifiers, operands = instruction.modifiers, instruction.operands
    type_ = modifiers[-1]
    size = WIDTH[type_] // 8
    operation = next(m for m in modifiers if m in _NAMES)
    space = space_of(instruction)
    returns = instruction.name == "atom"
    values = operands[2:] if returns else operands[1:]
    if len(values) != (2 if operation == "cas" else 1) or size not in (2, 4, 8):
        raise refuse(instruction)
    code = x.code
    element = f"i{8 * size}"
    for place, value in zip((B_PLACE, C_PLACE), values, strict=False):
        code.store(vec(element), x.get(value, type_), "%W", place, 64)
    bad_address = put_addresses(x, operands[1 if returns else 0])
    defined = x.defined_of(*values)
    code.store("i32", defined, "%W", layout.W_DEFINED, 4)
    forms = {
        "combine_global": _combine("combine_global", operation, type_, operation == "add" and type_ == "f32"),
        "combine_other": _combine("combine_other", operation, type_, False),
    }
    known_already = set(runtime.declarations().splitlines())
    declared = sorted({line for form in forms.values() for line in form.declared} - known_already)
    support = "\n".join([*declared, *(line for form in forms.values() for line in form.lines), ""])
    pointers = tuple(f"ptrtoint (ptr @{name} to i64)" for name in forms)
    constants = (space, size, int(operation == "exch"), strength(instruction), check_bits(x.frame))
    order_by(x, instruction, True, True)
    name = helper(x, f"atomic_{operation}_{type_}", "combine_lanes", *constants, pointers=pointers, support=support)
    outside = call_helper(x, name)
    bad_value = missing(x, defined, x.mask)
    if bad_value != "0":
        bad_value = code.mask_and(bad_value, outside)
    report_undefined(x, x.bad_guard, bad_address, bad_value, size)
    if returns:
        known = code.load("i32", "%W", layout.W_DEFINED + 4, 4)
        x.put_operand(operands[0], code.load(vec(element), "%W", OLD_PLACE, 64), element, known)
