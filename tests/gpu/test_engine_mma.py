"""The engine's Tensor Core arithmetic against recorded hardware words and the reference model, bit for bit."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from loadsparse.gpu.simulator.engine import compiled, mma, mma_usual
from loadsparse.reference import tensorcore

WORDS = Path(__file__).parents[3] / "shared" / "data" / "tensor_core_words.npz"
LANE = np.arange(32)
G, T = LANE >> 2, LANE & 3


def aligned_area():
    raw = np.zeros(mma.AREA_BYTES + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + mma.AREA_BYTES]


def multiply(kind, k, d_format, c_format, arch, a, b, c):
    """D[16, 8] bits of A[16, k], B[k, 8], C[16, 8] bits, laid out in fragments as PTX says."""
    variant = mma.variant(arch, (kind, kind), k, d_format, c_format)
    address = compiled.multiplier(variant).addresses[variant.name]
    area = aligned_area()
    words = area.view(np.uint32).reshape(-1, 32)
    if kind == "tf32":
        for j in range(k // 2):
            words[j] = a[G + 8 * (j & 1), T + 4 * (j >> 1)]
        for j in range(k // 4):
            words[4 + j] = b[T + 4 * j, G]
    else:
        wide_a, wide_b = a.astype(np.uint32), b.astype(np.uint32)
        for j in range(k // 4):
            row, column = G + 8 * (j & 1), 2 * T + 8 * (j >> 1)
            words[j] = wide_a[row, column] | wide_a[row, column + 1] << 16
        for j in range(k // 8):
            words[4 + j] = wide_b[2 * T + 8 * j, G] | wide_b[2 * T + 8 * j + 1, G] << 16
    for i in range(4):
        value = c[G + 8 * (i >> 1), 2 * T + (i & 1)].astype(np.uint32)
        if c_format == "f32":
            words[8 + i] = value
        else:
            words[8 + (i >> 1)] |= value << (16 * (i & 1))
    ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)(area.ctypes.data)
    d = np.zeros((16, 8), np.uint32)
    for i in range(4):
        cell = words[12 + i] if d_format == "f32" else words[12 + (i >> 1)] >> (16 * (i & 1)) & 0xFFFF
        d[G + 8 * (i >> 1), 2 * T + (i & 1)] = cell
    return d


def expected(kind, d_format, arch, a, b, c):
    rows = np.repeat(a, 8, axis=0)
    columns = np.tile(b.T, (16, 1))
    result = tensorcore.dot_add(rows, columns, c.reshape(-1), arch=arch, in_format=kind, out_format=d_format)
    return result.reshape(16, 8).astype(np.uint32)


def operands(kind, k, c_format, seed):
    """Bits of A, B, C: every seed is another mixture of magnitudes, specials, subnormals and zeros."""
    rng = np.random.default_rng(seed)
    style = seed % 5
    bits = {"f16": 16, "bf16": 16, "tf32": 32}[kind]
    dtype = np.uint16 if bits == 16 else np.uint32

    def draw(shape):
        if style == 0:
            return rng.integers(0, 2**bits, shape, dtype=np.uint64).astype(dtype)
        values = (rng.standard_normal(shape) * 2.0 ** rng.integers(-14, 9, shape)).astype(np.float32)
        if style == 2:
            values[rng.random(shape) < 0.6] = 0
        if style == 3:
            values *= np.float32(2.0**-12 if kind == "f16" else 2.0**-70)
        if kind == "f16":
            encoded = values.astype(np.float16).view(np.uint16)
        else:
            encoded = values.view(np.uint32) >> (16 if kind == "bf16" else 0)
        encoded = encoded.astype(dtype)
        if style == 4:
            top = {"f16": 0x7C00, "bf16": 0x7F80, "tf32": 0x7F800000}[kind]
            hit = rng.random(shape) < 0.01
            encoded[hit] = top | (rng.integers(0, 2, hit.sum()) << (bits - 1)).astype(dtype)
        return encoded

    c_values = (rng.standard_normal((16, 8)) * 2.0 ** rng.integers(-24, 24, (16, 8))).astype(np.float32)
    if style == 3:
        c_values = c_values * np.float32(2.0**-110)
    with np.errstate(over="ignore"):
        c = c_values.view(np.uint32) if c_format == "f32" else c_values.astype(np.float16).view(np.uint16)
    if style == 0:
        c = rng.integers(0, 2 ** (32 if c_format == "f32" else 16), (16, 8), dtype=np.uint64).astype(c.dtype)
    return draw((16, k)), draw((k, 8)), c


VARIANTS = [
    ("f16", 16, "f32"), ("f16", 8, "f32"), ("f16", 16, "f16"), ("bf16", 16, "f32"), ("tf32", 8, "f32"), ("tf32", 4, "f32"),
]  # fmt: skip


CASES = [
    (*variant, arch)
    for arch in ("sm_75", "sm_80", "sm_89", "sm_90")
    for variant in VARIANTS
    if arch != "sm_75" or variant[0] == "f16"  # Turing multiplies nothing else
]


@pytest.mark.parametrize(("kind", "k", "out", "arch"), CASES)
def test_equals_the_reference(kind, k, out, arch):
    for seed in range(25):
        a, b, c = operands(kind, k, out, seed)
        got = multiply(kind, k, out, out, arch, a, b, c)
        want = expected(kind, out, arch, a, b, c)
        np.testing.assert_array_equal(got, want, err_msg=f"seed {seed}")


def usual_operands(kind, k, seed):
    """Moderate values at the edges of the short form: cancellation, ties of exponents, zeros, the largest, tiny c."""
    rng = np.random.default_rng(seed)
    style = seed % 6

    def draw(shape):
        values = rng.standard_normal(shape)
        match style:
            case 0:
                values = rng.integers(-3, 4, shape)
            case 1:
                values = values * 2.0 ** rng.integers(-31, 32, shape)
            case 2:
                values = values * 2.0 ** rng.choice([-30, -14, 0, 15, 30], shape)
            case 3:
                values = np.where(rng.random(shape) < 0.8, 0, values) * rng.choice([-1, 1], shape)
            case 4:
                values = np.full(shape, rng.choice([1.999, 65504.0, 1.5]))
        with np.errstate(over="ignore"):
            if kind == "f16":
                return values.astype(np.float16).view(np.uint16)
        bits = values.astype(np.float32).view(np.uint32)
        return (bits >> 16).astype(np.uint16) if kind == "bf16" else bits

    a, b = draw((16, k)), draw((k, 8))
    if style in (0, 5):
        b[k // 2 :] = b[: k // 2]
        a[:, k // 2 :] = a[:, : k // 2] ^ (a.dtype.type(1) << (8 * a.itemsize - 1))
    c = rng.standard_normal((16, 8)) * 2.0 ** rng.integers(-65, 8, (16, 8))
    if style in (3, 5):
        c = np.where(rng.random((16, 8)) < 0.5, 0, -c)
    if seed % 11 == 0:
        c = np.full((16, 8), 3.4e38)
    return a, b, c.astype(np.float32).view(np.uint32)


USUAL = [
    (kind, k, arch)
    for arch in ("sm_70", "sm_80", "sm_90")
    for kind, k in (("f16", 16), ("f16", 8), ("bf16", 16), ("tf32", 8))
    if arch != "sm_70" or kind == "f16"  # Volta multiplies nothing else
]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(("kind", "k", "arch"), USUAL)
def test_usual_values_equal_the_reference(monkeypatch, kind, k, arch, native):
    if native and not mma_usual.rounds_natively():
        pytest.skip("this processor does not round natively")
    monkeypatch.setattr(mma_usual, "rounds_natively", lambda: native)
    compiled.multiplier.cache_clear()
    for seed in range(24):
        a, b, c = usual_operands(kind, k, seed)
        got = multiply(kind, k, "f32", "f32", arch, a, b, c)
        np.testing.assert_array_equal(got, expected(kind, "f32", arch, a, b, c), err_msg=f"seed {seed}")
    compiled.multiplier.cache_clear()


@pytest.mark.skipif(not WORDS.exists(), reason="the recorded hardware words are not here")
@pytest.mark.parametrize(("name", "arch", "k"), [("a100", "sm_80", 8), ("h100", "sm_90", 16)])
def test_equals_recorded_words(name, arch, k):
    data = np.load(WORDS)
    a, b, c, d = (data[f"{name}_{part}"] for part in ("a_f16", "b_f16", "c_f32", "d_f32"))
    wrong = 0
    for start in range(0, len(a), 8):
        rows = np.concatenate([a[start : start + 8]] * 2)
        acc = np.zeros((16, 8), np.uint32)
        acc[np.arange(16), np.arange(16) % 8] = np.tile(c[start : start + 8], 2)
        got = multiply("f16", k, "f32", "f32", arch, rows, b[start : start + 8].T, acc)
        wrong += int((got[np.arange(16), np.arange(16) % 8] != np.tile(d[start : start + 8], 2)).sum())
    assert wrong == 0


def test_seventeen_terms_need_33_bits():
    a, b = np.full((16, 16), 0x3FFF, np.uint16), np.full((16, 8), 0x3FFF, np.uint16)
    c = np.full((16, 8), 0x3FFFFFFF, np.uint32)
    assert (multiply("f16", 16, "f32", "f32", "sm_90", a, b, c) == 0x4283E001).all()


def test_the_first_block_may_overflow():
    a, b = np.full((16, 16), 0x7BFF, np.uint16), np.full((16, 8), 0x7BFF, np.uint16)
    c = np.full((16, 8), 0x7F7FFFFF, np.uint32)
    a[:, 8:] |= 0x8000
    for arch in ("sm_80", "sm_90"):
        np.testing.assert_array_equal(
            multiply("f16", 16, "f32", "f32", arch, a, b, c), expected("f16", "f32", arch, a, b, c)
        )


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("low", [70, 73, 74, 75, 77, 79])
def test_a_sum_cut_to_nothing_keeps_its_sign(arch, low):
    """-2^-(low + 75): below 2^-149 the last block of the chain leaves -0, an exact zero sum +0."""
    a, b = np.zeros((16, 16), np.uint16), np.zeros((16, 8), np.uint16)
    last = 15  # a k of the last hardware block on both architectures
    a[:, last], b[last, :] = 0x8000 | (127 - low) << 7, (127 - 75) << 7
    c = np.zeros((16, 8), np.uint32)
    got = multiply("bf16", 16, "f32", "f32", arch, a, b, c)
    np.testing.assert_array_equal(got, expected("bf16", "f32", arch, a, b, c))
    assert (got >> 31 == 1).all()
