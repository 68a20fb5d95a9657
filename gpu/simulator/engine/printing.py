"""What a native run prints: called back for the lanes of a warp that reach a printf, in the order of the launch."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.arena import words
from loadsparse.gpu.simulator.printing import MOST_PRINTED, render
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, LOCAL, SHARED, Request


class Printer:
    """The text of one launch."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.parts: list[str] = []
        self.characters = 0

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def lanes(self, worker: NDArray[np.int64]) -> int:
        """Prints for the lanes of a warp; `worker` has its words, the warp the addresses of formats and arguments."""
        block = words(int(worker[L.K_BLOCK // 8]), L.BLOCK_BYTES // 8)
        warp = int(worker[L.K_ARGUMENT // 8])
        index = int(words(warp + L.W_INDEX, 1)[0])
        formats, arguments = (words(warp + offset, 32).astype(np.uint64) for offset in (L.W_ADDRESS, L.W_DATA))
        results = words(warp + L.W_PRINTED, 16).view(np.int32)
        for lane in range(32):
            if int(worker[L.K_LANES // 8]) >> lane & 1:
                thread = 32 * index + lane
                results[lane] = self._one(block, thread, int(formats[lane]), int(arguments[lane]))
        return 0

    def _one(self, block: NDArray[np.int64], thread: int, text: int, arguments: int) -> int:
        """Prints for a thread; returns how many arguments it took."""
        if self.characters >= MOST_PRINTED:
            return 0

        def read(address: int, size: int) -> bytes:
            number, offset = address >> ALLOCATION_BITS, address & L.OFFSET_MASK
            if number == LOCAL:
                each = int(block[L.B_LOCAL_BYTES // 8])
                return _host_bytes(int(block[L.B_LOCAL // 8]) + thread * each, each, offset, size)
            if number == SHARED:
                return _host_bytes(int(block[L.B_SHARED // 8]), int(block[L.B_SHARED_BYTES // 8]), offset, size)
            allocation = self.request.allocations.get(number)
            return b"" if allocation is None else allocation.data[offset : offset + size].tobytes()

        line, taken = render(read, text, arguments)
        self.parts.append(line)
        self.characters += len(line)
        return taken


def _host_bytes(start: int, length: int, offset: int, size: int) -> bytes:
    return ctypes.string_at(start + offset, max(0, min(size, length - offset)))
