"""Branches, calls, exits, and the run-time functions that a kernel may call."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from loadsparse.gpu.simulator.interpreter.memory import to_bytes
from loadsparse.gpu.simulator.interpreter.numbers import Flags, mask
from loadsparse.gpu.simulator.interpreter.operands import Place, rows, source, unknown, width_of
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.layout import EXTERNALS
from loadsparse.gpu.simulator.printing import MOST_PRINTED, render, string_at
from loadsparse.gpu.simulator.program import (
    Call,
    FunctionName,
    Immediate,
    Instruction,
    Label,
    Operand,
    Register,
    Variable,
)
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, DEFINED, LOCAL

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
OFFSET = (1 << ALLOCATION_BITS) - 1


def _taken(machine: Machine, place: Place, instruction: Instruction, index: int) -> Callable[[Warp, Flags], Flags]:
    """Lanes of a group for which the guard holds; undefined guards are reported."""
    guard = instruction.guard
    if guard is None:
        return lambda warp, group: group
    row, negated = place.row(guard.register), guard.negated

    def taken(warp: Warp, group: Flags) -> Flags:
        for lane in np.flatnonzero(group & (warp.unknown[row] != 0)).tolist():
            machine.lane_hazard("uninitialized", index, warp, lane, detail="guard")
        lanes: Flags = group & ((warp.bits[row] != 0) != negated)
        return lanes

    return taken


def _bra(machine: Machine, place: Place, instruction: Instruction, index: int, base: int) -> Execute:
    label = instruction.operands[0]
    if not isinstance(label, Label):
        raise TypeError("a branch goes to a label")
    target = base + label.target
    taken = _taken(machine, place, instruction, index)

    def execute(warp: Warp, group: Flags) -> None:
        lanes = taken(warp, group)
        warp.pc[lanes] = target
        if lanes.any() and (lanes != group).any():
            machine.counters["divergent"][index] += 1
        if target <= index and lanes.any():
            machine.backward(warp, index, lanes)

    return execute


def _brx(machine: Machine, place: Place, instruction: Instruction, index: int, base: int) -> Execute:
    table = instruction.operands[1]
    if not isinstance(table, Label):
        raise TypeError("brx.idx takes a list of branch targets")
    kernel = place.kernel
    targets = np.array([base + kernel.targets[name] for name in kernel.branch_tables[table.name]])
    read, used = source(place, instruction.operands[0], "b32"), rows(place, instruction.operands[0])
    taken = _taken(machine, place, instruction, index)

    def execute(warp: Warp, group: Flags) -> None:
        lanes = taken(warp, group)
        choice = read(warp)
        for row in used:
            for lane in np.flatnonzero(lanes & (warp.unknown[row] != 0)).tolist():
                machine.lane_hazard("uninitialized", index, warp, lane, detail="address")
        outside = lanes & (choice >= len(targets))
        if outside.any():
            lane = int(np.argmax(outside))
            raise machine.stop("trap", index, warp, lane, "trap")
        warp.pc[lanes] = targets[choice[lanes].astype(np.int64)]
        if group.any() and np.unique(warp.pc[group]).size > 1:
            machine.counters["divergent"][index] += 1
        back = lanes & (warp.pc <= index)
        if back.any():
            machine.backward(warp, index, back)

    return execute


def leave(machine: Machine, warp: Warp, lanes: Flags) -> None:
    """ret: back to the caller, or the end of the thread."""
    done = np.zeros_like(lanes)
    for lane in np.flatnonzero(lanes).tolist():
        if warp.returns[lane]:
            warp.pc[lane] = warp.returns[lane].pop()
        else:
            done[lane] = True
    if done.any():
        machine.exit(warp, done)


def _ret(machine: Machine, place: Place, instruction: Instruction, index: int, base: int) -> Execute:
    taken = _taken(machine, place, instruction, index)
    results = instruction.name == "ret" and not place.kernel.is_entry

    def execute(warp: Warp, group: Flags) -> None:
        lanes = taken(warp, group)
        if results:
            for lane in np.flatnonzero(lanes).tolist():
                _copy_results(machine, place, warp, lane)
        leave(machine, warp, lanes) if instruction.name == "ret" else machine.exit(warp, lanes)

    return execute


def _copy_results(machine: Machine, place: Place, warp: Warp, lane: int) -> None:
    """Hands the callee's result parameters to the caller's variables."""
    call_index = warp.returns[lane][-1] - 1
    call = machine.instructions[call_index].operands[0]
    caller = machine.place_of(call_index)
    assert isinstance(call, Call)
    for mine, theirs in zip(place.kernel.results, call.results, strict=False):
        if mine.register is not None:
            _put(warp, lane, place, mine, mine.register)
        if isinstance(theirs, Variable):
            copy_param(warp, lane, place.address(mine), caller.address(theirs), min(mine.size, theirs.size))
        elif isinstance(theirs, Register):
            _take(warp, lane, place, mine, caller, theirs)


def _put(warp: Warp, lane: int, place: Place, variable: Variable, value: Operand, caller: Place | None = None) -> None:
    """A register's or literal's value to a parameter's bytes in `place`."""
    block, kind = warp.block, f"b{8 * variable.size}"
    start = int(warp.threads[lane]) * block.param_bytes + place.address(variable)
    for data, read in ((block.param, source), (block.param_defined, unknown)):
        bits = read(caller or place, value, kind)(warp)
        bits = ~bits if read is unknown else bits
        data[start : start + variable.size] = to_bytes(bits, 8 * variable.size)[lane]


def _take(warp: Warp, lane: int, place: Place, variable: Variable, owner: Place, register: Register) -> None:
    """A parameter's bytes in `place` to a register of `owner`."""
    block, size = warp.block, variable.size
    start = int(warp.threads[lane]) * block.param_bytes + place.address(variable)
    part = slice(start, start + size)
    limit = mask(width_of(register))
    for held, data in ((warp.bits, block.param[part]), (warp.unknown, ~block.param_defined[part])):
        held[owner.row(register), lane] = np.uint64(int.from_bytes(data.tobytes(), "little")) & limit


def copy_param(warp: Warp, lane: int, origin: int, target: int, size: int) -> None:
    """Copies bytes inside a thread's param frames."""
    block = warp.block
    start = int(warp.threads[lane]) * block.param_bytes
    for data in (block.param, block.param_defined):
        data[start + target : start + target + size] = data[start + origin : start + origin + size]


def _call(machine: Machine, place: Place, instruction: Instruction, index: int, base: int) -> Execute:
    call = instruction.operands[0]
    if not isinstance(call, Call):
        raise TypeError("a call names a function")
    name = call.callee.name
    taken = _taken(machine, place, instruction, index)
    if name not in machine.layout.start and name in EXTERNALS:
        if any(not isinstance(value, Variable) for value in (*call.results, *call.arguments)):
            raise TypeError(f"the operands of a call of {name} are .param variables")
        function = _vprintf if name == "vprintf" else _assertfail

        def external(warp: Warp, group: Flags) -> None:
            for lane in np.flatnonzero(taken(warp, group)).tolist():
                function(machine, place, call, warp, lane, index)

        return external
    start = machine.layout.start[name]
    callee_place = next(p for p in machine.places if p.kernel.name == name)
    callee = callee_place.kernel
    if len(call.arguments) != len(callee.parameters):
        raise TypeError(f"{name} takes {len(callee.parameters)} arguments, {len(call.arguments)} given")
    if any(not isinstance(value, Variable | Register) for value in call.results):
        raise TypeError("the results of a call are .param variables or registers")
    for value in call.arguments:
        if not isinstance(value, Variable | Register | Immediate):
            raise TypeError("the arguments of a call are .param variables, registers or literals")

    def execute(warp: Warp, group: Flags) -> None:
        lanes = taken(warp, group)
        machine.spend(index, warp, int(np.argmax(group)))
        first = callee_place.registers
        warp.unknown[first : first + len(callee.registers), lanes] = ~np.uint64(0)
        for lane in np.flatnonzero(lanes).tolist():
            for mine, theirs in zip(call.arguments, callee.parameters, strict=True):
                if isinstance(mine, Variable):
                    size = min(mine.size, theirs.size)
                    copy_param(warp, lane, place.address(mine), callee_place.address(theirs), size)
                else:
                    _put(warp, lane, callee_place, theirs, mine, place)
                if theirs.register is not None:
                    _take(warp, lane, callee_place, theirs, callee_place, theirs.register)
            warp.returns[lane].append(index + 1)
        warp.pc[lanes] = start

    return execute


def _argument(machine: Machine, place: Place, call: Call, warp: Warp, lane: int, number: int) -> int:
    """An argument of an external function, as an unsigned integer."""
    variable = call.arguments[number]
    assert isinstance(variable, Variable)
    start = int(warp.threads[lane]) * warp.block.param_bytes + place.address(variable)
    return int.from_bytes(warp.block.param[start : start + variable.size].tobytes(), "little")


def _bytes(machine: Machine, warp: Warp, lane: int, address: int, size: int) -> bytes:
    """Memory at a generic address for run-time functions; stops at the end of the allocation."""
    number, offset = address >> ALLOCATION_BITS, address & OFFSET
    block = warp.block
    if number == LOCAL:
        start = int(warp.threads[lane]) * block.local_bytes
        data = block.local[start : start + block.local_bytes]
    elif number == 1:
        data = block.shared
    elif number in machine.request.allocations:
        data = machine.request.allocations[number].data
    else:
        return b""
    return data[offset : offset + size].tobytes()


def _vprintf(machine: Machine, place: Place, call: Call, warp: Warp, lane: int, index: int) -> None:
    """printf(format, arguments); returns how many it took."""
    taken = 0
    if machine.printed_characters < MOST_PRINTED:
        text, arguments = (_argument(machine, place, call, warp, lane, number) for number in (0, 1))
        line, taken = render(partial(_bytes, machine, warp, lane), text, arguments)
        machine.printed.append(line)
        machine.printed_characters += len(line)
    result = call.results[0] if call.results else None
    if isinstance(result, Variable):
        start = int(warp.threads[lane]) * warp.block.param_bytes + place.address(result)
        warp.block.param[start : start + 4] = np.frombuffer(struct.pack("<i", taken), np.uint8)
        warp.block.param_defined[start : start + 4] = DEFINED


def _assertfail(machine: Machine, place: Place, call: Call, warp: Warp, lane: int, index: int) -> None:
    """__assertfail(message, file, line, function, size) ends the launch."""
    message, file, function = (
        string_at(partial(_bytes, machine, warp, lane), _argument(machine, place, call, warp, lane, n))
        for n in (0, 1, 3)
    )
    line = _argument(machine, place, call, warp, lane, 2)
    raise machine.stop("trap", index, warp, lane, f"assertion '{message}' failed in {function} ({file}:{line})")


def _trap(machine: Machine, place: Place, instruction: Instruction, index: int, base: int) -> Execute:
    taken = _taken(machine, place, instruction, index)
    reasons = [operand.name for operand in instruction.operands if isinstance(operand, FunctionName)]

    def execute(warp: Warp, group: Flags) -> None:
        lanes = taken(warp, group)
        if lanes.any():
            raise machine.stop("trap", index, warp, int(np.argmax(lanes)), reasons[0] if reasons else "trap")

    return execute


BUILDERS: dict[str, Callable[[Machine, Place, Instruction, int, int], Execute]] = {
    "bra": _bra,
    "brx": _brx,
    "ret": _ret,
    "exit": _ret,
    "call": _call,
    "trap": _trap,
    "brkpt": _trap,
}
