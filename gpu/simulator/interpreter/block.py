"""One thread block: its warps, shared and local memory, barriers, races and pending copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.interpreter.barriers import BlockBarriers
from loadsparse.gpu.simulator.interpreter.copies import Copies
from loadsparse.gpu.simulator.interpreter.order import Order
from loadsparse.gpu.simulator.interpreter.races import History
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP, Warp
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, DEFINED, LOCAL, PARAM, SHARED

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine


class Block:
    """Memory is undefined at first; `param` holds the launch parameters, then each thread's call frames."""

    def __init__(self, machine: Machine, index: int) -> None:
        request, plan = machine.request, machine.layout
        self.machine, self.index = machine, index
        gx, gy, _ = request.grid
        self.position = (index % gx, index // gx % gy, index // (gx * gy))
        bx, by, bz = request.block
        self.thread_count = bx * by * bz
        warps = -(-self.thread_count // WARP)
        every = np.arange(warps * WARP)
        self.coordinates: tuple[NDArray[np.int64], ...] = (every % bx, every // bx % by, every // (bx * by))
        size = request.static_shared_bytes + request.dynamic_shared_bytes
        self.shared = np.zeros(size, np.uint8)
        self.shared_defined = np.zeros(size, np.uint8)
        self.local_bytes = request.local_bytes
        self.local = np.zeros(warps * WARP * self.local_bytes, np.uint8)
        self.local_defined = np.zeros_like(self.local)
        self.param_bytes = max(plan.param_bytes, request.parameters.size)
        param = np.zeros((warps * WARP, self.param_bytes), np.uint8)
        param_defined = np.zeros_like(param)
        param[:, : request.parameters.size] = request.parameters
        param_defined[:, : request.parameters.size] = DEFINED
        self.param, self.param_defined = param.reshape(-1), param_defined.reshape(-1)
        self.warps = [
            Warp(
                self,
                number,
                np.zeros((machine.register_count, WARP), np.uint64),
                np.full((machine.register_count, WARP), ~np.uint64(0)),
                number * WARP + LANES < self.thread_count,
            )
            for number in range(warps)
        ]
        self.barriers = BlockBarriers(self)
        watched = request.checks.races
        self.order = Order(self, machine.messages) if watched else None
        self.shared_history = History(machine.shared_granule, 0) if watched else None
        self.copies = Copies(self)

    def history(self, number: int) -> History | None:
        """What the memory of a window remembers for the sake of races; None where nobody shares it or looks."""
        if number == SHARED or self.order is None:
            return self.shared_history
        if number in (LOCAL, PARAM):
            return None
        found = self.machine.histories.get(number)
        if found is None:
            found = self.machine.histories[number] = History(self.machine.global_granule, number << ALLOCATION_BITS)
        return found

    def finished(self) -> bool:
        return all(warp.finished() for warp in self.warps)
