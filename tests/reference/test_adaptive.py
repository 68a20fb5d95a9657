"""Adaptive: delta tiles against a scalar re-statement, round trips, bytes near the floor, refusals by tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.reference.formats import Adaptive, FormatError, delta, entropy_floor
from loadsparse.reference.formats.adaptive import BITMAP, DENSE, EMPTY


def random_bits(rows: int, columns: int, densities: list[float], seed: int) -> Any:
    """Patterns whose 64 x 64 tiles have densities drawn from the list."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(1, 2**16, (rows, columns), dtype=np.uint16)
    wanted = rng.choice(densities, (-(-rows // 64), -(-columns // 64))).repeat(64, axis=0).repeat(64, axis=1)
    bits[rng.random((rows, columns)) >= wanted[:rows, :columns]] = 0
    return bits


def place(position: int) -> tuple[int, int]:
    """(row, column) in its tile of a position, from the words of the docstring."""
    rest, element = divmod(position, 8)
    rest, lane = divmod(rest, 32)
    rest, strip = divmod(rest, 2)
    rest, fragment = divmod(rest, 2)
    half, pair = divmod(rest, 2)
    register, low_high = divmod(element, 2)
    row = 32 * pair + 16 * strip + lane // 4 + 8 * (register % 2)
    return row, 32 * half + 16 * fragment + 2 * (lane % 4) + low_high + 8 * (register // 2)


@pytest.mark.parametrize("width", delta.WIDTHS)
def test_delta_layout(width: int) -> None:
    """One tile read back entry by entry: bits of the distances, skips, pads, places."""
    dense = random_bits(64, 64, [0.02], width)
    packed = Adaptive.encode(dense, "bf16", width)
    raw = packed.data.view(np.uint8)
    kind, left, right, zero = packed.data.view(np.uint16)[:4].tolist()
    assert (kind, zero) == (width, 0)
    octets = left + right
    start = -(-(8 + width * octets) // 16) * 16
    assert raw.size == start + 16 * octets
    found = np.zeros_like(dense)
    position = -1
    for octet in range(octets):
        position = -1 if octet in (0, left) else position
        low = int.from_bytes(raw[8 + 4 * octet :][:4].tobytes(), "little")
        extra = 8 + 4 * octets + (width - 4) * octet
        high = int.from_bytes(raw[extra : extra + width - 4].tobytes(), "little")
        for i in range(8):
            distance = low >> int(delta.LOW[i]) & 15
            distance |= (high >> int(delta.HIGH[width][i]) & (1 << width - 4) - 1) << 4
            position += distance
            value = int(raw[start + 16 * octet + 2 * i :][:2].view(np.uint16)[0])
            assert value or distance in (1, 2**width - 1)
            if value:
                found[place(position + (2048 if octet >= left else 0))] = value
    assert np.array_equal(found, dense)


def test_dense_layout() -> None:
    dense = random_bits(64, 64, [1.0], 0)
    halves = Adaptive.encode(dense, "bf16").data.view(np.uint16)
    assert halves[:8].tolist() == [DENSE, 0, 0, 0, 0, 0, 0, 0]
    assert [dense[place(position)] for position in range(4096)] == halves[8:].tolist()


@settings(max_examples=30)
@given(
    rows=st.integers(1, 150),
    columns=st.integers(1, 150),
    densities=st.lists(st.sampled_from([0, 0.0005, 0.01, 0.05, 0.1, 0.16, 0.3, 0.95, 1]), min_size=1, max_size=4),
    kind=st.sampled_from([None, BITMAP, *delta.WIDTHS, DENSE]),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(rows: int, columns: int, densities: list[float], kind: int | None, seed: int) -> None:
    dense = random_bits(rows, columns, densities, seed)
    packed = Adaptive.encode(dense, "bf16", kind)
    packed.validate()
    assert np.array_equal(packed.decode(), dense)


@pytest.mark.parametrize("density", [0.5, 0.4, 0.3, 0.2, 0.18, 0.15, 0.12, 0.1, 0.08])
def test_bytes_are_near_the_entropy_floor(density: float) -> None:
    dense = random_bits(512, 1024, [density], 3)
    exact = np.count_nonzero(dense) / dense.size
    assert Adaptive.encode(dense, "bf16").nbytes / dense.size <= 1.10 * entropy_floor(exact)


@pytest.mark.parametrize(("density", "bar"), [(0.05, 1.13), (0.02, 1.21), (0.01, 1.40)])
def test_bytes_of_very_sparse_tiles(density: float, bar: float) -> None:
    """Headers, pads and whole units weigh more the fewer the items; a bitmap costs 1.7, 3.0 and 5.1 times the floor."""
    dense = random_bits(512, 1024, [density], 3)
    exact = np.count_nonzero(dense) / dense.size
    assert Adaptive.encode(dense, "bf16").nbytes / dense.size <= bar * entropy_floor(exact)


def test_each_tile_has_its_own_form() -> None:
    dense = np.hstack([random_bits(64, 64, [d], 5) for d in (0, 0.01, 0.05, 0.12, 0.3, 1)])
    assert Adaptive.encode(dense, "bf16").names() == ["empty", "delta8", "delta6", "delta5", "bitmap", "dense"]


def test_bits_follow_the_bitmap_tiles() -> None:
    """Eight a lane where a fragment's values fit the banks in the tiles that are bitmaps, however sparse the others are."""
    sparse, light, heavy = (random_bits(64, 64, [density], 8) for density in (0.01, 0.2, 0.5))
    for tiles, bits in (([sparse, light], 8), ([sparse, sparse, sparse, heavy], 4), ([light, heavy], 4), ([sparse], 8)):
        packed = Adaptive.encode(np.hstack(tiles), "bf16")
        packed.validate()
        assert packed.bits.tolist() == [bits]
        assert np.array_equal(packed.decode(), np.hstack(tiles))
    packed.bits[0] = 5
    with pytest.raises(FormatError, match=r"Adaptive.bits: \[5\] is neither \[4\] nor \[8\]"):
        packed.validate()


def test_save_and_load(tmp_path: Any) -> None:
    packed = Adaptive.encode(random_bits(130, 70, [0.02, 0.3, 1], 4).view(np.float16))
    packed.save(tmp_path / "w")
    assert np.array_equal(Adaptive.load(tmp_path / "w").data, packed.data)


def corrupted(kind: int, at: int, value: int) -> Adaptive:
    packed = Adaptive.encode(random_bits(64, 64, [0.3 if kind == BITMAP else 0.05], 6), "bf16", kind)
    packed.data.view(np.uint16)[at] = value
    return packed


@pytest.mark.parametrize(
    ("kind", "at", "value", "message"),
    [
        (5, 0, 7, r"tile 0 has the kind 7, must be one of"),
        (5, 1, 0, r"tile 0 \(delta5\): its size of \d+ bytes does not fit its \d+ octets"),
        (5, 4, 0, r"tile 0 \(delta5\) (differs at byte|has \d+ bytes)"),
        (8, 3, 1, r"tile 0 \(delta8\) differs at byte 6"),
        (8, 5, 0xFFFF, r"tile 0 \(delta8\)"),
        (BITMAP, 1, 2, r"tile 0 \(bitmap\): LaneBitmap.data: the strips"),
        (DENSE, 5, 1, r"tile 0 \(dense\) differs at byte 10"),
    ],
)
def test_refusals_name_the_tile(kind: int, at: int, value: int, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        corrupted(kind, at, value).validate()


def test_other_refusals() -> None:
    packed = Adaptive.encode(random_bits(64, 128, [0.05], 7), "bf16")
    packed.offsets[1] = 0
    with pytest.raises(FormatError, match=r"Adaptive.offsets\[1\]: 0 after 0, must rise by 1 to"):
        packed.validate()
    outside = Adaptive.encode(np.ones((64, 64), np.uint16), "bf16")
    with pytest.raises(FormatError, match="tile 0 has an item outside"):
        Adaptive((64, 63), "bf16", outside.bits, outside.offsets, outside.data).validate()
    with pytest.raises(FormatError, match="kind is one of"):
        Adaptive.encode(np.ones((1, 1), np.uint16), "bf16", 7)
    with pytest.raises(FormatError, match="only for zeros"):
        Adaptive.encode(np.ones((1, 1), np.uint16), "bf16", EMPTY)
    assert Adaptive.encode(np.zeros((3, 3), np.uint16), "bf16", EMPTY).nbytes == 28
