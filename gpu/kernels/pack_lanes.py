"""Fast packers: the same bytes as `LaneBitmap.encode` and `Adaptive.encode`, compiled for the CPU and run on all cores.

A second, independent implementation of the rules in reference/formats, tile by tile; tests compare every byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from loadsparse.gpu.kernels.pack import _copy_tile, _count, _in_parallel
from loadsparse.reference.formats import Adaptive, FormatError, LaneBitmap
from loadsparse.reference.formats.base import to_bits

_START, _SLACK = 520, 4  # bytes of a bitmap tile before its values, and at least after them
_DENSE, _EMPTY, _FEWEST, _LARGEST = 16, 1, 740, 513  # kinds; items of a bitmap; units of a dense tile


def pack_lane_bitmap(
    dense: NDArray[Any], dtype: str = "f16", threads: int | None = None, bits: int | None = None
) -> LaneBitmap:
    """`LaneBitmap.encode(dense, dtype, bits)`, byte for byte, on `threads` cores (default: all).

    Raises FormatError as the oracle does.
    """
    patterns = to_bits(dense, dtype)
    across, tiles = -(-patterns.shape[1] // 64), -(-patterns.shape[0] // 64) * -(-patterns.shape[1] // 64)
    counts = np.empty(tiles, np.int64)
    _in_parallel(_count, tiles, threads, patterns, across, 64, counts)
    if bits is None:
        bits = 8 if counts.sum() <= 0.22 * patterns.size else 4
    if bits not in (4, 8):
        raise FormatError(f"bits is 8 (values by fragment) or 4 (by half fragment), not {bits!r}")
    offsets = _offsets(-(-(_START + 2 * counts + _SLACK) // 16))
    halves = np.empty(8 * int(offsets[-1]), np.uint16)
    order, places = _lane_order(bits)
    _in_parallel(_pack_bitmaps, tiles, threads, patterns, across, offsets, order, places, halves)
    shape = (patterns.shape[0], patterns.shape[1])
    return LaneBitmap(shape, dtype, np.array([bits], np.uint32), offsets, halves.view(np.uint32))


def pack_adaptive(dense: NDArray[Any], dtype: str = "f16", threads: int | None = None) -> Adaptive:
    """`Adaptive.encode(dense, dtype)`, byte for byte, on `threads` cores (default: all).

    Raises FormatError as the oracle does.
    """
    patterns = to_bits(dense, dtype)
    across, tiles = -(-patterns.shape[1] // 64), -(-patterns.shape[0] // 64) * -(-patterns.shape[1] // 64)
    units, kinds, items = (np.empty(tiles, np.int64) for _ in range(3))
    positions = _position_order()
    _in_parallel(_choose_kinds, tiles, threads, patterns, across, positions, units, kinds, items)
    offsets = _offsets(units)
    halves = np.empty(8 * int(offsets[-1]), np.uint16)
    crowd = items[kinds == 0]
    bits = 8 if crowd.sum() <= 0.22 * 4096 * len(crowd) else 4
    order, places = _lane_order(bits)
    _in_parallel(
        _pack_kinds, tiles, threads, patterns, across, offsets, kinds, positions, order, places, _high_bits(), halves
    )
    shape = (patterns.shape[0], patterns.shape[1])
    return Adaptive(shape, dtype, np.array([bits], np.uint32), offsets, halves.view(np.uint32))


def _offsets(units: NDArray[np.int64]) -> NDArray[np.int32]:
    offsets = np.concatenate([[0], np.cumsum(units)])
    if offsets[-1] >= 2**31:
        raise FormatError(f"{offsets[-1]} units of 16 bytes do not fit the int32 offsets; split the matrix")
    return offsets.astype(np.int32)


def _lane_order(bits: int) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """(row-major index in the tile of each stored position, bit in its word of each of 32 positions)."""
    strip, group, q, u, e = np.ix_(*(np.arange(size) for size in (4, 32 // bits, bits, 32 // bits, bits)))
    lane, element = q + bits * u, group * bits % 8 + e
    row = 16 * strip + lane // 4 + 8 * (element // 2 % 2)
    column = 16 * (group * bits // 8) + 2 * (lane % 4) + element % 2 + 8 * (element // 4)
    inner = np.arange(32)
    places = 8 * (inner % bits % 4) + bits // 4 * (inner // bits) + inner % bits // 4
    return (64 * row + column).astype(np.uint16).ravel(), places.astype(np.uint32)


def _position_order() -> NDArray[np.uint16]:
    """Row-major index in the tile of each position of a delta or dense tile."""
    half, pair, fragment, strip, lane, element = np.ix_(*(np.arange(size) for size in (2, 2, 2, 2, 32, 8)))
    row = 32 * pair + 16 * strip + lane // 4 + 8 * (element // 2 % 2)
    column = 32 * half + 16 * fragment + 2 * (lane % 4) + element % 2 + 8 * (element // 4)
    return (64 * row + column).astype(np.uint16).ravel()


def _high_bits() -> NDArray[np.int64]:
    """[9, 8]: for each width the place of entry i's bits above the fourth."""
    places = np.zeros((9, 8), np.int64)
    places[5], places[6], places[8] = range(8), (4, 12, 0, 8, 6, 14, 2, 10), (0, 8, 16, 24, 4, 12, 20, 28)
    return places


@njit(nogil=True, cache=True)
def _pack_bitmap(scratch, order, places, target, packed):
    """One bitmap tile into `target`; `packed` has room for 4096 values and what an unconditional store adds."""
    at = np.uint64(0)
    for word in range(np.uint64(128)):
        if word % 32 == 0:
            target[word // 32] = 2 * at
        flags = np.uint32(0)
        for i in range(np.uint64(32)):
            value = scratch[order[np.uint64(32) * word + i]]
            packed[at] = value
            at += np.uint64(value != 0)
            flags |= np.uint32(value != 0) << places[i]
        target[4 + 2 * word], target[5 + 2 * word] = flags & np.uint32(0xFFFF), flags >> np.uint32(16)
    target[260 : 260 + at] = packed[:at]
    target[260 + at :] = 0


@njit(nogil=True, cache=True)
def _pack_bitmaps(begin, end, bits, across, offsets, order, places, halves):
    scratch, packed = np.empty(4096, np.uint16), np.empty(4097, np.uint16)
    for tile in range(begin, end):
        _copy_tile(bits, tile, across, 64, scratch)
        _pack_bitmap(scratch, order, places, halves[8 * offsets[tile] : 8 * offsets[tile + 1]], packed)


@njit(nogil=True, cache=True)
def _find(scratch, positions, where):
    """Positions of the items, ascending, into where[4097]; (number in the first half, number)."""
    at = left = np.uint64(0)
    for i in range(np.uint64(4096)):
        left = at if i == 2048 else left
        where[at] = i
        at += np.uint64(scratch[positions[i]] != 0)
    return np.int64(left), np.int64(at)


@njit(nogil=True, cache=True)
def _octets(where, begin, end, before, width):
    """Octets of the stream of items begin to end; `before`: the position before its first."""
    longest, entries = (1 << width) - 1, end - begin
    for item in range(begin, end):
        distance = np.int64(where[item]) - before
        before = np.int64(where[item])
        while distance > longest:
            entries += 1
            distance -= longest
    return (entries + 7) // 8


@njit(nogil=True, cache=True)
def _choose_kinds(begin, end, bits, across, positions, units, kinds, counts):
    scratch, where = np.empty(4096, np.uint16), np.empty(4097, np.uint16)
    for tile in range(begin, end):
        _copy_tile(bits, tile, across, 64, scratch)
        items = 0
        for i in range(4096):
            items += scratch[i] != 0
        counts[tile] = items
        if items == 0:
            kinds[tile], units[tile] = _EMPTY, 1
            continue
        kinds[tile], units[tile] = 0, (_START + 2 * items + _SLACK + 15) // 16
        if items < _FEWEST:
            left, items = _find(scratch, positions, where)
            for width in (5, 6, 8):
                octets = _octets(where, 0, left, -1, width) + _octets(where, left, items, 2047, width)
                size = (8 + width * octets + 15) // 16 + octets
                if size < units[tile]:
                    kinds[tile], units[tile] = width, size
        if units[tile] > _LARGEST:
            kinds[tile], units[tile] = _DENSE, _LARGEST


@njit(nogil=True, cache=True)
def _pack_kinds(begin, end, bits, across, offsets, kinds, positions, order, places, high_bits, halves):
    scratch, packed, where = np.empty(4096, np.uint16), np.empty(4097, np.uint16), np.empty(4097, np.uint16)
    for tile in range(begin, end):
        target, kind = halves[8 * offsets[tile] : 8 * offsets[tile + 1]], kinds[tile]
        _copy_tile(bits, tile, across, 64, scratch)
        if kind == 0:
            _pack_bitmap(scratch, order, places, target, packed)
            continue
        target[:] = 0
        target[0] = kind
        if kind == _DENSE:
            for i in range(4096):
                target[8 + i] = scratch[positions[i]]
        elif kind != _EMPTY:
            _pack_delta(scratch, positions, where, kind, high_bits[kind], target)


@njit(nogil=True, cache=True)
def _pack_delta(scratch, positions, where, width, high_bits, target):
    left, items = _find(scratch, positions, where)
    target[1] = _octets(where, 0, left, -1, width)
    target[2] = _octets(where, left, items, 2047, width)
    octets, longest = np.int64(target[1]) + np.int64(target[2]), (1 << width) - 1
    data = target.view(np.uint8)
    high_at, values_at = 8 + 4 * octets, (8 + width * octets + 15) // 16 * 8
    entry, begin, end, before = 0, 0, left, -1
    for _ in range(2):
        for item in range(begin, end):
            position = np.int64(where[item])
            distance = position - before
            before = position
            while distance > longest:
                _put(data, high_at, width, high_bits, entry, longest)
                distance -= longest
                entry += 1
            _put(data, high_at, width, high_bits, entry, distance)
            target[values_at + entry] = scratch[positions[position]]
            entry += 1
        while entry % 8:
            _put(data, high_at, width, high_bits, entry, 1)
            entry += 1
        begin, end, before = left, items, 2047


@njit(nogil=True, cache=True)
def _put(data, high_at, width, high_bits, entry, distance):
    """Or the bits of one entry's distance into the words of its octet."""
    octet, within = entry >> 3, entry & 7
    data[8 + 4 * octet + (within & 3)] |= (distance & 15) << (within & 4)
    place = high_bits[within]
    data[high_at + (width - 4) * octet + (place >> 3)] |= (distance >> 4) << (place & 7)
