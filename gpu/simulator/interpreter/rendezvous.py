"""Instructions at which lanes wait for each other, and which of the waiting lanes may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsparse.gpu.simulator.interpreter.numbers import Flags
from loadsparse.gpu.simulator.interpreter.operands import Place, Source, source
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP, Warp
from loadsparse.gpu.simulator.program import Instruction

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

MASKED = frozenset({"shfl", "vote", "match", "redux", "elect"})
EXCHANGES = frozenset({"mma", "wmma", "ldmatrix", "stmatrix", "movmatrix"})
"""Instructions in which every lane of a warp has a part."""
WHOLE_WARP = EXCHANGES | {"bar"}


def kind(instruction: Instruction) -> str | None:
    """ "aligned", "masked", or None where lanes need not wait for their warp."""
    if instruction.name in ("bar", "barrier") and "warp" in instruction.modifiers:
        return "masked"
    if instruction.name in MASKED and "sync" in instruction.modifiers:
        return "masked"
    if instruction.name in WHOLE_WARP or "aligned" in instruction.modifiers:
        return "aligned"
    return None


def member_mask(place: Place, instruction: Instruction) -> Source | None:
    """The member mask of a masked rendezvous: its last operand."""
    return source(place, instruction.operands[-1], "b32") if kind(instruction) == "masked" else None


def guard_flags(machine: Machine, warp: Warp, pc: int) -> Flags:
    """Lanes whose guard holds (all without a guard)."""
    guard = machine.instructions[pc].guard
    if guard is None:
        return np.ones(WARP, bool)
    row = machine.place_of(pc).row(guard.register)
    holds: Flags = (warp.bits[row] != 0) != guard.negated
    return holds


def complete(machine: Machine, warp: Warp, pc: int, here: Flags) -> Flags | None:
    """Of the lanes waiting at `pc`, a set that may execute now, or None."""
    if machine.meetings[pc] == "aligned":
        return here if bool((here | ~warp.alive).all()) else None
    holds = guard_flags(machine, warp, pc)
    if (here & ~holds).any():
        return here & ~holds
    read = machine.masks[pc]
    assert read is not None
    masks = read(warp)
    own = (masks >> LANES.astype(np.uint64)) & np.uint64(1) != 0
    if (here & ~own).any():
        lane = int(np.argmax(here & ~own))
        alone: Flags = np.equal(LANES, lane)
        return alone
    for value in dict.fromkeys(masks[here].tolist()):
        members = (np.uint64(value) >> LANES.astype(np.uint64)) & np.uint64(1) != 0
        ready: Flags = here & (masks == np.uint64(value))
        if bool((ready | ~(members & warp.alive)).all()):
            return ready
    return None
