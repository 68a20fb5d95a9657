"""Integer and bit instructions: every lane of a warp in one vector operation."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.carries import carry
from loadsparse.gpu.simulator.engine.ir import splat, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers
from loadsparse.gpu.simulator.program import WIDTH, Immediate, Instruction, Register


def _signed(type_: str) -> bool:
    return type_.startswith("s")


def _element(type_: str) -> str:
    return f"i{WIDTH[type_]}"


def _binary(x: Lowering, instruction: Instruction, operation: str, type_: str) -> None:
    a, b = (x.get(o, type_) for o in instruction.operands[1:3])
    x.put_result(instruction, x.code.op(operation, vec(_element(type_)), a, b))


@lowers("add", "sub")
def add(x: Lowering, instruction: Instruction) -> None:
    type_ = instruction.modifiers[-1]
    if "cc" in instruction.modifiers:
        return carry(x, instruction)
    if "sat" in instruction.modifiers:
        a, b = (x.get(o, type_) for o in instruction.operands[1:3])
        element = vec(_element(type_))
        name = f"llvm.s{instruction.name}.sat.v32{_element(type_)}"
        return x.put_result(instruction, x.code.intrinsic(name, element, (element, a), (element, b)))
    first, second = instruction.operands[1:3]
    if instruction.name == "sub" and isinstance(first, Register) and first == second:
        return x.put_result(instruction, splat(_element(type_), 0), defined="-1")
    _binary(x, instruction, instruction.name, type_)
    return None


@lowers("mul", "mad", "mul24", "mad24")
def multiply(x: Lowering, instruction: Instruction) -> None:
    if "cc" in instruction.modifiers:
        return carry(x, instruction)
    type_ = instruction.modifiers[-1]
    operands = instruction.operands
    part = instruction.modifiers[0]
    width = WIDTH[type_]
    code = x.code
    a, b = (x.get(o, type_) for o in operands[1:3])
    narrow = vec(f"i{width}")
    extend = "sext" if _signed(type_) else "zext"
    if instruction.name.endswith("24"):
        shift = splat("i32", 8)
        right = "ashr" if _signed(type_) else "lshr"
        a, b = (code.op(right, narrow, code.op("shl", narrow, v, shift), shift) for v in (a, b))
    if part == "lo" and not instruction.name.endswith("24"):
        product, wide = code.op("mul", narrow, a, b), width
    else:
        wide = width if part == "lo" else 2 * width
        big = vec(f"i{2 * width}")
        product = code.op("mul", big, *(code.v(f"{extend} {narrow} {v} to {big}") for v in (a, b)))
        if part == "hi":
            by = 16 if instruction.name.endswith("24") else width
            product = code.op("lshr", big, product, splat(f"i{2 * width}", by))
        if part in ("hi", "lo"):
            product, wide = code.v(f"trunc {big} {product} to {narrow}"), width
    if instruction.name.startswith("mad"):
        third_type = {16: "u16", 32: "u32", 64: "u64"}[wide]
        third = x.get(operands[3], third_type)
        if "sat" in instruction.modifiers:
            element = vec(f"i{wide}")
            product = code.intrinsic(f"llvm.sadd.sat.v32i{wide}", element, (element, product), (element, third))
        else:
            product = code.op("add", vec(f"i{wide}"), product, third)
    x.put_result(instruction, product)


@lowers("div", "rem")
def divide(x: Lowering, instruction: Instruction) -> None:
    type_ = instruction.modifiers[-1]
    code = x.code
    element = _element(type_)
    vector = vec(element)
    a, b = (x.get(o, type_) for o in instruction.operands[1:3])
    zero = code.v(f"icmp eq {vector} {b}, zeroinitializer")
    safe = code.select(zero, element, splat(element, 1), b)
    if _signed(type_):
        minus = code.v(f"icmp eq {vector} {b}, {splat(element, -1)}")
        safe = code.select(minus, element, splat(element, 1), safe)
        if instruction.name == "div":
            result = code.op("sdiv", vector, a, safe)
            result = code.select(minus, element, code.op("sub", vector, "zeroinitializer", a), result)
        else:
            result = code.op("srem", vector, a, safe)
    else:
        result = code.op("udiv" if instruction.name == "div" else "urem", vector, a, safe)
    result = code.select(zero, element, splat(element, -1) if instruction.name == "div" else a, result)
    x.put_result(instruction, result)


@lowers("abs", "neg", "not", "cnot", "popc", "clz", "brev", "bfind")
def unary(x: Lowering, instruction: Instruction) -> None:
    type_ = instruction.modifiers[-1]
    code = x.code
    element = _element(type_)
    vector = vec(element)
    a = x.get(instruction.operands[1], type_)
    intrinsic = f".v32{element}"
    match instruction.name:
        case "abs":
            result = code.intrinsic(f"llvm.abs{intrinsic}", vector, (vector, a), ("i1", "false"))
        case "neg":
            result = code.op("sub", vector, "zeroinitializer", a)
        case "not":
            result = code.op("xor", vector, a, splat(element, -1))
        case "cnot":
            flag = code.v(f"icmp eq {vector} {a}, zeroinitializer")
            result = code.v(f"zext {vec('i1')} {flag} to {vector}")
        case "brev":
            result = code.intrinsic(f"llvm.bitreverse{intrinsic}", vector, (vector, a))
        case "popc":
            result = x.resize(code.intrinsic(f"llvm.ctpop{intrinsic}", vector, (vector, a)), element, "i32")
        case "clz":
            result = code.intrinsic(f"llvm.ctlz{intrinsic}", vector, (vector, a), ("i1", "false"))
            result = x.resize(result, element, "i32")
        case _:
            result = _find_top_bit(x, instruction, a, type_)
    x.put_result(instruction, result)


def _find_top_bit(x: Lowering, instruction: Instruction, a: str, type_: str) -> str:
    """bfind: position of the highest bit that differs from the sign, -1 without one; .shiftamt: its left shift."""
    code = x.code
    element = _element(type_)
    vector = vec(element)
    if _signed(type_):
        sign = code.op("ashr", vector, a, splat(element, WIDTH[type_] - 1))
        a = code.op("xor", vector, a, sign)
    leading = code.intrinsic(f"llvm.ctlz.v32{element}", vector, (vector, a), ("i1", "false"))
    none = code.v(f"icmp eq {vector} {a}, zeroinitializer")
    if "shiftamt" not in instruction.modifiers:
        leading = code.op("sub", vector, splat(element, WIDTH[type_] - 1), leading)
    leading = x.resize(leading, element, "i32")
    return code.select(none, "i32", splat("i32", -1), leading)


@lowers("and", "or", "xor")
def logic(x: Lowering, instruction: Instruction) -> None:
    type_ = instruction.modifiers[-1]
    a, b = instruction.operands[1:3]
    if instruction.name == "xor" and isinstance(a, Register) and a == b:
        return x.put_result(instruction, splat(_element(type_), 0), defined="-1")
    _binary(x, instruction, instruction.name, type_)
    return None


@lowers("min", "max")
def extreme(x: Lowering, instruction: Instruction) -> None:
    type_ = instruction.modifiers[-1]
    result, *others = (x.get(o, type_) for o in instruction.operands[1:])
    vector = vec(_element(type_))
    kind = ("s" if _signed(type_) else "u") + instruction.name
    for value in others:
        result = x.code.intrinsic(f"llvm.{kind}.v32{_element(type_)}", vector, (vector, result), (vector, value))
    if "relu" in instruction.modifiers and _signed(type_):
        result = x.code.intrinsic(
            f"llvm.smax.v32{_element(type_)}", vector, (vector, result), (vector, "zeroinitializer")
        )
    x.put_result(instruction, result)


@lowers("sad")
def absolute_difference(x: Lowering, instruction: Instruction) -> None:
    type_ = instruction.modifiers[-1]
    code = x.code
    vector = vec(_element(type_))
    a, b, c = (x.get(o, type_) for o in instruction.operands[1:4])
    kind = "s" if _signed(type_) else "u"
    big = code.intrinsic(f"llvm.{kind}max.v32{_element(type_)}", vector, (vector, a), (vector, b))
    small = code.intrinsic(f"llvm.{kind}min.v32{_element(type_)}", vector, (vector, a), (vector, b))
    x.put_result(instruction, code.op("add", vector, c, code.op("sub", vector, big, small)))


@lowers("shl", "shr")
def shift(x: Lowering, instruction: Instruction) -> None:
    type_ = instruction.modifiers[-1]
    width = WIDTH[type_]
    code = x.code
    element = _element(type_)
    vector = vec(element)
    a = x.get(instruction.operands[1], type_)
    amount_operand = instruction.operands[2]
    right = "ashr" if _signed(type_) else "lshr"
    name = "shl" if instruction.name == "shl" else right
    if isinstance(amount_operand, Immediate):
        by = amount_operand.value & 0xFFFFFFFF
        if by >= width:
            result = code.op("ashr", vector, a, splat(element, width - 1)) if name == "ashr" else splat(element, 0)
        else:
            result = code.op(name, vector, a, splat(element, by))
        return x.put_result(instruction, result)
    amount = x.get(amount_operand, "u32")
    limit = width - 1 if name == "ashr" else width
    clamped = x.minimum("i32", amount, limit)
    amount = x.resize(clamped, "i32", element)
    if name == "ashr":
        result = code.op(name, vector, a, amount)
    else:
        over = code.v(f"icmp uge {vector} {amount}, {splat(element, width)}")
        safe = code.op("and", vector, amount, splat(element, width - 1))
        result = code.select(over, element, splat(element, 0), code.op(name, vector, a, safe))
    return x.put_result(instruction, result)


@lowers("dp4a", "dp2a")
def dot_bytes(x: Lowering, instruction: Instruction) -> None:
    """dp4a: four byte products; dp2a: two 16-bit by byte products (.lo or .hi bytes of b); plus c."""
    code, vector = x.code, vec("i32")
    a_type, b_type = instruction.modifiers[-2:]
    a, b, total = (x.get(o, "b32") for o in instruction.operands[1:4])

    def part(value: str, index: int, bits: int, signed: bool) -> str:
        up = code.op("shl", vector, value, splat("i32", 32 - bits * (index + 1)))
        return code.op("ashr" if signed else "lshr", vector, up, splat("i32", 32 - bits))

    for index in range(4 if instruction.name == "dp4a" else 2):
        if instruction.name == "dp4a":
            left, byte = part(a, index, 8, _signed(a_type)), index
        else:
            left, byte = part(a, index, 16, _signed(a_type)), index + 2 * ("hi" in instruction.modifiers)
        right = part(b, byte, 8, _signed(b_type))
        total = code.op("add", vector, total, code.op("mul", vector, left, right))
    x.put_result(instruction, total)
