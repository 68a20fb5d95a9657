"""Integer and bit instructions: every lane of a warp in one vector operation."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.carries import carry
from loadsparse.gpu.simulator.engine.ir import lanes, splat, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
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
    if WIDTH[type_] < 16 or type_.startswith(("f", "bf")):
        raise refuse(instruction)
    if type_ in ("u16x2", "s16x2"):
        raise refuse(instruction)
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
    if type_ in ("u16x2", "s16x2") or "relu" in instruction.modifiers:
        raise refuse(instruction)
    a, b = (x.get(o, type_) for o in instruction.operands[1:3])
    vector = vec(_element(type_))
    kind = ("s" if _signed(type_) else "u") + instruction.name
    x.put_result(instruction, x.code.intrinsic(f"llvm.{kind}.v32{_element(type_)}", vector, (vector, a), (vector, b)))


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


@lowers("shf")
def funnel(x: Lowering, instruction: Instruction) -> None:
    direction, mode = instruction.modifiers[0], instruction.modifiers[1]
    code = x.code
    low, high, amount = (x.get(o, "b32") for o in instruction.operands[1:4])
    by = code.op("and", vec("i32"), amount, splat("i32", 31)) if mode == "wrap" else x.minimum("i32", amount, 32)
    wide = vec("i64")
    low, high, by = (x.resize(v, "i32", "i64") for v in (low, high, by))
    both = code.op("or", wide, code.op("shl", wide, high, splat("i64", 32)), low)
    if direction == "l":
        both = code.op("lshr", wide, code.op("shl", wide, both, by), splat("i64", 32))
    else:
        both = code.op("lshr", wide, both, by)
    x.put_result(instruction, x.resize(both, "i64", "i32"))


@lowers("lop3")
def three_way_logic(x: Lowering, instruction: Instruction) -> None:
    a, b, c = (x.get(o, "b32") for o in instruction.operands[1:4])
    table_operand = instruction.operands[4]
    if not isinstance(table_operand, Immediate) or "b32" not in instruction.modifiers[:1]:
        raise refuse(instruction)
    code, vector = x.code, vec("i32")
    table = table_operand.value
    inverted = [code.op("xor", vector, v, splat("i32", -1)) for v in (a, b, c)]
    result = splat("i32", 0)
    for index in range(8):
        if table >> index & 1:
            terms = [v if index & bit else n for v, n, bit in zip((a, b, c), inverted, (4, 2, 1), strict=True)]
            term = code.op("and", vector, code.op("and", vector, terms[0], terms[1]), terms[2])
            result = code.op("or", vector, result, term)
    x.put_result(instruction, result)


@lowers("prmt")
def permute_bytes(x: Lowering, instruction: Instruction) -> None:
    code, wide = x.code, vec("i64")
    a, b = (x.resize(x.get(o, "b32"), "i32", "i64") for o in instruction.operands[1:3])
    both = code.op("or", wide, code.op("shl", wide, b, splat("i64", 32)), a)
    selector = x.get(instruction.operands[3], "b32")
    mode = instruction.modifiers[1] if len(instruction.modifiers) > 1 else ""
    small = vec("i32")
    result = splat("i32", 0)
    for byte in range(4):
        if mode:
            control = code.op("and", small, selector, splat("i32", 3))
            pick, replicate = _prmt_mode(x, mode, byte, control), None
        else:
            nibble = code.op("lshr", small, selector, splat("i32", 4 * byte)) if byte else selector
            pick = code.op("and", small, nibble, splat("i32", 7))
            replicate = code.op("and", small, nibble, splat("i32", 8))
        by = x.resize(code.op("shl", small, pick, splat("i32", 3)), "i32", "i64")
        chosen = x.resize(code.op("lshr", wide, both, by), "i64", "i32")
        chosen = code.op("and", small, chosen, splat("i32", 255))
        if replicate is not None:
            sign = code.op("ashr", small, code.op("shl", small, chosen, splat("i32", 24)), splat("i32", 31))
            sign = code.op("and", small, sign, splat("i32", 255))
            copy = code.v(f"icmp ne {small} {replicate}, zeroinitializer")
            chosen = code.select(copy, "i32", sign, chosen)
        placed = code.op("shl", small, chosen, splat("i32", 8 * byte)) if byte else chosen
        result = code.op("or", small, result, placed)
    x.put_result(instruction, result)


_PRMT = {
    "f4e": [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]],
    "b4e": [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]],
    "rc8": [[i] * 4 for i in range(4)],
    "ecl": [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]],
    "ecr": [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]],
    "rc16": [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]],
}
"""Special modes of prmt: source byte by control value, then by result byte (least significant first)."""


def _prmt_mode(x: Lowering, mode: str, byte: int, control: str) -> str:
    rows = _PRMT[mode]
    packed = sum(rows[c][byte] << (4 * c) for c in range(4))
    by = x.code.op("shl", vec("i32"), control, splat("i32", 2))
    return x.code.op("and", vec("i32"), x.code.op("lshr", vec("i32"), splat("i32", packed), by), splat("i32", 7))


@lowers("bfe")
def extract_field(x: Lowering, instruction: Instruction) -> None:
    """bfe: bits [pos, pos+len) of a; the signed form fills with bit min(pos+len-1, msb)."""
    type_ = instruction.modifiers[-1]
    width, element = WIDTH[type_], _element(type_)
    code, wide = x.code, vec("i64")
    a = x.get(instruction.operands[1], type_)
    position, length = (
        x.resize(code.op("and", vec("i32"), x.get(o, "u32"), splat("i32", 255)), "i32", "i64")
        for o in instruction.operands[2:4]
    )
    extend = "sext" if _signed(type_) else "zext"
    value = a if width == 64 else code.v(f"{extend} {vec(element)} {a} to {wide}")
    small_position = x.minimum("i64", position, 63)
    shifted = code.op("ashr" if _signed(type_) else "lshr", wide, value, small_position)
    if not _signed(type_):
        far = code.v(f"icmp ugt {wide} {position}, {splat('i64', 63)}")
        shifted = code.select(far, "i64", splat("i64", 0), shifted)
    capped = x.minimum("i64", length, 64)
    spare = code.op("sub", wide, splat("i64", 64), capped)
    safe = code.op("and", wide, spare, splat("i64", 63))
    kept = code.op("shl", wide, shifted, safe)
    kept = code.op("ashr" if _signed(type_) else "lshr", wide, kept, safe)
    empty = code.v(f"icmp eq {wide} {length}, zeroinitializer")
    result = code.select(empty, "i64", splat("i64", 0), kept)
    x.put_result(instruction, x.resize(result, "i64", element))


@lowers("bfi")
def insert_field(x: Lowering, instruction: Instruction) -> None:
    type_ = instruction.modifiers[-1]
    width, element = WIDTH[type_], _element(type_)
    code, wide = x.code, vec("i64")
    a, b = (x.resize(x.get(o, type_), element, "i64") for o in instruction.operands[1:3])
    position, length = (
        x.resize(code.op("and", vec("i32"), x.get(o, "u32"), splat("i32", 255)), "i32", "i64")
        for o in instruction.operands[3:5]
    )
    capped = x.minimum("i64", length, 64)
    spare = code.op("and", wide, code.op("sub", wide, splat("i64", 64), capped), splat("i64", 63))
    ones = code.op("lshr", wide, splat("i64", -1), spare)
    empty = code.v(f"icmp eq {wide} {length}, zeroinitializer")
    ones = code.select(empty, "i64", splat("i64", 0), ones)
    safe = x.minimum("i64", position, 63)
    field = code.op("shl", wide, ones, safe)
    placed = code.op("shl", wide, a, safe)
    far = code.v(f"icmp uge {wide} {position}, {splat('i64', width)}")
    field = code.select(far, "i64", splat("i64", 0), field)
    inverted = code.op("xor", wide, field, splat("i64", -1))
    result = code.op("or", wide, code.op("and", wide, placed, field), code.op("and", wide, b, inverted))
    x.put_result(instruction, x.resize(result, "i64", element))


@lowers("bmsk")
def bit_mask(x: Lowering, instruction: Instruction) -> None:
    code, wide = x.code, vec("i64")
    position, length = (x.resize(x.get(o, "u32"), "i32", "i64") for o in instruction.operands[1:3])
    if "wrap" in instruction.modifiers:
        position, length = (code.op("and", wide, v, splat("i64", 31)) for v in (position, length))
    else:
        position, length = (x.minimum("i64", v, 32) for v in (position, length))
    ones = code.op("sub", wide, code.op("shl", wide, splat("i64", 1), length), splat("i64", 1))
    x.put_result(instruction, x.resize(code.op("shl", wide, ones, position), "i64", "i32"))


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


@lowers("mov", "cvta")
def move(x: Lowering, instruction: Instruction) -> None:
    x.move(instruction)


@lowers("selp")
def select(x: Lowering, instruction: Instruction) -> None:
    """d = p ? a : b; defined where the predicate and the chosen side are."""
    type_ = instruction.modifiers[-1]
    element = _element(type_)
    first, second, predicate = instruction.operands[1:4]
    a, b, flags = x.get(first, type_), x.get(second, type_), x.get(predicate, "pred")
    defined = "-1"
    sides = x.defined_of(first), x.defined_of(second)
    if sides != ("-1", "-1"):
        defined = x.code.mask_blend(x.code.bits(flags), sides[0], sides[1])
    defined = x.code.mask_and(defined, x.defined_of(predicate))
    x.put_result(instruction, x.code.select(flags, element, a, b), defined=defined)


@lowers("slct")
def select_by_sign(x: Lowering, instruction: Instruction) -> None:
    type_, by = instruction.modifiers[-2:]
    element = _element(type_)
    a, b, c = (x.get(o, t) for o, t in zip(instruction.operands[1:4], (type_, type_, by), strict=True))
    if by == "f32":
        if "ftz" in instruction.modifiers:
            raise refuse(instruction)
        value = x.code.v(f"bitcast {vec('i32')} {c} to {vec('float')}")
        flags = x.code.v(f"fcmp oge {vec('float')} {value}, zeroinitializer")
    else:
        flags = x.code.v(f"icmp sge {vec('i32')} {c}, zeroinitializer")
    x.put_result(instruction, x.code.select(flags, element, a, b))


@lowers("fns")
def nth_set_bit(x: Lowering, instruction: Instruction) -> None:
    raise refuse(instruction)


def lane_numbers() -> str:
    return lanes("i32", list(range(32)))
