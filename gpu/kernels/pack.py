"""Fast packers: the same bytes as `TiledCSL.encode` and `Bitmap.encode`, compiled for the CPU and run on all cores.

The rules (which pads, which wavefront takes which item) are stated in reference/formats; this is a second, independent
implementation of them, tile by tile instead of array by array. Tests compare every byte.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from loadsparse.reference.formats import Bitmap, FormatError, TiledCSL
from loadsparse.reference.formats.base import to_bits

_ROWS, _BANKS, _LINES = 128, 32, 64  # rows of a tile, banks, rows of the Gale-Ryser matrix
# A bank is a stretch of the pool: pairs grow down from its middle, single halves up, with one spare place at either end
# for unconditional writes. Read upwards it is the deque of bank_order.
_MIDDLE, _STRETCH = 2 * _ROWS + 2, 3 * _ROWS + 4
_COLUMNS = 8192 + 1  # never more wavefronts than items


def pack_tiled_csl(dense: NDArray[Any], dtype: str = "f16", threads: int | None = None) -> TiledCSL:
    """`TiledCSL.encode(dense, dtype)`, byte for byte, on `threads` cores (default: all).

    Raises FormatError as the oracle does.
    """
    bits = to_bits(dense, dtype)
    grid = -(-bits.shape[0] // 128), -(-bits.shape[1] // 64)
    counts = np.empty(grid[0] * grid[1], np.int64)
    _in_parallel(_count, len(counts), threads, bits, grid[1], 128, counts)
    offsets = _offsets(counts, 4)
    items = np.empty(4 * int(offsets[-1]), np.uint32)
    _in_parallel(_pack_tiles, len(counts), threads, bits, grid[1], offsets, items)
    return TiledCSL((bits.shape[0], bits.shape[1]), dtype, offsets, items)


def pack_bitmap(dense: NDArray[Any], dtype: str = "f16", threads: int | None = None) -> Bitmap:
    """`Bitmap.encode(dense, dtype)`, byte for byte, on `threads` cores (default: all).

    Raises FormatError as the oracle does.
    """
    bits = to_bits(dense, dtype)
    grid = -(-bits.shape[0] // 64), -(-bits.shape[1] // 64)
    counts = np.empty(grid[0] * grid[1], np.int64)
    _in_parallel(_count, len(counts), threads, bits, grid[1], 64, counts)
    offsets = _offsets(counts, 8)
    bitmaps = np.empty(64 * len(counts), np.uint64)
    values = np.empty(8 * int(offsets[-1]), np.uint16)
    _in_parallel(_pack_groups, len(counts), threads, bits, grid[1], offsets, bitmaps, values)
    return Bitmap((bits.shape[0], bits.shape[1]), dtype, bitmaps, offsets, values)


def _offsets(counts: NDArray[np.int64], unit: int) -> NDArray[np.int32]:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(-(-counts // unit), out=offsets[1:])
    if offsets[-1] >= 2**31:
        raise FormatError(f"{offsets[-1]} units of {unit} items do not fit int32 offsets; split the matrix")
    return offsets.astype(np.int32)


def _in_parallel(work: Callable[..., None], tiles: int, threads: int | None, *args: Any) -> None:
    """Call work(begin, end, *args) for ranges of tiles; the work releases the interpreter lock.  Raises ValueError."""
    if threads is not None and (not isinstance(threads, (int, np.integer)) or threads < 1):
        raise ValueError(f"threads must be a positive integer or None, got {threads!r}")
    threads = min(tiles, threads or os.cpu_count() or 1)
    if threads == 1:
        return work(0, tiles, *args)
    edges = np.linspace(0, tiles, min(tiles, 4 * threads) + 1).astype(np.int64).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, *edge, *args) for edge in itertools.pairwise(edges)]:
            done.result()
    return None


@njit(nogil=True, cache=True)
def _count(begin, end, bits, across, height, counts):
    """Items in each tile of height x 64."""
    rows, columns = bits.shape
    flat = bits.reshape(-1)
    for tile in range(begin, end):
        top, left = tile // across * height, tile % across * 64
        total = 0
        for row in range(top, min(top + height, rows)):
            start = np.uint64(row * columns + left)  # unsigned indices cost no test for negative ones
            in_line = np.uint16(0)
            if left + 64 <= columns:
                for i in range(np.uint64(64)):
                    in_line += np.uint16(flat[start + i] != 0)
            else:
                for i in range(np.uint64(columns - left)):
                    in_line += np.uint16(flat[start + i] != 0)
            total += in_line
        counts[tile] = total


@njit(nogil=True, cache=True)
def _copy_tile(bits, tile, across, height, scratch):
    """Elements of a tile, row-major [height, 64], +0 outside the matrix."""
    rows, columns = bits.shape
    flat = bits.reshape(-1)
    top, left = tile // across * height, tile % across * 64
    height, width = min(height, rows - top), min(64, columns - left)
    if 64 * height < len(scratch) or width < 64:
        scratch[:] = 0
    for row in range(height):
        source, target = np.uint64((top + row) * columns + left), np.uint64(64 * row)
        if width == 64:
            for i in range(np.uint64(64)):
                scratch[target + i] = flat[source + i]
        else:
            for i in range(np.uint64(width)):
                scratch[target + i] = flat[source + i]


@njit(nogil=True, cache=True)
def _pack_tiles(begin, end, bits, across, offsets, items):
    scratch = np.empty(_ROWS * 64, np.uint16)
    words = scratch.view(np.uint32)
    queue = np.empty(_ROWS * _BANKS + 1, np.uint64)
    pool = np.empty(_BANKS * _STRETCH, np.uint32)
    front, back = np.empty(_BANKS, np.uint32), np.empty(_BANKS, np.uint32)
    masks = np.empty(_COLUMNS, np.uint64)
    served = np.empty(8192 + 64, np.uint32)
    for tile in range(begin, end):
        start, count = 4 * offsets[tile], 4 * (offsets[tile + 1] - offsets[tile])
        if count == 0:
            continue
        _copy_tile(bits, tile, across, _ROWS, scratch)
        _gather(words, queue, pool, front, back)
        _pad(words, pool, front, back, count)
        wavefronts = _schedule(front, back, count, masks)
        _serve(pool, front, back, masks[:wavefronts], served)
        _place(served, items[start : start + count])


@njit(nogil=True, cache=True)
def _gather(words, queue, pool, front, back):
    """Sort the items of a tile by bank: words with both halves below the middle, single halves above; rows ascend."""
    waiting = np.uint64(0)
    for row in range(np.uint64(_ROWS)):
        for column in range(np.uint64(_BANKS)):
            place = row << np.uint64(5) | column ^ (row & np.uint64(7)) << np.uint64(2)
            word = np.uint64(words[row << np.uint64(5) | column])
            queue[waiting] = place << np.uint64(32) | word
            waiting += np.uint64(word != 0)
    for bank in range(_BANKS):
        front[bank] = back[bank] = bank * _STRETCH + _MIDDLE
    for i in range(waiting):
        place, word = queue[i] >> np.uint64(32), queue[i] & np.uint64(0xFFFFFFFF)
        bank = place & np.uint64(31)
        low = place << np.uint64(17) | word & np.uint64(0xFFFF)
        high = place << np.uint64(17) | np.uint64(0x10000) | word >> np.uint64(16)
        has_low, has_high = (word & np.uint64(0xFFFF)) != 0, (word >> np.uint64(16)) != 0
        down, up = np.uint64(front[bank]), np.uint64(back[bank])
        pool[up] = low if has_low else high
        pool[down - np.uint64(2)] = low
        pool[down - np.uint64(1)] = high
        both = np.uint64(has_low & has_high)
        front[bank] = down - np.uint64(2) * both
        back[bank] = up + (np.uint64(1) - both)


@njit(nogil=True, cache=True)
def _pad(words, pool, front, back, count):
    """Add items of value +0 up to `count`: fewest words first, then the lowest bank, then the lowest empty location."""
    taken = np.full(3, -1)
    for pad in range(count - np.int64((back - front).sum())):
        bank, fewest = -1, 2 * _ROWS
        for other in range(_BANKS):
            middle = other * _STRETCH + _MIDDLE
            whole, half = (middle - np.int64(front[other])) // 2, np.int64(back[other]) - middle
            if whole < _ROWS and whole + half < fewest:
                bank, fewest = other, whole + half
        for row in range(_ROWS):
            word = words[row * _BANKS + (bank ^ (row & 7) << 2)]
            place = 2 * (row * _BANKS + bank)
            has_low = (word & 0xFFFF) != 0 or (taken == place).any()
            has_high = (word >> 16) != 0 or (taken == place + 1).any()
            if not (has_low and has_high):
                taken[pad] = place + has_low
                _insert(pool, front, back, bank, row, np.uint32((place + has_low) << 16))
                break


@njit(nogil=True, cache=True)
def _insert(pool, front, back, bank, row, item):
    """Put an item into its bank: behind the single halves of lower rows, or with the other half of its word."""
    at, end = np.int64(bank * _STRETCH + _MIDDLE), np.int64(back[bank])
    while at < end and pool[at] >> 22 < row:
        at += 1
    if at < end and pool[at] >> 22 == row:
        other = pool[at]
        for i in range(at, end - 1):
            pool[i] = pool[i + 1]
        back[bank] -= 1
        front[bank] -= 2
        at = np.int64(front[bank])
        while at + 2 < bank * _STRETCH + _MIDDLE and pool[at + 2] >> 22 > row:
            pool[at], pool[at + 1] = pool[at + 2], pool[at + 3]
            at += 2
        pool[at], pool[at + 1] = min(item, other), max(item, other)
    else:
        for i in range(end, at, -1):
            pool[i] = pool[i - 1]
        pool[at] = item
        back[bank] += 1


@njit(nogil=True, cache=True)
def _schedule(front, back, count, masks):
    """Which of the 64 lines each wavefront serves, as bit masks; returns the number of wavefronts."""
    lines = np.empty(_LINES, np.int32)  # words per bank, then pairs per bank
    for bank in range(_BANKS):
        middle = bank * _STRETCH + _MIDDLE
        lines[_BANKS + bank] = (middle - np.int64(front[bank])) // 2
        lines[bank] = lines[_BANKS + bank] + np.int64(back[bank]) - middle
    ordered = np.empty(_LINES, np.int32)
    prefix = np.zeros(_LINES + 1, np.uint64)  # prefix[i]: mask of the i largest lines
    first = np.zeros(_ROWS + 2, np.int32)
    for line in range(_LINES):
        first[lines[line]] += 1
    larger = 0
    for value in range(_ROWS, -1, -1):
        larger, first[value] = larger + first[value], larger
    for line in range(_LINES):
        at = first[lines[line]]
        first[lines[line]] += 1
        ordered[at] = lines[line]
        prefix[at + 1] = np.uint64(1) << np.uint64(line)
    for i in range(_LINES):
        prefix[i + 1] |= prefix[i]
    full = count // 128
    tail = (count - 128 * full) // 4
    wavefronts = max(4 * full + (4 if tail else 0), ordered[0])
    left = np.empty(_LINES, np.int32)
    while True:
        left[:] = ordered
        if _fill(full, tail, wavefronts, left, prefix, masks):
            return wavefronts
        wavefronts += 1


@njit(nogil=True, cache=True)
def _fill(full, tail, wavefronts, left, prefix, masks):
    """Serve every wavefront from the largest remaining lines; False where they do not suffice."""
    # Stores of one size are cut alike: the first `more` of them once more than `cut`.
    full_stores, tail_stores = 4 * full, 4 if tail else 0
    full_cut, full_more, tail_cut, tail_more = 1, 0, 1, 0
    for _ in range(wavefronts - full_stores - tail_stores):
        if full_stores and (tail == 0 or 32 * tail_cut >= tail * full_cut):
            full_more += 1
            if full_more == full_stores:
                full_cut, full_more = full_cut + 1, 0
        else:
            tail_more += 1
            if tail_more == tail_stores:
                tail_cut, tail_more = tail_cut + 1, 0
    column = 0
    for store in range(full_stores + tail_stores):
        if store < full_stores:
            size, cuts = 32, full_cut + (store < full_more)
        else:
            size, cuts = tail, tail_cut + (store - full_stores < tail_more)
        for i in range(cuts):
            room = size // cuts + (i < size % cuts)
            masks[column] = 0
            if room:
                least = left[room - 1]
                if least == 0:
                    return False
                begin, end = room - 1, room
                while begin > 0 and left[begin - 1] == least:
                    begin -= 1
                while end < _LINES and left[end] == least:
                    end += 1
                last = end - (room - begin)  # of equal lines the last ones, which keeps `left` sorted
                for j in range(begin):
                    left[j] -= 1
                for j in range(last, end):
                    left[j] -= 1
                masks[column] = prefix[begin] | (prefix[end] ^ prefix[last])
            column += 1
    return True


@njit(nogil=True, cache=True)
def _serve(pool, front, back, masks, served):
    """The items of all wavefronts one after the other; a bank gives pairs from the front, halves from the back."""
    at = np.uint64(0)
    for mask in masks:
        for bank in range(np.uint64(_BANKS)):
            one = mask >> bank & np.uint64(1)
            other = mask >> bank + np.uint64(32) & np.uint64(1)
            first, last = np.uint64(front[bank]), np.uint64(back[bank])
            both = one & other
            served[at] = pool[first if both else last - np.uint64(1)]
            served[at + np.uint64(1)] = pool[first + np.uint64(1)]
            at += one + other
            front[bank] = first + np.uint64(2) * both
            back[bank] = last - (one ^ other)


@njit(nogil=True, cache=True)
def _place(served, items):
    """Store s = 4 j + v, lane L is item v of vector 32 j + L."""
    full = len(items) // 128 * 128
    for group in range(0, full, 128):
        for lane in range(32):
            for v in range(4):
                items[group + 4 * lane + v] = served[group + 32 * v + lane]
    tail = (len(items) - full) // 4
    for lane in range(tail):
        for v in range(4):
            items[full + 4 * lane + v] = served[full + tail * v + lane]


@njit(nogil=True, cache=True)
def _pack_groups(begin, end, bits, across, offsets, bitmaps, values):
    scratch = np.empty(64 * 64, np.uint16)
    packed = np.empty(64 * 64 + 8, np.uint16)
    for group in range(begin, end):
        _copy_tile(bits, group, across, 64, scratch)
        at = 0
        for block in range(64):
            top = block // 16 * 16 + block % 2 * 8
            left = block // 4 % 4 * 16 + block // 2 % 2 * 8
            word = np.uint64(0)
            for row in range(8):
                for column in range(8):
                    value = scratch[64 * (top + row) + left + column]
                    packed[at] = value
                    at += value != 0
                    word |= np.uint64(value != 0) << np.uint64(8 * row + column)
            bitmaps[64 * group + block] = word
        start, stop = 8 * offsets[group], 8 * offsets[group + 1]
        packed[at : stop - start] = 0
        values[start:stop] = packed[: stop - start]
