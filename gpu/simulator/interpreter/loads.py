"""ld, st and prefetch in every width and space."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter import memory
from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes
from loadsparse.gpu.simulator.interpreter.operands import (
    ALL,
    Place,
    Source,
    address,
    defined,
    destination,
    rows,
    source,
    unknown,
)
from loadsparse.gpu.simulator.interpreter.races import Strength
from loadsparse.gpu.simulator.interpreter.warp import WARP, Warp
from loadsparse.gpu.simulator.interpreter.widths import vector_length
from loadsparse.gpu.simulator.program import WIDTH, Address, Instruction, Operand, Vector
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, LOCAL, PARAM, SHARED

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
STRONG = frozenset({"volatile", "relaxed", "acquire", "release"})
"""Loads and stores that are strong; PTX treats volatile as relaxed with system scope."""


def is_wide(modifiers: tuple[str, ...]) -> bool:
    """True unless the scope of a strong access or a fence is one block (clusters of several are not simulated)."""
    return not {"cta", "cluster"} & set(modifiers)


def elements(operand: Operand, count: int) -> tuple[Operand | None, ...]:
    """The registers of a vector operand, or the one operand."""
    if isinstance(operand, Vector):
        if len(operand.elements) != count:
            raise TypeError(f"a vector of {len(operand.elements)} where {count} are wanted")
        return operand.elements
    if count != 1:
        raise TypeError(f"one operand where {count} are wanted")
    return (operand,)


def location(place: Place, operand: Operand) -> tuple[Source, list[int]]:
    """(address, rows of the registers it is made of)."""
    if not isinstance(operand, Address):
        raise TypeError("a memory operand is written [address]")
    return address(place, operand), rows(place, operand)


def check_address(machine: Machine, warp: Warp, index: int, lanes: Flags, used: list[int]) -> None:
    """Reports lanes whose address is not defined."""
    known = defined(warp, used)
    if not known[lanes].all():
        for lane in np.flatnonzero(lanes & ~known).tolist():
            machine.lane_hazard("uninitialized", index, warp, lane, detail="address")


def _load(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    modifiers = instruction.modifiers
    kind, count = modifiers[-1], vector_length(modifiers)
    width, space = WIDTH[kind], memory.space_of(modifiers)
    where, used = location(place, instruction.operands[1])
    writers = [destination(place, e, width, kind.startswith("s")) for e in elements(instruction.operands[0], count)]
    strong, wide = bool(STRONG & set(modifiers)), is_wide(modifiers)
    strength = Strength(strong, wide, "nc" in modifiers or instruction.name == "ldu")
    acquire = "acquire" in modifiers
    step, cell = width // 8, machine.cell if index in machine.padded else 0

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        addresses = where(warp)
        data, known = memory.load(machine, warp, index, lanes, addresses, step * count, space, strength, cell)
        for number, write in enumerate(writers):
            part = slice(number * step, (number + 1) * step)
            write(warp, lanes, memory.from_bytes(data[:, part]), ALL, memory.from_bytes(~known[:, part]))
        if strong:
            order(machine, warp, lanes, addresses, space, acquire, False, True, False, wide)

    return execute


def _store(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    modifiers = instruction.modifiers
    kind, count = modifiers[-1], vector_length(modifiers)
    width, space = WIDTH[kind], memory.space_of(modifiers)
    where, used = location(place, instruction.operands[0])
    values = elements(instruction.operands[1], count)
    read = [source(place, value, kind) for value in values]
    holes = [unknown(place, value, kind) for value in values]
    strong, wide = bool(STRONG & set(modifiers)), is_wide(modifiers)
    release = "release" in modifiers
    step = width // 8

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        addresses = where(warp)
        if strong:
            order(machine, warp, lanes, addresses, space, False, release, False, True, wide)
        data = np.concatenate([memory.to_bytes(take(warp), width) for take in read], axis=1)
        known = ~np.concatenate([memory.to_bytes(take(warp), width) for take in holes], axis=1)
        leaked = memory.store(machine, warp, index, lanes, addresses, data, known, space, Strength(strong, wide))
        report_values(machine, warp, index, leaked, addresses, step * count)

    return execute


def report_values(machine: Machine, warp: Warp, index: int, lanes: Flags, addresses: Lanes, size: int) -> None:
    """Reports lanes that stored something undefined to global memory."""
    for lane in np.flatnonzero(lanes).tolist():
        machine.lane_hazard("uninitialized", index, warp, lane, None, int(addresses[lane]), size, "value")


def order(
    machine: Machine,
    warp: Warp,
    lanes: Flags,
    addresses: Lanes,
    space: str,
    acquire: bool,
    release: bool,
    reads: bool,
    writes: bool,
    wide: bool = True,
) -> None:
    """Ordering effects of a strong access to shared or global memory."""
    clocks = warp.block.order
    if clocks is None or space in ("local", "param"):
        return
    for lane in np.flatnonzero(lanes).tolist():
        where = int(addresses[lane])
        if space == "shared":
            where |= SHARED << ALLOCATION_BITS
        number = where >> ALLOCATION_BITS
        if number in (LOCAL, PARAM):
            continue
        thread = int(warp.threads[lane])
        clocks.synchronise(thread, where, acquire, release, reads, writes, wide and number != SHARED)


def _nothing(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    return lambda warp, lanes: None


def _policy(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    """A cache policy is opaque, and nothing here depends on it."""
    write = destination(place, instruction.operands[0], 64)
    return lambda warp, lanes: write(warp, lanes, np.zeros(WARP, np.uint64), ALL)


BUILDERS: dict[str, Any] = {
    "ld": _load,
    "ldu": _load,
    "st": _store,
    "prefetch": _nothing,
    "prefetchu": _nothing,
    "applypriority": _nothing,
    "griddepcontrol": _nothing,
    "createpolicy": _policy,
    "pmevent": _nothing,
}
