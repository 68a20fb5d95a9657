"""The packers of lane bitmaps and adaptive tiles give the oracle's bytes: any shape, density, pattern, number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.gpu.kernels import pack_lanes
from loadsparse.reference import weights
from loadsparse.reference.formats import Adaptive, FormatError, LaneBitmap, SparseFormat


def assert_same_bytes(found: SparseFormat, wanted: SparseFormat) -> None:
    assert type(found) is type(wanted)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    for name in wanted.arrays:
        ours, theirs = getattr(found, name), getattr(wanted, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), name


def assert_packs(dense: Any, dtype: str, threads: int | None, bits: int | None = None) -> None:
    assert_same_bytes(pack_lanes.pack_lane_bitmap(dense, dtype, threads, bits), LaneBitmap.encode(dense, dtype, bits))
    assert_same_bytes(pack_lanes.pack_adaptive(dense, dtype, threads), Adaptive.encode(dense, dtype))


@settings(max_examples=25)
@given(
    rows=st.integers(1, 200),
    columns=st.integers(1, 200),
    seed=st.integers(0, 2**32 - 1),
    densities=st.lists(st.sampled_from([0, 0.0005, 0.01, 0.05, 0.1, 0.18, 0.4, 0.94, 1]), min_size=1, max_size=4),
    bits=st.sampled_from([None, 4, 8]),
    threads=st.sampled_from([1, 2, None]),
)
def test_any_matrix(
    rows: int, columns: int, seed: int, densities: list[float], bits: int | None, threads: int | None
) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.choice(densities, (4, 4)).repeat(64, axis=0).repeat(64, axis=1)[:rows, :columns]
    dense = rng.integers(1, 2**16, (rows, columns), dtype=np.uint16)
    dense[rng.random((rows, columns)) >= wanted] = 0
    assert_packs(dense, "bf16", threads, bits)


def test_real_weights_and_strides() -> None:
    for matrix in weights.sample().values():
        assert_packs(matrix, "f16", 2)
    assert_packs(weights.sample()["attn_output"][::3, ::-1].T, "f16", 1)


def test_refusals() -> None:
    for packer in (pack_lanes.pack_lane_bitmap, pack_lanes.pack_adaptive):
        with pytest.raises(FormatError, match="float32"):
            packer(np.ones((2, 2), np.float32))
    with pytest.raises(FormatError, match="bits is 8"):
        pack_lanes.pack_lane_bitmap(np.ones((2, 2), np.float16), bits=5)
