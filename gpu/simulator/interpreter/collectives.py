"""shfl, vote, match, redux, activemask and elect: values exchanged between the lanes of a warp."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes, mask, signed
from loadsparse.gpu.simulator.interpreter.operands import ALL, Place, defined, destination, rows, source, unknown
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP, Warp
from loadsparse.gpu.simulator.program import Instruction, Pair

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
U = np.uint64


def mask_of(lanes: Flags) -> int:
    """Bit l is set for every true lane."""
    return int((lanes.astype(np.int64) << LANES).sum())


def members(machine: Machine, warp: Warp, index: int, lanes: Flags, masks: Lanes) -> Flags:
    """Participants of a masked instruction; a lane outside its own mask is reported and stands alone."""
    inside = (masks >> LANES.astype(U)) & U(1) != 0
    for lane in np.flatnonzero(lanes & ~inside).tolist():
        machine.lane_hazard("convergence", index, warp, lane, detail="not in own mask")
    return lanes


def _shfl(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    operands, modifiers = instruction.operands, instruction.modifiers
    mode = next(m for m in modifiers if m in ("up", "down", "bfly", "idx"))
    target = operands[0]
    write = destination(place, target.first if isinstance(target, Pair) else target, 32)
    flag = destination(place, target.second if isinstance(target, Pair) else None, 1)
    a, b, c, masks = (source(place, operand, "b32") for operand in operands[1:5])
    holes, control_rows = unknown(place, operands[1], "b32"), rows(place, *operands[2:4])

    def execute(warp: Warp, lanes: Flags) -> None:
        here = members(machine, warp, index, lanes, masks(warp))
        value, step, control = a(warp), b(warp).astype(np.int64) & 31, c(warp).astype(np.int64)
        clamp, segment = control & 31, (control >> 8) & 31
        most = (LANES & segment) | (clamp & ~segment)
        least = LANES & segment
        if mode == "up":
            j = LANES - step
            valid = j >= most
        else:
            j = {"down": LANES + step, "bfly": LANES ^ step, "idx": least | (step & ~segment)}[mode]
            valid = j <= most
        origin = np.where(valid, j, LANES)
        absent = lanes & ~here[origin]
        for lane in np.flatnonzero(absent).tolist():
            machine.lane_hazard("convergence", index, warp, lane, detail="inactive source")
        origin = np.where(absent, LANES, origin)
        known = defined(warp, control_rows)
        write(warp, lanes, value[origin], known, np.where(known, holes(warp)[origin], mask(32)))
        flag(warp, lanes, valid.astype(U), known)

    return execute


def _vote(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    operands, modifiers = instruction.operands, instruction.modifiers
    mode = next(m for m in modifiers if m in ("all", "any", "uni", "ballot"))
    write = destination(place, operands[0], 32 if mode == "ballot" else 1)
    predicate, masks = source(place, operands[1], "pred"), source(place, operands[2], "b32")
    used = rows(place, operands[1])

    def execute(warp: Warp, lanes: Flags) -> None:
        here = members(machine, warp, index, lanes, masks(warp))
        flags = (predicate(warp) != 0) & here
        count, total = int(flags.sum()), int(here.sum())
        result = {
            "all": count == total,
            "any": count > 0,
            "uni": count in (0, total),
            "ballot": mask_of(flags),
        }[mode]
        known = np.full(WARP, bool(defined(warp, used)[here].all()))
        write(warp, lanes, np.full(WARP, int(result), U), known)

    return execute


def _match(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    operands, modifiers = instruction.operands, instruction.modifiers
    target = operands[0]
    write = destination(place, target, 32)
    flag = destination(place, target.second if isinstance(target, Pair) else None, 1)
    value, masks = source(place, operands[1], modifiers[-1]), source(place, operands[2], "b32")
    used = rows(place, operands[1])

    def execute(warp: Warp, lanes: Flags) -> None:
        here = members(machine, warp, index, lanes, masks(warp))
        values = value(warp)
        known = np.full(WARP, bool(defined(warp, used)[here].all()))
        if "all" in modifiers:
            same = np.unique(values[here]).size == 1
            write(warp, lanes, np.full(WARP, mask_of(here) if same else 0, U), known)
            flag(warp, lanes, np.full(WARP, int(same), U), known)
            return
        equal = np.array([mask_of(here & (values == values[lane])) for lane in range(WARP)], U)
        write(warp, lanes, equal, known)

    return execute


def _redux(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    operands, modifiers = instruction.operands, instruction.modifiers
    kind = modifiers[-1]
    mode = next(m for m in modifiers if m in ("add", "min", "max", "and", "or", "xor"))
    write = destination(place, operands[0], 32)
    value, masks = source(place, operands[1], kind), source(place, operands[2], "b32")
    used = rows(place, operands[1])

    def execute(warp: Warp, lanes: Flags) -> None:
        here = members(machine, warp, index, lanes, masks(warp))
        values = value(warp)[here]
        numbers = signed(values, 32) if kind == "s32" else values.astype(np.int64)
        reduce = {
            "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or,
            "xor": np.bitwise_xor,
        }[mode]  # fmt: skip
        result = int(reduce.reduce(numbers)) & 0xFFFFFFFF
        known = np.full(WARP, bool(defined(warp, used)[here].all()))
        write(warp, lanes, np.full(WARP, result, U), known)

    return execute


def _activemask(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    write = destination(place, instruction.operands[0], 32)
    return lambda warp, lanes: write(warp, lanes, np.full(WARP, mask_of(lanes), U), ALL)


def _elect(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    """elect.sync d|p, mask: d = the lowest member, p is true there."""
    target = instruction.operands[0]
    first = destination(place, target.first if isinstance(target, Pair) else target, 32)
    flag = destination(place, target.second if isinstance(target, Pair) else None, 1)
    masks = source(place, instruction.operands[1], "b32")

    def execute(warp: Warp, lanes: Flags) -> None:
        here = members(machine, warp, index, lanes, masks(warp))
        leader = int(np.argmax(here))
        first(warp, lanes, np.full(WARP, leader, U), ALL)
        flag(warp, lanes, np.equal(LANES, leader).astype(U), ALL)

    return execute


BUILDERS: dict[str, Any] = {
    "shfl": _shfl,
    "vote": _vote,
    "match": _match,
    "redux": _redux,
    "activemask": _activemask,
    "elect": _elect,
}
