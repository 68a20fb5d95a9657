"""ld, st and prefetch in every width and space."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter import memory
from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes
from loadsparse.gpu.simulator.interpreter.operands import Place, Source, address, defined, destination, rows, source
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.interpreter.widths import vector_length
from loadsparse.gpu.simulator.program import WIDTH, Address, Instruction, Operand, Vector

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
STRONG = frozenset({"volatile", "relaxed", "acquire", "release"})
"""Accesses that count as atomic; PTX treats volatile as relaxed with system scope."""


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
    strong = bool(STRONG & set(modifiers))
    acquire = "acquire" in modifiers
    step = width // 8

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        addresses = where(warp)
        data, known = memory.load(machine, warp, index, lanes, addresses, step * count, space, strong)
        for number, write in enumerate(writers):
            part = slice(number * step, (number + 1) * step)
            write(warp, lanes, memory.from_bytes(data[:, part]), np.logical_and.reduce(known[:, part], axis=1))
        if strong:
            order(machine, warp, lanes, addresses, space, acquire, False, True, False)

    return execute


def _store(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    modifiers = instruction.modifiers
    kind, count = modifiers[-1], vector_length(modifiers)
    width, space = WIDTH[kind], memory.space_of(modifiers)
    where, used = location(place, instruction.operands[0])
    values = elements(instruction.operands[1], count)
    read = [source(place, value, kind) for value in values]
    value_rows = [rows(place, value) for value in values]
    strong = bool(STRONG & set(modifiers))
    release = "release" in modifiers
    step = width // 8

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        addresses = where(warp)
        if strong:
            order(machine, warp, lanes, addresses, space, False, release, False, True)
        data = np.concatenate([memory.to_bytes(take(warp), width) for take in read], axis=1)
        known = np.repeat(np.stack([defined(warp, r) for r in value_rows], axis=1), step, axis=1)
        leaked = memory.store(machine, warp, index, lanes, addresses, data, known, space, strong)
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
) -> None:
    """Ordering effects of an atomic access to shared memory."""
    races = warp.block.races
    if races is None:
        return
    for lane in np.flatnonzero(lanes).tolist():
        where = int(addresses[lane])
        if space == "shared" or (space == "generic" and where >> 36 == 1):
            thread = int(warp.threads[lane])
            races.synchronise(thread, where & ((1 << 36) - 1), acquire, release, reads, writes)


def _nothing(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    return lambda warp, lanes: None


BUILDERS: dict[str, Any] = {
    "ld": _load,
    "ldu": _load,
    "st": _store,
    "prefetch": _nothing,
    "prefetchu": _nothing,
    "pmevent": _nothing,
}
