"""8-bit floats and f64 Tensor Cores: conversions against a search over all codes, products against the oracles."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from ptx_text import apply, run

from loadsparse.gpu import simulator
from loadsparse.reference.tensorcore import arithmetic

RNG = np.random.default_rng
PAIRS = ("e4m3x2", "e5m2x2")
LARGEST = {"e4m3x2": 0x7E, "e5m2x2": 0x7B}
EDGES = np.array([0, -0.0, 448, 464, 464.1, 480, 57344, 61440, 1e9, np.inf, -np.inf, np.nan, 2**-9, 2**-10, 3 * 2**-10,
                  2**-16, 2**-17, 1.5 * 2**-17, -(2**-6), 1.0625, 1.1875, 1.125, 1.375, -1e-30], np.float32)  # fmt: skip


def nearest(value, pair):
    """The code nearest to a number, of two equally near the even one; too large is the largest."""
    if np.isnan(value):
        return 0x7F
    codes = np.arange(LARGEST[pair] + 1, dtype=np.uint8)
    table = arithmetic.decode(codes, pair.removesuffix("x2"))
    far = np.abs(table - min(abs(float(value)), 1e6))
    best = np.flatnonzero(far == far.min())
    code = int(next((c for c in best if c % 2 == 0), best[0]))
    return code | (0x80 if np.signbit(value) else 0)


def samples(pair):
    rng = RNG(1)
    codes = arithmetic.decode(np.arange(LARGEST[pair] + 1, dtype=np.uint8), pair.removesuffix("x2"))
    ties = (codes[1:] + codes[:-1]) / 2
    near = np.concatenate([ties, np.nextafter(ties.astype(np.float32), np.float32(0))]).astype(np.float32)
    values = np.concatenate(
        [EDGES, near, rng.standard_normal(100).astype(np.float32) * 2.0 ** rng.integers(-20, 18, 100)]
    )
    return np.resize(values.astype(np.float32), (len(values) + 63) // 64 * 64)


@pytest.mark.parametrize("engine", ["interpreter", "llvm"])
@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("pair", PAIRS)
def test_to_eight_bits_is_the_nearest_code(pair, relu, engine):
    values = samples(pair)
    rows = [[int(x) for x in row] for row in values.view(np.uint32).reshape(-1, 2)]
    found = apply(
        f"cvt.rn.satfinite{relu}.{pair}.f32 {{d}}, {{a}}, {{b}};", rows, (32, 32), 16, arch="sm_89", engine=engine
    )
    wanted = np.where(values <= 0, np.float32(0), values) if relu else values
    codes = [nearest(value, pair) for value in wanted]
    assert found == [high << 8 | low for high, low in zip(codes[::2], codes[1::2], strict=True)]
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    rows = [[int(low) | int(high) << 16] for high, low in halves.view(np.uint16).reshape(-1, 2)]
    found = apply(f"cvt.rn.satfinite{relu}.{pair}.f16x2 {{d}}, {{a}};", rows, (32,), 16, arch="sm_89", engine=engine)
    wanted = np.where(halves <= 0, np.float16(0), halves) if relu else halves
    codes = [nearest(value, pair) for value in wanted]
    assert found == [high << 8 | low for high, low in zip(codes[::2], codes[1::2], strict=True)]


@pytest.mark.parametrize("engine", ["interpreter", "llvm"])
@pytest.mark.parametrize("pair", PAIRS)
def test_from_eight_bits_is_exact(pair, engine):
    codes = np.arange(256, dtype=np.uint8)
    with np.errstate(invalid="ignore"):
        halves = arithmetic.decode(codes, pair.removesuffix("x2")).astype(np.float16)
    bits = np.where(np.isnan(halves), 0x7FFF, halves.view(np.uint16)).astype(int)
    rows = [[int(code) << 8 | int(codes[255 - code])] for code in codes]
    found = apply(f"cvt.rn.f16x2.{pair} {{d}}, {{a}};", rows, (16,), 32, arch="sm_89", engine=engine)
    assert found == [int(bits[code]) << 16 | int(bits[255 - code]) for code in codes]


def test_forms_that_do_not_exist_are_refused_by_name():
    for opcode, rest in (("cvt.rn.e4m3x2.f32", "%h1, %f1, %f2"), ("cvt.rn.satfinite.e4m3x2.s32", "%h1, %r1"),
                         ("cvt.rn.satfinite.f16x2.e4m3x2", "%r1, %h1")):  # fmt: skip
        with pytest.raises(simulator.PtxError, match=opcode.replace(".", r"\.")):
            run(f"{opcode} {rest};", arch="sm_89")


def product(opcode, a, b, c, arch, engine):
    """One mma on register images [32, n] of uint32 (uint64 for f64); the last result is D's."""
    wide = c.dtype == np.uint64
    kind, prefix, size = ("u64", "%rd", 8) if wide else ("u32", "%r", 4)
    body, names, first = ["mov.u32 %r50, %tid.x;"], [], 10
    for n, image in enumerate((a, b, c)):
        count = image.shape[1]
        for i in range(count):
            body.append(f"mad.wide.u32 %rd50, %r50, {size * count}, %rd{n};")
            body.append(f"ld.global.{kind} {prefix}{first + i}, [%rd50+{size * i}];")
        names.append("{" + ", ".join(f"{prefix}{first + i}" for i in range(count)) + "}")
        first += count
    count = c.shape[1]
    d = [f"{prefix}{first + i}" for i in range(count)]
    body.append(f"{opcode} {{{', '.join(d)}}}, {', '.join(names)};")
    for i in range(count):
        body.append(f"mad.wide.u32 %rd50, %r50, {size * count}, %rd3; st.global.{kind} [%rd50+{size * i}], {d[i]};")
    out = np.zeros_like(c)
    report = run("\n".join(body), a, b, c, out, arch=arch, engine=engine)
    assert report.ok, report
    return out


LANE = np.arange(32)
GROUP, THREAD = LANE >> 2, LANE & 3


def images(a, b, c):
    """Register images of A[16, 32], B[32, 8] of bytes and C[16, 8] of words, as the PTX ISA lays out m16n8k32."""
    left, right, addend = np.zeros((32, 4), np.uint32), np.zeros((32, 2), np.uint32), np.zeros((32, 4), np.uint32)
    for i in range(16):
        row, column = GROUP + 8 * (i // 4 % 2), 4 * THREAD + i % 4 + 16 * (i >= 8)
        left[:, i // 4] |= a[row, column].astype(np.uint32) << np.uint32(8 * (i % 4))
    for i in range(8):
        right[:, i // 4] |= b[4 * THREAD + i % 4 + 16 * (i >= 4), GROUP].astype(np.uint32) << np.uint32(8 * (i % 4))
    for i in range(4):
        addend[:, i] = c[GROUP + 8 * (i >= 2), 2 * THREAD + i % 2]
    return left, right, addend


def codes_of(kind, shape, rng, special):
    top = {"e4m3": 0x7F, "e5m2": 0x7C}[kind]
    codes = rng.integers(0, top, shape) | rng.integers(0, 2, shape) << 7
    if special:
        codes = np.where(rng.random(shape) < 0.01, 0x7F if kind == "e4m3" else 0x7C, codes)
    return codes.astype(np.uint8)


@pytest.mark.parametrize("arch", ["sm_89", "sm_90"])
@pytest.mark.parametrize("kind", ["e4m3", "e5m2"])
def test_eight_bit_products_equal_the_oracle(kind, arch):
    rng = RNG(3)
    for trial in range(6):
        a, b = codes_of(kind, (16, 32), rng, trial == 5), codes_of(kind, (32, 8), rng, trial == 5)
        c = (rng.standard_normal((16, 8)) * 2.0 ** rng.integers(-30, 12, (16, 8))).astype(np.float32).view(np.uint32)
        found = product(f"mma.sync.aligned.m16n8k32.row.col.f32.{kind}.{kind}.f32", *images(a, b, c), arch, "auto")
        left = np.repeat(a, 8, axis=0)
        right = np.tile(b.T, (16, 1))
        oracle = arithmetic.dot_add(left, right, c.reshape(-1), arch=arch, in_format=kind, out_format="f32").reshape(
            16, 8
        )
        np.testing.assert_array_equal(found, images(a, b, oracle)[2])


@pytest.mark.parametrize("arch", ["sm_89", "sm_90"])
def test_the_two_formats_mix(arch):
    """Small integers, of which every product and sum is exact."""
    rng = RNG(4)
    numbers = [rng.integers(-4, 5, shape) for shape in ((16, 32), (32, 8), (16, 8))]
    byte = {"e4m3": lambda x: np.array([nearest(v, "e4m3x2") for v in x.ravel()], np.uint8).reshape(x.shape),
            "e5m2": lambda x: (x.astype(np.float16).view(np.uint16) >> 8).astype(np.uint8)}  # fmt: skip
    a, b, c = byte["e4m3"](numbers[0]), byte["e5m2"](numbers[1]), numbers[2].astype(np.float32).view(np.uint32)
    found = product("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e5m2.f32", *images(a, b, c), arch, "auto")
    exact = (numbers[0] @ numbers[1] + numbers[2]).astype(np.float32).view(np.uint32)
    np.testing.assert_array_equal(found, images(a, b, exact)[2])


@pytest.mark.parametrize("arch", ["sm_80", "sm_86"])
def test_where_no_arithmetic_of_eight_bits_is_published_it_is_refused(arch):
    zeros = [np.zeros((32, n), np.uint32) for n in (4, 2, 4)]
    with pytest.raises(simulator.PtxError, match="e4m3"):
        product("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32", *zeros, arch, "auto")


@pytest.mark.parametrize(("m", "k"), [(8, 4), (16, 4), (16, 8), (16, 16)])
def test_f64_products_are_chains_of_fused_multiply_adds(m, k):
    rng = RNG(m + k)
    a, b, c = (rng.standard_normal(shape) * 2.0 ** rng.integers(-30, 30, shape) for shape in ((m, k), (k, 8), (m, 8)))
    a[0, 0], a[1, :], c[1, :] = 0.0, 0.0, -0.0
    exact = c.copy()
    for row in range(m):
        for column in range(8):
            for i in range(k):  # Python rounds a fraction once
                total = Fraction(a[row, i]) * Fraction(b[i, column]) + Fraction(exact[row, column])
                exact[row, column] = float(total) if total else a[row, i] * b[i, column] + exact[row, column]
    rows = m // 8
    left = np.stack([a[GROUP + 8 * (i % rows), THREAD + 4 * (i // rows)] for i in range(rows * k // 4)], axis=1)
    right = np.stack([b[THREAD + 4 * i, GROUP] for i in range(k // 4)], axis=1)
    addend, wanted = (
        np.stack([x[GROUP + 8 * (i // 2), 2 * THREAD + i % 2] for i in range(2 * rows)], axis=1) for x in (c, exact)
    )
    words = [np.ascontiguousarray(x).view(np.uint64) for x in (left, right, addend)]
    opcode = f"mma.sync.aligned.m{m}n8k{k}.row.col.f64.f64.f64.f64"
    found = product(opcode, *words, "sm_80" if k == 4 and m == 8 else "sm_90", "auto")
    np.testing.assert_array_equal(found, np.ascontiguousarray(wanted).view(np.uint64))
