"""cp.async: copies in flight, the groups that a lane waits for, and who touches them too early."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.interpreter.order import View
from loadsparse.gpu.simulator.interpreter.races import WEAK
from loadsparse.gpu.simulator.request import SHARED

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.block import Block
    from loadsparse.gpu.simulator.interpreter.memory import Part
    from loadsparse.gpu.simulator.interpreter.numbers import Lanes
    from loadsparse.gpu.simulator.interpreter.warp import Warp


@dataclass(slots=True)
class Copy:
    """One lane's copy: `data` was read at the issue and goes to shared `offset` when it lands."""

    number: int
    instruction: int
    offset: int
    data: NDArray[np.uint8]
    known: NDArray[np.uint8]
    source: int
    source_bytes: int


@dataclass(slots=True)
class Queue:
    """Copies of one thread: committed groups, oldest first, and the open group."""

    groups: list[list[Copy]] = field(default_factory=list)
    open: list[Copy] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One thread's cp.async.mbarrier.arrive: it arrives at the object at shared `offset` when its copies have landed.

    `view` is what came before the instruction (empty where races are not looked for): that much the arrival releases.
    """

    thread: int
    instruction: int
    offset: int
    copies: list[Copy]
    view: View


class Copies:
    """All copies in flight of a block; `pending` holds the number of the copy that will write each shared byte."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.queues: dict[int, Queue] = {}
        self.flying: dict[int, Copy] = {}
        self.pending = np.full(block.shared.size, -1)
        self.issued = 0
        self.arrivals: list[Arrival] = []

    def issue(
        self,
        warp: Warp,
        lane: int,
        instruction: int,
        offset: int,
        data: NDArray[np.uint8],
        known: NDArray[np.uint8],
        source: int,
        source_bytes: int,
    ) -> None:
        """Starts a copy; with `cp_async="eager"` the bytes arrive at once but stay pending."""
        copy = Copy(self.issued, instruction, offset, data, known, source, source_bytes)
        self.issued += 1
        self.flying[copy.number] = copy
        self.queues.setdefault(int(warp.threads[lane]), Queue()).open.append(copy)
        self.pending[offset : offset + data.size] = copy.number
        if self.block.machine.request.cp_async == "eager":
            self._write(copy)

    def commit(self, thread: int) -> None:
        queue = self.queues.setdefault(thread, Queue())
        queue.groups.append(queue.open)
        queue.open = []

    def wait(self, thread: int, most: int) -> None:
        """Lands the oldest groups until at most `most` are left."""
        queue = self.queues.get(thread)
        while queue is not None and len(queue.groups) > most:
            for copy in queue.groups.pop(0):
                self._land(thread, copy)

    def track(self, thread: int, instruction: int, offset: int) -> None:
        """An mbarrier takes over the waiting for all copies that the thread has in flight."""
        queue = self.queues.setdefault(thread, Queue())
        copies = [copy for group in [*queue.groups, queue.open] for copy in group]
        order = self.block.order
        view = order.release(np.array([thread])) if order is not None else {}
        self.arrivals.append(Arrival(thread, instruction, offset, copies, view))

    def due(self, offset: int) -> list[Arrival]:
        """The arrivals to be made at the mbarrier at `offset`; they are no longer awaited."""
        due = [arrival for arrival in self.arrivals if arrival.offset == offset]
        self.arrivals = [arrival for arrival in self.arrivals if arrival.offset != offset]
        return due

    def land(self, arrival: Arrival) -> None:
        """Lands the copies of an arrival that are still in flight."""
        queue = self.queues.get(arrival.thread, Queue())
        for copy in arrival.copies:
            if copy.number in self.flying:
                self._land(arrival.thread, copy)
        for group in [*queue.groups, queue.open]:
            group[:] = [copy for copy in group if copy.number in self.flying]

    def end(self) -> None:
        """All threads of the block have exited: a copy is a hazard that was left to an mbarrier which nobody looked at."""
        for arrival in self.arrivals:
            for copy in arrival.copies:
                if copy.number in self.flying:
                    self._unwaited(arrival.thread, copy)
        self.arrivals = []

    def leave(self, thread: int) -> None:
        """The thread exits: what nothing waits for is a hazard, and lands."""
        queue = self.queues.pop(thread, None)
        if queue is None:
            return
        tracked = {copy.number for arrival in self.arrivals for copy in arrival.copies}
        for copy in [copy for group in [*queue.groups, queue.open] for copy in group if copy.number not in tracked]:
            self._unwaited(thread, copy)

    def _unwaited(self, thread: int, copy: Copy) -> None:
        self.block.machine.hazard(
            "pending", copy.instruction, None, self.block.index, thread, copy.offset, copy.data.size, "unwaited"
        )
        self._land(thread, copy)

    def _write(self, copy: Copy) -> None:
        self.block.shared[copy.offset : copy.offset + copy.data.size] = copy.data
        self.block.shared_defined[copy.offset : copy.offset + copy.data.size] = copy.known

    def _land(self, thread: int, copy: Copy) -> None:
        if self.block.machine.request.cp_async == "late":
            self._write(copy)
        own = self.pending[copy.offset : copy.offset + copy.data.size]
        own[own == copy.number] = -1
        del self.flying[copy.number]
        history = self.block.history(SHARED)
        if history is not None:
            where, data = np.array([copy.offset]), copy.data[None, :]
            history.written(self.block, np.array([thread]), where, data, None, copy.instruction, WEAK)

    def touched(
        self,
        index: int,
        warp: Warp,
        lanes: NDArray[np.int64],
        offsets: NDArray[np.int64],
        size: int,
        address: Lanes,
        detail: str,
    ) -> None:
        """Reports accesses to bytes that are still pending."""
        if not self.flying:
            return
        for lane, offset in zip(lanes.tolist(), offsets.tolist(), strict=True):
            owners = self.pending[offset : offset + size]
            hit = np.flatnonzero(owners >= 0)
            if hit.size:
                other = self.flying[int(owners[hit[0]])].instruction
                self.block.machine.lane_hazard("pending", index, warp, lane, other, int(address[lane]), size, detail)

    def source_written(self, index: int, warp: Warp, part: Part, address: Lanes, size: int) -> None:
        """Reports global writes to the source of a copy in flight."""
        if not self.flying:
            return
        for lane in np.flatnonzero(part.lanes).tolist():
            start = int(address[lane])
            for copy in self.flying.values():
                if start < copy.source + copy.source_bytes and copy.source < start + size:
                    self.block.machine.lane_hazard(
                        "pending", index, warp, lane, copy.instruction, start, size, "source"
                    )
                    break
