"""A loaded PTX module on a simulated GPU, launched with packed parameters and memory that persists."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.frontend.memory import DeviceMemory
from loadsparse.gpu.simulator.module import Engine, _run, load
from loadsparse.gpu.simulator.program import Kernel, Variable
from loadsparse.gpu.simulator.report import Report, build
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, CONSTANT, Allocation, Outcome, Request


class LoadedModule:
    """One module of one GPU; its variables keep their values between launches.

    Raises PtxError for PTX that cannot be simulated.
    """

    def __init__(self, ptx: str, memory: DeviceMemory, arch: str) -> None:
        self.memory = memory
        self.module = load(ptx, arch=arch)
        self._translated: set[str] = set()
        self._window = memory.adopt(self.module.variables.data, self.module.variables.defined, "module variables")

    @property
    def kernels(self) -> dict[str, Kernel]:
        """The entries by name."""
        return {name: entry.kernel for name, entry in self.module.entries.items()}

    def unload(self) -> None:
        """Give the variables back."""
        self.memory.free(self._window)

    def global_symbol(self, name: str) -> tuple[int, int] | None:
        """(device address, size in bytes) of a module variable, or None."""
        for variable in self.module.program.globals:
            if variable.name == name and variable.space in ("global", "const"):
                return self._window + variable.offset, variable.size
        return None

    def static_shared_bytes(self, name: str) -> int:
        """Bytes of shared memory that a kernel declares."""
        return self.module[name].layout.shared_bytes

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        parameters: NDArray[np.uint8],
        shared_bytes: int,
        engine: Engine = "auto",
        **options: Any,
    ) -> Report:
        """Run one kernel on the memory as it is; options as for `Entry.launch`.  Raises LaunchError."""
        entry = self.module[name]
        request = entry.request(grid, block, shared_bytes, **options)
        request.parameters = parameters
        with self.memory.launching:
            named = _by_argument(entry.kernel.parameters, parameters, self.memory.allocations)
            request.allocations = {CONSTANT: self.module.variables, **self.memory.allocations, **named}
            if engine == "auto" and name not in self._translated and request.schedule == "default":
                if (outcome := _quick(request)) is not None:
                    return build(request, entry.layout, outcome, "interpreter")
                self._translated.add(name)
            outcome, used = _run(request, engine, None)
        return build(request, entry.layout, outcome, used)


def _by_argument(
    declared: Sequence[Variable], values: NDArray[np.uint8], allocations: dict[int, Allocation]
) -> dict[int, Allocation]:
    """The allocations that parameters point to, named by their place among the arrays that were passed."""
    words = [values[p.offset : p.offset + 8].tobytes() for p in declared if p.size == 8]
    numbers = dict.fromkeys(int.from_bytes(word, "little") >> ALLOCATION_BITS for word in words)
    passed = [number for number in numbers if number in allocations]
    return {
        number: replace(allocations[number], name=f"array argument {place} (allocation {number})")
        for place, number in enumerate(passed)
    }


QUICK_STEPS = 3000
"""Warp instructions up to which the interpreter is done before the engine has translated a kernel."""
QUICK_BYTES = 1 << 22
"""Memory up to which a launch is tried that may have to be taken back."""


def _quick(request: Request) -> Outcome | None:
    """A small launch by the interpreter; None, and memory as before, if it turns out to be a long one."""
    threads = math.prod(request.block)
    steps = math.prod(request.grid) * -(-threads // 32) * len(request.kernel.instructions)
    memory = list(request.allocations.values())
    budget = QUICK_STEPS * min(threads, 32)
    if steps > QUICK_STEPS or sum(a.data.size for a in memory) > QUICK_BYTES or request.limit() <= budget:
        return None
    before = [(a.data.copy(), None if a.defined is None else a.defined.copy()) for a in memory]
    outcome, _ = _run(replace(request, budget=budget), "interpreter", None)
    if outcome.stopped != "budget":
        return outcome
    for allocation, (data, defined) in zip(memory, before, strict=True):
        allocation.data[:] = data
        if allocation.defined is not None and defined is not None:
            allocation.defined[:] = defined
    return None


def pack(parameters: Sequence[Variable], values: Sequence[Any]) -> NDArray[np.uint8]:
    """Kernel parameters as the bytes of the param space.

    Integers fill their parameter in two's complement, a float is a double, a complex two of them; ctypes and NumPy
    scalars keep their own bytes.  Raises ValueError when count or size disagree.
    """
    if len(parameters) != len(values):
        raise ValueError(f"the kernel has {len(parameters)} parameters, {len(values)} values were given")
    size = max((p.offset + p.size for p in parameters), default=0)
    out = np.zeros(size, np.uint8)
    for index, (parameter, value) in enumerate(zip(parameters, values, strict=True)):
        data = _bytes(value, parameter.size)
        if len(data) > parameter.size:
            raise ValueError(f"parameter {index} has {parameter.size} bytes, its value {value!r} {len(data)}")
        out[parameter.offset : parameter.offset + len(data)] = np.frombuffer(data, np.uint8)
    return out


def _bytes(value: Any, size: int) -> bytes:
    if isinstance(value, np.generic | np.ndarray):
        return value.tobytes()
    if isinstance(value, bool):
        return int(value).to_bytes(size, "little")
    if isinstance(value, float):
        return np.float64(value).tobytes()
    if isinstance(value, complex):
        return np.complex128(value).tobytes()
    if isinstance(value, ctypes._SimpleCData | ctypes.Structure | ctypes.Array):
        return bytes(value)
    return (int(value) & (1 << 8 * size) - 1).to_bytes(size, "little")
