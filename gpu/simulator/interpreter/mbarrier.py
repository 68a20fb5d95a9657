"""mbarrier: arrival counters in shared memory.

The 64-bit object holds the pending arrivals in bits 0..19, the expected ones in bits 20..39 and the parity of the
current phase in bit 63; a state token is the object before the arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter import memory
from loadsparse.gpu.simulator.interpreter.loads import check_address, location, order
from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes
from loadsparse.gpu.simulator.interpreter.operands import Place, Source, defined, destination, rows, source
from loadsparse.gpu.simulator.interpreter.races import STRONG
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP, Warp
from loadsparse.gpu.simulator.program import Instruction

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
U = np.uint64
COUNT = (1 << 20) - 1
SIZE = 8


def fresh(expected: int, parity: int) -> int:
    """An object at the start of a phase."""
    return (expected & COUNT) << 20 | (expected & COUNT) | (parity & 1) << 63


def arrive(word: int, count: int, drop: int) -> int | None:
    """The object after `count` arrivals (and `drop` fewer expected from now on); None if there are too many."""
    pending, expected, parity = word & COUNT, word >> 20 & COUNT, word >> 63
    if count > pending or drop > expected:
        return None
    expected -= drop
    if count == pending:
        return fresh(expected, parity ^ 1)
    return parity << 63 | expected << 20 | (pending - count)


def _build(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    modifiers, operands = instruction.modifiers, instruction.operands
    what = modifiers[0]
    if what == "pending_count":
        read, write = source(place, operands[1], "b64"), destination(place, operands[0], 32)
        used = rows(place, operands[1])
        return lambda warp, lanes: write(warp, lanes, read(warp) & U(COUNT), defined(warp, used))
    space = memory.space_of(modifiers)
    if what in ("init", "inval"):
        where, used = location(place, operands[0])
        count = source(place, operands[1], "b32") if what == "init" else None
        return _set(machine, index, where, used, space, count)
    where, used = location(place, operands[1])
    if what in ("arrive", "arrive_drop"):
        count = source(place, operands[2], "b32") if len(operands) > 2 else None
        write = destination(place, operands[0], 64)
        return _arrive(machine, index, where, used, space, count, write, what == "arrive_drop")
    if what in ("test_wait", "try_wait"):
        return _wait(machine, place, instruction, index, where, used, space)
    raise TypeError(f"mbarrier.{what} is not simulated")


def _set(machine: Machine, index: int, where: Source, used: list[int], space: str, count: Source | None) -> Execute:
    """init and inval: plain writes."""

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        counts = count(warp) if count is not None else np.zeros(WARP, U)
        words = np.array([fresh(int(n), 0) for n in counts], U)
        known = np.full((WARP, SIZE), count is not None)
        memory.store(machine, warp, index, lanes, where(warp), memory.to_bytes(words, 64), known, space)

    return execute


def _word(warp: Warp, lane: int, part: memory.Part) -> tuple[slice, int]:
    start = int(part.window.start[lane] + part.offsets[lane])
    cells = slice(start, start + SIZE)
    return cells, int.from_bytes(part.window.data[cells].tobytes(), "little")


def _arrive(
    machine: Machine,
    index: int,
    where: Source,
    used: list[int],
    space: str,
    count: Source | None,
    write: Callable[[Warp, Flags, Lanes, Flags], None],
    drop: bool,
) -> Execute:
    """arrive and arrive_drop: lanes one after the other; each releases what its thread did before."""

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        addresses = where(warp)
        counts = count(warp) if count is not None else np.ones(WARP, U)
        states, known = np.zeros(WARP, U), np.zeros(WARP, bool)
        for part in memory.access(machine, warp, index, lanes, addresses, SIZE, space):
            memory.count(machine, index, part, addresses, SIZE, part.window.space)
            for lane in np.flatnonzero(part.lanes).tolist():
                cells, word = _word(warp, lane, part)
                after = arrive(word, int(counts[lane]), int(drop))
                if after is None:
                    raise machine.stop("trap", index, warp, lane, "more arrivals at an mbarrier than it expects")
                only = np.equal(LANES, lane)
                data = np.zeros((WARP, SIZE), np.uint8)
                data[lane] = np.frombuffer(after.to_bytes(SIZE, "little"), np.uint8)
                one = memory.Part(part.window, only, part.offsets)
                memory.watch_write(machine, warp, index, one, data, addresses, STRONG)
                order(machine, warp, only, addresses, space, False, True, True, True)
                states[lane] = word
                known[lane] = part.window.defined is None or bool(part.window.defined[cells].all())
                part.window.data[cells] = data[lane]
        write(warp, lanes, states, known)

    return execute


def _wait(
    machine: Machine, place: Place, instruction: Instruction, index: int, where: Source, used: list[int], space: str
) -> Execute:
    """test_wait and try_wait: true when the phase of the token (or of that parity) is over; then it acquires."""
    operands, modifiers = instruction.operands, instruction.modifiers
    parity = "parity" in modifiers
    token, token_rows = source(place, operands[2], "b32" if parity else "b64"), rows(place, operands[2])
    write = destination(place, operands[0], 1)

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        addresses = where(warp)
        data, known = memory.load(machine, warp, index, lanes, addresses, SIZE, space, STRONG)
        phase = memory.from_bytes(data) >> U(63)
        wanted = token(warp) & U(1) if parity else token(warp) >> U(63)
        over = phase != wanted
        order(machine, warp, lanes & over, addresses, space, True, False, True, False)
        write(warp, lanes, over.astype(U), np.logical_and.reduce(known, axis=1) & defined(warp, token_rows))
        if modifiers[0] == "try_wait" and (lanes & ~over).any():
            warp.give_way(lanes & ~over)

    return execute


BUILDERS: dict[str, Any] = {"mbarrier": _build}
