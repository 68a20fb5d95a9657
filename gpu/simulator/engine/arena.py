"""Host memory for native code."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
LINE = 64  # bytes of a cache line: everything is aligned to it
CHUNK = 1 << 19  # bytes: smaller pieces share an allocation
MOST_SPARE = 8
_spare: list[Bytes] = []  # chunks of ended launches: pages that the operating system need not give again


def words(address: int, count: int) -> NDArray[np.int64]:
    """A view of 64-bit words at a host address."""
    held: Any = (ctypes.c_int64 * count).from_address(address)  # a buffer, which its type does not say
    return np.frombuffer(held, np.int64)


class Memory:
    """Zeroed, 64-byte aligned host memory that lives as long as this object."""

    def __init__(self) -> None:
        self.kept: list[Bytes] = []
        self.chunks: list[Bytes] = []
        self.next = self.end = 0

    def take(self, size: int) -> int:
        """Address of `size` fresh bytes (and 64 spare ones, so that vector loads may read past the end)."""
        needed = -(-size // LINE) * LINE + LINE
        if needed > CHUNK // 2:
            return _aligned(self.hold(np.zeros(needed + LINE, np.uint8)))
        if self.next + needed > self.end:
            try:
                chunk = _spare.pop()
            except IndexError:
                chunk = np.empty(CHUNK + LINE, np.uint8)
            self.chunks.append(chunk)
            self.next = _aligned(int(chunk.ctypes.data))
            self.end = self.next + CHUNK
        address, self.next = self.next, self.next + needed
        ctypes.memset(address, 0, needed)
        return address

    def hold(self, array: Bytes) -> int:
        """Keeps an array alive: its address."""
        self.kept.append(array)
        return int(array.ctypes.data)

    def end_of_use(self) -> None:
        """Nothing reads or writes this memory any more: other launches may have its chunks."""
        _spare.extend(self.chunks[: max(0, MOST_SPARE - len(_spare))])
        self.chunks.clear()


def _aligned(address: int) -> int:
    return -(-address // LINE) * LINE
