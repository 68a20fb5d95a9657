"""From an instruction to the function that executes it for the active lanes of a warp."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from loadsparse.gpu.simulator.interpreter import (
    arithmetic,
    atomics,
    collectives,
    control,
    copying,
    loads,
    matrix,
    mbarrier,
    multiply,
    synchronise,
    wmma,
)
from loadsparse.gpu.simulator.interpreter.numbers import Flags
from loadsparse.gpu.simulator.interpreter.operands import Place
from loadsparse.gpu.simulator.interpreter.rendezvous import EXCHANGES
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.program import Instruction, PtxError

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
Builder = Callable[["Machine", Place, Instruction, int], Execute]

BUILDERS: dict[str, Builder] = {
    **loads.BUILDERS,
    **atomics.BUILDERS,
    **copying.BUILDERS,
    **collectives.BUILDERS,
    **synchronise.BUILDERS,
    **matrix.BUILDERS,
    **mbarrier.BUILDERS,
    **multiply.BUILDERS,
    **wmma.BUILDERS,
}


def decode(machine: Machine, place: Place, instruction: Instruction, index: int, base: int) -> Execute:
    """The function that executes one instruction for a lane group; `base` is where its function's code begins.

    Raises `PtxError` with line and column for a form that is in the opcode table but that this engine cannot execute.
    """
    name = instruction.name
    try:
        if name in control.BUILDERS:
            return control.BUILDERS[name](machine, place, instruction, index, base)
        body = BUILDERS[name](machine, place, instruction, index) if name in BUILDERS else None
        if body is None:
            body = arithmetic.build(place, instruction)
    except (KeyError, TypeError, IndexError, StopIteration) as error:
        reason = f"'{instruction.text}' is not a form that can be executed ({error})"
        raise PtxError(reason, instruction.line, instruction.column) from error
    return guarded(machine, place, instruction, index, body)


def whole(machine: Machine, index: int, body: Execute) -> Execute:
    """Reports an exchange between all lanes of a warp of which some have exited or never started."""

    def execute(warp: Warp, lanes: Flags) -> None:
        if not warp.alive.all():
            machine.lane_hazard("convergence", index, warp, int(np.argmax(warp.alive)), detail="lanes missing")
        body(warp, lanes)

    return execute


def guarded(machine: Machine, place: Place, instruction: Instruction, index: int, body: Execute) -> Execute:
    """Applies the guard; reports guards that are undefined or differ at an aligned instruction, and missing lanes."""
    guard = instruction.guard
    if instruction.name in EXCHANGES:
        body = whole(machine, index, body)
    if guard is None:
        return body
    row, negated = place.row(guard.register), guard.negated
    aligned = machine.aligned(instruction)

    def execute(warp: Warp, group: Flags) -> None:
        lanes = group & ((warp.bits[row] != 0) != negated)
        for lane in np.flatnonzero(group & (warp.unknown[row] != 0)).tolist():
            machine.lane_hazard("uninitialized", index, warp, lane, detail="guard")
        if not lanes.any():
            return
        if aligned:
            for lane in np.flatnonzero(group & ~lanes).tolist():
                machine.lane_hazard("convergence", index, warp, lane, detail="guards differ")
        body(warp, lanes)

    return execute
