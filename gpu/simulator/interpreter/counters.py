"""Sectors and wavefronts of one warp access: the exact integer rules of SEMANTICS.md."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
SECTOR, WORD, BANKS = 32, 4, 32


def sectors(addresses: NDArray[np.uint64], size: int) -> int:
    """Distinct 32-byte segments touched by accesses of `size` bytes."""
    first, last = addresses // SECTOR, (addresses + np.uint64(size - 1)) // SECTOR
    return int(np.unique(np.concatenate([first, last])).size)


def local_sectors(lanes: Indices, offsets: Indices, size: int) -> int:
    """Distinct 32-byte segments of local memory, in which each 4-byte word of 32 threads lies side by side."""
    words = np.concatenate([offsets // WORD + k for k in range(max(1, size // WORD))])
    octets = np.tile(lanes // (SECTOR // WORD), words.size // lanes.size)
    return int(np.unique(words * BANKS + octets).size)


def wavefronts(lanes: Indices, offsets: Indices, size: int) -> tuple[int, int]:
    """(wavefronts, ideal wavefronts) of a shared access of `size` bytes per lane at byte `offsets`.

    Up to 4 bytes the warp is one group, 8 bytes make two groups of 16 lanes and 16 bytes four of 8 lanes.  A group
    costs the most distinct words in any bank; a group with the same words as its neighbour before it costs nothing.
    """
    per_group = {8: 16, 16: 8}.get(size, 32)
    words = [offsets // WORD + k for k in range(max(1, size // WORD))]
    total = ideal = 0
    previous: NDArray[np.int64] | None = None
    for group in range(32 // per_group):
        inside = lanes // per_group == group
        distinct = np.unique(np.concatenate([w[inside] for w in words]))
        if distinct.size and not (previous is not None and np.array_equal(distinct, previous)):
            total += int(np.bincount(distinct % BANKS).max())
            ideal += -(-distinct.size // BANKS)
        previous = distinct
    return total, ideal


def row_wavefronts(offsets: Indices) -> tuple[int, int]:
    """The same for ldmatrix: groups of 8 row addresses, 16 bytes each."""
    total = ideal = 0
    for start in range(0, offsets.size, 8):
        first = offsets[start : start + 8] // WORD
        distinct = np.unique(np.concatenate([first + k for k in range(4)]))
        total += int(np.bincount(distinct % BANKS).max())
        ideal += -(-distinct.size // BANKS)
    return total, ideal
