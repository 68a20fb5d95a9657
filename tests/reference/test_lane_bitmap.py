"""LaneBitmap: the layout against a scalar re-statement, round trips, bytes, refusals by position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.reference.formats import FormatError, entropy_floor
from loadsparse.reference.formats.lane_bitmap import LaneBitmap


def random_bits(rows: int, columns: int, density: float, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    bits = rng.integers(1, 2**16, (rows, columns), dtype=np.uint16)
    bits[rng.random((rows, columns)) >= density] = 0
    return bits


@pytest.mark.parametrize("bits", [4, 8])
def test_layout(bits: int) -> None:
    """One 64 x 64 tile written out element by element from the words of the docstring."""
    dense = random_bits(64, 64, 0.3, bits)
    packed = LaneBitmap.encode(dense, "bf16", bits)
    words, values, starts = np.zeros((4, 32), np.uint32), [], []
    for strip in range(4):
        starts.append(2 * len(values))
        for group in range(32 // bits):
            for q in range(bits):
                for lane in range(q, 32, bits):
                    for within in range(bits):
                        fragment, e = divmod(group * bits + within, 8)
                        register, half = divmod(e, 2)
                        row = 16 * strip + lane // 4 + 8 * (register % 2)
                        column = 16 * fragment + 2 * (lane % 4) + half + 8 * (register // 2)
                        if dense[row, column]:
                            values.append(dense[row, column])
                            place = 8 * (e % 4) + bits // 4 * (lane // bits) + e % bits // 4
                            words[strip, group * bits + q] |= np.uint32(1 << place)
    halves = packed.data.view(np.uint16)
    assert halves[:4].tolist() == starts
    assert np.array_equal(packed.data[2:130].reshape(4, 32), words)
    assert halves[260 : 260 + len(values)].tolist() == values
    assert not halves[260 + len(values) :].any()
    assert packed.offsets.tolist() == [0, -(-(8 + 512 + 2 * len(values) + 4) // 16)]


@settings(max_examples=40)
@given(
    rows=st.integers(1, 150),
    columns=st.integers(1, 150),
    density=st.sampled_from([0, 0.01, 0.2, 0.5, 1]),
    bits=st.sampled_from([4, 8, None]),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(rows: int, columns: int, density: float, bits: int | None, seed: int) -> None:
    dense = random_bits(rows, columns, density, seed)
    packed = LaneBitmap.encode(dense, "bf16", bits)
    packed.validate()
    assert np.array_equal(packed.decode(), dense)


@pytest.mark.parametrize("density", [0.5, 0.4, 0.3, 0.2])
def test_bytes_are_near_the_entropy_floor(density: float) -> None:
    dense = random_bits(512, 1024, density, 3)
    exact = np.count_nonzero(dense) / dense.size
    assert LaneBitmap.encode(dense, "bf16").nbytes / dense.size <= 1.10 * entropy_floor(exact)


def test_save_and_load(tmp_path: Any) -> None:
    packed = LaneBitmap.encode(random_bits(70, 70, 0.3, 4).view(np.float16))
    packed.save(tmp_path / "w")
    assert np.array_equal(LaneBitmap.load(tmp_path / "w").data, packed.data)


def changed(field: str, at: int, value: int) -> LaneBitmap:
    packed = LaneBitmap.encode(random_bits(100, 70, 0.3, 5), "bf16")
    getattr(packed, field)[at] = value
    return packed


@pytest.mark.parametrize(
    ("field", "at", "value", "message"),
    [
        ("bits", 0, 5, r"LaneBitmap.bits: \[5\] is neither"),
        ("offsets", 1, 3, r"offsets\[1\]: 3 after 0, must rise by 33 to 545"),
        ("offsets", 1, 40, r"offsets\[1\]: does not fit the \d+ bits of tile 0"),
        ("data", 0, 7, "strips of tile 0 do not start"),
        ("data", 130, 0, r"value at byte 520 is \+0"),
        ("data", -1, 9, r"pad at byte \d+ is 9, must be 0"),
    ],
)
def test_refusals_name_the_place(field: str, at: int, value: int, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        changed(field, at, value).validate()


def test_a_bit_outside_the_shape() -> None:
    packed = LaneBitmap.encode(np.ones((1, 1), np.uint16), "bf16")
    packed.data[2 + 31] = 1
    with pytest.raises(FormatError, match="tile 0 has a bit set outside the shape"):
        packed.validate()
    with pytest.raises(FormatError, match="bits is 8"):
        LaneBitmap.encode(np.ones((1, 1), np.uint16), "bf16", 16)
