"""The fast packers give the oracle's bytes: any shape, density, pattern and number of threads.

Ranges: M in 1..300, K in 1..300, densities 0 to 1 per 128 x 64 tile, any 16-bit pattern; items in few banks, where the
schedule needs several wavefronts a store or more than the bound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.gpu.kernels import pack
from loadsparse.reference import weights
from loadsparse.reference.formats import Bitmap, FormatError, SparseFormat, TiledCSL


def assert_same_bytes(found: SparseFormat, wanted: SparseFormat) -> None:
    assert type(found) is type(wanted)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    for name in wanted.arrays:
        ours, theirs = getattr(found, name), getattr(wanted, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), name


def assert_packs(dense: Any, dtype: str = "f16", threads: int | None = 1) -> None:
    assert_same_bytes(pack.pack_tiled_csl(dense, dtype, threads), TiledCSL.encode(dense, dtype))
    assert_same_bytes(pack.pack_bitmap(dense, dtype, threads), Bitmap.encode(dense, dtype))


@settings(max_examples=40)
@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    densities=st.lists(st.sampled_from([0, 0.0005, 0.01, 0.1, 0.2, 0.4, 0.7, 0.97, 0.9995, 1]), min_size=1, max_size=4),
    dtype=st.sampled_from(["f16", "bf16"]),
    threads=st.sampled_from([1, 2, None]),
)
def test_any_matrix(
    rows: int, columns: int, seed: int, densities: list[float], dtype: str, threads: int | None
) -> None:
    rng = np.random.default_rng(seed)
    density = rng.choice(densities, (3, 5)).repeat(128, axis=0).repeat(64, axis=1)[:rows, :columns]
    bits = rng.integers(1, 2**16, (rows, columns), dtype=np.uint16)
    bits[rng.random((rows, columns)) >= density] = 0
    assert_packs(bits.view(np.float16) if dtype == "f16" else bits, dtype, threads)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), banks=st.integers(1, 32), rows=st.integers(1, 128), density=st.floats(0.001, 1))
def test_skewed_tiles(seed: int, banks: int, rows: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    grid = np.zeros((128, 32, 2), np.uint16)
    grid[:rows, rng.permutation(32)[:banks]] = rng.random((rows, banks, 2)) < density
    row = np.arange(128)[:, None]
    dense = grid.reshape(128, 64)[row, np.arange(64) ^ (row % 8 << 3)]  # banks are counted after the swizzle
    assert_packs(dense, "bf16")


def test_a_tile_above_its_bound() -> None:
    """The tile of test_formats_tiled_csl that needs two wavefronts more than the bound."""
    grid = np.zeros((128, 32, 2), np.uint16)
    grid[:9, :2, 0] = grid[:4, 2:30, 0] = grid[:1, 30:, 0] = 1
    row = np.arange(128)[:, None]
    dense = grid.reshape(128, 64)[row, np.arange(64) ^ (row % 8 << 3)]
    cost = pack.pack_tiled_csl(dense, "bf16").store_wavefronts()
    assert (cost.bound[0], cost.achieved[0]) == (9, 11)


def test_real_weights_and_strides() -> None:
    for matrix in weights.sample().values():
        assert_packs(matrix, threads=2)
    assert_packs(weights.sample()["attn_output"][::3, ::-1].T)


@pytest.mark.parametrize("packer", [pack.pack_tiled_csl, pack.pack_bitmap])
def test_refusals(packer: Any) -> None:
    with pytest.raises(FormatError, match="float32"):
        packer(np.ones((2, 2), np.float32))
    with pytest.raises(FormatError, match="M, K"):
        packer(np.ones(2, np.float16))
    with pytest.raises(FormatError, match="e4m3"):
        packer(np.ones((2, 2), np.float16), "e4m3")
    for threads in (0, -1, 1.5, "2"):
        with pytest.raises(ValueError, match="threads must be a positive integer or None"):
            packer(np.ones((2, 2), np.float16), "f16", threads)
