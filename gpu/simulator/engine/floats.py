"""Floating-point instructions.

f32 and f64 are native.  f16 and bf16 (and their packed pairs, as 64 lanes) are computed in f32 where one rounding from
f32 cannot differ from rounding the exact result (24 >= 2 * 11 + 2 bits), and their fma in f64 rounded to odd.  Directed
roundings of f32 go through f64 rounded to odd, too: rounding an odd value again, in any direction, is exact.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.ir import Code, splat
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers
from loadsparse.gpu.simulator.program import WIDTH, Instruction

FLOAT = {"f16": "half", "f32": "float", "f64": "double"}
NAN = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFFFFFF, "f64": 0x7FF8000000000000}
"""What an operation that yields NaN writes."""
EXPONENT = {"f16": 0x7C00, "bf16": 0x7F80, "f32": 0x7F800000, "f64": 0x7FF0000000000000}
ROUNDINGS = frozenset({"rn", "rz", "rm", "rp"})


class Floats:
    """Vector float algebra over `count` lanes of one scalar type."""

    def __init__(self, code: Code, scalar: str, count: int) -> None:
        self.code, self.scalar, self.count = code, scalar, count

    def vector(self, element: str) -> str:
        return f"<{self.count} x {element}>"

    def cast(self, kind: str, value: str, source: str, target: str) -> str:
        return self.code.v(f"{kind} {self.vector(source)} {value} to {self.vector(target)}")

    def select(self, flags: str, element: str, yes: str, no: str) -> str:
        vector = self.vector(element)
        return self.code.v(f"select {self.vector('i1')} {flags}, {vector} {yes}, {vector} {no}")

    def compare(self, how: str, element: str, a: str, b: str) -> str:
        kind = "icmp" if element[0] == "i" else "fcmp"
        return self.code.v(f"{kind} {how} {self.vector(element)} {a}, {b}")

    def operate(self, name: str, element: str, *operands: str) -> str:
        return self.code.op(name, self.vector(element), *operands)

    def intrinsic(self, name: str, element: str, *operands: str) -> str:
        vector = self.vector(element)
        suffix = {"float": "f32", "double": "f64", "half": "f16"}.get(element, element)
        return self.code.intrinsic(f"llvm.{name}.v{self.count}{suffix}", vector, *((vector, v) for v in operands))

    def widen(self, bits: str) -> tuple[str, str]:
        """Bit patterns of the scalar type -> (values, float element) in which it is computed."""
        match self.scalar:
            case "f32" | "f64":
                element = FLOAT[self.scalar]
                return self.cast("bitcast", bits, f"i{WIDTH[self.scalar]}", element), element
            case "f16":
                half = self.cast("bitcast", bits, "i16", "half")
                return self.cast("fpext", half, "half", "float"), "float"
            case _:
                wide = self.operate("shl", "i32", self.cast("zext", bits, "i16", "i32"), splat("i32", 16))
                return self.cast("bitcast", wide, "i32", "float"), "float"

    def narrow(self, value: str, element: str) -> str:
        """(values) -> bit patterns of the scalar type, rounded to nearest even; NaN becomes the canonical one."""
        width = WIDTH[self.scalar]
        if self.scalar in ("f32", "f64"):
            if element == "double" and self.scalar == "f32":
                value = self.cast("fptrunc", value, "double", "float")
            bits = self.cast("bitcast", value, FLOAT[self.scalar], f"i{width}")
            nan = self.compare("uno", FLOAT[self.scalar], value, value)
        else:
            if element == "double":
                value = self.to_odd(value)
            nan = self.compare("uno", "float", value, value)
            if self.scalar == "f16":
                half = self.cast("fptrunc", value, "float", "half")
                bits = self.cast("bitcast", half, "half", "i16")
            else:
                wide = self.cast("bitcast", value, "float", "i32")
                even = self.operate("and", "i32", self.operate("lshr", "i32", wide, splat("i32", 16)), splat("i32", 1))
                wide = self.operate("add", "i32", self.operate("add", "i32", wide, even), splat("i32", 0x7FFF))
                wide = self.operate("lshr", "i32", wide, splat("i32", 16))
                bits = self.cast("trunc", wide, "i32", "i16")
        return self.select(nan, f"i{width}", splat(f"i{width}", NAN[self.scalar]), bits)

    def to_odd(self, value: str) -> str:
        """double -> float rounded to odd: truncate, then set the last bit if anything was lost."""
        truncated = self.directed(value, "rz")
        back = self.cast("fpext", truncated, "float", "double")
        lost = self.cast("zext", self.compare("one", "double", back, value), "i1", "i32")
        bits = self.operate("or", "i32", self.cast("bitcast", truncated, "float", "i32"), lost)
        return self.cast("bitcast", bits, "i32", "float")

    def directed(self, value: str, rounding: str) -> str:
        """double -> float rounded toward zero (rz), down (rm) or up (rp)."""
        near = self.cast("fptrunc", value, "double", "float")
        back = self.cast("fpext", near, "float", "double")
        bits = self.cast("bitcast", near, "float", "i32")
        above = self.compare("ogt", "double", back, value)
        below = self.compare("olt", "double", back, value)
        negative = self.compare("slt", "i32", bits, splat("i32", 0))
        none = splat("i1", 0)
        if rounding == "rz":
            down, up = self.select(negative, "i1", none, above), self.select(negative, "i1", below, none)
        else:
            down, up = (above, none) if rounding == "rm" else (none, below)
        one = splat("i32", 1)
        zero = self.compare("eq", "i32", self.operate("shl", "i32", bits, one), splat("i32", 0))
        toward_zero = self.operate("sub", "i32", bits, one)
        away = self.operate("add", "i32", bits, one)
        lower = self.select(zero, "i32", splat("i32", 0x80000001), self.select(negative, "i32", away, toward_zero))
        upper = self.select(zero, "i32", one, self.select(negative, "i32", toward_zero, away))
        bits = self.select(down, "i32", lower, self.select(up, "i32", upper, bits))
        return self.cast("bitcast", bits, "i32", "float")

    def odd_sum(self, a: str, b: str) -> str:
        """a + b in double, rounded to odd (2Sum gives the error exactly)."""
        total = self.operate("fadd", "double", a, b)
        virtual = self.operate("fsub", "double", total, a)
        rest = self.operate("fsub", "double", total, virtual)
        error = self.operate(
            "fadd", "double", self.operate("fsub", "double", a, rest), self.operate("fsub", "double", b, virtual)
        )
        return self.odd(total, error, "splat (double 1.0)")

    def flush(self, bits: str) -> str:
        """Subnormals -> zero of the same sign."""
        integer = f"i{WIDTH[self.scalar]}"
        magnitude = self.operate("and", integer, bits, splat(integer, EXPONENT[self.scalar]))
        tiny = self.compare("eq", integer, magnitude, splat(integer, 0))
        sign = self.operate("and", integer, bits, splat(integer, 1 << (WIDTH[self.scalar] - 1)))
        return self.select(tiny, integer, sign, bits)

    def rectify(self, bits: str) -> str:
        """Negative numbers and -0 -> +0; NaN stays."""
        integer = f"i{WIDTH[self.scalar]}"
        value, element = self.widen(bits)
        negative = self.compare("ole", element, value, "zeroinitializer")
        return self.select(negative, integer, splat(integer, 0), bits)

    def odd(self, value: str, rest: str, grows: str) -> str:
        """A double that is not exact -> rounded to odd, where `rest` has the sign of the exact value minus it, times that
        of `grows`."""
        bits = self.cast("bitcast", value, "double", "i64")
        signs = [self.cast("bitcast", v, "double", "i64") for v in (rest, grows)]
        opposite = self.operate("xor", "i64", bits, self.operate("xor", "i64", *signs))
        inward = self.compare("slt", "i64", opposite, splat("i64", 0))
        step = self.select(inward, "i64", splat("i64", -1), splat("i64", 1))
        even = self.compare("eq", "i64", self.operate("and", "i64", bits, splat("i64", 1)), splat("i64", 0))
        fix = self.operate("and", "i1", even, self.compare("one", "double", rest, "zeroinitializer"))
        step = self.select(fix, "i64", step, splat("i64", 0))
        return self.cast("bitcast", self.operate("add", "i64", bits, step), "i64", "double")


class FloatOperation:
    """Operands of one float instruction as float vectors; packed pairs become 64 lanes."""

    def __init__(self, x: Lowering, instruction: Instruction) -> None:
        self.x, self.instruction = x, instruction
        self.type = instruction.modifiers[-1]
        self.modifiers = frozenset(instruction.modifiers)
        self.packed = self.type.endswith("x2")
        self.scalar = self.type.removesuffix("x2")
        self.floats = Floats(x.code, self.scalar, 64 if self.packed else 32)
        self.rounding = next((m for m in instruction.modifiers if m in ROUNDINGS), "rn")
        self.ftz = "ftz" in self.modifiers

    def bits(self, operand_index: int) -> str:
        """Bit patterns of a source (flushed if .ftz)."""
        value = self.x.get(self.instruction.operands[operand_index], self.type)
        if self.packed:
            value = self.x.code.v(f"bitcast <32 x i32> {value} to <64 x i16>")
        return self.floats.flush(value) if self.ftz else value

    def source(self, operand_index: int) -> str:
        return self.floats.widen(self.bits(operand_index))[0]

    @property
    def element(self) -> str:
        return "double" if self.scalar == "f64" else "float"

    def finish(self, value: str, element: str | None = None) -> None:
        """Rounds, applies .sat, .relu and .ftz, and writes the destination."""
        floats = self.floats
        element = element or self.element
        if element == "double" and self.scalar == "f32" and self.rounding != "rn":
            value, element = floats.directed(value, self.rounding), "float"
        self.finish_bits(floats.narrow(value, element))

    def finish_bits(self, bits: str) -> None:
        floats, width = self.floats, WIDTH[self.scalar]
        integer = f"i{width}"
        if self.ftz:
            bits = floats.flush(bits)
        if "sat" in self.modifiers or "relu" in self.modifiers:
            value, element = floats.widen(bits)
            nan = floats.compare("uno", element, value, value)
            bits = floats.rectify(bits)
            if "sat" in self.modifiers:
                one = {"f16": 0x3C00, "bf16": 0x3F80, "f32": 0x3F800000, "f64": 0x3FF0000000000000}[self.scalar]
                above = floats.compare("oge", element, value, f"splat ({element} 1.0)")
                bits = floats.select(above, integer, splat(integer, one), bits)
                bits = floats.select(nan, integer, splat(integer, 0), bits)
        if self.packed:
            bits = self.x.code.v(f"bitcast <64 x i16> {bits} to <32 x i32>")
        self.x.put_result(self.instruction, bits)


def is_float(instruction: Instruction) -> bool:
    return instruction.modifiers[-1].startswith(("f", "bf"))


def float_sum(x: Lowering, instruction: Instruction) -> None:
    """add, sub, mul."""
    operation = FloatOperation(x, instruction)
    a, b = operation.source(1), operation.source(2)
    floats, element = operation.floats, operation.element
    if operation.rounding == "rn":
        return operation.finish(floats.operate(f"f{instruction.name}", element, a, b))
    a, b = (floats.cast("fpext", v, "float", "double") for v in (a, b))
    if instruction.name == "mul":
        return operation.finish(floats.operate("fmul", "double", a, b), "double")
    if instruction.name == "sub":
        b = floats.code.v(f"fneg {floats.vector('double')} {b}")
    total = floats.odd_sum(a, b)
    return operation.finish(_signed_zero(floats, total, a, b, operation.rounding), "double")


def _signed_zero(floats: Floats, total: str, a: str, b: str, rounding: str) -> str:
    """An exact zero sum of opposite terms is -0 when rounding down."""
    if rounding != "rm":
        return total
    zero = floats.compare("oeq", "double", total, "zeroinitializer")
    a_bits, b_bits = (floats.cast("bitcast", v, "double", "i64") for v in (a, b))
    mixed = floats.compare("slt", "i64", floats.operate("or", "i64", a_bits, b_bits), splat("i64", 0))
    fix = floats.operate("and", "i1", zero, mixed)
    return floats.select(fix, "double", "splat (double -0.0)", total)


@lowers("fma")
def fused(x: Lowering, instruction: Instruction) -> None:
    operation = FloatOperation(x, instruction)
    floats, scalar = operation.floats, operation.scalar
    a, b, c = (operation.source(i) for i in (1, 2, 3))
    if scalar in ("f32", "f64") and operation.rounding == "rn":
        return operation.finish(floats.intrinsic("fma", operation.element, a, b, c))
    a, b, c = (floats.cast("fpext", v, "float", "double") for v in (a, b, c))
    product = floats.operate("fmul", "double", a, b)
    total = _signed_zero(floats, floats.odd_sum(product, c), product, c, operation.rounding)
    return operation.finish(total, "double")


@lowers("rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh")
def approximate(x: Lowering, instruction: Instruction) -> None:
    """One-operand functions: .rn forms are IEEE; approximations are the double result rounded once."""
    operation = FloatOperation(x, instruction)
    floats, name = operation.floats, instruction.name
    a = operation.source(1)
    if name == "rcp":
        return _quotient(operation, f"splat ({operation.element} 1.0)", a)
    if name == "sqrt":
        return _root(operation, a)
    wide = a if operation.element == "double" else floats.cast("fpext", a, "float", "double")
    if name == "rsqrt":
        result = floats.operate("fdiv", "double", "splat (double 1.0)", floats.intrinsic("sqrt", "double", wide))
    else:
        function = {"ex2": "exp2", "lg2": "log2"}.get(name, name)
        result = floats.intrinsic(function, "double", wide)
    return operation.finish(result, "double")


def float_divide(x: Lowering, instruction: Instruction) -> None:
    operation = FloatOperation(x, instruction)
    _quotient(operation, operation.source(1), operation.source(2))


def _quotient(operation: FloatOperation, a: str, b: str) -> None:
    """a / b; directed roundings of f32 by the exact remainder of the quotient in double."""
    floats = operation.floats
    if operation.rounding == "rn":
        return operation.finish(floats.operate("fdiv", operation.element, a, b))
    a, b = (floats.cast("fpext", v, "float", "double") for v in (a, b))
    quotient = floats.operate("fdiv", "double", a, b)
    minus = floats.code.v(f"fneg {floats.vector('double')} {quotient}")
    return operation.finish(floats.odd(quotient, floats.intrinsic("fma", "double", minus, b, a), b), "double")


def _root(operation: FloatOperation, a: str) -> None:
    floats = operation.floats
    if operation.rounding == "rn":
        return operation.finish(floats.intrinsic("sqrt", operation.element, a))
    a = floats.cast("fpext", a, "float", "double")
    root = floats.intrinsic("sqrt", "double", a)
    minus = floats.code.v(f"fneg {floats.vector('double')} {root}")
    return operation.finish(
        floats.odd(root, floats.intrinsic("fma", "double", minus, root, a), "splat (double 1.0)"), "double"
    )


def float_sign(x: Lowering, instruction: Instruction) -> None:
    """abs and neg change the sign bit only."""
    operation = FloatOperation(x, instruction)
    width = WIDTH[operation.scalar]
    integer, top = f"i{width}", 1 << (width - 1)
    bits = operation.bits(1)
    if instruction.name == "abs":
        bits = operation.floats.operate("and", integer, bits, splat(integer, top - 1))
    else:
        bits = operation.floats.operate("xor", integer, bits, splat(integer, top))
    operation.finish_bits(bits)


def float_extreme(x: Lowering, instruction: Instruction) -> None:
    """min, max of two or three: the other operand beside a NaN (.NaN: NaN); -0 < +0."""
    operation = FloatOperation(x, instruction)
    floats = operation.floats
    propagate = "NaN" in operation.modifiers
    name = ("minimum" if propagate else "minimumnum") if instruction.name == "min" else (
        "maximum" if propagate else "maximumnum"
    )  # fmt: skip
    integer, top = f"i{WIDTH[operation.scalar]}", 1 << (WIDTH[operation.scalar] - 1)
    result, *others = (operation.bits(index) for index in range(1, len(instruction.operands)))
    for other in others:
        sign = ""
        if {"xorsign", "abs"} <= operation.modifiers:
            sign = floats.operate("and", integer, floats.operate("xor", integer, result, other), splat(integer, top))
        if "abs" in operation.modifiers:
            result, other = (floats.operate("and", integer, bits, splat(integer, top - 1)) for bits in (result, other))
        (a, element), (b, _) = floats.widen(result), floats.widen(other)
        result = floats.narrow(floats.intrinsic(name, element, a, b), element)
        if sign:
            signed = floats.operate("or", integer, result, sign)
            result = floats.select(floats.compare("ord", element, a, b), integer, signed, result)
    operation.finish_bits(result)


@lowers("copysign")
def copy_sign(x: Lowering, instruction: Instruction) -> None:
    """d = b with the sign of a."""
    operation = FloatOperation(x, instruction)
    width = WIDTH[operation.scalar]
    integer, top = f"i{width}", 1 << (width - 1)
    a, b = operation.bits(1), operation.bits(2)
    sign = operation.floats.operate("and", integer, a, splat(integer, top))
    rest = operation.floats.operate("and", integer, b, splat(integer, top - 1))
    operation.finish_bits(operation.floats.operate("or", integer, sign, rest))


@lowers("testp")
def test_property(x: Lowering, instruction: Instruction) -> None:
    operation = FloatOperation(x, instruction)
    floats, code = operation.floats, x.code
    width = WIDTH[operation.scalar]
    integer = f"i{width}"
    value = operation.source(1)
    magnitude = floats.operate("and", integer, operation.bits(1), splat(integer, (1 << (width - 1)) - 1))
    fraction = {"f32": 23, "f64": 52}[operation.scalar]
    infinity = ((1 << (width - 1 - fraction)) - 1) << fraction
    kind = instruction.modifiers[0]
    element = operation.element
    match kind:
        case "finite":
            flag = floats.compare("ult", integer, magnitude, splat(integer, infinity))
        case "infinite":
            flag = floats.compare("eq", integer, magnitude, splat(integer, infinity))
        case "number":
            flag = floats.compare("ord", element, value, value)
        case "notanumber":
            flag = floats.compare("uno", element, value, value)
        case "normal":
            above = floats.compare("uge", integer, magnitude, splat(integer, 1 << fraction))
            flag = code.op(
                "and", "<32 x i1>", above, floats.compare("ult", integer, magnitude, splat(integer, infinity))
            )
        case _:
            below = floats.compare("ult", integer, magnitude, splat(integer, 1 << fraction))
            flag = code.op("and", "<32 x i1>", below, floats.compare("ne", integer, magnitude, splat(integer, 0)))
    x.put_result(instruction, flag)
