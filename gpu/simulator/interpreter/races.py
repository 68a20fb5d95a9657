"""Data races in shared memory: vector clocks, and the last accesses of every granule (SEMANTICS.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.block import Block

Indices = NDArray[np.int64]


class Races:
    """`seen[t, u]` is the latest clock of thread u that thread t is ordered after; `seen[t, t]` is t's own clock.

    A granule's write is (thread, clock, instruction, atomic); its reads are two such, the newer one first.
    """

    def __init__(self, block: Block, granule: int, size: int) -> None:
        self.block, self.granule = block, granule
        threads = len(block.coordinates[0])
        self.seen = np.eye(threads, dtype=np.int64)
        count = -(-size // granule)
        self.write = _History(count)
        self.newer, self.older = _History(count), _History(count)
        self.write_step = np.full(count, -1)
        self.step = 0
        self.released: dict[int, NDArray[np.int64]] = {}
        self.fenced: dict[int, NDArray[np.int64]] = {}
        self.observed: dict[int, NDArray[np.int64]] = {}

    def join(self, released: Indices, acquiring: Indices) -> None:
        """What `released` threads did so far is ordered before what `acquiring` threads do next."""
        if released.size == 0:
            return
        known = self.seen[released].max(axis=0)
        self.seen[acquiring] = np.maximum(self.seen[acquiring], known)
        self.seen[released, released] += 1

    def fence(self, threads: Indices) -> None:
        """A fence: later atomics release what came before, earlier ones have acquired."""
        for thread in threads.tolist():
            if thread in self.observed:
                self.seen[thread] = np.maximum(self.seen[thread], self.observed.pop(thread))
            self.fenced[thread] = self.seen[thread].copy()
            self.seen[thread, thread] += 1

    def synchronise(self, thread: int, address: int, acquire: bool, release: bool, reads: bool, writes: bool) -> None:
        """The ordering effect of one lane's atomic access to a shared address."""
        known = self.released.get(address)
        if known is not None and reads:
            if acquire:
                self.seen[thread] = np.maximum(self.seen[thread], known)
            else:
                earlier = self.observed.get(thread)
                self.observed[thread] = known.copy() if earlier is None else np.maximum(earlier, known)
        if not writes:
            return
        message = self.seen[thread].copy() if release else self.fenced.get(thread)
        if message is not None:
            self.released[address] = message.copy() if known is None else np.maximum(known, message)
            if release:
                self.seen[thread, thread] += 1

    def granules(self, offset: int, size: int) -> Indices:
        return np.arange(offset // self.granule, -(-(offset + size) // self.granule))

    def _report(self, thread: int, instruction: int, granule: int, other: int, detail: str) -> None:
        self.block.machine.hazard(
            "race", instruction, other, self.block.index, thread, granule * self.granule, self.granule, detail
        )

    def read(self, threads: Indices, offsets: Indices, size: int, instruction: int, atomic: bool = False) -> None:
        """Reads of `size` bytes by distinct threads in ascending order."""
        for thread, offset in zip(threads.tolist(), offsets.tolist(), strict=True):
            where = self.granules(offset, size)
            for granule in where[self.write.conflicts(where, thread, self.seen[thread], atomic)].tolist():
                self._report(thread, instruction, granule, int(self.write.instruction[granule]), "read after write")
            clock = self.seen[thread, thread]
            moved = where[(self.newer.thread[where] >= 0) & (self.newer.thread[where] != thread)]
            self.older.copy(self.newer, moved)
            self.newer.put(where, thread, clock, instruction, atomic)

    def written(
        self,
        threads: Indices,
        offsets: Indices,
        values: NDArray[np.uint8],
        instruction: int,
        atomic: bool = False,
    ) -> None:
        """Writes of `values[i]` (bytes) by distinct threads of one instruction, in ascending order."""
        self.step += 1
        size = values.shape[1]
        current: dict[int, bytes] = {}
        for index, (thread, offset) in enumerate(zip(threads.tolist(), offsets.tolist(), strict=True)):
            where = self.granules(offset, size)
            last = self.write.conflicts(where, thread, self.seen[thread], atomic)
            newer = self.newer.conflicts(where, thread, self.seen[thread], atomic)
            older = self.older.conflicts(where, thread, self.seen[thread], atomic)
            for position, granule in enumerate(where.tolist()):
                start = granule * self.granule - offset
                new = values[index, start : start + self.granule].tobytes()
                if last[position] and not (self.write_step[granule] == self.step and current[granule] == new):
                    self._report(
                        thread, instruction, granule, int(self.write.instruction[granule]), "write after write"
                    )
                if older[position]:
                    self._report(thread, instruction, granule, int(self.older.instruction[granule]), "write after read")
                if newer[position]:
                    self._report(thread, instruction, granule, int(self.newer.instruction[granule]), "write after read")
                current[granule] = new
            self.write.put(where, thread, self.seen[thread, thread], instruction, atomic)
            self.write_step[where] = self.step
            self.newer.thread[where] = -1
            self.older.thread[where] = -1


class _History:
    """One remembered access per granule; thread -1 is none."""

    def __init__(self, count: int) -> None:
        self.thread = np.full(count, -1)
        self.clock = np.zeros(count, np.int64)
        self.instruction = np.zeros(count, np.int64)
        self.atomic = np.zeros(count, bool)

    def put(self, where: Indices, thread: int, clock: np.int64, instruction: int, atomic: bool) -> None:
        self.thread[where], self.clock[where] = thread, clock
        self.instruction[where], self.atomic[where] = instruction, atomic

    def copy(self, other: _History, where: Indices) -> None:
        self.thread[where], self.clock[where] = other.thread[where], other.clock[where]
        self.instruction[where], self.atomic[where] = other.instruction[where], other.atomic[where]

    def conflicts(self, where: Indices, thread: int, seen: Indices, atomic: bool) -> NDArray[np.bool_]:
        """Remembered accesses by another thread that `thread` is not ordered after (and not both atomic)."""
        owner = self.thread[where]
        unordered = (owner >= 0) & (owner != thread) & (seen[owner] < self.clock[where])
        result: NDArray[np.bool_] = unordered & ~(self.atomic[where] & atomic)
        return result
