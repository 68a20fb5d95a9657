"""bar, barrier, membar, fence, nanosleep and mbarrier."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter.barriers import Waiting, lanes_of
from loadsparse.gpu.simulator.interpreter.collectives import members
from loadsparse.gpu.simulator.interpreter.loads import is_wide
from loadsparse.gpu.simulator.interpreter.numbers import Flags
from loadsparse.gpu.simulator.interpreter.operands import ALL, Place, destination, source
from loadsparse.gpu.simulator.interpreter.warp import WARP, Warp
from loadsparse.gpu.simulator.program import Instruction

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]


def _bar(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    operands, modifiers = instruction.operands, instruction.modifiers
    if "warp" in modifiers:
        return _warp(machine, place, instruction, index)
    reduction = "red" in modifiers
    rest = operands[1:] if reduction else operands
    number = source(place, rest[0], "b32")
    has_count = len(rest) > (2 if reduction else 1)
    threads = source(place, rest[1], "b32") if has_count else None
    predicate = source(place, rest[-1], "pred") if reduction else None
    operation = next((m for m in modifiers if m in ("popc", "and", "or")), "")
    write = destination(place, operands[0], 32 if operation == "popc" else 1) if reduction else None
    aligned = machine.aligned(instruction)
    waits = "arrive" not in modifiers
    if not waits and threads is None:
        raise TypeError("bar.arrive needs a thread count")

    def finish(warp: Warp, lanes: Flags, result: int) -> None:
        if write is not None:
            write(warp, lanes, np.full(WARP, result, np.uint64), ALL)

    def execute(warp: Warp, lanes: Flags) -> None:
        barrier = lanes_of(number(warp), lanes)
        if barrier > 15:
            raise machine.stop("trap", index, warp, int(np.argmax(lanes)), f"barrier {barrier} of 16")
        expected = lanes_of(threads(warp), lanes) if threads is not None else None
        flags = predicate(warp) != 0 if predicate is not None else None
        counted = warp.alive.copy() if aligned else lanes.copy()
        arrival = Waiting(warp, lanes.copy(), counted, waits, aligned, flags, finish if reduction else None, operation)
        warp.block.barriers.arrive(barrier, expected, arrival)

    return execute


def _warp(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    masks = source(place, instruction.operands[-1], "b32")

    def execute(warp: Warp, lanes: Flags) -> None:
        members(machine, warp, index, lanes, masks(warp))
        if warp.block.order is not None:
            warp.block.order.join(warp.threads[lanes])

    return execute


def _fence(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    wide, between_proxies = is_wide(instruction.modifiers), "proxy" in instruction.modifiers

    def execute(warp: Warp, lanes: Flags) -> None:
        if warp.block.order is not None and not between_proxies:
            warp.block.order.fence(warp.threads[lanes], wide)

    return execute


def _nanosleep(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    def execute(warp: Warp, lanes: Flags) -> None:
        warp.give_way(lanes)

    return execute


BUILDERS: dict[str, Any] = {
    "bar": _bar,
    "barrier": _bar,
    "membar": _fence,
    "fence": _fence,
    "nanosleep": _nanosleep,
}
