"""Bits of a word: funnel shifts, logic of three words, bytes and fields."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.ir import splat, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.program import WIDTH, Immediate, Instruction, Operand


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
    if not isinstance(table_operand, Immediate):
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
    target, flag = x.second(instruction.operands[0])
    defined, missing = x.defined_of(*instruction.operands[1:4]), x.spread(instruction)
    if flag is not None:
        boolean, q = instruction.modifiers[0], instruction.operands[5]
        some = code.v(f"icmp ne {vector} {result}, zeroinitializer")
        known = defined if missing is None else code.bits(code.v(f"icmp eq {vector} {missing}, zeroinitializer"))
        value = code.op(boolean, vec("i1"), some, x.get(q, "pred"))
        x.put_operand(flag, value, "i1", code.mask_and(known, x.defined_of(q)))
    x.put_operand(target, result, "i32", defined, missing)


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


def _byte(x: Lowering, operand: Operand | None) -> str:
    """The low byte of a word, as 64 bits: where a field starts, how long it is."""
    return x.resize(x.code.op("and", vec("i32"), x.get(operand, "u32"), splat("i32", 255)), "i32", "i64")


@lowers("bfe")
def extract_field(x: Lowering, instruction: Instruction) -> None:
    """bfe: bits [pos, pos+len) of a; the signed form fills with bit min(pos+len-1, msb)."""
    type_ = instruction.modifiers[-1]
    width = WIDTH[type_]
    element = f"i{width}"
    code, wide = x.code, vec("i64")
    a = x.get(instruction.operands[1], type_)
    position, length = (_byte(x, o) for o in instruction.operands[2:4])
    extend = "sext" if type_.startswith("s") else "zext"
    value = a if width == 64 else code.v(f"{extend} {vec(element)} {a} to {wide}")
    small_position = x.minimum("i64", position, 63)
    shifted = code.op("ashr" if type_.startswith("s") else "lshr", wide, value, small_position)
    if not type_.startswith("s"):
        far = code.v(f"icmp ugt {wide} {position}, {splat('i64', 63)}")
        shifted = code.select(far, "i64", splat("i64", 0), shifted)
    capped = x.minimum("i64", length, 64)
    spare = code.op("sub", wide, splat("i64", 64), capped)
    safe = code.op("and", wide, spare, splat("i64", 63))
    kept = code.op("shl", wide, shifted, safe)
    kept = code.op("ashr" if type_.startswith("s") else "lshr", wide, kept, safe)
    empty = code.v(f"icmp eq {wide} {length}, zeroinitializer")
    result = code.select(empty, "i64", splat("i64", 0), kept)
    x.put_result(instruction, x.resize(result, "i64", element))


@lowers("bfi")
def insert_field(x: Lowering, instruction: Instruction) -> None:
    type_ = instruction.modifiers[-1]
    width = WIDTH[type_]
    element = f"i{width}"
    code, wide = x.code, vec("i64")
    a, b = (x.resize(x.get(o, type_), element, "i64") for o in instruction.operands[1:3])
    position, length = (_byte(x, o) for o in instruction.operands[3:5])
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


@lowers("szext")
def extend(x: Lowering, instruction: Instruction) -> None:
    """szext: the low bits of a, as many as b says, sign- or zero-extended."""
    code, wide = x.code, vec("i64")
    value, length = (x.resize(x.get(o, "b32"), "i32", "i64") for o in instruction.operands[1:3])
    if "wrap" in instruction.modifiers:
        length = code.op("and", wide, length, splat("i64", 31))
    spare = code.op("sub", wide, splat("i64", 64), x.minimum("i64", length, 32))
    none = code.v(f"icmp eq {wide} {length}, zeroinitializer")
    by = code.op("and", wide, spare, splat("i64", 63))
    right = "ashr" if instruction.modifiers[-1] == "s32" else "lshr"
    result = code.op(right, wide, code.op("shl", wide, value, by), by)
    result = code.select(none, "i64", splat("i64", 0), result)
    x.put_result(instruction, x.resize(result, "i64", "i32"))
