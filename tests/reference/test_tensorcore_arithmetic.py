"""dot_add against a scalar oracle in Python integers, hand-derived words and published answers."""

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.reference import tensorcore
from loadsparse.reference.tensorcore import arithmetic

# name -> exponent bits, fraction bits, bits ignored below, has infinities
LAYOUT = {
    "f16": (5, 10, 0, True),
    "bf16": (8, 7, 0, True),
    "tf32": (8, 10, 13, True),
    "e4m3": (4, 3, 0, False),
    "e5m2": (5, 2, 0, True),
    "f32": (8, 23, 0, True),
}
# (arch, input, output) -> F, block, floor of the exponent, fraction bits of an f32 result
BLOCKS = {
    ("sm_70", "f16", "f32"): (23, 4, None, 23),
    ("sm_70", "f16", "f16"): (23, 4, -19, 23),
    ("sm_75", "f16", "f32"): (24, 8, -132, 23),
    ("sm_80", "f16", "f32"): (24, 8, -132, 23),
    ("sm_80", "f16", "f16"): (24, 8, -20, 23),
    ("sm_80", "bf16", "f32"): (24, 8, -132, 23),
    ("sm_80", "tf32", "f32"): (24, 4, -132, 23),
    ("sm_89", "f16", "f32"): (24, 8, -132, 23),
    ("sm_89", "bf16", "f32"): (24, 8, -132, 23),
    ("sm_89", "e4m3", "f32"): (13, 16, -132, 13),
    ("sm_89", "e5m2", "f32"): (13, 16, -132, 13),
    ("sm_89", "e5m2", "f16"): (13, 16, -20, 13),
    ("sm_90", "f16", "f32"): (25, 16, -133, 23),
    ("sm_90", "f16", "f16"): (25, 16, -21, 23),
    ("sm_90", "bf16", "f32"): (25, 16, -133, 23),
    ("sm_90", "tf32", "f32"): (25, 8, -133, 23),
    ("sm_90", "e4m3", "f32"): (25, 32, -133, 23),
    ("sm_100", "bf16", "f32"): (25, 16, -133, 23),
}
BITS = {name: 1 + e + f + low for name, (e, f, low, _) in LAYOUT.items()}


def parse(word: int, name: str) -> tuple[str, int, int, int]:
    """(kind, sign, significand, exponent of its last bit) with kind "nan", "inf" or "number"; Python integers only."""
    exponent_bits, fraction_bits, ignored, infinite = LAYOUT[name]
    word >>= ignored
    fraction = word % (1 << fraction_bits)
    field = (word >> fraction_bits) % (1 << exponent_bits)
    sign = -1 if word >> (fraction_bits + exponent_bits) else 1
    bias = (1 << (exponent_bits - 1)) - 1
    if field == (1 << exponent_bits) - 1:
        if infinite:
            return ("nan" if fraction else "inf"), sign, 0, 0
        if fraction == (1 << fraction_bits) - 1:
            return "nan", sign, 0, 0
    if field == 0:
        return "number", sign, fraction, 1 - bias - fraction_bits
    return "number", sign, fraction + (1 << fraction_bits), field - bias - fraction_bits


def block(a: list[int], b: list[int], c: int, names: tuple[str, str], F: int, floor: int | None, kept: int) -> int:
    """One hardware block on words, with Python integers."""
    source, out = names
    width = LAYOUT[source][1]
    nan = 0x7FFF if out == "f16" else 0x7FFFFFFF
    infinity = 0x7C00 if out == "f16" else 0x7F800000
    sign_bit = 0x8000 if out == "f16" else 0x80000000
    terms, infinities = [], set()
    for x, y in [*zip(a, b, strict=True), (c, None)]:
        kind_x, sign, digits, exponent = parse(x, source if y is not None else out)
        top = exponent + (width if y is not None else LAYOUT[out][1])
        if y is not None:
            kind_y, sign_y, digits_y, exponent_y = parse(y, source)
            zero_times_infinity = (kind_x == "inf" and kind_y == "number" and digits_y == 0) or (
                kind_y == "inf" and kind_x == "number" and digits == 0
            )
            if "nan" in (kind_x, kind_y) or zero_times_infinity:
                return nan
            if "inf" in (kind_x, kind_y):
                infinities.add(sign * sign_y)
                continue
            sign, digits, exponent, top = (
                sign * sign_y,
                digits * digits_y,
                exponent + exponent_y,
                top + exponent_y + width,
            )
        elif kind_x == "nan":
            return nan
        elif kind_x == "inf":
            infinities.add(sign)
            continue
        if digits:
            terms.append((sign, digits, exponent, top))
    if infinities:
        if len(infinities) == 2:
            return nan
        return infinity | (sign_bit if -1 in infinities else 0)
    if not terms:
        return 0
    E = max(top for *_, top in terms)
    if floor is not None:
        E = max(E, floor)
    total = 0
    for sign, digits, exponent, _ in terms:
        shift = exponent - (E - F)
        total += sign * (digits << shift if shift >= 0 else digits >> -shift)
    if total == 0:
        return 0
    sign_word = sign_bit if total < 0 else 0
    value = Fraction(abs(total)) * Fraction(2) ** (E - F)
    bias = (1 << (LAYOUT[out][0] - 1)) - 1
    leading = abs(total).bit_length() - 1 + E - F
    leading = max(leading, 1 - bias)
    if out == "f16":
        units = value / Fraction(2) ** (leading - 10)
        digits = round(units)  # Python rounds a Fraction half to even
        word = digits + ((leading + bias - 1) << 10)
    else:
        units = value / Fraction(2) ** (leading - kept)
        digits = (units.numerator // units.denominator) << (23 - kept)
        word = digits + ((leading + bias - 1) << 23)
    return sign_word | min(word, infinity)


def scalar(a: list[int], b: list[int], c: int, key: tuple[str, str, str]) -> int:
    F, size, floor, kept = BLOCKS[key]
    for k in range(0, len(a), size):
        pad = [0] * (size - len(a[k : k + size]))
        c = block(a[k : k + size] + pad, b[k : k + size] + pad, c, key[1:], F, floor, kept)
    return c


def ours(a: list[list[int]], b: list[list[int]], c: list[int], key: tuple[str, str, str]) -> list[int]:
    arch, source, out = key
    x, y = (np.array(v, f"u{BITS[source] // 8}") for v in (a, b))
    z = np.array(c, f"u{BITS[out] // 8}")
    return tensorcore.dot_add(x, y, z, arch=arch, in_format=source, out_format=out).tolist()


def words(name: str) -> st.SearchStrategy[int]:
    """Words of a format: anything, zeros, and clusters of near exponents (where cancellation and ties happen)."""
    exponent_bits, fraction_bits, low, _ = LAYOUT[name]
    middle = (1 << (exponent_bits - 1)) - 1
    parts = st.tuples(st.booleans(), st.integers(-2, 2), st.integers(0, (1 << fraction_bits) - 1))
    near = parts.map(lambda p: p[0] << (BITS[name] - 1) | (middle + p[1]) << (fraction_bits + low) | p[2] << low)
    small = st.tuples(st.booleans(), st.integers(0, (3 << (fraction_bits + low)))).map(
        lambda p: p[0] << (BITS[name] - 1) | p[1]
    )
    return st.one_of(st.integers(0, (1 << BITS[name]) - 1), st.sampled_from([0, 1 << (BITS[name] - 1)]), near, small)


@pytest.mark.parametrize("key", BLOCKS, ids="-".join)
def test_equals_integer_oracle(key: tuple[str, str, str]) -> None:
    @settings(max_examples=40)
    @given(st.data())
    def check(data: Any) -> None:
        length = data.draw(st.integers(1, 33))
        draw = st.lists(words(key[1]), min_size=length, max_size=length)
        a, b, c = data.draw(draw), data.draw(draw), data.draw(words(key[2]))
        assert ours([a], [b], [c], key)[0] == scalar(a, b, c, key)

    check()


def random_word(rng: random.Random, name: str, scale: int, specials: bool) -> int:
    """A word whose exponent field lies within `scale` of the middle; at times zero or, if wanted, anything."""
    exponent_bits, fraction_bits, low, _ = LAYOUT[name]
    kind = rng.random()
    if kind < 0.1:
        return rng.getrandbits(1) << (BITS[name] - 1)
    if specials and kind < 0.2:
        return rng.getrandbits(BITS[name])
    top = (1 << exponent_bits) - 2
    field = min(max((top + 1) // 2 + rng.randint(-scale, scale), 0), top)
    return (
        rng.getrandbits(1) << (BITS[name] - 1) | field << (fraction_bits + low) | rng.getrandbits(fraction_bits + low)
    )


@pytest.mark.parametrize("key", BLOCKS, ids="-".join)
@pytest.mark.parametrize("scale", [1, 6, 140])
def test_equals_integer_oracle_on_random_rows(key: tuple[str, str, str], scale: int) -> None:
    rng = random.Random(f"{key}{scale}")
    rows = 40
    length = 2 * BLOCKS[key][1]
    a, b = ([[random_word(rng, key[1], scale, i % 4 == 0) for _ in range(length)] for i in range(rows)] for _ in "ab")
    c = [random_word(rng, key[2], scale, i % 4 == 1) for i in range(rows)]
    assert ours(a, b, c, key) == [scalar(*row, key) for row in zip(a, b, c, strict=True)]


def test_random_rows_reach_every_kind_of_result() -> None:
    """The generator above is worth something: NaN, both infinities, subnormals, zeros and normals all occur."""
    rng = random.Random(0)
    key = ("sm_80", "bf16", "f32")
    seen = set()
    for _ in range(3000):
        scale = rng.choice([1, 6, 140])
        row = [[random_word(rng, "bf16", scale, True) for _ in range(2)] for _ in "ab"]
        word = scalar(*row, random_word(rng, "f32", scale, True), key)
        kind = {255: "inf", 0: "sub"}.get(word >> 23 & 255, "normal")
        seen.add("nan" if word == 0x7FFFFFFF else "+-"[word >> 31] + kind)
    assert seen == {"nan", "+inf", "-inf", "+sub", "-sub", "+normal", "-normal"}


def f16(*values: float) -> list[int]:
    return np.array(values, np.float16).view(np.uint16).tolist()


def f32(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def test_sum_of_33_bits() -> None:
    """16 products 0x3FFF^2 and c = 0x3FFFFFFF sum to 2,212,495,868 units on sm_90, which needs an unsigned 33rd bit."""
    a, c = [0x3FFF] * 16, 0x3FFFFFFF
    product = 2047 * 2047 << 5  # 20 fraction bits -> 25
    assert 16 * product + (0xFFFFFF << 2) == 2_212_495_868
    assert ours([a], [a], [c], ("sm_90", "f16", "f32")) == [0x4283E001]


@pytest.mark.parametrize(("arch", "F"), [("sm_70", 23), ("sm_80", 24), ("sm_90", 25)])
def test_terms_are_cut_toward_zero_one_by_one(arch: str, F: int) -> None:
    """1 and three times 3/4 of the last unit: each is lost, though their sum is two units and more."""
    half = 2.0 ** -(F // 2)
    a, b = f16(1, *[0.75 * half] * 3), f16(1, *[2.0**-F / half] * 3)
    assert ours([a], [b], [0], (arch, "f16", "f32")) == [f32(1.0)]
    assert ours([a], [[w ^ 0x8000 for w in b]], [0], (arch, "f16", "f32")) == [f32(-1.0)]
    assert ours([a[1:]], [b[1:]], [0], (arch, "f16", "f32")) == [f32(2.25 * 2.0**-F)]  # alone they are exact


def test_products_are_not_renormalised() -> None:
    """1.5 x 1.5 = 2.25 keeps exponent 0 and c = 2^-24 survives; 2.25 x 1 has exponent 1 and cuts it (F = 24)."""
    key, c = ("sm_75", "f16", "f32"), f32(2.0**-24)
    assert ours([f16(1.5, -1.5)], [f16(1.5, 1.5)], [c], key) == [c]
    assert ours([f16(1.5, -2.25)], [f16(1.5, 1.0)], [c], key) == [0]


def test_subnormals_keep_the_smallest_exponent() -> None:
    """2^-24 x 1 has exponent -14 (that of f16's subnormals), not -24: the unit is 2^-38 and cuts c = 2^-40."""
    lost = ours([[0x0001]], [f16(1.0)], [f32(2.0**-40)], ("sm_80", "f16", "f32"))
    assert lost == [f32(2.0**-24)]
    kept = ours([f16(2.0**-14)], [f16(2.0**-10)], [f32(2.0**-40)], ("sm_80", "f16", "f32"))  # normal numbers
    assert kept == [f32(2.0**-24 + 2.0**-40)]


@pytest.mark.parametrize(("arch", "in_format"), [("sm_80", "f16"), ("sm_90", "bf16"), ("sm_89", "e5m2")])
def test_special_values(arch: str, in_format: str) -> None:
    exponent_bits, fraction_bits, _, _ = LAYOUT[in_format]
    infinity = ((1 << exponent_bits) - 1) << fraction_bits
    sign = 1 << (BITS[in_format] - 1)
    one = ((1 << (exponent_bits - 1)) - 1) << fraction_bits
    key = (arch, in_format, "f32")
    nan, plus, minus = 0x7FFFFFFF, 0x7F800000, 0xFF800000
    cases = [
        ([infinity], [one], 0, plus),
        ([infinity], [one | sign], 0, minus),
        ([infinity], [0], 0, nan),
        ([sign], [infinity], 0, nan),
        ([infinity, infinity | sign], [one, one], 0, nan),
        ([infinity], [one], minus, nan),
        ([one], [one], 0xFFC12345, nan),
        ([infinity | 1 | sign], [one], 0, nan),
        ([one], [one], minus, minus),
        ([0], [0], 0x80000000, 0),
        ([sign], [one], 0x80000000, 0),
        ([one], [one], f32(-1.0), 0),
    ]
    for a, b, c, expected in cases:
        assert ours([a], [b], [c], key) == [expected], (a, b, hex(c))


def test_nan_word_of_f16_output() -> None:
    assert ours([[0x7C00]], [[0]], [0], ("sm_80", "f16", "f16")) == [0x7FFF]
    assert ours([f16(1.0)], [f16(1.0)], [0xFE01], ("sm_90", "f16", "f16")) == [0x7FFF]


def test_overflow_edge() -> None:
    """Truncation keeps everything below 2^128 finite; f16 output rounds up to infinity from 65520 on."""
    largest, key = 0x7F7FFFFF, ("sm_80", "bf16", "f32")
    one, big = 0x3F80, (65 + 127) << 7  # 1 and 2^65 in bf16
    assert ours([[big]], [[big]], [0], key) == [0x7F800000]
    assert ours([[one]], [[one]], [largest], key) == [largest]
    half_place, last_place = (103 + 127) << 7, (104 + 127) << 7
    assert ours([[half_place]], [[one]], [largest], key) == [largest]
    assert ours([[last_place]], [[one]], [largest], key) == [0x7F800000]
    half = ("sm_80", "f16", "f16")
    top = f16(65504.0)[0]
    assert ours([f16(15.0)], [f16(1.0)], [top], half) == [top]
    assert ours([f16(16.0)], [f16(1.0)], [top], half) == [0x7C00]  # the tie 65520 rounds to even: infinity
    assert ours([f16(-16.0)], [f16(1.0)], [top | 0x8000], half) == [0xFC00]


def test_partial_overflow_within_a_block_is_none() -> None:
    """Products of bf16 reach 2^255, yet only the rounded result overflows: 2^200 - 2^200 + 1 = 0 (1 is cut)."""
    big, one = (100 + 127) << 7, 0x3F80
    assert ours([[big, big | 0x8000, one]], [[big, big, one]], [0], ("sm_90", "bf16", "f32")) == [0]


def test_floor_of_the_exponent() -> None:
    """Eight bf16 products of 2^-157 x (1 + 2^-7): without a floor of E their sum would reach 2^-154 + 2^-161."""
    a = [(1 + 127 - 127) << 7 | 1] * 8  # 2^-126 (1 + 2^-7)
    b = [(127 - 31) << 7] * 8  # 2^-31
    # E = max(-157, -132): the unit 2^-156 exceeds every term, so all are cut and the sum is exactly +0
    assert ours([a], [[w | 0x8000 for w in b]], [0], ("sm_80", "bf16", "f32")) == [0]
    # with exponent -156 one unit of each survives: -8 x 2^-156, truncated to a negative zero
    b = [(127 - 30) << 7 | 0x8000] * 8
    assert ours([a], [b], [0], ("sm_80", "bf16", "f32")) == [0x80000000]


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        (("sm_70", "f16", "f16"), -19 - 23),
        (("sm_80", "f16", "f16"), -20 - 24),
        (("sm_89", "f16", "f16"), -20 - 24),
        (("sm_90", "f16", "f16"), -21 - 25),
        (("sm_100", "f16", "f16"), -21 - 25),
        (("sm_80", "bf16", "f32"), -132 - 24),
        (("sm_89", "bf16", "f32"), -132 - 24),
        (("sm_80", "tf32", "f32"), -132 - 24),
        (("sm_90", "bf16", "f32"), -133 - 25),
        (("sm_100", "bf16", "f32"), -133 - 25),
    ],
)
def test_last_unit_under_the_floor(key: tuple[str, str, str], unit: int) -> None:
    """Below the floor the last unit is 2^(floor - F): a term of one unit decides the result, half of one is cut."""

    def power(e: int) -> int:
        word = np.array([2.0**e], np.float16 if key[1] == "f16" else np.float32)
        bits = int(word.view(f"u{word.itemsize}")[0])
        return bits >> 16 if key[1] == "bf16" else bits

    def product(e: int) -> tuple[int, int]:
        return power(e // 2), power(e - e // 2)

    to_half = key[2] == "f16"  # 2^-25 is a tie of f16, which a unit breaks; 2^-149 less a unit truncates to 0
    a, b = product(-25 if to_half else -149)
    for exponent, cut in ((unit, False), (unit - 1, True)):
        x, y = product(exponent)
        sign = 0 if to_half else 1 << (BITS[key[1]] - 1)
        assert ours([[a, x | sign]], [[b, y]], [0], key) == [0 if cut == to_half else 1]


def test_a_block_of_negative_zeros_is_positive_zero() -> None:
    for out, zero in (("f32", 0x80000000), ("f16", 0x8000)):
        assert ours([[0x8000] * 16], [f16(1.0) * 16], [zero], ("sm_80", "f16", out)) == [0]


def test_tf32_ignores_its_low_bits() -> None:
    noisy, plain = 0x3F801FFF, 0x3F800000
    for arch in ("sm_80", "sm_90"):
        assert ours([[noisy]], [[noisy]], [0], (arch, "tf32", "f32")) == [plain]
    assert ours([[0x7F800001]], [[plain]], [0], ("sm_80", "tf32", "f32")) == [0x7F800000]


def test_fp8_on_ada_keeps_13_bits() -> None:
    one = 0x38  # e4m3
    c = f32(1 + 2.0**-14 + 2.0**-13)
    assert ours([[one]], [[0]], [c], ("sm_89", "e4m3", "f32")) == [f32(1 + 2.0**-13)]
    assert ours([[one]], [[0]], [c], ("sm_90", "e4m3", "f32")) == [c]
    assert ours([[0x7E]], [[one]], [0], ("sm_89", "e4m3", "f32")) == [f32(448.0)]  # the largest; e4m3 has no infinity
    assert ours([[0x7F]], [[one]], [0], ("sm_89", "e4m3", "f32")) == [0x7FFFFFFF]


def test_generations_differ_as_published() -> None:
    """One input, answers 0 on V100 and A100 and 191.875 on H100: those of FTTN's (arXiv 2403.00232) own example.

    First 16 k's: 2^30, six terms just below 64, -2^30. H100 has a unit of 32 under 2^30 and one block, so each term
    leaves 32; A100 (64) and V100 (128) lose them. Second 16: 2^22 - 2^22 - 1/8, where H100's unit is 1/8.
    """
    a = f16(2.0**15, *[63.0] * 6, *[0.0] * 8, -(2.0**15), 2.0**11, -(2.0**11), -0.125, *[0.0] * 13)
    b = f16(2.0**15, *[1.0] * 6, *[0.0] * 8, 2.0**15, 2.0**11, 2.0**11, 1.0, *[0.0] * 13)
    for arch, answer in (("sm_70", 0.0), ("sm_80", 0.0), ("sm_90", 191.875)):
        assert ours([a], [b], [0], (arch, "f16", "f32")) == [f32(answer)]


def test_decoding_agrees_with_numpy() -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(arithmetic.decode(every, "f16"), every.view(np.float16).astype(np.float64))
        as_f32 = (every.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    np.testing.assert_array_equal(arithmetic.decode(every, "bf16"), as_f32)
    np.testing.assert_array_equal(np.signbit(arithmetic.decode(every, "f16")), every >= 0x8000)
    for name in ("e4m3", "e5m2"):
        for word in range(256):
            kind, sign, digits, exponent = parse(word, name)
            value = float(arithmetic.decode(np.array([word], np.uint8), name)[0])
            assert (
                np.isnan(value)
                if kind == "nan"
                else value == (sign * np.inf if kind == "inf" else sign * digits * 2.0**exponent)
            )


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 1 << 16, (2, 100, 21), dtype=np.uint16)
    c = rng.integers(0, 1 << 32, 100, dtype=np.uint32)
    whole = tensorcore.dot_add(a, b, c, arch="sm_80", in_format="f16", out_format="f32")
    monkeypatch.setattr(arithmetic, "CHUNK_TERMS", 64)
    np.testing.assert_array_equal(tensorcore.dot_add(a, b, c, arch="sm_80", in_format="f16", out_format="f32"), whole)
    np.testing.assert_array_equal(  # wider integers that hold the same patterns do as well
        tensorcore.dot_add(a.astype(np.uint64), b, c, arch="sm_80", in_format="f16", out_format="f32"), whole
    )


@pytest.mark.parametrize(
    ("arch", "source", "out", "message"),
    [
        ("sm_60", "f16", "f32", "unknown architecture"),
        ("sm_70", "bf16", "f32", "no 'bf16' input on sm_70"),
        ("sm_80", "e4m3", "f32", "no 'e4m3' input"),
        ("sm_100", "e5m2", "f32", "no 'e5m2' input"),
        ("sm_80", "bf16", "f16", "no 'f16' output"),
        ("sm_80", "f16", "bf16", "no 'bf16' output"),
    ],
)
def test_instructions_that_do_not_exist(arch: str, source: str, out: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours([[0]], [[0]], [0], (arch, source if source in LAYOUT else "f16", out))


def test_bad_arguments() -> None:
    word, c = np.zeros((2, 3), np.uint16), np.zeros(2, np.uint32)
    call = {"arch": "sm_80", "in_format": "f16", "out_format": "f32"}
    with pytest.raises(TypeError, match="a must hold bit patterns"):
        tensorcore.dot_add(word.view(np.float16), word, c, **call)
    with pytest.raises(ValueError, match="b holds a value above 0xffff"):
        tensorcore.dot_add(word, word.astype(np.uint32) + 0x10000, c, **call)
    with pytest.raises(ValueError, match=r"not \(2, 3\), \(2, 2\)"):
        tensorcore.dot_add(word, word[:, :2], c, **call)
    assert tensorcore.dot_add(word[:0], word[:0], c[:0], **call).shape == (0,)
    np.testing.assert_array_equal(tensorcore.dot_add(word[:, :0], word[:, :0], c + 7, **call), c + 7)  # no k: c itself
