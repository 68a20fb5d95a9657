"""Pruning removes exactly the promised number, the smallest ones, the lower index first among equals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadsparse.reference import pruning


def matrix(rows: int, columns: int, seed: int, levels: int = 1000) -> Any:
    """Values k / 8 that are never 0, with many ties when `levels` is small."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, levels + 1, (rows, columns)) * rng.choice([-1, 1], (rows, columns)) / 8).astype(np.float16)


def naive(flat: list[float], count: int) -> list[int]:
    """Indices that survive removing `count` of the smallest magnitudes, ties by index."""
    order = sorted(range(len(flat)), key=lambda i: (abs(flat[i]), i))
    return sorted(order[count:])


@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    seed=st.integers(0, 1000),
    levels=st.integers(1, 50),
    percent=st.integers(0, 100),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.uint16]),
)
def test_magnitude_against_sorting(rows: int, columns: int, seed: int, levels: int, percent: int, dtype: Any) -> None:
    """M, K <= 20, 1 to 50 magnitude levels, sparsity 0.00 to 1.00."""
    values = matrix(rows, columns, seed, levels)
    exact = values.astype(np.float32)
    weights = (exact.view(np.uint32) >> 16).astype(np.uint16) if dtype == np.uint16 else values.astype(dtype)
    groups = {
        "matrix": [np.arange(values.size)],
        "row": list(np.arange(values.size).reshape(values.shape)),
        "block": [
            np.arange(values.size).reshape(values.shape)[i : i + 3, j : j + 7].ravel()
            for i in range(0, rows, 3)
            for j in range(0, columns, 7)
        ],
    }
    for scope, members in groups.items():
        pruned = pruning.magnitude(weights, percent / 100, scope=scope, block=(3, 7))  # type: ignore[arg-type]
        assert pruned.dtype == weights.dtype
        wanted = np.zeros_like(weights).ravel()
        for group in members:
            count = (2 * percent * len(group) + 100) // 200
            kept = group[naive(exact.ravel()[group].tolist(), count)]
            wanted[kept] = weights.ravel()[kept]
        assert np.array_equal(pruned.ravel().view(np.uint8), wanted.view(np.uint8))


def test_pruned_weights_are_positive_zero() -> None:
    pruned = pruning.magnitude(np.full((4, 4), -1.0, np.float16), 0.5)
    assert pruned.view(np.uint16).ravel().tolist() == [0] * 8 + [0xBC00] * 8


def test_wanda() -> None:
    weights = np.array([[1.0, -2.0, 3.0], [4.0, 1.0, 1.0]], np.float32)
    norms = np.array([10.0, 1.0, 0.1])
    assert pruning.wanda(weights, norms, 1 / 3).tolist() == [[1, -2, 0], [4, 1, 0]]
    assert pruning.wanda(weights, norms, 0.5, scope="matrix").tolist() == [[1, -2, 0], [4, 0, 0]]
    same = pruning.wanda(weights, np.ones(3), 0.5, scope="matrix")
    assert np.array_equal(same, pruning.magnitude(weights, 0.5))


@given(rows=st.integers(1, 6), columns=st.integers(1, 23), m=st.integers(1, 8), seed=st.integers(0, 99), data=st.data())
def test_nm(rows: int, columns: int, m: int, seed: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, m))
    weights = matrix(rows, columns, seed, 5)
    pruned = pruning.nm(weights, n, m)
    for row in range(rows):
        for j in range(0, columns, m):
            group = weights[row, j : j + m]
            kept = naive(group.tolist(), max(0, len(group) - n))
            assert np.flatnonzero(pruned[row, j : j + m]).tolist() == kept
            assert np.array_equal(pruned[row, j : j + m][kept], group[kept])


def test_nm_with_norms() -> None:
    weights = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert pruning.nm(weights, 1, 2, np.array([9.0, 1.0, 9.0, 1.0])).tolist() == [[1, 0, 3, 0]]


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.7, 0.9, 1.0])
def test_random_is_exact_and_seeded(sparsity: float) -> None:
    weights = matrix(100, 90, 1)
    pruned = pruning.random(weights, sparsity, seed=3)
    assert np.count_nonzero(pruned) == 9000 - round(9000 * sparsity)
    assert np.array_equal(pruned, pruning.random(weights, sparsity, seed=3))
    rows = pruning.random(weights, sparsity, seed=3, scope="row")
    assert set((rows != 0).sum(axis=1).tolist()) == {90 - round(90 * sparsity)}
    if 0 < sparsity < 1:
        assert not np.array_equal(pruned, pruning.random(weights, sparsity, seed=4))


def test_infinities_are_kept_longest() -> None:
    weights = np.array([[np.inf, 1.0], [-np.inf, 2.0]], np.float16)
    assert pruning.magnitude(weights, 0.5).tolist() == [[np.inf, 0], [-np.inf, 0]]
    assert pruning.wanda(weights, np.array([0.0, 1.0]), 0.5).tolist() == [[0, 1], [0, 2]]
    assert pruning.wanda(weights, np.array([1e-9, 1e9]), 0.5).tolist() == [[np.inf, 0], [-np.inf, 0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pruning.magnitude(np.array([[1.0, np.nan]]), 0.5), r"\(0, 1\) is NaN"),
        (lambda: pruning.magnitude(np.array([[0x7FC0]], np.uint16), 0.5), "NaN"),
        (lambda: pruning.magnitude(np.ones(3), 0.5), "shape"),
        (lambda: pruning.magnitude(np.ones((3, 0)), 0.5), "shape"),
        (lambda: pruning.magnitude(np.ones((3, 3), np.int32), 0.5), "int32"),
        (lambda: pruning.magnitude(np.ones((3, 3)), 1.1), "1.1"),
        (lambda: pruning.magnitude(np.ones((3, 3)), float("nan")), "nan"),
        (lambda: pruning.magnitude(np.ones((3, 3)), 0.5, scope="column"), "column"),  # type: ignore[arg-type]
        (lambda: pruning.magnitude(np.ones((3, 3)), 0.5, scope="block", block=(0, 3)), "block"),
        (lambda: pruning.wanda(np.ones((3, 3)), np.ones(2), 0.5), "3 finite"),
        (lambda: pruning.wanda(np.ones((3, 3)), -np.ones(3), 0.5), "3 finite"),
        (lambda: pruning.nm(np.ones((3, 3)), 3, 2), "3:2"),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
