"""Block barriers (bar, barrier) and the vector clocks that they join."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes
from loadsparse.gpu.simulator.interpreter.order import View
from loadsparse.gpu.simulator.interpreter.warp import WARP, Warp

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadsparse.gpu.simulator.interpreter.block import Block


@dataclass(slots=True)
class Waiting:
    """The lanes of one warp that arrived (`counted`: for an aligned barrier the whole warp), and how to hand them the
    result of bar.red."""

    warp: Warp
    lanes: Flags
    counted: Flags
    waits: bool
    aligned: bool = True
    predicate: Flags | None = None
    finish: Callable[[Warp, Flags, int], None] | None = None
    operation: str = ""
    released: View = field(default_factory=dict)
    """What came before a bar.arrive, which does not wait for what it releases to be acquired."""


@dataclass(slots=True)
class Barrier:
    """One of the 16 barriers of a block; `threads` is the expected count, or None for all."""

    threads: int | None = None
    arrived: list[Waiting] = field(default_factory=list)


class BlockBarriers:
    """The 16 barriers of a block."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.all = [Barrier() for _ in range(16)]

    def arrive(self, number: int, threads: int | None, arrival: Waiting) -> None:
        """Registers an arrival; completes the barrier when it was the last one."""
        barrier = self.all[number]
        if threads is not None or not barrier.arrived:
            barrier.threads = threads
        if arrival.aligned:
            self._look_for_others(barrier, arrival)
        barrier.arrived.append(arrival)
        if arrival.waits:
            arrival.warp.barrier[arrival.lanes] = number
        elif self.block.order is not None:
            arrival.released = self.block.order.release(arrival.warp.threads[arrival.lanes])
        self.check(number)

    def check_all(self) -> None:
        """After a warp exited."""
        for number, barrier in enumerate(self.all):
            if barrier.arrived:
                self.check(number)

    def check(self, number: int) -> None:
        barrier = self.all[number]
        full = [warp for warp in self.block.warps if self._has_arrived(barrier, warp)]
        if barrier.threads is None:
            complete = all(warp.finished() or warp in full for warp in self.block.warps)
        else:
            complete = len(full) * WARP >= barrier.threads
        if complete and barrier.arrived:
            self._open(number)

    @staticmethod
    def _has_arrived(barrier: Barrier, warp: Warp) -> bool:
        lanes = np.zeros(WARP, bool)
        for arrival in barrier.arrived:
            if arrival.warp is warp:
                lanes |= arrival.counted
        return bool(lanes.any()) and bool((lanes | ~warp.alive).all())

    def _open(self, number: int) -> None:
        if self.all[number].threads is None:
            self._look_for_missing(self.all[number].arrived)
        arrivals, self.all[number] = self.all[number].arrived, Barrier()
        values = [flag for a in arrivals if a.predicate is not None for flag in a.predicate[a.lanes]]
        for arrival in arrivals:
            if arrival.waits:
                arrival.warp.barrier[arrival.lanes] = -1
            if arrival.finish is not None:
                result = {"popc": sum(values), "and": all(values), "or": any(values)}[arrival.operation]
                arrival.finish(arrival.warp, arrival.lanes, int(result))
        if self.block.order is not None:
            waiting = [a.warp.threads[a.lanes] for a in arrivals if a.waits]
            if waiting:
                self.block.order.join(np.concatenate(waiting), [a.released for a in arrivals if not a.waits])

    def _look_for_others(self, barrier: Barrier, arrival: Waiting) -> None:
        """Reports a warp that comes to reduce where others do not, or the other way round."""
        first = next((a for a in barrier.arrived if self._has_arrived(barrier, a.warp)), None)
        if first is not None and (first.finish is None) != (arrival.finish is None):
            lane = int(np.argmax(arrival.lanes))
            site = int(arrival.warp.pc[lane]) - 1
            self.block.machine.lane_hazard("convergence", site, arrival.warp, lane, detail="kinds mixed")

    def _look_for_missing(self, arrivals: list[Waiting]) -> None:
        """Reports threads that ended after they had gone past a barrier that opens now."""
        machine = self.block.machine
        last = {a.warp.index: int(a.warp.pc[int(np.argmax(a.lanes))]) - 1 for a in arrivals if a.waits}
        for site in dict.fromkeys(last[index] for index in sorted(last)):
            slot = machine.bypasses.slot(site) - 1
            for warp in self.block.warps if slot >= 0 else ():
                for lane in np.flatnonzero(warp.went_past[slot]).tolist():
                    machine.lane_hazard("convergence", site, warp, lane, detail="went past")


def lanes_of(value: Lanes, lanes: Flags) -> int:
    """The value of the lowest active lane."""
    return int(value[int(np.argmax(lanes))])
