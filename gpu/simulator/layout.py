"""Where everything of a kernel lies: its functions, and the frames of its state spaces.  Both engines place by this.

`recursion.py` has made copies of recursive functions, so every one has one fixed place in each frame: behind all of
its callers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from loadsparse.gpu.simulator import unsimulated
from loadsparse.gpu.simulator.program import Call, Instruction, Kernel, Program, PtxError, Variable

EXTERNALS = frozenset({"vprintf", "__assertfail"})
"""Functions of the CUDA run time that a kernel may call without defining them."""

MAXIMUM_LOCAL = 512 << 10
"""Bytes of local memory per thread (CUDA C++ Programming Guide, technical specifications per compute capability)."""
MAXIMUM_PARAM = 1 << 20
"""Bytes of a kernel's parameters and of the parameters of all calls below it."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """`functions` starts with the kernel; `start[name]` is the index of a function's first instruction in the
    concatenation of their instructions; `local` and `param` hold the byte offset of a function's frame in its window,
    and `shared` the offset of its own static shared variables.  Sizes are in bytes.
    """

    functions: tuple[Kernel, ...]
    start: dict[str, int]
    local: dict[str, int]
    param: dict[str, int]
    shared: dict[str, int]
    local_bytes: int
    param_bytes: int
    shared_bytes: int
    instructions: tuple[Instruction, ...]


def _callees(kernel: Kernel) -> list[tuple[str, Instruction]]:
    return [(o.callee.name, i) for i in kernel.instructions for o in i.operands if isinstance(o, Call)]


def frame_bytes(variables: tuple[Variable, ...], space: str) -> int:
    """Bytes of a frame, a multiple of 16."""
    ends = [variable.offset + variable.size for variable in variables if variable.space == space]
    return -(-max(ends, default=0) // 16) * 16


@functools.lru_cache(maxsize=256)
def layout(program: Program, kernel: Kernel) -> Layout:
    """Places a kernel and all functions it can reach.

    Raises `PtxError` at a call of a function that is neither defined nor in `EXTERNALS`.
    """
    order = [kernel.name]
    local, param = {kernel.name: 0}, {kernel.name: 0}
    for name in order:
        function = program.kernels[name]
        for callee, instruction in _callees(function):
            if callee in EXTERNALS and callee not in program.kernels:
                continue
            if callee not in program.kernels:
                reason = unsimulated.because(callee, unsimulated.FUNCTIONS)
                raise PtxError(f"'{callee}' is called but not defined{reason}", instruction.line, instruction.column)
            if callee not in order:
                order.append(callee)
    changed = True
    while changed:
        changed = False
        for name in order:
            function = program.kernels[name]
            variables = (*function.parameters, *function.results, *function.variables)
            for callee, _ in _callees(function):
                if callee not in program.kernels:
                    continue
                for frame, space in ((local, "local"), (param, "param")):
                    place = frame[name] + frame_bytes(variables, space)
                    if place > frame.get(callee, -1):
                        frame[callee], changed = place, True
    functions = tuple(program.kernels[name] for name in order)
    start, shared = {}, {}
    index = 0
    shared_bytes = max((v.offset + v.size for v in program.globals if v.space == "shared"), default=0)
    delta = 0
    dynamic = any(v.dynamic for v in program.globals) or any(v.dynamic for f in functions for v in f.variables)
    for function in functions:
        start[function.name] = index
        index += len(function.instructions)
        shared[function.name] = delta
        ends = [v.offset + v.size for v in function.variables if v.space == "shared" and not v.dynamic]
        if ends:
            shared_bytes = max(shared_bytes, max(ends) + delta)
            delta = -(-shared_bytes // 16) * 16
    if dynamic:
        aligns = [v.align for v in program.globals if v.dynamic]
        aligns += [v.align for f in functions for v in f.variables if v.dynamic]
        align = max(16, *aligns)
        shared_bytes = -(-shared_bytes // align) * align

    def total(frame: dict[str, int], space: str) -> int:
        return max(frame[f.name] + frame_bytes((*f.parameters, *f.results, *f.variables), space) for f in functions)

    local_bytes, param_bytes = total(local, "local"), total(param, "param")
    for what, size, most in (("local", local_bytes, MAXIMUM_LOCAL), ("parameter", param_bytes, MAXIMUM_PARAM)):
        if size > most:
            raise PtxError(f"'{kernel.name[:60]}' needs {size} bytes of {what} memory per thread; at most {most} exist")
    instructions = tuple(instruction for function in functions for instruction in function.instructions)
    return Layout(functions, start, local, param, shared, local_bytes, param_bytes, shared_bytes, instructions)
