"""What a launch keeps beside its memory to look for races in it: the bytes from before, and the granules' history."""

from __future__ import annotations

import itertools
import threading

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.compiled import Compiled
from loadsparse.gpu.simulator.request import Request

Bytes = NDArray[np.uint8]
CHUNK = 1 << 22
MOST_BYTES = 4 << 30
"""What the history of accesses may take, beside a few bytes for each byte of the arrays that are written."""
EXHAUSTED = (
    f"the history that tells races apart exceeds {MOST_BYTES >> 30} GiB; launch fewer blocks, or switch this check off "
    "with Checks(races=False)"
)


class Watch:
    """Called by native code when an allocation is written for the first time, and when its records need memory.

    Cells and heads are zeroed pages that the operating system gives when they are touched.
    """

    def __init__(
        self, request: Request, compiled: Compiled, exact: bool, workers: int, table: NDArray[np.int64]
    ) -> None:
        self.request, self.exact, self.workers = request, exact, workers
        self.granule = compiled.global_granule
        self.table = table.reshape(-1, L.T_ENTRY_BYTES // 8)
        self.lock = threading.Lock()
        self.before: dict[int, tuple[Bytes, Bytes | None]] = {}
        self.history: dict[int, NDArray[np.int64]] = {}
        self.chunks: list[NDArray[np.int64]] = []
        if (
            request.checks.uninitialized or compiled.calls
        ) and not request.checks.races:  # native code does not say what it writes
            for number in request.allocations:
                self.save(number)

    def record(self, numbers: frozenset[int]) -> None:
        """Reads of these allocations are remembered."""
        for number in numbers:
            self.table[number, L.T_READS // 8] = L.RECORDED
            self.keep(number)

    def first_write(self, worker: NDArray[np.int64]) -> int:
        """Called by native code; `worker` has its words."""
        self.keep(int(worker[L.K_ARGUMENT // 8]))
        return 0

    def keep(self, number: int) -> None:
        """Remembers what an allocation holds, and gives it a history."""
        with self.lock:
            if number not in self.before:
                self.save(number)
                granules = -(-self.request.allocations[number].data.size // self.granule)
                words = granules * L.HEAD_BYTES // 8 if self.exact else 2 * granules * self.workers
                self.history[number] = np.zeros(words, np.int64)
                self.table[number, L.T_ROW // 8] = 8 * granules
                self.table[number, L.T_HISTORY // 8] = self.history[number].ctypes.data

    def more(self, worker: NDArray[np.int64]) -> int:
        """Called by native code: memory for records and views; past the limit the launch ends soon."""
        if sum(chunk.nbytes for chunk in self.chunks) > MOST_BYTES:
            worker[L.K_AGAIN // 8], worker[L.K_STOPPED // 8], worker[L.K_BUDGET // 8] = L.EXHAUSTED, L.RACE + 1, 0
        self.chunks.append(np.empty(max(int(worker[L.K_ARGUMENT // 8]), CHUNK) // 8, np.int64))
        start = self.chunks[-1].ctypes.data
        worker[L.K_NEXT // 8], worker[L.K_LIMIT // 8] = start, start + self.chunks[-1].nbytes
        return 0

    def save(self, number: int) -> None:
        """Remembers what an allocation holds."""
        allocation = self.request.allocations[number]
        defined = allocation.defined
        self.before[number] = allocation.data.copy(), None if defined is None else defined.copy()

    def unrecorded(self) -> frozenset[int]:
        """Allocations that were written, and read without a record."""
        blind = self.table[:, L.T_READS // 8] == L.READ_BLINDLY
        return frozenset(n for n in self.before if blind[n])

    def suspects(self) -> bool:
        """True if two workers, whose blocks are different ones, used a granule that one of them wrote."""
        if self.exact or self.workers == 1:
            return False
        for cells in self.history.values():
            wrote, read = np.moveaxis(cells.reshape(self.workers, 2, -1), 1, 0) != 0
            for one, other in itertools.permutations(range(self.workers), 2):
                if (wrote[one] & (wrote[other] | read[other])).any():
                    return True
        return False

    def restore(self) -> None:
        """Puts memory back to what it was before the launch."""
        for number, (data, defined) in self.before.items():
            allocation = self.request.allocations[number]
            allocation.data[:] = data
            if allocation.defined is not None and defined is not None:
                allocation.defined[:] = defined
