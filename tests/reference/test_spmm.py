"""Exact SpMM oracles against slow loops, hand-derived cases and each other."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadsparse.reference import spmm, tensorcore
from loadsparse.reference.spmm import cuda_cores, matrices, tensor_cores
from loadsparse.reference.tensorcore import arithmetic


def sparse(rng: np.random.Generator, rows: int, columns: int, density: float) -> np.ndarray:
    values = rng.normal(size=(rows, columns)) * 2.0 ** rng.integers(-6, 7, (rows, columns))
    return np.where(rng.random((rows, columns)) < density, values, 0.0).astype(np.float16)


def bits16(matrix: np.ndarray) -> np.ndarray:
    return matrix.view(np.uint16)


def slow_lscd(a: np.ndarray, b: np.ndarray, arch: str, ranges: Any, fmt: str, skip: bool) -> np.ndarray:
    """Float32 words, one dot_add per output and mma step."""
    out = np.zeros((len(a), b.shape[1]), np.float32)
    for m in range(len(a)):
        for n in range(b.shape[1]):
            total = None
            for start, stop in ranges:
                c = np.zeros(1, np.uint32)
                for k in range(start, stop, 16):
                    x, y = np.zeros((2, 1, 16), np.uint16)
                    x[0, : min(16, stop - k)] = a[m, k : min(k + 16, stop)]
                    y[0, : min(16, stop - k)] = b[k : min(k + 16, stop), n]
                    if skip:
                        y[x == 0] = 0
                    c = tensorcore.dot_add(x, y, c, arch=arch, in_format=fmt, out_format="f32")
                partial = c.view(np.float32)[0]
                with np.errstate(invalid="ignore", over="ignore"):
                    total = partial if total is None else np.float32(total + partial)
            out[m, n] = total
    return out


@given(st.data())
def test_lscd_equals_the_loop(data: Any) -> None:
    m, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    depth = data.draw(st.integers(1, 50))
    arch = data.draw(st.sampled_from(["sm_80", "sm_90"]))
    fmt = data.draw(st.sampled_from(["f16", "bf16"]))
    skip = data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    a, b = sparse(rng, m, depth, 0.5).view(np.uint16), sparse(rng, depth, n, 0.8).view(np.uint16)
    wild = data.draw(st.integers(0, 4))
    a.flat[rng.integers(0, a.size, wild)] = rng.choice([0x8000, 0x7C00, 0xFC00, 0x7E00, 0x0001], wild)
    b.flat[rng.integers(0, b.size, wild)] = rng.choice([0x8000, 0x7C00, 0xFF80, 0x7F81, 0x0001], wild)
    cut = sorted(data.draw(st.lists(st.integers(0, depth), max_size=2)))
    ranges = tuple(zip([0, *cut], [*cut, depth], strict=True))
    got = spmm.lscd(
        a.view(np.float16) if fmt == "f16" else a,
        b.view(np.float16) if fmt == "f16" else b,
        arch=arch,
        splits=ranges,
        in_format=fmt,
        out_format="f32",
        semantics="stored" if skip else "dense",
    )
    want = slow_lscd(a, b, arch, ranges, fmt, skip)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(want[~np.isnan(want)]))
    assert (got.view(np.uint32)[np.isnan(got)] == 0x7FFFFFFF).all()


def test_rows_and_chunks_and_dense() -> None:
    rng = np.random.default_rng(1)
    a, b = sparse(rng, 40, 70, 0.3), sparse(rng, 70, 5, 1.0)
    whole = spmm.lscd(a, b, arch="sm_80", splits=((0, 33), (33, 70)))
    rows = np.array([39, 0, 7])
    np.testing.assert_array_equal(spmm.lscd(a, b, arch="sm_80", splits=((0, 33), (33, 70)), rows=rows), whole[rows])
    np.testing.assert_array_equal(spmm.dense(a, b, arch="sm_80", splits=((0, 33), (33, 70))), whole)
    assert spmm.lscd(a[:, :0], b[:0], arch="sm_80").tolist() == np.zeros((40, 5)).tolist()
    assert spmm.lscd(a, b[:, :0], arch="sm_80").shape == (40, 0)


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    a, b = sparse(rng, 40, 70, 0.3), sparse(rng, 70, 5, 1.0)
    whole = spmm.lscd(a, b, arch="sm_90")
    others = spmm.sputnik(a, b), spmm.sparta(a, b, arch="sm_90")
    monkeypatch.setattr(arithmetic, "CHUNK_TERMS", 300)
    monkeypatch.setattr(matrices, "CHUNK", 200)
    np.testing.assert_array_equal(spmm.lscd(a, b, arch="sm_90"), whole)
    np.testing.assert_array_equal(spmm.sputnik(a, b), others[0])
    np.testing.assert_array_equal(spmm.sparta(a, b, arch="sm_90"), others[1])


def test_the_split_changes_the_last_bit() -> None:
    """2^24 + 1 is cut in one chain, but 1 + 1 survives in the second split: 2^24 + 2."""
    a = np.float16([[2.0**12, 1, 1] + [0] * 14])
    b = np.float16([[2.0**12], [1], [1]] + [[0]] * 14)
    one = spmm.lscd(a, b, arch="sm_80", out_format="f32", splits=((0, 1), (1, 2), (2, 17)))
    two = spmm.lscd(a, b, arch="sm_80", out_format="f32", splits=((0, 1), (1, 17)))
    assert (one[0, 0], two[0, 0]) == (2.0**24, 2.0**24 + 2)


def test_semantics() -> None:
    a, b = np.float16([[0.0, 1.0, -0.0]]), np.float16([[np.inf, 1.0], [2.0, 3.0], [5.0, np.nan]])
    dense = spmm.lscd(a, b, arch="sm_80")
    stored = spmm.lscd(a, b, arch="sm_80", semantics="stored")
    assert bits16(dense).tolist() == [[0x7FFF, 0x7FFF]]  # 0 x inf and -0 x NaN
    assert stored[0, 0] == 2.0  # +0 is unstored ...
    assert bits16(stored)[0, 1] == 0x7FFF  # ... -0 is stored
    assert spmm.sputnik(a, b)[0, 0] == 2.0


@pytest.mark.parametrize("fmt", ["f16", "bf16"])
def test_final_rounding_is_to_nearest_even(fmt: str) -> None:
    """Every float32 near ties and limits, against exact rational rounding."""
    rng = np.random.default_rng(3)
    low = 13 if fmt == "f16" else 16
    words = rng.integers(0, 1 << 32, 3000, dtype=np.uint32)
    words[1000:] = words[1000:] >> low << low | rng.choice([0, 1 << (low - 1), (1 << (low - 1)) + 1], 2000).astype(
        np.uint32
    )
    words[2000:] = words[2000:] & 0x83FFFFFF | rng.choice([0x38000000, 0x44000000, 0x30000000], 1000).astype(np.uint32)
    values = words.view(np.float32)
    got = matrices.round_f32(values, fmt)
    got_bits = got.view(np.uint16)
    bits, fraction, bias = (5, 10, 15) if fmt == "f16" else (8, 7, 127)
    for value, word in zip(values, got_bits.tolist(), strict=True):
        if np.isnan(value):
            assert word == 0x7FFF
            continue
        sign = 0x8000 if np.signbit(value) else 0
        if np.isinf(value):
            magnitude = ((1 << bits) - 1) << fraction
        else:
            exact = Fraction(abs(float(value)))
            exponent = max(int(np.frexp(np.float64(value))[1]) - 1, 1 - bias)
            digits = round(exact / Fraction(2) ** (exponent - fraction))
            magnitude = min(digits + ((exponent + bias - 1) << fraction), ((1 << bits) - 1) << fraction)
        assert word == sign | magnitude


def exact_fma(a: float, b: float, c: np.float32) -> np.float32:
    """a b + c, rounded once to nearest even, by way of fractions."""
    total = Fraction(a) * Fraction(b) + Fraction(float(c))
    if total == 0:
        return np.float32(a * b + float(c))  # IEEE's sign of zero
    magnitude = abs(total)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent
    exponent = max(exponent, -126)
    digits = round(magnitude / Fraction(2) ** (exponent - 23))
    word = min(digits + ((exponent + 126) << 23), 0x7F800000) | (0x80000000 if total < 0 else 0)
    return np.uint32(word).view(np.float32)


@pytest.mark.parametrize("fmt", ["f16", "bf16"])
def test_fma_rounds_once(fmt: str) -> None:
    """Random words; then c within a few places of the product, of half its last place, or so that it decides a tie."""
    rng = np.random.default_rng(4)
    size = 6000
    a, b = (arithmetic.decode(rng.integers(0, 1 << 16, size, dtype=np.uint16), fmt) for _ in "ab")
    c = rng.integers(0, 1 << 32, size, dtype=np.uint32).view(np.float32)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        scale = rng.choice([1.0, -1.0, *2.0 ** np.arange(-26, -20), *2.0 ** np.arange(20, 27)], size)
        c[size // 2 :] = (a * b * scale).astype(np.float32)[size // 2 :]
        finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
        a, b, c = a[finite], b[finite], c[finite]
        got = cuda_cores.fma_f32(a, b, c)
    want = np.array([exact_fma(*row) for row in zip(a.tolist(), b.tolist(), c, strict=True)])
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    assert len(a) > 4000
    assert np.count_nonzero((a * b != 0) & (c != 0) & (want != c)) > 1000


@given(st.integers(0, 2**32), st.sampled_from(["f16", "bf16"]))
def test_sputnik_equals_the_loop(seed: int, fmt: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = (sparse(rng, *size, 0.4).view(np.uint16) for size in ((3, 21), (21, 2)))
    if fmt == "bf16":  # also products beyond float32's range
        a ^= (rng.random(a.shape) < 0.3).astype(np.uint16) << 13
    ranges = ((0, 9), (9, 9), (9, 21))
    values = [arithmetic.decode(x, fmt) for x in (a, b)]
    want = np.zeros((3, 2), np.float32)
    for m in range(3):
        for n in range(2):
            total = None
            for start, stop in ranges:
                c = np.float32(0)
                for k in range(start, stop):
                    if a[m, k] and np.isfinite(c):
                        c = exact_fma(values[0][m, k], values[1][k, n], c)
                total = c if total is None else np.float32(total + c)
            want[m, n] = total
    if not np.isfinite(want).all():
        return
    arrays = [x.view(np.float16) if fmt == "f16" else x for x in (a, b)]
    got = spmm.sputnik(*arrays, splits=ranges, in_format=fmt, out_format="f32")
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


def test_sputnik_skips_only_unstored_elements() -> None:
    a, b = np.float16([[0.0, -0.0], [0.0, 0.0]]), np.float16([[np.nan], [np.inf]])
    got = bits16(spmm.sputnik(a, b)).tolist()
    assert got == [[0x7FFF], [0x0000]]


def prune_two_four(a: np.ndarray) -> np.ndarray:
    kept = a.copy().reshape(len(a), -1, 4)
    order = np.argsort(np.abs(kept), axis=-1)
    np.put_along_axis(kept, order[..., :2], 0, axis=-1)
    return kept.reshape(a.shape)


def test_two_four_positions() -> None:
    a = bits16(np.float16([[0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 2, 3, -0.0, 0, 0, 4]]))
    assert tensor_cores.two_four_positions(a).tolist() == [[[0, 1], [0, 3], [0, 2], [0, 3]]]


def test_two_four_is_mma_sp() -> None:
    """The oracle equals a chain of mma_sp instructions on the same fragments, in every bit."""
    rng = np.random.default_rng(9)
    a, b = prune_two_four(sparse(rng, 16, 64, 0.9)), sparse(rng, 64, 8, 1.0)
    shape = tensorcore.SPARSE_M16N8K32
    for arch in ("sm_80", "sm_90"):
        c = np.zeros((32, 4), np.uint32)
        for k in (0, 32):
            step = bits16(a[:, k : k + 32].copy())
            positions = tensor_cores.two_four_positions(step)
            compressed = np.take_along_axis(step.reshape(16, 8, 4), positions, axis=-1).reshape(16, 16)
            operands = (shape.a.to_registers(compressed), shape.b.to_registers(bits16(b[k : k + 32].copy())), c)
            c = tensorcore.mma_sp(*operands, tensorcore.encode_metadata(positions, 1), 1, arch=arch)
        got = spmm.two_four(a, b, arch=arch, out_format="f32")
        np.testing.assert_array_equal(got.view(np.uint32), shape.c.to_matrix(c))


def test_two_four_refuses_a_third_element() -> None:
    a = np.float16([[1, 1, 0, 0, 0, 0, 0], [1, 0, 1, 0, 1, 1, 1]])
    with pytest.raises(ValueError, match="not 2:4 sparse: row 1, k 4 to 7"):
        spmm.two_four(a, np.ones((7, 1), np.float16), arch="sm_80")


@pytest.mark.parametrize("oracle", [spmm.two_four, spmm.sparta])
def test_a_split_must_not_cut_a_group_of_four(oracle: Any) -> None:
    """Cut at k = 1, the groups 1..4 and 5..8 could hold three stored elements, and one would be lost silently."""
    a, b = np.float16([[0, 0, 1, 1, 1, 1, 0, 0]]), np.ones((8, 1), np.float16)
    assert oracle(a, b, arch="sm_80", splits=((0, 4), (4, 8), (8, 8))).tolist() == [[4.0]]
    assert oracle(a[:, :5], b[:5], arch="sm_80", splits=((0, 5), (5, 5))).tolist() == [[3.0]]
    with pytest.raises(ValueError, match=r"splits must start at multiples of 4: \(1, 8\) cuts a group"):
        oracle(a, b, arch="sm_80", splits=((0, 1), (1, 8)))


def test_sparta_adds_both_parts() -> None:
    rng = np.random.default_rng(10)
    a, b = sparse(rng, 30, 67, 0.6), sparse(rng, 67, 4, 1.0)
    structured, rest = (x.view(np.float16) for x in cuda_cores.two_four_parts(bits16(a)))
    np.testing.assert_array_equal(structured + rest, a)
    assert ((structured == 0) | (rest == 0)).all()
    assert (rest[:, :4] != 0).sum(axis=1).max() == 2
    half = [
        spmm.two_four(structured, b, arch="sm_80", out_format="f32"),
        spmm.sputnik(rest, b, out_format="f32"),
    ]
    np.testing.assert_array_equal(spmm.sparta(a, b, arch="sm_80", out_format="f32"), half[0] + half[1])
    rows = slice(3, 9)
    np.testing.assert_array_equal(spmm.sparta(a, b, arch="sm_80", rows=rows), spmm.sparta(a, b, arch="sm_80")[rows])


def test_integer_products_agree_everywhere() -> None:
    """Small integers: every oracle gives the same exact product."""
    rng = np.random.default_rng(11)
    a = np.where(rng.random((20, 90)) < 0.4, rng.integers(-4, 5, (20, 90)), 0).astype(np.float16)
    b = rng.integers(-4, 5, (90, 7)).astype(np.float16)
    want = a.astype(np.float64) @ b.astype(np.float64)
    ranges = ((0, 40), (40, 90))
    for arch in ("sm_80", "sm_89", "sm_90"):
        for oracle in (spmm.lscd, spmm.dense, spmm.sparta):
            np.testing.assert_array_equal(oracle(a, b, arch=arch, splits=ranges), want)
    np.testing.assert_array_equal(spmm.sputnik(a, b, splits=ranges), want)
    np.testing.assert_array_equal(spmm.dense64(a, b), want)
    pruned = prune_two_four(a[:, :88])
    np.testing.assert_array_equal(
        spmm.two_four(pruned, b[:88], arch="sm_80"), pruned.astype(np.float64) @ b[:88].astype(np.float64)
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"splits": ((0, 4), (5, 8))}, ValueError, r"found \(5, 8\) after 4"),
        ({"splits": ((0, 5000),)}, ValueError, "they end at 5000"),
        ({"splits": ((0, 4),)}, ValueError, "they end at 4"),
        ({"splits": ()}, ValueError, "splits must cover"),
        ({"semantics": "sparse"}, ValueError, "unknown semantics 'sparse'"),
        ({"out_format": "f64"}, ValueError, "unknown output format 'f64'"),
        ({"in_format": "bf16"}, TypeError, "A must be uint16 for format 'bf16', not float16"),
        ({"in_format": "f8"}, ValueError, "unknown format 'f8' of A"),
        ({"arch": "sm_70"}, None, ""),
        ({"arch": "sm_1"}, ValueError, "unknown architecture 'sm_1'"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception] | None, message: str) -> None:
    a, b = np.ones((2, 8), np.float16), np.ones((8, 3), np.float16)
    call = {"arch": "sm_80", **change}
    if error is None:
        assert (spmm.lscd(a, b, **call) == 8).all()
        return
    with pytest.raises(error, match=message):
        spmm.lscd(a, b, **call)


def test_shapes_that_do_not_multiply() -> None:
    a, b = np.ones((2, 8), np.float16), np.ones((7, 3), np.float16)
    with pytest.raises(ValueError, match=r"A \(2, 8\) and B \(7, 3\) do not multiply"):
        spmm.lscd(a, b, arch="sm_80")
    with pytest.raises(ValueError, match="A must be a matrix"):
        spmm.lscd(a[0], b, arch="sm_80")
    with pytest.raises(TypeError, match="B must be float16 for format 'f16', not float32"):
        spmm.lscd(a[:, :7], b.astype(np.float32), arch="sm_80")


@pytest.mark.parametrize("algorithm", ["lscd", "dense", "two_four", "sputnik", "sparta"])
def test_ranges_beyond_k_multiply_zeros(algorithm):
    """As if A and B had zeros there; the bound, which is about finite sums, does not change."""
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((6, 12)).astype(np.float16), rng.standard_normal((12, 3)).astype(np.float16)
    a.reshape(6, 3, 4)[:, :, 2:] = 0
    more = np.pad(a, ((0, 0), (0, 52))), np.pad(b, ((0, 52), (0, 0)))
    oracle, arch = getattr(spmm, algorithm), {} if algorithm == "sputnik" else {"arch": "sm_80"}
    for splits in (((0, 64),), ((0, 8), (8, 64)), ((0, 16), (16, 64))):
        np.testing.assert_array_equal(oracle(a, b, splits=splits, **arch), oracle(*more, splits=splits, **arch))
    bound = {"arch": "sm_80", "algorithm": algorithm}
    np.testing.assert_array_equal(spmm.error_bound(a, b, splits=((0, 64),), **bound), spmm.error_bound(a, b, **bound))


def test_grouped_is_each_experts_own_product() -> None:
    rng = np.random.default_rng(11)
    experts = [
        np.where(rng.random((5, 40)) < 0.3, rng.standard_normal((5, 40)), 0).astype(np.float16) for _ in range(3)
    ]
    b, counts = rng.standard_normal((40, 7)).astype(np.float16), [4, 0, 3]
    splits = [[(0, 16), (16, 40)], [(0, 40)], [(0, 32), (32, 40)]]
    how = {"arch": "sm_80", "splits": splits}
    c, bound = spmm.grouped(experts, b, counts, **how), spmm.grouped_bound(experts, b, counts, **how)
    assert np.array_equal(c[:, :4], spmm.lscd(experts[0], b[:, :4], arch="sm_80", splits=splits[0]))
    assert np.array_equal(c[:, 4:], spmm.lscd(experts[2], b[:, 4:], arch="sm_80", splits=splits[2]))
    exact = np.concatenate([experts[0].astype(float) @ b[:, :4], experts[2].astype(float) @ b[:, 4:]], axis=1)
    assert spmm.accurate(c, exact, bound).all()
    assert not spmm.accurate(np.roll(c, 1, axis=1), exact, bound).all()
    for wrong in ([4, 0, 4], [7, 0], [8, -1, 0], [0, 0, 0], []):
        with pytest.raises(ValueError, match="counts"):
            spmm.grouped(experts, b, wrong, **how)
    with pytest.raises(ValueError, match="2 lists of K ranges for 3 experts"):
        spmm.grouped(experts, b, counts, arch="sm_80", splits=splits[:2])
