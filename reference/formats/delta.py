"""Distances between the items of a sparse tile, in a few bits each, in portions of eight for a lane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.formats.container import FormatError

WIDTHS = (5, 6, 8)  # bits of a distance
OCTET, STREAM = 8, 2048  # entries that a lane takes at once; positions that a stream of entries covers
HEADER = 8  # bytes: width, octets of the first stream, of the second, 0
LOW = np.array([0, 8, 16, 24, 4, 12, 20, 28])
"""Bit of the octet's word at which the low four bits of entry 0 to 7 lie."""
HIGH = {5: np.arange(8), 6: np.array([4, 12, 0, 8, 6, 14, 2, 10]), 8: LOW}
"""width -> bit of the octet's width - 4 further bytes at which the other bits of entry 0 to 7 lie."""


def pack(tiles: NDArray[np.uint16], width: int) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Units of 16 bytes of each tile, and the tiles one after the other as uint16[8 * units].

    tiles: uint16[n, 4096], positions in the order that the format defines.  Each half of a tile is a *stream* of entries
    (distance, value): the value lies `distance` positions after the entry before, or after position -1.  An item that is
    farther than D = 2**width - 1 comes after entries (D, +0); entries (1, +0) fill the last octet.  A tile of G octets is

        uint16[4]      width, octets of the first half, of the second, 0
        uint32[G]      low four bits of the distances, entry i of the octet at bit LOW[i]
        uint8[G, w-4]  their other bits, entry i at bit HIGH[w][i]; then zeros to a multiple of 16 bytes
        uint16[G, 8]   values
    """
    count, longest = len(tiles), (1 << width) - 1
    at = np.flatnonzero(tiles.ravel())
    stream, position = np.divmod(at, STREAM)
    first = np.diff(stream, prepend=-1) != 0
    distance = position - np.where(first, -1, np.roll(position, 1))
    skips = (distance - 1) // longest
    entries = np.bincount(stream, 1 + skips, 2 * count).astype(np.int64)
    octets = -(-entries // OCTET)
    # place of every entry, octets of a stream side by side; the last entry of an item has its value, those before are skips
    shift = OCTET * (np.cumsum(octets) - octets) - (np.cumsum(entries) - entries)
    owner = np.repeat(stream, 1 + skips)
    place = np.arange(owner.size) + shift[owner]
    ends = np.cumsum(1 + skips) - 1
    distances, values = np.ones(OCTET * int(octets.sum()), np.int64), np.zeros(OCTET * int(octets.sum()), np.uint16)
    distances[place] = longest
    distances[place[ends]], values[place[ends]] = distance - longest * skips, tiles.ravel()[at]

    per_tile = octets.reshape(count, 2)
    total = per_tile.sum(axis=1)
    index_units = -(-(HEADER + width * total) // 16)
    units = index_units + total
    start = np.cumsum(units) - units
    data = np.zeros(16 * int(units.sum()), np.uint8)
    header = np.stack([np.full(count, width), per_tile[:, 0], per_tile[:, 1], np.zeros(count)], axis=1)
    data[16 * start[:, None] + np.arange(HEADER)] = header.astype("<u2").view(np.uint8)
    tile = np.repeat(np.arange(count), total)
    rank = np.arange(tile.size) - (np.cumsum(total) - total)[tile]
    by_octet = distances.reshape(-1, OCTET)
    low = ((by_octet & 15) << LOW).sum(axis=1).astype("<u4").view(np.uint8).reshape(-1, 4)
    high = ((by_octet >> 4) << HIGH[width]).sum(axis=1).astype("<u4").view(np.uint8).reshape(-1, 4)[:, : width - 4]
    data[(16 * start[tile] + HEADER + 4 * rank)[:, None] + np.arange(4)] = low
    data[(16 * start + HEADER + 4 * total)[tile][:, None] + ((width - 4) * rank)[:, None] + np.arange(width - 4)] = high
    data[(16 * (start + index_units))[tile][:, None] + 16 * rank[:, None] + np.arange(16)] = (
        values.astype("<u2").view(np.uint8).reshape(-1, 16)
    )
    return units, data.view("<u2").astype(np.uint16)


def unpack(halves: NDArray[np.uint16], width: int) -> NDArray[np.uint16]:
    """The tile uint16[4096] of one packed tile uint16[8 * units].  Raises FormatError for what is none."""
    data = halves.astype("<u2").view(np.uint8)
    per_stream = halves[1:3].astype(np.int64)
    total = int(per_stream.sum())
    index_bytes = -(-(HEADER + width * total) // 16) * 16
    if data.size != index_bytes + 16 * total:
        raise FormatError(f"its size of {data.size} bytes does not fit its {total} octets of width {width}")
    extra = HEADER + 4 * total
    low = data[HEADER:extra].view("<u4").astype(np.int64)[:, None] >> LOW & 15
    high_bytes = np.zeros((total, 4), np.uint8)
    high_bytes[:, : width - 4] = data[extra : extra + (width - 4) * total].reshape(total, width - 4)
    high = high_bytes.view("<u4").astype(np.int64) >> HIGH[width] & (1 << width - 4) - 1
    distances, values = (low | high << 4).ravel(), data[index_bytes:].view("<u2")
    tile = np.zeros(2 * STREAM, np.uint16)
    for number, (begin, end) in enumerate(((0, per_stream[0]), (per_stream[0], total))):
        position = np.cumsum(distances[OCTET * begin : OCTET * end]) - 1
        stored = values[OCTET * begin : OCTET * end]
        if position[stored != 0].max(initial=-1) >= STREAM:
            raise FormatError(f"stream {number} runs beyond its {STREAM} positions")
        tile[STREAM * number + position[stored != 0]] = stored[stored != 0]
    return tile
