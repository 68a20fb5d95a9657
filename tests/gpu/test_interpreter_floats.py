"""Floating-point opcodes against exact fractions, rounded by an independent routine."""

import math
import random
import struct
from fractions import Fraction

import pytest
from ptx_text import apply

# name: (width, precision with the hidden bit, greatest exponent)
FORMATS = {"f16": (16, 11, 15), "bf16": (16, 8, 127), "f32": (32, 24, 127), "f64": (64, 53, 1023)}
NAN = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFFFFFF, "f64": 0x7FF8000000000000}


def decode(bits, kind):
    """(class, value): "nan", "inf" with a sign, or "number" with (Fraction, is negative)."""
    width, precision, greatest = FORMATS[kind]
    fraction_bits = precision - 1
    negative = bits >> (width - 1) & 1
    exponent = bits >> fraction_bits & (2 * greatest + 1)
    fraction = bits & (1 << fraction_bits) - 1
    if exponent == 2 * greatest + 1:
        return ("nan", None, negative) if fraction else ("inf", None, negative)
    significand = fraction | (1 << fraction_bits if exponent else 0)
    value = Fraction(significand) * Fraction(2) ** (max(exponent, 1) - greatest - fraction_bits)
    return "number", -value if negative else value, negative


def encode(value, kind, mode="rn", zero_negative=False):
    """Bits of a fraction rounded to a format."""
    width, precision, greatest = FORMATS[kind]
    if value == 0:
        return int(zero_negative) << (width - 1)
    sign, size = value < 0, abs(value)
    quantum = Fraction(2) ** (max(1 - greatest, _exponent(size)) - (precision - 1))
    units = size / quantum
    low = units.numerator // units.denominator
    rest = units - low
    if mode == "rn":
        up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1)
    elif mode == "rna":
        up = rest >= Fraction(1, 2)
    else:
        up = rest > 0 and ((mode == "rp" and not sign) or (mode == "rm" and sign))
    size = (low + up) * quantum
    largest = (2 - Fraction(2) ** (1 - precision)) * Fraction(2) ** greatest
    if size > largest:
        stays = mode == "rz" or (mode == "rm" and not sign) or (mode == "rp" and sign)
        bits = _pack(largest, kind) if stays else (2 * greatest + 1) << (precision - 1)
    else:
        bits = _pack(size, kind)
    return bits | int(sign) << (width - 1)


def _exponent(size):
    """Largest e with 2**e <= size."""
    guess = size.numerator.bit_length() - size.denominator.bit_length()
    return guess if Fraction(2) ** guess <= size else guess - 1


def _pack(size, kind):
    _, precision, greatest = FORMATS[kind]
    if size == 0:
        return 0
    least = Fraction(2) ** (1 - greatest)
    if size < least:
        return int(size / (least / 2 ** (precision - 1)))
    exponent = _exponent(size)
    size = size / Fraction(2) ** exponent
    return (exponent + greatest) << (precision - 1) | int((size - 1) * 2 ** (precision - 1))


def flush(bits, kind):
    cls, value, negative = decode(bits, kind)
    width, _, greatest = FORMATS[kind]
    if cls == "number" and abs(value) < Fraction(2) ** (1 - greatest):
        return int(negative) << (width - 1)
    return bits


def multiply_add(a, b, c, kind, mode="rn"):
    """a * b + c with one rounding, IEEE special cases included."""
    (ca, va, na), (cb, vb, nb), (cc, vc, nc) = (decode(x, kind) for x in (a, b, c))
    if "nan" in (ca, cb, cc):
        return NAN[kind]
    width, precision, greatest = FORMATS[kind]
    infinity = (2 * greatest + 1) << (precision - 1)
    product_negative = na != nb
    if "inf" in (ca, cb):
        if (ca == "number" and va == 0) or (cb == "number" and vb == 0):
            return NAN[kind]
        if cc == "inf" and nc != product_negative:
            return NAN[kind]
        return infinity | product_negative << (width - 1)
    if cc == "inf":
        return infinity | nc << (width - 1)
    total = va * vb + vc
    zero = bool(nc) if product_negative == bool(nc) else mode == "rm"
    return encode(total, kind, mode, zero)


def one(kind):
    return encode(Fraction(1), kind)


def negate(bits, kind):
    return bits ^ 1 << (FORMATS[kind][0] - 1)


def samples(kind, columns, count=96, seed=3, same_scale=False):
    """Random bit patterns with edge cases and, half of the time, exponents close together."""
    rng = random.Random(seed)
    width, precision, greatest = FORMATS[kind]
    infinity = (2 * greatest + 1) << (precision - 1)
    edges = [0, 1, 3, infinity, infinity - 1, infinity + 1, 1 << (precision - 1), one(kind), one(kind) + 1]
    edges += [x | 1 << (width - 1) for x in edges]

    def draw():
        choice = rng.random()
        if choice < 0.25:
            return rng.choice(edges)
        if choice < 0.6 or same_scale:
            near = greatest + rng.randrange(-precision, precision)
            near = min(max(near, 0), 2 * greatest)
            return rng.getrandbits(1) << (width - 1) | near << (precision - 1) | rng.getrandbits(precision - 1)
        return rng.getrandbits(width)

    return [[draw() for _ in range(columns)] for _ in range(count)]


def compare(text, inputs, kinds, out_kind, oracle, out_width=None):
    widths = [FORMATS[k][0] if k in FORMATS else k for k in kinds]
    expected = [oracle(*row) for row in inputs]
    got = apply(text, inputs, widths, out_width or FORMATS[out_kind][0])
    wrong = [([hex(x) for x in row], hex(g), hex(e)) for row, g, e in zip(inputs, got, expected, strict=True) if g != e]
    assert not wrong, (text, wrong[:3])


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_sums_products_and_fma_round_once(kind, mode):
    pairs, triples = samples(kind, 2), samples(kind, 3)
    compare(f"add.{mode}.{kind} {{d}}, {{a}}, {{b}};", pairs, [kind] * 2, kind,
            lambda a, b: multiply_add(a, one(kind), b, kind, mode))  # fmt: skip
    compare(f"sub.{mode}.{kind} {{d}}, {{a}}, {{b}};", pairs, [kind] * 2, kind,
            lambda a, b: multiply_add(a, one(kind), negate(b, kind), kind, mode))  # fmt: skip

    def product(a, b):
        zero = negate(0, kind) if (a ^ b) >> (FORMATS[kind][0] - 1) else 0
        return multiply_add(a, b, zero, kind, mode)

    compare(f"mul.{mode}.{kind} {{d}}, {{a}}, {{b}};", pairs, [kind] * 2, kind, product)
    compare(f"fma.{mode}.{kind} {{d}}, {{a}}, {{b}}, {{c}};", triples, [kind] * 3, kind,
            lambda a, b, c: multiply_add(a, b, c, kind, mode))  # fmt: skip


def test_cancelling_fma_is_exact():
    inputs = []
    rng = random.Random(5)
    for _ in range(96):
        a, b = (encode(Fraction(rng.getrandbits(24) | 1 << 23, 1 << 23), "f32") for _ in range(2))
        product = decode(a, "f32")[1] * decode(b, "f32")[1]
        inputs.append([a, b, negate(encode(product, "f32"), "f32")])
    compare("fma.rn.f32 {d}, {a}, {b}, {c};", inputs, ["f32"] * 3, "f32",
            lambda a, b, c: multiply_add(a, b, c, "f32"))  # fmt: skip


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_half_precision(kind):
    compare(f"fma.rn.{kind} {{d}}, {{a}}, {{b}}, {{c}};", samples(kind, 3, 320), [kind] * 3, kind,
            lambda a, b, c: multiply_add(a, b, c, kind))  # fmt: skip
    compare(f"add.rn.{kind} {{d}}, {{a}}, {{b}};", samples(kind, 2, 320), [kind] * 2, kind,
            lambda a, b: multiply_add(a, one(kind), b, kind))  # fmt: skip

    def packed(a, b, c):
        low, high = (multiply_add(a >> s & 65535, b >> s & 65535, c >> s & 65535, kind) for s in (0, 16))
        return low | high << 16

    pairs = [[low | high << 16 for low, high in zip(x, y, strict=True)]
             for x, y in zip(samples(kind, 3, seed=8), samples(kind, 3, seed=9), strict=True)]  # fmt: skip
    compare(f"fma.rn.{kind}x2 {{d}}, {{a}}, {{b}}, {{c}};", pairs, [32] * 3, None, packed, 32)


def test_flush_to_zero_and_saturation():
    def ftz(a, b):
        return flush(multiply_add(flush(a, "f32"), one("f32"), flush(b, "f32"), "f32"), "f32")

    compare("add.ftz.f32 {d}, {a}, {b};", samples("f32", 2), ["f32"] * 2, "f32", ftz)

    def sat(a, b):
        cls, value, negative = decode(multiply_add(a, b, 0, "f32"), "f32")
        if cls == "nan" or negative or value == 0:
            return 0
        return one("f32") if cls == "inf" or value > 1 else encode(value, "f32")

    compare("mul.sat.f32 {d}, {a}, {b};", samples("f32", 2), ["f32"] * 2, "f32", sat)


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_division_and_square_root_are_correctly_rounded(kind, mode):
    width, precision, greatest = FORMATS[kind]
    infinity = (2 * greatest + 1) << (precision - 1)

    def divide(a, b):
        (ca, va, na), (cb, vb, nb) = decode(a, kind), decode(b, kind)
        sign = int(na != nb) << (width - 1)
        if "nan" in (ca, cb) or (ca == cb == "inf") or (ca == cb == "number" and va == vb == 0):
            return NAN[kind]
        if ca == "inf" or (cb == "number" and vb == 0):
            return infinity | sign
        if cb == "inf":
            return sign
        return encode(va / vb, kind, mode, na != nb)

    def root(a):
        cls, value, negative = decode(a, kind)
        if cls == "number" and value == 0:
            return a
        if cls == "nan" or negative:
            return NAN[kind]
        if cls == "inf":
            return a
        scale = 4 ** (precision + greatest)
        near = math.isqrt(value.numerator * scale * scale // value.denominator)
        exact = near * near == value * scale * scale
        return encode(Fraction(2 * near + (not exact), 2 * scale), kind, mode)

    compare(f"div.{mode}.{kind} {{d}}, {{a}}, {{b}};", samples(kind, 2), [kind] * 2, kind, divide)
    compare(f"rcp.{mode}.{kind} {{d}}, {{a}};", samples(kind, 1), [kind], kind, lambda a: divide(one(kind), a))
    compare(f"sqrt.{mode}.{kind} {{d}}, {{a}};", samples(kind, 1), [kind], kind, root)


NARROWING = [("f32", "f16"), ("f32", "bf16"), ("f64", "f16"), ("f64", "f32")]
WIDENING = [("f16", "f32"), ("f16", "f64"), ("bf16", "f32"), ("f32", "f64")]


@pytest.mark.parametrize(
    ("source", "target", "mode"),
    [(*pair, mode) for pair in NARROWING for mode in ("rn", "rz", "rm", "rp")] + [(*pair, "") for pair in WIDENING],
)
def test_float_conversions(source, target, mode):
    suffix = f".{mode}" if mode else ""

    def convert(a):
        cls, value, negative = decode(a, source)
        width, precision, greatest = FORMATS[target]
        if cls == "nan":
            return NAN[target]
        if cls == "inf":
            return (2 * greatest + 1) << (precision - 1) | negative << (width - 1)
        return encode(value, target, mode or "rn", bool(negative))

    compare(f"cvt{suffix}.{target}.{source} {{d}}, {{a}};", samples(source, 1, 192), [source], target, convert)


@pytest.mark.parametrize("source", ["f16", "f32", "f64"])
@pytest.mark.parametrize("target", ["s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"])
def test_float_to_integer_clamps(source, target):
    rounders = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}
    width = int(target[1:])
    low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if target[0] == "s" else (0, 2**width - 1)
    for mode, rounder in rounders.items():

        def convert(a, rounder=rounder):
            cls, value, negative = decode(a, source)
            if cls == "nan":
                result = 1 << (width - 1) if source == "f64" or width == 64 else 0
                if target[0] == "s" and result:
                    result -= 1 << width
            elif cls == "inf":
                result = low if negative else high
            else:
                result = min(max(rounder(value), low), high)
            return result & (1 << max(16, width)) - 1

        text = f"cvt.{mode}.{target}.{source} {{d}}, {{a}};"
        compare(text, samples(source, 1), [source], None, convert, max(16, width))


@pytest.mark.parametrize("source", ["s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("target", ["f16", "f32", "f64"])
@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_integer_to_float(source, target, mode):
    rng = random.Random(2)
    width = int(source[1:])
    storage = max(16, width)
    inputs = [[rng.getrandbits(storage) >> rng.randrange(storage)] for _ in range(96)]
    inputs[:4] = [[0], [1], [(1 << storage) - 1], [1 << (storage - 1)]]

    def convert(a):
        a &= (1 << width) - 1
        if source[0] == "s" and a >> (width - 1):
            a -= 1 << width
        return encode(Fraction(a), target, mode)

    compare(f"cvt.{mode}.{target}.{source} {{d}}, {{a}};", inputs, [storage], target, convert)


def test_rounding_to_integral_floats_keeps_the_sign_of_zero():
    for mode, rounder in {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}.items():

        def convert(a, rounder=rounder):
            cls, value, negative = decode(a, "f32")
            if cls == "nan":
                return NAN["f32"]
            return a if cls == "inf" else encode(Fraction(rounder(value)), "f32", "rn", bool(negative))

        compare(f"cvt.{mode}.f32.f32 {{d}}, {{a}};", samples("f32", 1), ["f32"], "f32", convert)


def test_packed_conversion_puts_the_first_operand_in_the_upper_half():
    for half in ("f16", "bf16"):

        def narrow(a, half=half):
            cls, value, negative = decode(a, "f32")
            _, precision, greatest = FORMATS[half]
            if cls == "nan":
                return NAN[half]
            if cls == "inf":
                return (2 * greatest + 1) << (precision - 1) | negative << 15
            return encode(value, half, "rn", bool(negative))

        compare(f"cvt.rn.{half}x2.f32 {{d}}, {{a}}, {{b}};", samples("f32", 2), ["f32"] * 2, None,
                lambda a, b: narrow(a) << 16 | narrow(b), 32)  # fmt: skip


def test_tf32_rounds_ties_away():
    def convert(a):
        cls, _, negative = decode(a, "f32")
        if cls == "nan":
            return NAN["f32"]
        if cls == "inf":
            return a
        bits = (a & 0x7FFFFFFF) + 0x1000 & ~0x1FFF
        return min(bits, 0x7F800000) | negative << 31

    compare("cvt.rna.tf32.f32 {d}, {a};", samples("f32", 1, 192), ["f32"], None, convert, 32)


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32", "f64"])
def test_minimum_and_maximum(kind):
    def order(a):
        return (decode(a, kind)[1], not decode(a, kind)[2]) if decode(a, kind)[0] == "number" else None

    def key(a):
        cls, value, negative = decode(a, kind)
        if cls == "inf":
            return (-math.inf if negative else math.inf, 0)
        return (value, not negative)

    def pick(which, propagate):
        def oracle(a, b):
            nans = [decode(x, kind)[0] == "nan" for x in (a, b)]
            if all(nans) or (propagate and any(nans)):
                return NAN[kind]
            if any(nans):
                return a if nans[1] else b
            return which(a, b, key=key)

        return oracle

    assert order(one(kind)) is not None
    inputs = samples(kind, 2, 192)
    for name, which in (("min", min), ("max", max)):
        compare(f"{name}.{kind} {{d}}, {{a}}, {{b}};", inputs, [kind] * 2, kind, pick(which, False))
        if kind != "f64":
            compare(f"{name}.NaN.{kind} {{d}}, {{a}}, {{b}};", inputs, [kind] * 2, kind, pick(which, True))


@pytest.mark.parametrize("kind", ["f16", "f32", "f64"])
def test_comparisons_with_nan(kind):
    relations = {"eq": (lambda a, b: a == b), "ne": (lambda a, b: a != b), "lt": (lambda a, b: a < b),
                 "le": (lambda a, b: a <= b), "gt": (lambda a, b: a > b), "ge": (lambda a, b: a >= b)}  # fmt: skip

    def number(a):
        cls, value, negative = decode(a, kind)
        return (-math.inf if negative else math.inf) if cls == "inf" else value

    inputs = samples(kind, 2, 192)
    inputs += [[row[0], row[0]] for row in inputs[:32]]
    for name, relation in relations.items():
        for suffix, unordered in (("", False), ("u", True)):

            def oracle(a, b, relation=relation, unordered=unordered):
                if "nan" in (decode(a, kind)[0], decode(b, kind)[0]):
                    return int(unordered)
                return int(relation(number(a), number(b)))

            compare(f"setp.{name}{suffix}.{kind} {{d}}, {{a}}, {{b}};", inputs, [kind] * 2, None, oracle, 1)
    compare(f"setp.nan.{kind} {{d}}, {{a}}, {{b}};", inputs, [kind] * 2, None,
            lambda a, b: int("nan" in (decode(a, kind)[0], decode(b, kind)[0])), 1)  # fmt: skip


APPROXIMATIONS = {
    # name: (function, inputs, bound on the relative error, or on the absolute error where given)
    "rcp.approx.f32": (lambda x: 1 / x, (1e-30, 1e30), 2**-23, 0),
    "sqrt.approx.f32": (math.sqrt, (1e-30, 1e30), 2**-23, 0),
    "rsqrt.approx.f32": (lambda x: 1 / math.sqrt(x), (1e-30, 1e30), 2**-22.9, 0),
    "ex2.approx.f32": (lambda x: 2.0**x, (-100, 100), 2**-22, 0),
    "lg2.approx.f32": (math.log2, (1e-6, 1e6), 2**-22, 2**-22),
    "sin.approx.f32": (math.sin, (-3.14, 3.14), 0, 2**-20.5),
    "cos.approx.f32": (math.cos, (-3.14, 3.14), 0, 2**-20.5),
    "tanh.approx.f32": (math.tanh, (-8, 8), 2**-11, 0),
}


@pytest.mark.parametrize("name", APPROXIMATIONS)
def test_approximations_stay_within_the_documented_bounds(name):
    function, (low, high), relative, absolute = APPROXIMATIONS[name]
    rng = random.Random(4)
    values = [
        math.exp(rng.uniform(math.log(low), math.log(high))) if low > 0 else rng.uniform(low, high) for _ in range(192)
    ]
    bits = [struct.unpack("<I", struct.pack("<f", v))[0] for v in values]
    got = apply(f"{name} {{d}}, {{a}};", [[b] for b in bits], [32], 32)
    for pattern, result in zip(bits, got, strict=True):
        x = struct.unpack("<f", struct.pack("<I", pattern))[0]
        y = struct.unpack("<f", struct.pack("<I", result))[0]
        exact = function(x)
        assert abs(y - exact) <= max(relative * abs(exact), absolute), (x, y, exact)


def test_sign_operations_only_touch_the_sign_bit():
    inputs = samples("f32", 2)
    compare("neg.f32 {d}, {a};", inputs, ["f32"] * 2, "f32", lambda a, b: a ^ 1 << 31)
    compare("abs.f32 {d}, {a};", inputs, ["f32"] * 2, "f32", lambda a, b: a & 0x7FFFFFFF)
    compare("copysign.f32 {d}, {a}, {b};", inputs, ["f32"] * 2, "f32", lambda a, b: a & 1 << 31 | b & 0x7FFFFFFF)
    compare("testp.subnormal.f32 {d}, {a};", inputs, ["f32"] * 2, None,
            lambda a, b: int(0 < a & 0x7FFFFFFF < 0x800000), 1)  # fmt: skip
