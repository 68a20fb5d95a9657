"""The error bound holds, is not vacuous, and rejects what is wrong."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.reference import spmm
from loadsparse.reference.spmm import matrices
from loadsparse.reference.tensorcore import arithmetic

ALGORITHMS = ("lscd", "dense", "two_four", "sputnik", "sparta")
KINDS = ("normal", "spread", "cancelling", "same sign", "subnormal", "wild")


def patterns(rng: np.random.Generator, shape: tuple[int, int], fmt: str, kind: str, density: float) -> np.ndarray:
    """Bit patterns of a random matrix of one kind, with unstored elements."""
    values = rng.normal(size=shape)
    if kind == "spread":
        values *= 2.0 ** rng.integers(-12, 13, shape)
    if kind == "cancelling":  # few sizes, both signs, and a ladder down to where terms are cut
        values = rng.choice([1.0, -1.0, 1.5, -1.75], shape) * 2.0 ** rng.choice([0, 0, 6, -6, -7, -12], shape)
    if kind == "same sign":
        values = np.abs(values)
    if kind == "subnormal":
        values *= 2.0 ** (-20 if fmt == "f16" else -66)
    if fmt == "f16":
        words = values.astype(np.float16).view(np.uint16)
    else:
        words = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if kind == "wild":
        special = [0x7C00, 0xFC00, 0x7E00, 0x8000, 0x0001] if fmt == "f16" else [0x7F80, 0xFF80, 0x7FC0, 0x8000, 0x0001]
        anything = rng.integers(0, 1 << 16, shape, dtype=np.uint16)
        anything = np.where(rng.random(shape) < 0.3, rng.choice(special, shape), anything).astype(np.uint16)
        words = np.where(rng.random(shape) < rng.choice([0.02, 0.3]), anything, words)
    return np.where(rng.random(shape) < density, words, np.uint16(0))


def as_matrix(words: np.ndarray, fmt: str) -> np.ndarray:
    return words.view(np.float16) if fmt == "f16" else words


def two_four_only(words: np.ndarray) -> np.ndarray:
    padded = np.pad(words, ((0, 0), (0, -words.shape[1] % 4)))
    groups = padded.reshape(len(words), -1, 4).copy()
    np.put_along_axis(groups, np.argsort(groups == 0, axis=-1, kind="stable")[..., 2:], 0, axis=-1)
    return groups.reshape(padded.shape)[:, : words.shape[1]]


def compute(algorithm: str, a: np.ndarray, b: np.ndarray, arch: str, **options: Any) -> np.ndarray:
    oracle = getattr(spmm, algorithm)
    return oracle(a, b, **options) if algorithm == "sputnik" else oracle(a, b, arch=arch, **options)


@settings(max_examples=250)
@given(st.data())
def test_every_exact_oracle_lies_inside_the_bound(data: Any) -> None:
    draw = data.draw
    algorithm, arch = draw(st.sampled_from(ALGORITHMS)), draw(st.sampled_from(["sm_70", "sm_75", "sm_80", "sm_90"]))
    fmt = draw(st.sampled_from(["f16", "bf16"])) if arch in ("sm_80", "sm_90") else "f16"
    out = draw(st.sampled_from(["f16", "bf16", "f32"]))
    depth = draw(st.one_of(st.integers(1, 40), st.integers(41, 300)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0.1, 0.5, 1.0]))
    words_a = patterns(rng, (4, depth), fmt, draw(st.sampled_from(KINDS)), density)
    words_b = patterns(rng, (depth, 3), fmt, draw(st.sampled_from(KINDS)), 1.0)
    if algorithm == "two_four":
        words_a = two_four_only(words_a)
    a, b = as_matrix(words_a, fmt), as_matrix(words_b, fmt)
    unit = 4 if algorithm in ("two_four", "sparta") else 1  # groups of four stay whole
    cut = [unit * k for k in sorted(draw(st.lists(st.integers(0, depth // unit), max_size=3)))]
    options: dict[str, Any] = {
        "splits": tuple(zip([0, *cut], [*cut, depth], strict=True)),
        "in_format": fmt,
        "out_format": out,
    }
    semantics = "dense" if algorithm == "dense" else "stored"
    if algorithm == "lscd":
        semantics = draw(st.sampled_from(["dense", "stored"]))
        c = spmm.lscd(a, b, arch=arch, semantics=semantics, **options)
    else:
        c = compute(algorithm, a, b, arch, **options)
    reference = spmm.dense64(a, b, in_format=fmt, semantics=semantics)
    bound = spmm.error_bound(a, b, arch=arch, algorithm=algorithm, semantics=semantics, **options)
    assert not np.isnan(bound).any()
    assert spmm.accurate(c, reference, bound, out_format=out).all()
    if algorithm not in ("two_four", "sparta"):
        wide = spmm.order_free_bound(a, b, in_format=fmt, out_format=out, semantics=semantics)
        assert spmm.accurate(c, reference, wide, out_format=out).all()


@pytest.mark.parametrize("algorithm", ["lscd", "sputnik"])
@pytest.mark.parametrize("kind", ["spread", "cancelling", "same sign", "subnormal"])
def test_the_bound_covers_the_true_sum(algorithm: str, kind: str) -> None:
    """Against exact fractions instead of float64: |C - S| <= bound."""
    rng = np.random.default_rng(12)
    words = patterns(rng, (3, 150), "f16", kind, 0.7), patterns(rng, (150, 2), "f16", kind, 1.0)
    a, b = (as_matrix(x, "f16") for x in words)
    options: dict[str, Any] = {"splits": ((0, 70), (70, 150)), "out_format": "f32"}
    c = compute(algorithm, a, b, "sm_80", **options)
    bound = spmm.error_bound(a, b, arch="sm_80", algorithm=algorithm, **options)
    for m in range(3):
        for n in range(2):
            exact = sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a[m], b[:, n], strict=True))
            assert abs(Fraction(float(c[m, n])) - exact) <= Fraction(bound[m, n])


@pytest.mark.parametrize(
    ("arch", "algorithm", "size"),
    [("sm_80", "lscd", 0.9), ("sm_90", "lscd", 0.45), ("sm_80", "sparta", 0.9), ("sm_80", "sputnik", 0.9)],
)
def test_the_bound_covers_the_worst_case(arch: str, algorithm: str, size: float) -> None:
    """2^20, then terms of `size` x 2^-4, each of which is lost: the error grows as fast as it can."""
    depth = 640
    a, b = np.full((1, depth), size * 2.0**-4, np.float16), np.ones((depth, 1), np.float16)
    a[0, 0] = b[0] = 2.0**10
    if algorithm == "sparta":  # all in the 2:4 part
        a[0, 2::4] = a[0, 3::4] = 0
    for splits in (((0, depth),), ((0, 4), (4, 8), (8, depth))):
        c = compute(algorithm, a, b, arch, splits=splits, out_format="f32")
        error = np.abs(c - spmm.dense64(a, b))
        assert error <= spmm.error_bound(a, b, arch=arch, algorithm=algorithm, splits=splits, out_format="f32")
    oracle = "sputnik" if algorithm == "sputnik" else "lscd"
    assert compute(oracle, a, b, arch, out_format="f32")[0, 0] == 2.0**20  # lost indeed


@pytest.mark.parametrize("algorithm", ["lscd", "sputnik", "sparta"])
def test_the_bound_covers_the_worst_splits(algorithm: str) -> None:
    """Every later split's sum is just under half a unit of 2^20 and lost in the float32 addition."""
    a, b = np.zeros((1, 160), np.float16), np.ones((160, 1), np.float16)
    a[0, ::4] = 0.9 * 2.0**-4
    a[0, 0] = b[0] = 2.0**10
    options: dict[str, Any] = {"splits": tuple((k, k + 4) for k in range(0, 160, 4)), "out_format": "f32"}
    c = compute(algorithm, a, b, "sm_80", **options)
    assert c[0, 0] == 2.0**20
    bound = spmm.error_bound(a, b, arch="sm_80", algorithm=algorithm, **options)
    assert 2.1 < np.abs(c - spmm.dense64(a, b)) <= bound < 6


@pytest.mark.parametrize("out", ["f32", "f16"])
@pytest.mark.parametrize(
    ("arch", "algorithm"), [("sm_80", "lscd"), ("sm_90", "lscd"), ("sm_80", "sparta"), ("sm_80", "sputnik")]
)
@pytest.mark.parametrize(("depth", "density"), [(64, 1.0), (512, 0.2), (512, 1.0), (4096, 0.2)])
def test_the_bound_is_not_vacuous(depth: int, density: float, arch: str, algorithm: str, out: str) -> None:
    """Largest bound within 50 times (f32 output) or 4 times (f16 output) the largest actual error on random data."""
    rng = np.random.default_rng(depth)
    a = as_matrix(patterns(rng, (128, depth), "f16", "normal", density), "f16")
    b = as_matrix(patterns(rng, (depth, 16), "f16", "normal", 1.0), "f16")
    options: dict[str, Any] = {"splits": ((0, depth // 2), (depth // 2, depth)), "out_format": out}
    error = np.abs(compute(algorithm, a, b, arch, **options) - spmm.dense64(a, b))
    bound = spmm.error_bound(a, b, arch=arch, algorithm=algorithm, **options)
    assert (error <= bound).all()
    ratio = bound.max() / error.max()
    print(f"{algorithm} {arch} K={depth} density={density} {out}: bound / worst error = {ratio:.1f}")
    assert ratio < (50 if out == "f32" else 4)


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return tuple(
        as_matrix(patterns(rng, s, "f16", "normal", d), "f16") for s, d in (((64, 512), 0.3), ((512, 16), 1.0))
    )


@pytest.mark.parametrize(
    "bug", ["one product lost", "zeros", "k shifted", "one bf16 rounding", "row swapped", "4 units off"]
)
def test_wrong_products_are_rejected(bug: str) -> None:
    """The judge is judged: each bug must fail in at least half of the elements it touches."""
    a, b = example()
    reference, bound = spmm.dense64(a, b), spmm.error_bound(a, b, arch="sm_80")
    right = spmm.lscd(a, b, arch="sm_80")
    if bug == "one product lost":
        broken = a.copy()
        broken[np.arange(64), np.argmax(np.abs(a), axis=1)] = 0
        wrong = spmm.lscd(broken, b, arch="sm_80")
    elif bug == "zeros":
        wrong = np.zeros_like(right)
    elif bug == "k shifted":
        wrong = spmm.lscd(a, np.roll(b, 1, axis=0), arch="sm_80")
    elif bug == "one bf16 rounding":
        wrong = ((right.astype(np.float32).view(np.uint32) + 0x8000 >> 16) << 16).astype(np.uint32).view(np.float32)
        wrong = wrong.astype(np.float16)
    elif bug == "row swapped":
        wrong = right[::-1]
    else:
        wrong = (right.view(np.uint16) + 4).view(np.float16)
    judged = spmm.accurate(wrong, reference, bound)
    touched = wrong.view(np.uint16) != right.view(np.uint16)
    assert spmm.accurate(right, reference, bound).all()
    assert np.count_nonzero(~judged) >= np.count_nonzero(touched) / 2 > 0


def test_every_result_outside_the_bound_is_rejected() -> None:
    a, b = example(1)
    reference, bound = spmm.dense64(a, b), spmm.error_bound(a, b, arch="sm_90", out_format="f32")
    outside = reference + 1.5 * np.where(np.arange(16) % 2, bound, -bound) + np.sign(reference) * 1e-30
    assert not spmm.accurate(outside.astype(np.float32), reference, bound, out_format="f32").any()


def test_rules_for_values_that_are_not_finite() -> None:
    """NaN meets NaN, infinity the same infinity; infinity is right only where the threshold is within the bound."""
    inf, nan = np.inf, np.nan
    reference = np.array([[nan, nan, inf, inf, -inf, 65519.0, 65519.0, 65400.0, 66000.0, 66000.0, -66000.0]])
    bound = np.array([[0.0, 0, 0, 0, 0, 20, 20, 20, 20, 20, 20]])
    c = np.array([[nan, 1.0, inf, -inf, -inf, inf, 65504.0, inf, inf, 65504.0, inf]], np.float16)
    want = [True, False, True, False, True, True, True, False, True, False, False]
    assert spmm.accurate(c, reference, bound).tolist() == [want]
    for judged in (1.0, inf, nan):
        assert spmm.accurate(np.float32([[nan]]), np.array([[judged]]), np.array([[inf]]), out_format="f32").all()
    assert not spmm.accurate(np.float32([[nan]]), np.array([[1.0]]), np.array([[9.0]]), out_format="f32").any()
    with pytest.raises(ValueError, match=r"C is \(1, 1\), the reference \(1, 11\)"):
        spmm.accurate(np.float16([[1]]), reference, bound)
    with pytest.raises(ValueError, match="unknown output format 'f64'"):
        spmm.accurate(c, reference, bound, out_format="f64")


def test_float64_oracle_against_a_loop() -> None:
    rng = np.random.default_rng(13)
    words_a, words_b = patterns(rng, (12, 8), "f16", "normal", 0.5), patterns(rng, (8, 6), "f16", "normal", 1.0)
    words_b[3, :4] = 0x7C00, 0xFC00, 0x7E00, 0x7C00
    words_b[5, 3:5] = 0xFC00, 0x7C00
    words_a[:4, 3] = 0x7C00, 0, 0x8000, 0xFC00  # infinity, unstored, -0 and -infinity times infinity
    a, b = as_matrix(words_a, "f16"), as_matrix(words_b, "f16")
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        terms = x[:, :, None] * y
        dense = terms.sum(axis=1)
        stored = np.where((words_a != 0)[:, :, None], terms, 0.0).sum(axis=1)
    assert 0 < np.isnan(stored).sum() < np.isnan(dense).sum() < dense.size
    assert np.isinf(stored).any()
    assert np.isfinite(stored).any()
    np.testing.assert_allclose(spmm.dense64(a, b), dense, rtol=1e-12)
    np.testing.assert_allclose(spmm.dense64(a, b, semantics="stored"), stored, rtol=1e-12)
    np.testing.assert_allclose(spmm.dense64(a, b, semantics="stored", rows=[4, 2]), stored[[4, 2]], rtol=1e-12)


def test_accumulator_overflow_is_not_judged() -> None:
    """bf16 products of 2^200 overflow float32 on the way, although their sum is 0: bound infinite, not 0."""
    big = np.uint16((100 + 127) << 7)
    a = np.array([[big] * 2 + [0] * 15 + [big] * 2], np.uint16)
    b = np.array([[big], [big]] + [[0]] * 15 + [[big | 0x8000]] * 2, np.uint16)
    bound = spmm.error_bound(a, b, arch="sm_80", in_format="bf16", out_format="f32")
    assert np.isinf(bound).all()
    c = spmm.lscd(a, b, arch="sm_80", in_format="bf16", out_format="f32")
    assert not np.isfinite(c).any()
    assert spmm.accurate(c, spmm.dense64(a, b, in_format="bf16"), bound, out_format="f32").all()


def test_overflow_of_the_result_is_infinity() -> None:
    a, b = np.full((1, 32), 60.0, np.float16), np.full((32, 1), 60.0, np.float16)
    reference, bound = spmm.dense64(a, b), spmm.error_bound(a, b, arch="sm_80")
    assert np.isfinite(bound).all()
    assert spmm.lscd(a, b, arch="sm_80")[0, 0] == np.inf
    assert spmm.accurate(np.float16([[np.inf]]), reference, bound).all()
    assert not spmm.accurate(np.float16([[65504.0]]), reference, bound).any()
    assert not spmm.accurate(np.float16([[-np.inf]]), reference, bound).any()


def test_chunks_and_rows_give_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = example(2)
    whole, wide = spmm.error_bound(a, b, arch="sm_80"), spmm.order_free_bound(a, b)
    np.testing.assert_allclose(spmm.error_bound(a, b, arch="sm_80", rows=[5, 60]), whole[[5, 60]], rtol=1e-12)
    monkeypatch.setattr(matrices, "CHUNK", 512 * 3)
    np.testing.assert_allclose(spmm.error_bound(a, b, arch="sm_80"), whole, rtol=1e-12)
    np.testing.assert_allclose(spmm.order_free_bound(a, b), wide, rtol=1e-12)
    np.testing.assert_allclose(spmm.dense64(a, b), a.astype(np.float64) @ b.astype(np.float64), rtol=1e-12)


def test_empty_rows_and_unknown_words() -> None:
    a, b = example(3)
    a[7] = 0
    assert (spmm.error_bound(a, b, arch="sm_80")[7] == 0).all()
    assert spmm.error_bound(a[:, :0], b[:0], arch="sm_80").max() == 0
    with pytest.raises(ValueError, match="unknown algorithm 'magic'"):
        spmm.error_bound(a, b, arch="sm_80", algorithm="magic")
    with pytest.raises(ValueError, match="unknown output format 'e4m3'"):
        spmm.error_bound(a, b, arch="sm_80", out_format="e4m3")


def test_generator_reaches_what_it_promises() -> None:
    rng = np.random.default_rng(0)
    wild = arithmetic.decode(np.concatenate([patterns(rng, (9, 200), "f16", "wild", 1.0) for _ in range(9)]), "f16")
    assert np.isnan(wild).any()
    assert np.isinf(wild).any()
    tiny = arithmetic.decode(patterns(rng, (9, 200), "f16", "subnormal", 1.0), "f16")
    assert ((np.abs(tiny) < 2.0**-14) & (tiny != 0)).mean() > 0.8
