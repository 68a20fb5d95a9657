"""Copies in flight while Tensor Cores work: the evidence that a pipeline overlaps, counted at every mma of one block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadsparse.gpu.simulator.interpreter.observe import Event
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.watching import Access, Watcher, prepared

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.module import Entry

MOST_INSTRUCTIONS = 20_000
"""Warp instructions of the block that are replayed."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Over the mma instructions of a block: how many, how many of them with copies of their own warp in flight (issued
    and not yet waited for), the sum of those copies' bytes, and the most groups of one lane."""

    mma: int
    covered: int
    bytes: int
    groups: int

    @property
    def share(self) -> float:
        """mma with copies in flight / mma; 0 without any mma."""
        return self.covered / self.mma if self.mma else 0.0

    @property
    def mean_bytes(self) -> float:
        """Mean bytes in flight at an mma."""
        return self.bytes / self.mma if self.mma else 0.0


def overlap(
    entry: Entry,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...],
    *arguments: Any,
    shared_bytes: int = 0,
    thread_block: int = 0,
) -> Overlap:
    """Counts over one block, which runs alone in the interpreter; arguments as for `Entry.launch`."""
    passed = mma = covered = total = most = 0

    def seen(event: Event, accesses: list[Access], warp: Warp) -> None:
        nonlocal passed, mma, covered, total, most
        passed += 1
        if passed > MOST_INSTRUCTIONS:
            raise machine.stop_here()
        if event.instruction.name != "mma":
            return
        queues = [warp.block.copies.queues.get(thread) for thread in warp.threads.tolist()]
        groups = [[group for group in (*q.groups, q.open) if group] for q in queues if q is not None]
        flying = sum(copy.data.size for lane in groups for group in lane for copy in group)
        mma, covered, total = mma + 1, covered + (flying > 0), total + flying
        most = max([most, *map(len, groups)])

    machine = Watcher(prepared(entry, grid, block, arguments, shared_bytes), thread_block, None, seen)
    machine.run()
    return Overlap(mma, covered, total, most)
