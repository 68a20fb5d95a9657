"""mbarrier: arrival counters in shared memory.

The 64-bit object holds the pending arrivals in bits 0..19, the expected ones in bits 20..39 and the parity of the
current phase in bit 63; a state token is the object before the arrival.  An arrival that waits for copies
(`cp.async.mbarrier.arrive`) is made when it is all that a phase waits for and somebody looks: as late as can be.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter import memory
from loadsparse.gpu.simulator.interpreter.loads import check_address, location, order
from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes
from loadsparse.gpu.simulator.interpreter.operands import Place, Source, defined, destination, rows, source
from loadsparse.gpu.simulator.interpreter.races import STRONG, WEAK
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP, Warp
from loadsparse.gpu.simulator.program import Instruction
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, DEFINED, SHARED

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.block import Block
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
U = np.uint64
COUNT = (1 << 20) - 1
SIZE = 8
TOO_MANY = "more arrivals at an mbarrier than it expects"


def fresh(expected: int, parity: int) -> int:
    """An object at the start of a phase."""
    return (expected & COUNT) << 20 | (expected & COUNT) | (parity & 1) << 63


def arrive(word: int, count: int, drop: int) -> int | None:
    """The object after `count` arrivals (-1: one more is pending) and with `drop` fewer expected from now on.

    None if there are too many arrivals, or too many pending.
    """
    pending, expected, parity = word & COUNT, word >> 20 & COUNT, word >> 63
    if count > pending or drop > expected or pending - count > COUNT:
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
    """init is a plain write; inval a strong one that leaves the object undefined, which who still waits there finds."""
    strength = WEAK if count is not None else STRONG

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        counts = count(warp) if count is not None else np.zeros(WARP, U)
        words = np.array([fresh(int(n), 0) for n in counts], U)
        known = np.full((WARP, SIZE), DEFINED * (count is not None), np.uint8)
        memory.store(machine, warp, index, lanes, where(warp), memory.to_bytes(words, 64), known, space, strength)

    return execute


def _change(
    block: Block, thread: int, index: int, window: memory.Window, cell: int, offset: int, count: int, drop: int = 0
) -> tuple[int, bool] | None:
    """Arrivals of one thread at the object at byte `cell` of a window, `offset` for its users: one strong write.

    Returns the object before, and whether it was defined; None if it cannot take them.
    """
    cells = slice(cell, cell + SIZE)
    before = int.from_bytes(window.data[cells].tobytes(), "little")
    after = arrive(before, count, drop)
    if after is None:
        return None
    data = np.frombuffer(after.to_bytes(SIZE, "little"), np.uint8)
    history = block.history(window.number)
    if history is not None:
        history.written(block, np.array([thread]), np.array([offset]), data[None, :], None, index, STRONG)
    window.data[cells] = data
    return before, window.defined is None or bool((window.defined[cells] == DEFINED).all())


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
                offset = int(part.offsets[lane])
                warp.block.copies.touched(index, warp, np.array([lane]), np.array([offset]), SIZE, addresses, "write")
                cell, thread = int(part.window.start[lane]) + offset, int(warp.threads[lane])
                before = _change(warp.block, thread, index, part.window, cell, offset, int(counts[lane]), int(drop))
                if before is None:
                    raise machine.stop("trap", index, warp, lane, TOO_MANY)
                order(machine, warp, np.equal(LANES, lane), addresses, space, False, True, True, True)
                states[lane], known[lane] = before
        write(warp, lanes, states, known)

    return execute


def track(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    """cp.async.mbarrier.arrive: an arrival when the thread's copies so far have landed; without .noinc one that the
    object did not expect."""
    where, used = location(place, instruction.operands[0])
    space, more = memory.space_of(instruction.modifiers), -1 if "noinc" not in instruction.modifiers else 0

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        addresses = where(warp)
        for part in memory.access(machine, warp, index, lanes, addresses, SIZE, space):
            memory.count(machine, index, part, addresses, SIZE, part.window.space)
            if part.window.space != "shared":
                raise machine.stop("trap", index, warp, int(np.argmax(part.lanes)), "an mbarrier outside shared memory")
            for lane in np.flatnonzero(part.lanes).tolist():
                offset, thread = int(part.offsets[lane]), int(warp.threads[lane])
                if _change(warp.block, thread, index, part.window, offset, offset, more) is None:
                    raise machine.stop("trap", index, warp, lane, TOO_MANY)
                warp.block.copies.track(thread, index, offset)

    return execute


def _land(block: Block, offset: int) -> bool:
    """Makes the arrivals that wait for copies, if they are all that the object at shared `offset` waits for.

    Each releases what its thread had done when it asked for it, and the copies.  False if the object cannot take them.
    """
    waiting = sum(arrival.offset == offset for arrival in block.copies.arrivals)
    pending = int.from_bytes(block.shared[offset : offset + SIZE].tobytes(), "little") & COUNT
    if not waiting or waiting < pending:
        return True
    window = memory.shared_window(block)
    order = block.order
    for arrival in block.copies.due(offset):
        with order.past(arrival.thread, arrival.view) if order is not None else nullcontext():
            block.copies.land(arrival)
            if _change(block, arrival.thread, arrival.instruction, window, offset, offset, 1) is None:
                return False
        if order is not None:
            order.messages.send(SHARED << ALLOCATION_BITS | offset, block.index, arrival.view)
    return True


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
        for offset in np.unique(addresses[lanes] & memory.OFFSET).tolist() if warp.block.copies.arrivals else ():
            if not _land(warp.block, offset):
                raise machine.stop("trap", index, warp, int(np.argmax(lanes)), TOO_MANY)
        data, known = memory.load(machine, warp, index, lanes, addresses, SIZE, space, STRONG)
        phase = memory.from_bytes(data) >> U(63)
        wanted = token(warp) & U(1) if parity else token(warp) >> U(63)
        over = phase != wanted
        order(machine, warp, lanes & over, addresses, space, True, False, True, False)
        write(warp, lanes, over.astype(U), memory.whole(known) & defined(warp, token_rows))
        if (lanes & ~over).any():
            warp.give_way(lanes & ~over)

    return execute


BUILDERS: dict[str, Any] = {"mbarrier": _build}
