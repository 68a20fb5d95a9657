"""Data races: the accesses that every granule of a memory remembers, and the conflicts among them (SEMANTICS.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.block import Block

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Strength:
    """How an access takes part: weak or strong; `wide`: its scope reaches beyond the block; `stale`: a `.nc` load."""

    strong: bool = False
    wide: bool = True
    stale: bool = False


WEAK, STRONG = Strength(), Strength(strong=True)


class Access(NamedTuple):
    """Who did it, when (in the thread's own clock) and where in the program."""

    block: int
    thread: int
    clock: int
    instruction: int
    wide: bool
    time: int = 0
    """Its place among the strong accesses of its memory."""


Latest = dict[tuple[int, int], Access]
"""The last access of each (block, thread), oldest first."""


@dataclass(slots=True)
class Cell:
    """What a granule remembers."""

    write: Access | None = None
    """The last weak write."""
    reads: Latest = field(default_factory=dict)
    """Weak reads since the last weak write, as the next."""
    strong_writes: Latest = field(default_factory=dict)
    strong_reads: Latest = field(default_factory=dict)


class History:
    """One memory: an allocation, or the shared memory of a block.  `base` is added to the addresses of its reports."""

    def __init__(self, granule: int, base: int) -> None:
        self.granule, self.base = granule, base
        self.cells: dict[int, Cell] = {}
        self.time = 0

    def cell(self, granule: int) -> Cell:
        found = self.cells.get(granule)
        if found is None:
            found = self.cells[granule] = Cell()
        return found

    def touched(self, offset: int, size: int) -> range:
        """Granules that an access overlaps."""
        return range(offset // self.granule, -(-(offset + size) // self.granule))

    def read(
        self, block: Block, threads: Indices, offsets: Indices, size: int, instruction: int, strength: Strength
    ) -> None:
        """Reads of `size` bytes by distinct threads of a block, in ascending order."""
        for thread, offset in zip(threads.tolist(), offsets.tolist(), strict=True):
            me = _Actor(self, block, thread, instruction, strength)
            detail = "stale read" if strength.stale else "read after write"
            for granule in self.touched(offset, size):
                cell = self.cell(granule)
                if cell.write is not None and me.conflicts(cell.write):
                    me.report(granule, cell.write, detail)
                me.report_latest(granule, me.unseen(cell), detail)
                me.remember(cell.strong_reads if strength.strong else cell.reads)

    def written(
        self,
        block: Block,
        threads: Indices,
        offsets: Indices,
        values: NDArray[np.uint8],
        held: NDArray[np.uint8] | None,
        instruction: int,
        strength: Strength,
    ) -> None:
        """Writes of `values[i]` (bytes) by distinct threads, in ascending order; `held[i]` was there before a plain
        store (None: something else wrote)."""
        size = values.shape[1]
        now: dict[int, bytes] = {}
        """Granules that earlier lanes of this instruction have changed."""
        for index, (thread, offset) in enumerate(zip(threads.tolist(), offsets.tolist(), strict=True)):
            me = _Actor(self, block, thread, instruction, strength)
            for granule in self.touched(offset, size):
                cell = self.cell(granule)
                part = slice(granule * self.granule - offset, (granule + 1) * self.granule - offset)
                new = values[index, part].tobytes()
                old = None if held is None else now.get(granule, held[index, part].tobytes())
                now[granule] = new
                last = cell.write
                repeats = last is not None and last.instruction == instruction and not strength.strong and new == old
                if last is not None and not repeats and me.conflicts(last):
                    me.report(granule, last, "write after write")
                if strength.strong:
                    me.report_latest(granule, me.newest(cell.reads), "write after read", strong=False)
                    me.report_latest(granule, me.unseen(cell), "write after write")
                    me.report_latest(granule, me.newest(cell.strong_reads), "write after read")
                    me.remember(cell.strong_writes)
                    continue
                me.report_all(granule, me.newest(cell.reads), "write after read")
                me.report_all(granule, me.unseen(cell), "write after write")
                me.report_all(granule, me.newest(cell.strong_reads), "write after read")
                cell.reads.clear()
                cell.strong_writes.clear()
                cell.strong_reads.clear()
                cell.write = me.access


class _Actor:
    """One lane of one instruction."""

    def __init__(self, history: History, block: Block, thread: int, instruction: int, strength: Strength) -> None:
        assert block.order is not None
        self.history, self.block, self.order, self.strength = history, block, block.order, strength
        clock = int(block.order.seen[thread, thread])
        self.access = Access(block.index, thread, clock, instruction, strength.wide)

    def conflicts(self, other: Access, strong: bool = False) -> bool:
        """Not ordered, by another thread, and not both strong (`strong`: the other) with scopes that include both."""
        me = self.access
        if self.strength.stale:
            return True
        if other.block == me.block and other.thread == me.thread:
            return False
        if strong and self.strength.strong and (other.block == me.block or (me.wide and other.wide)):
            return False
        return not self.order.ordered(me.thread, other.block, other.thread, other.clock)

    def report(self, granule: int, other: Access, detail: str) -> None:
        size = self.history.granule
        self.block.machine.hazard(
            "race",
            self.access.instruction,
            other.instruction,
            self.access.block,
            self.access.thread,
            self.history.base + granule * size,
            size,
            detail,
            other.block,
            other.thread,
        )

    @staticmethod
    def newest(latest: Latest) -> list[Access]:
        return list(reversed(latest.values()))

    def before(self, other: Access) -> bool:
        """The thread's own, or ordered before what it does now."""
        me = self.access
        own = other.block == me.block and other.thread == me.thread
        return own or self.order.ordered(me.thread, other.block, other.thread, other.clock)

    def unseen(self, cell: Cell) -> list[Access]:
        """Strong writes, the newest first, that no strong access which came before this one has seen."""
        if self.strength.stale or not cell.strong_writes:
            return self.newest(cell.strong_writes)
        strong = (cell.strong_writes, cell.strong_reads)
        seen = max((a.time for latest in strong for a in latest.values() if self.before(a)), default=0)
        return [a for a in self.newest(cell.strong_writes) if a.time > seen]

    def report_all(self, granule: int, others: list[Access], detail: str) -> None:
        """Every conflict; one of the two is weak."""
        for other in others:
            if self.conflicts(other):
                self.report(granule, other, detail)

    def report_latest(self, granule: int, others: list[Access], detail: str, strong: bool = True) -> None:
        """The latest conflict."""
        for other in others:
            if self.conflicts(other, strong):
                self.report(granule, other, detail)
                return

    def remember(self, latest: Latest) -> None:
        """The thread's access becomes the last one."""
        key = self.access.block, self.access.thread
        latest.pop(key, None)
        self.history.time += 1
        latest[key] = self.access._replace(time=self.history.time)
