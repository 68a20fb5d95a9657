"""Recursion: functions that may call themselves become copies of themselves, one for each depth of their calls.

So every function keeps one fixed frame.  A call deeper than `DEPTH` is a trap whose operand says so.  (A GPU's stack
overflows, too: by default it has 1,024 bytes a thread.)
"""

from __future__ import annotations

from dataclasses import replace

from loadsparse.gpu.simulator.program import Call, FunctionName, Instruction, Kernel, PtxError

DEPTH = 64
"""Most calls of functions of one cycle that a thread may be in at once."""


def _callees(kernel: Kernel) -> set[str]:
    return {o.callee.name for i in kernel.instructions for o in i.operands if isinstance(o, Call)}


def _reached(start: str, calls: dict[str, set[str]]) -> set[str]:
    """Functions that a function may call, directly or not."""
    found: set[str] = set()
    pending = [start]
    while pending:
        for callee in calls.get(pending.pop(), set()) - found:
            found.add(callee)
            pending.append(callee)
    return found


def unroll(kernels: dict[str, Kernel]) -> dict[str, Kernel]:
    """The same functions without recursion: `f` calls `f#1`, which calls `f#2`, and so on.

    Raises `PtxError` for a recursive entry, and for a recursive function with shared variables of its own.
    """
    calls = {name: _callees(kernel) for name, kernel in kernels.items()}
    reached = {name: _reached(name, calls) for name in calls}
    recursive = {name for name in kernels if name in reached[name]}
    result = {name: kernel for name, kernel in kernels.items() if name not in recursive}
    for name in kernels:
        if name not in recursive:
            continue
        kernel = kernels[name]
        line = kernel.instructions[0].line
        if kernel.is_entry:
            raise PtxError(f"'{name}' is an .entry that calls itself", line)
        if any(variable.space == "shared" for variable in kernel.variables):
            raise PtxError(f"'{name}' calls itself and has shared variables of its own, which is not simulated", line)
        cycle = {other for other in reached[name] & recursive if name in reached[other]}
        for depth in range(DEPTH):
            instructions = tuple(_deeper(instruction, cycle, depth + 1) for instruction in kernel.instructions)
            copy = _named(name, depth)
            result[copy] = replace(kernel, name=copy, instructions=instructions)
    return result


def _named(name: str, depth: int) -> str:
    return f"{name}#{depth}" if depth else name


def _deeper(instruction: Instruction, cycle: set[str], depth: int) -> Instruction:
    """A call within the cycle goes to the copy at `depth`."""
    call = instruction.operands[0] if instruction.operands else None
    if not isinstance(call, Call) or call.callee.name not in cycle:
        return instruction
    if depth == DEPTH:
        reason = FunctionName(f"recursion deeper than {DEPTH} calls")
        return replace(instruction, name="trap", modifiers=(), operands=(reason,))
    return replace(instruction, operands=(replace(call, callee=FunctionName(_named(call.callee.name, depth))),))
