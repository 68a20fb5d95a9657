"""cp.async: issue, commit and wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter import mbarrier, memory
from loadsparse.gpu.simulator.interpreter.loads import check_address, location
from loadsparse.gpu.simulator.interpreter.numbers import Flags
from loadsparse.gpu.simulator.interpreter.operands import Place, rows, source
from loadsparse.gpu.simulator.interpreter.warp import WARP, Warp
from loadsparse.gpu.simulator.program import Immediate, Instruction, Negated, Register
from loadsparse.gpu.simulator.request import DEFINED

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]


def _build(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    modifiers = instruction.modifiers
    if "commit_group" in modifiers:
        return _each(lambda warp, thread: warp.block.copies.commit(thread))
    if "wait_group" in modifiers:
        most = instruction.operands[0]
        if not isinstance(most, Immediate):
            raise TypeError("wait_group takes a number")
        return _each(lambda warp, thread: warp.block.copies.wait(thread, most.value & 0xFFFFFFFF))
    if "wait_all" in modifiers:
        return _each(_wait_all)
    if "mbarrier" in modifiers:
        return mbarrier.track(machine, place, instruction, index)
    return _issue(machine, place, instruction, index)


def _each(act: Callable[[Warp, int], None]) -> Execute:
    def execute(warp: Warp, lanes: Flags) -> None:
        for thread in warp.threads[lanes].tolist():
            act(warp, thread)

    return execute


def _wait_all(warp: Warp, thread: int) -> None:
    warp.block.copies.commit(thread)
    warp.block.copies.wait(thread, 0)


def _issue(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    operands = instruction.operands
    size_operand = operands[2]
    if not isinstance(size_operand, Immediate) or size_operand.value not in (
        (16,) if "cg" in instruction.modifiers else (4, 8, 16)
    ):
        raise TypeError("cp.async.ca copies 4, 8 or 16 bytes, cp.async.cg 16")
    size = size_operand.value
    target, target_rows = location(place, operands[0])
    origin, origin_rows = location(place, operands[1])
    extra = operands[3] if len(operands) > 3 else None
    ignore = isinstance(extra, Negated) or (isinstance(extra, Register) and extra.type == "pred")
    limit = source(place, extra, "pred" if ignore else "b32") if extra is not None else None
    used = [*target_rows, *origin_rows, *rows(place, extra)]

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        to, start = target(warp), origin(warp)
        count = np.full(WARP, size)
        if limit is not None:
            value = limit(warp)
            count = np.where(value != 0, 0, size) if ignore else np.minimum(value, np.uint64(size)).astype(np.int64)
        data = np.zeros((WARP, size), np.uint8)
        known = np.full((WARP, size), DEFINED, np.uint8)
        legal = lanes & (count == 0)
        for width in np.unique(count[lanes & (count > 0)]).tolist():
            chosen = lanes & (count == width)
            for part in memory.access(machine, warp, index, chosen, start, width, "global", size):
                where = part.index(width)
                data[part.lanes, :width] = part.window.data[where]
                if part.window.defined is not None:
                    known[part.lanes, :width] = part.window.defined[where]
                memory.count(machine, index, part, start, width, "global")
                memory.watch_read(machine, warp, index, part, width, start)
                legal |= part.lanes
        for part in memory.access(machine, warp, index, legal, to, size, "shared"):
            memory.count(machine, index, part, to, size, "shared")
            for lane in np.flatnonzero(part.lanes).tolist():
                offset = int(part.offsets[lane])
                copies = warp.block.copies
                copies.touched(index, warp, np.array([lane]), np.array([offset]), size, to, "write")
                copies.issue(warp, lane, index, offset, data[lane], known[lane], int(start[lane]), int(count[lane]))

    return execute


BUILDERS: dict[str, Any] = {"cp": _build}
