"""Whether all that the next round of a launch depends on is as it was before, for `recurrence.py`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from loadsparse.gpu.simulator.recurrence import Recurrence, outside

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.block import Block
    from loadsparse.gpu.simulator.interpreter.machine import Machine


def recurs(machine: Machine, rounds: Recurrence, live: list[Block]) -> bool:
    """True if everything is as it was after an earlier round of these blocks."""
    return rounds.found(lambda: _threads(machine, live), lambda: _memory(machine, live))


def _threads(machine: Machine, live: list[Block]) -> bytes:
    """Registers and program counters, and executions of what acts elsewhere."""
    digest = hashlib.blake2b(machine.executions[outside(machine.instructions)].tobytes())
    for block in live:
        digest.update(repr((block.index, [(b.threads, len(b.arrived)) for b in block.barriers.all])).encode())
        for warp in block.warps:
            for held in (warp.bits, warp.unknown, warp.alive, warp.pc, warp.barrier, warp.carry, warp.deferred):
                digest.update(held.tobytes())
            digest.update(repr(warp.returns).encode())
    return digest.digest()


def _memory(machine: Machine, live: list[Block]) -> bytes:
    digest = hashlib.blake2b()
    for block in live:
        for held in (block.shared, block.shared_defined, block.local, block.local_defined, block.param):
            digest.update(held.tobytes())
    for allocation in machine.request.allocations.values():
        digest.update(allocation.data.tobytes())
        if allocation.defined is not None:
            digest.update(allocation.defined.tobytes())
    return digest.digest()
