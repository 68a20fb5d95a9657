"""cvt of 8-bit floats: e4m3x2 and e5m2x2 from f32 or f16x2, and to f16x2."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.floats import Floats
from loadsparse.gpu.simulator.engine.ir import splat, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering
from loadsparse.gpu.simulator.program import Instruction

FRACTION = {"e4m3": 3, "e5m2": 2}
BIAS = {"e4m3": 7, "e5m2": 15}
LARGEST = {"e4m3": 0x7E, "e5m2": 0x7B}


def to_eight_bits(x: Lowering, instruction: Instruction, kind: str, source: str) -> None:
    """Two f32 or one f16x2: the first number, or the upper half, becomes the upper byte."""
    code, operands = x.code, instruction.operands
    if source == "f32":
        numbers = [Floats(code, "f32", 32).widen(x.get(operand, "f32"))[0] for operand in (operands[2], operands[1])]
    else:
        pair = x.get(operands[1], "b32")
        halves = [pair, code.op("lshr", vec("i32"), pair, splat("i32", 16))]
        numbers = [Floats(code, "f16", 32).widen(x.resize(half, "i32", "i16"))[0] for half in halves]
    relu = "relu" in instruction.modifiers
    x.put_result(instruction, x.pack([_narrow(x, number, kind, relu) for number in numbers], 8))


def _narrow(x: Lowering, number: str, kind: str, relu: bool) -> str:
    """float -> i8, to nearest even; what is too large becomes the largest number, NaN 0x7F."""
    algebra, integer = Floats(x.code, "f32", 32), "i32"
    nan = algebra.compare("uno", "float", number, number)
    if relu:
        negative = algebra.compare("ole", "float", number, "zeroinitializer")
        number = algebra.select(negative, "float", "zeroinitializer", number)
    bits = algebra.cast("bitcast", number, "float", integer)
    sign = algebra.operate(
        "and", integer, algebra.operate("lshr", integer, bits, splat(integer, 24)), splat(integer, 0x80)
    )
    size = algebra.operate("and", integer, bits, splat(integer, 0x7FFFFFFF))
    drop = 23 - FRACTION[kind]
    least = 1 - BIAS[kind]
    # normal numbers: round the fraction away, then move the exponent's bias
    odd = algebra.operate(
        "and", integer, algebra.operate("lshr", integer, size, splat(integer, drop)), splat(integer, 1)
    )
    up = algebra.operate(
        "add", integer, algebra.operate("add", integer, size, odd), splat(integer, (1 << drop - 1) - 1)
    )
    moved = algebra.operate("lshr", integer, up, splat(integer, drop))
    normal = algebra.operate("sub", integer, moved, splat(integer, (127 - BIAS[kind]) << FRACTION[kind]))
    normal = algebra.intrinsic("umin", integer, normal, splat(integer, LARGEST[kind]))
    # subnormal ones are whole multiples of the least, which is their code: adding 2^23 such multiples rounds to one
    ulp = least - FRACTION[kind]
    shift = splat(integer, (ulp + 23 + 127) << 23)
    magic = algebra.cast("bitcast", shift, integer, "float")
    total = algebra.operate("fadd", "float", algebra.cast("bitcast", size, integer, "float"), magic)
    subnormal = algebra.operate("sub", integer, algebra.cast("bitcast", total, "float", integer), shift)
    small = algebra.compare("ult", integer, size, splat(integer, (least + 127) << 23))
    code = algebra.operate("or", integer, sign, algebra.select(small, integer, subnormal, normal))
    return x.code.cast("trunc", algebra.select(nan, integer, splat(integer, 0x7F), code), vec(integer), vec("i8"))


def from_eight_bits(x: Lowering, instruction: Instruction, kind: str) -> None:
    """e4m3x2 or e5m2x2 to f16x2, exactly; NaN becomes 0x7FFF."""
    pair, code = x.get(instruction.operands[1], "b16"), x.code
    halves = []
    for byte in (pair, code.op("lshr", vec("i16"), pair, splat("i16", 8))):
        half = _widen(x, byte, kind)
        if "relu" in instruction.modifiers:
            algebra = Floats(code, "f16", 32)
            negative = algebra.compare("ole", "float", algebra.widen(half)[0], "zeroinitializer")
            half = code.select(negative, "i16", splat("i16", 0), half)
        halves.append(half)
    x.put_result(instruction, x.pack(halves, 16))


def _widen(x: Lowering, byte: str, kind: str) -> str:
    """The low byte of i16 lanes -> bits of a half."""
    algebra = Floats(x.code, "f16", 32)
    if kind == "e5m2":
        number, element = algebra.widen(algebra.operate("shl", "i16", byte, splat("i16", 8)))
        return algebra.narrow(number, element)
    size = algebra.operate("and", "i16", byte, splat("i16", 0x7F))
    sign = algebra.operate("and", "i16", algebra.operate("shl", "i16", byte, splat("i16", 8)), splat("i16", 0x8000))
    small = algebra.operate("or", "i16", sign, algebra.operate("shl", "i16", size, splat("i16", 7)))
    number, element = algebra.widen(small)  # the number / 2^8, as the exponents' biases are 7 and 15
    bits = algebra.narrow(algebra.operate("fmul", element, number, "splat (float 256.0)"), element)
    nan = algebra.compare("eq", "i16", size, splat("i16", 0x7F))
    return algebra.select(nan, "i16", splat("i16", 0x7FFF), bits)
