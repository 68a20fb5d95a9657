"""cvt: every pair of integer and float types, with roundings and saturation."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import eight_bits
from loadsparse.gpu.simulator.engine.floats import EXPONENT, NAN, Floats
from loadsparse.gpu.simulator.engine.ir import splat, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers
from loadsparse.gpu.simulator.forms import EIGHT_BIT_PAIRS
from loadsparse.gpu.simulator.program import WIDTH, Instruction, Register

_INTEGRAL = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
_FLOATS = frozenset({"f16", "bf16", "f32", "f64"})


@lowers("cvt")
def convert(x: Lowering, instruction: Instruction) -> None:
    types = [m for m in instruction.modifiers if m in WIDTH]
    target, source = types[0], types[1]
    if target in EIGHT_BIT_PAIRS:
        return eight_bits.to_eight_bits(x, instruction, target.removesuffix("x2"), source)
    if source in EIGHT_BIT_PAIRS:
        return eight_bits.from_eight_bits(x, instruction, source.removesuffix("x2"))
    if target in ("f16x2", "bf16x2"):
        return _pack_pair(x, instruction, target)
    if target == "tf32":
        return _to_tf32(x, instruction)
    value = x.get(instruction.operands[1], source)
    if source in _FLOATS and target in _FLOATS:
        bits = _float_to_float(x, instruction, value, source, target)
    elif source in _FLOATS:
        bits = _float_to_integer(x, instruction, value, source, target)
    elif target in _FLOATS:
        bits = _integer_to_float(x, instruction, value, source, target)
    else:
        bits = _integer_to_integer(x, instruction, value, source, target)
    element = f"i{WIDTH[target]}"
    destination, holes = instruction.operands[0], x.spread(instruction)
    if isinstance(destination, Register) and WIDTH[destination.type] > WIDTH[target] and target.startswith("s"):
        wide = f"i{WIDTH[destination.type]}"
        bits = x.code.v(f"sext {vec(element)} {bits} to {vec(wide)}")
        holes = None if holes is None else x.code.v(f"sext {vec(element)} {holes} to {vec(wide)}")
        element = wide
    x.put_operand(destination, bits, element, x.defined_of(*instruction.operands[1:]), holes)
    return None


def _integer_to_integer(x: Lowering, instruction: Instruction, value: str, source: str, target: str) -> str:
    code = x.code
    a, b = WIDTH[source], WIDTH[target]
    if "sat" not in instruction.modifiers:
        if a == b:
            return value
        kind = "trunc" if a > b else ("sext" if source.startswith("s") else "zext")
        return code.v(f"{kind} {vec(f'i{a}')} {value} to {vec(f'i{b}')}")
    wide = vec("i128")
    kind = "sext" if source.startswith("s") else "zext"
    value = code.v(f"{kind} {vec(f'i{a}')} {value} to {wide}")
    low, high = (-(2 ** (b - 1)), 2 ** (b - 1) - 1) if target.startswith("s") else (0, 2**b - 1)
    value = code.intrinsic("llvm.smax.v32i128", wide, (wide, value), (wide, splat("i128", low)))
    value = code.intrinsic("llvm.smin.v32i128", wide, (wide, value), (wide, splat("i128", high)))
    return code.v(f"trunc {wide} {value} to {vec(f'i{b}')}")


def _integer_to_float(x: Lowering, instruction: Instruction, value: str, source: str, target: str) -> str:
    algebra = Floats(x.code, target, 32)
    kind = "sitofp" if source.startswith("s") else "uitofp"
    element = f"i{WIDTH[source]}"
    rounding = next((m for m in instruction.modifiers if m in ("rn", "rz", "rm", "rp")), "rn")
    if WIDTH[source] < 64 or (target == "f64" and rounding == "rn"):
        exact = algebra.cast(kind, value, element, "double")
    else:
        exact = _wide_to_double(algebra, value, source, rounding if target == "f64" else "odd")
    if rounding == "rn" or target == "f64":
        bits = algebra.narrow(exact, "double")
    elif target == "f32":
        bits = algebra.narrow(algebra.directed(exact, rounding), "float")
    else:
        bits = _directed_half(algebra, exact, "double", rounding)
    return _finish(algebra, instruction, bits)


def _wide_to_double(algebra: Floats, value: str, source: str, rounding: str) -> str:
    """64-bit integers as doubles, rounded toward zero, down, up, or to odd (which any narrower rounding takes as exact)."""
    code, v = algebra.code, vec("i64")
    negative, size = splat("i1", 0), value
    if source.startswith("s"):
        negative = algebra.compare("slt", "i64", value, splat("i64", 0))
        size = code.intrinsic("llvm.abs.v32i64", v, (v, value), ("i1", "false"))
    near = algebra.cast("uitofp", size, "i64", "double")
    whole = code.intrinsic("llvm.fptoui.sat.v32i64.v32f64", v, (vec("double"), near))
    beyond = algebra.compare("ugt", "i64", whole, size)
    top = algebra.compare("oeq", "double", near, "splat (double 0x43F0000000000000)")  # 2^64, which no integer reaches
    beyond = algebra.operate("or", "i1", beyond, top)
    bits = algebra.cast("bitcast", near, "double", "i64")
    bits = algebra.operate("sub", "i64", bits, code.v(f"zext {vec('i1')} {beyond} to {v}"))
    below = algebra.cast("bitcast", bits, "i64", "double")
    whole = code.intrinsic("llvm.fptoui.sat.v32i64.v32f64", v, (vec("double"), below))
    lost = algebra.compare("ne", "i64", whole, size)
    if rounding == "odd":
        bits = algebra.operate("or", "i64", bits, code.v(f"zext {vec('i1')} {lost} to {v}"))
    elif rounding != "rz":
        away = negative if rounding == "rm" else algebra.operate("xor", "i1", negative, splat("i1", 1))
        away = algebra.operate("and", "i1", away, lost)
        bits = algebra.operate("add", "i64", bits, code.v(f"zext {vec('i1')} {away} to {v}"))
    sign = code.op("shl", v, code.v(f"zext {vec('i1')} {negative} to {v}"), splat("i64", 63))
    return algebra.cast("bitcast", algebra.operate("or", "i64", bits, sign), "i64", "double")


def _finish(algebra: Floats, instruction: Instruction, bits: str) -> str:
    """.satfinite, .sat and .relu."""
    if "satfinite" in instruction.modifiers:
        bits = _made_finite(algebra, bits)
    if "sat" in instruction.modifiers:
        bits = _saturated(algebra, bits)
    return algebra.rectify(bits) if "relu" in instruction.modifiers else bits


def _made_finite(algebra: Floats, bits: str) -> str:
    """Infinities -> the largest numbers."""
    width = WIDTH[algebra.scalar]
    integer, infinity, sign = f"i{width}", EXPONENT[algebra.scalar], 1 << (width - 1)
    size = algebra.operate("and", integer, bits, splat(integer, sign - 1))
    infinite = algebra.compare("eq", integer, size, splat(integer, infinity))
    return algebra.select(infinite, integer, algebra.operate("sub", integer, bits, splat(integer, 1)), bits)


def _saturated(algebra: Floats, bits: str) -> str:
    integer = f"i{WIDTH[algebra.scalar]}"
    value, element = algebra.widen(bits)
    positive = algebra.compare("ogt", element, value, "zeroinitializer")
    one = {"f16": 0x3C00, "bf16": 0x3F80, "f32": 0x3F800000, "f64": 0x3FF0000000000000}[algebra.scalar]
    above = algebra.compare("oge", element, value, f"splat ({element} 1.0)")
    bits = algebra.select(positive, integer, bits, splat(integer, 0))
    return algebra.select(above, integer, splat(integer, one), bits)


def _float_to_integer(x: Lowering, instruction: Instruction, value: str, source: str, target: str) -> str:
    """Rounds to an integer, clamps; NaN gives 0, or 1 << (w - 1) from f64 and to 64 bits."""
    algebra = Floats(x.code, source, 32)
    if "ftz" in instruction.modifiers and source == "f32":
        value = algebra.flush(value)
    number, element = algebra.widen(value)
    rounding = next((m for m in instruction.modifiers if m in _INTEGRAL), "rzi")
    integral = algebra.intrinsic(_INTEGRAL[rounding], element, number)
    width = WIDTH[target]
    kind = "s" if target.startswith("s") else "u"
    vector, result = algebra.vector(element), algebra.vector(f"i{width}")
    suffix = {"float": "f32", "double": "f64"}[element]
    bits = x.code.intrinsic(f"llvm.fpto{kind}i.sat.v32i{width}.v32{suffix}", result, (vector, integral))
    if source == "f64" or width == 64:
        nan = algebra.compare("uno", element, number, number)
        bits = algebra.select(nan, f"i{width}", splat(f"i{width}", 1 << (width - 1)), bits)
    return bits


def _float_to_float(x: Lowering, instruction: Instruction, value: str, source: str, target: str) -> str:
    modifiers = instruction.modifiers
    origin = Floats(x.code, source, 32)
    result = Floats(x.code, target, 32)
    if "ftz" in modifiers and source == "f32":
        value = origin.flush(value)
    number, element = origin.widen(value)
    integral = next((m for m in modifiers if m in _INTEGRAL), None)
    if integral is not None:
        number = origin.intrinsic(_INTEGRAL[integral], element, number)
    rounding = next((m for m in modifiers if m in ("rn", "rz", "rm", "rp")), "rn")
    if target == "f64":
        if element == "float":
            number = origin.cast("fpext", number, "float", "double")
        bits = result.narrow(number, "double")
    elif rounding == "rn" or WIDTH[source] <= WIDTH[target]:
        bits = result.narrow(number, element)
    elif target == "f32":
        bits = result.narrow(result.directed(number, rounding), "float")
    else:
        bits = _directed_half(result, number, element, rounding)
    if "ftz" in modifiers and target == "f32":
        bits = result.flush(bits)
    return _finish(result, instruction, bits)


def _directed_half(algebra: Floats, number: str, element: str, rounding: str) -> str:
    """float -> f16 or bf16 toward zero, down or up: round to nearest, step back where that went too far."""
    if element == "double":
        number = algebra.to_odd(number)
    bits = algebra.narrow(number, "float")
    back, _ = algebra.widen(bits)
    above = algebra.compare("ogt", "float", back, number)
    below = algebra.compare("olt", "float", back, number)
    negative = algebra.compare("slt", "i16", bits, splat("i16", 0))
    none = splat("i1", 0)
    if rounding == "rz":
        down, up = algebra.select(negative, "i1", none, above), algebra.select(negative, "i1", below, none)
    else:
        down, up = (above, none) if rounding == "rm" else (none, below)
    one = splat("i16", 1)
    zero = algebra.compare("eq", "i16", algebra.operate("shl", "i16", bits, one), splat("i16", 0))
    less, more = algebra.operate("sub", "i16", bits, one), algebra.operate("add", "i16", bits, one)
    lower = algebra.select(zero, "i16", splat("i16", 0x8001), algebra.select(negative, "i16", more, less))
    upper = algebra.select(zero, "i16", one, algebra.select(negative, "i16", less, more))
    return algebra.select(down, "i16", lower, algebra.select(up, "i16", upper, bits))


def _pack_pair(x: Lowering, instruction: Instruction, target: str) -> None:
    """cvt.f16x2.f32 d, a, b: a becomes the upper half, b the lower."""
    algebra = Floats(x.code, target.removesuffix("x2"), 32)
    rounding = next((m for m in instruction.modifiers if m in ("rn", "rz")), "rn")
    halves = []
    for operand in reversed(instruction.operands[1:3]):
        number, element = Floats(x.code, "f32", 32).widen(x.get(operand, "f32"))
        bits = algebra.narrow(number, element) if rounding == "rn" else _directed_half(algebra, number, element, "rz")
        halves.append(_finish(algebra, instruction, bits))
    x.put_result(instruction, x.pack(halves, 16))


def _to_tf32(x: Lowering, instruction: Instruction) -> None:
    """cvt.tf32.f32: 10 fraction bits; .rna is nearest with ties away from zero."""
    code, vector = x.code, vec("i32")
    bits = x.get(instruction.operands[1], "f32")
    algebra = Floats(code, "f32", 32)
    number, element = algebra.widen(bits)
    half = splat("i32", 0x1000 if "rna" in instruction.modifiers else 0)
    if "rn" in instruction.modifiers:
        last = code.op("and", vector, code.op("lshr", vector, bits, splat("i32", 13)), splat("i32", 1))
        half = code.op("add", vector, splat("i32", 0xFFF), last)
    rounded = code.op("and", vector, code.op("add", vector, bits, half), splat("i32", 0xFFFFE000))
    finite = algebra.compare(
        "one", element, algebra.intrinsic("fabs", element, number), "splat (float 0x7FF0000000000000)"
    )
    rounded = code.select(finite, "i32", rounded, bits)
    nan = algebra.compare("uno", element, number, number)
    rounded = _finish(algebra, instruction, code.select(nan, "i32", splat("i32", NAN["f32"]), rounded))
    x.put_result(instruction, rounded)
