"""The judge itself is judged: right products pass on every input, and each wrong one fails for the reason it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.gpu import verify
from loadsparse.gpu.verify import inputs
from loadsparse.gpu.verify.judge import EXACT_PRODUCTS, SAMPLE_ROWS, bits, judge, sample_rows
from loadsparse.reference import spmm

ARCHES = ("sm_80", "sm_89", "sm_90")
SPLITS = ((0, 32), (32, 130))


def product(case: inputs.Case, arch: str = "sm_80", **options: Any) -> Any:
    return spmm.lscd(case.a, case.b, arch=arch, in_format=case.dtype, **options)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("semantics", ["dense", "stored"])
@pytest.mark.parametrize("name", ["random", *inputs.ADVERSARIAL])
def test_right_products_pass(name: str, semantics: str, dtype: str) -> None:
    """Also without a declared order, and for every output format."""
    for arch in ARCHES:
        (case,) = inputs.cases((name,), 11, dtype)
        k = case.shape[2]
        splits = ((0, k // 3), (k // 3, k))
        for out in (dtype, "f32"):
            c = product(case, arch, splits=splits, semantics=semantics, out_format=out)
            options = {"dtype": "bf16" if dtype == "bf16" else None, "semantics": semantics}
            known = judge(c, case.a, case.b, arch=arch, splits=splits, **options)
            assert (known.exact, known.accurate, known.first) == (True, True, None), known
            assert known.rows_exact == case.shape[0]
            elsewhere = judge(c, case.a, case.b, **options)
            assert (elsewhere.exact, elsewhere.accurate, elsewhere.first) == (None, True, None), elsewhere


CASE = inputs.random_case(3, shape=(70, 8, 130), density=0.3)
RIGHT = product(CASE, splits=SPLITS)


def _flip(c: Any) -> Any:
    c[17, 3] = -c[17, 3]
    return c


def _one_row_missing(c: Any) -> Any:
    c[-1] = 0
    return c


def _one_nan(c: Any) -> Any:
    c[5, 5] = np.nan
    return c


def _one_infinity(c: Any) -> Any:
    c[5, 5] = np.inf
    return c


def _one_step_off(c: Any) -> Any:
    """Two units in the last place in one element: further than rounding can go."""
    bits(c)[40, 1] += np.uint16(2)
    return c


WRONG: dict[str, Callable[[Any], Any]] = {
    "zeros": np.zeros_like,
    "ones": np.ones_like,
    "negated": np.negative,
    "doubled": lambda c: c * np.float16(2),
    "one percent off": lambda c: (c.astype(np.float32) * 1.01).astype(np.float16),
    "rows rolled": lambda c: np.roll(c, 1, axis=0),
    "columns rolled": lambda c: np.roll(c, 1, axis=1),
    "rows reversed": lambda c: c[::-1],
    "one sign": _flip,
    "one row": _one_row_missing,
    "one nan": _one_nan,
    "one infinity": _one_infinity,
    "two units": _one_step_off,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_products_fail(wrong: str) -> None:
    """By the bound alone, too: none of them needs the exact oracle."""
    c = WRONG[wrong](RIGHT.copy())
    for options in ({}, {"arch": "sm_80", "splits": SPLITS}):
        found = judge(c, CASE.a, CASE.b, **options)
        assert found.accurate is False
        assert found.first is not None
        assert found.first.bound is not None
        row, column = found.first.row, found.first.column
        assert found.first.got_bits == bits(c)[row, column]
        assert found.first.expected_bits == bits(RIGHT)[row, column]


@pytest.mark.parametrize("scale", [1e-2, 1e-3])
def test_small_values_do_not_hide_zeros(scale: float) -> None:
    """A bound is relative to |A||B|: there is no absolute tolerance that small outputs could slip under."""
    rng = np.random.default_rng(0)
    a = (rng.standard_normal((40, 64)) * scale).astype(np.float16)
    b = (rng.standard_normal((64, 8)) * 1e-2).astype(np.float16)
    right = spmm.lscd(a, b, arch="sm_80", out_format="f32")
    assert judge(right, a, b).ok
    assert not judge(np.zeros_like(right), a, b).ok


def test_order_shows_in_exact_only() -> None:
    """Another K split, and another architecture, are accurate and not exact: that is what `exact` is for."""
    other = product(CASE, splits=((0, 64), (64, 130)), out_format="f32")
    found = judge(other, CASE.a, CASE.b, arch="sm_80", splits=SPLITS)
    assert (found.exact, found.accurate) == (False, True)
    assert found.first is not None
    assert found.first.bound is None
    newer = judge(product(CASE, "sm_90", splits=SPLITS, out_format="f32"), CASE.a, CASE.b, arch="sm_80", splits=SPLITS)
    assert (newer.exact, newer.accurate) == (False, True)


def test_rounding_twice_is_found() -> None:
    """Partial sums rounded to f16 before they are added, as Flash-LLM does, are not exact."""
    halves = [
        product(inputs.Case("", CASE.a[:, start:stop].copy(), CASE.b[start:stop].copy(), "f16", "")).astype(np.float32)
        for start, stop in SPLITS
    ]
    c = (halves[0] + halves[1]).astype(np.float16)
    assert judge(c, CASE.a, CASE.b, arch="sm_80", splits=SPLITS).exact is False


def test_narrow_data_are_called_narrow() -> None:
    """All ones: a product with exchanged rows passes, and the judgement says that it would."""
    ones = np.ones((8, 16), np.float16)
    found = judge(np.full((8, 4), 16, np.float16), ones, np.ones((16, 4), np.float16))
    assert found.ok
    assert found.notes == (
        "narrow data: these inputs cannot tell the product from one with its rows moved or one with its columns moved",
    )
    assert judge(RIGHT, CASE.a, CASE.b).notes == ()


def test_float16_accumulation_is_inaccurate() -> None:
    case = inputs.random_case(5, shape=(63, 4, 1000), density=0.5)
    total = np.zeros((case.shape[0], case.shape[1]), np.float16)
    for k in range(case.shape[2]):
        total += case.a[:, k : k + 1] * case.b[k]
    assert not judge(total, case.a, case.b).accurate


def test_semantics_must_be_the_declared_one() -> None:
    (case,) = inputs.cases(("inf",), 2)
    dense, stored = product(case), product(case, semantics="stored")
    assert (bits(dense) != bits(stored)).any()
    assert not judge(dense, case.a, case.b, semantics="stored").ok
    assert not judge(stored, case.a, case.b, semantics="dense").ok


def test_nan_needs_nan() -> None:
    (case,) = inputs.cases(("nan",), 2)
    right = product(case)
    assert not judge(np.nan_to_num(right, nan=0.0), case.a, case.b).ok
    assert not judge(np.full_like(right, np.nan), case.a, case.b).ok


def test_overflow_needs_infinity() -> None:
    a, b = np.full((3, 4), 200, np.float16), np.array([[200], [200], [200], [-1]], np.float16)
    right = product(inputs.Case("", a, b, "f16", ""))
    assert np.isposinf(right).all()
    assert judge(right, a, b).ok
    assert not judge(np.full_like(right, 65504), a, b).ok
    assert not judge(-right, a, b).ok
    assert not judge(np.full_like(right, np.nan), a, b).ok


def test_large_products_are_sampled_and_say_so() -> None:
    m, n, k = 4096, 9, 1000
    assert m * n * k > EXACT_PRODUCTS
    case = inputs.random_case(8, shape=(m, n, k), density=0.05)
    rows = sample_rows(m, n, k, 8)
    assert rows.size == SAMPLE_ROWS == np.unique(rows).size
    assert (rows[0], rows[-1]) == (0, m - 1)
    c = product(case)
    found = judge(c, case.a, case.b, arch="sm_80", splits=((0, k),), seed=8)
    assert (found.exact, found.accurate, found.rows_exact) == (True, True, SAMPLE_ROWS)
    assert f"{SAMPLE_ROWS} of {m} rows" in found.notes[0]
    unsampled = next(row for row in range(m) if row not in rows)
    c[unsampled, 0] += c[unsampled, 0] + np.float16(1)
    assert not judge(c, case.a, case.b, arch="sm_80", splits=((0, k),), seed=8).accurate


class Tensor:
    """Anything with __dlpack__."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_dlpack_tensors_are_read() -> None:
    assert verify.judge(Tensor(RIGHT), Tensor(CASE.a), Tensor(CASE.b)).ok
    assert not verify.judge(Tensor(-RIGHT), Tensor(CASE.a), Tensor(CASE.b)).ok


def test_transposed_and_foreign_byte_order_are_read() -> None:
    assert judge(np.asfortranarray(RIGHT), np.asfortranarray(CASE.a), CASE.b).ok
    assert judge(RIGHT.astype(">f2"), CASE.a.astype(">f2"), CASE.b).ok


BAD: list[tuple[tuple[Any, Any, Any], dict[str, Any], str]] = [
    ((RIGHT, CASE.a[:, :-1], CASE.b), {}, "A's columns must equal B's rows"),
    ((RIGHT[:-1], CASE.a, CASE.b), {}, "C is 69 x 8, but A B is 70 x 8"),
    ((RIGHT[0], CASE.a, CASE.b), {}, "two dimensions"),
    ((RIGHT, CASE.a.astype(np.float64), CASE.b), {}, "float64"),
    ((RIGHT, CASE.a.astype(np.float32), CASE.b.astype(np.float32)), {}, "A and B are float32"),
    ((RIGHT, CASE.a, CASE.b.astype(np.float32)), {}, "both must have one format"),
    ((RIGHT.view(np.uint16), CASE.a, CASE.b), {}, "dtype='bf16'"),
    (([[1.0]], CASE.a, CASE.b), {}, "__dlpack__"),
    ((RIGHT, CASE.a[:0], CASE.b), {}, "at least 1"),
    ((RIGHT, CASE.a, CASE.b), {"arch": "sm_12", "splits": SPLITS}, "unknown architecture"),
    ((RIGHT, CASE.a, CASE.b), {"arch": "sm_80", "splits": ((0, 64),)}, "must cover"),
    ((RIGHT, CASE.a, CASE.b), {"semantics": "sparse"}, "unknown semantics"),
    ((RIGHT, CASE.a, CASE.b), {"algorithm": "magic"}, "unknown algorithm"),
]


@pytest.mark.parametrize(("arguments", "options", "message"), BAD, ids=[entry[2] for entry in BAD])
def test_bad_input_is_one_line(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(verify.InputError, match=message) as caught:
        judge(*arguments, **options)
    assert "\n" not in str(caught.value)


@settings(max_examples=40)
@given(st.integers(0, 69), st.integers(0, 7), st.integers(0, 0xFFFF))
def test_any_other_word_is_not_exact(row: int, column: int, word: int) -> None:
    c = RIGHT.copy()
    bits(c)[row, column] = word
    found = judge(c, CASE.a, CASE.b, arch="sm_80", splits=SPLITS)
    assert found.exact is bool(word == bits(RIGHT)[row, column])
    if not found.exact:
        assert found.first is not None
        assert (found.first.row, found.first.column, found.first.got_bits) == (row, column, word)


def test_inputs_are_never_narrow() -> None:
    """All-ones data hides wrong kernels: every input but the empty and the corner one holds many values."""
    for dtype in ("f16", "bf16"):
        for case in inputs.cases(("random", "adversarial"), 1, dtype):
            assert np.unique(bits(case.b)).size > 20
            assert case.name in ("empty", "corner") or np.unique(bits(case.a)).size > 50


def test_inputs_hold_what_they_promise() -> None:
    found = {case.name: case for case in inputs.cases(("adversarial",), 9)}
    assert tuple(found) == inputs.ADVERSARIAL
    assert np.isnan(found["nan"].a).any()
    assert np.isnan(found["nan"].b).any()
    assert np.isposinf(found["inf"].a).any()
    assert np.isneginf(found["inf"].b).any()
    subnormal = np.abs(found["subnormal"].a[found["subnormal"].a != 0].astype(float))
    assert (subnormal < 2.0**-14).mean() > 0.9
    assert (bits(found["minus-zero"].a) == 0x8000).any()
    assert not found["empty"].a.any()
    assert found["dense"].a.all()
    assert np.count_nonzero(found["corner"].a) == 4
    assert {case.shape[1] for case in found.values()} >= set(range(1, 10))
    huge = product(found["huge"])
    assert np.isinf(huge).any()
    assert np.isfinite(huge).any()
    tiles = found["tiles"].a
    assert not tiles[:128, :64].any()
    assert tiles[:128, 64:128].all()
