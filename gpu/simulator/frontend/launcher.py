"""A loaded PTX module on a simulated GPU, launched with packed parameters and memory that persists."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.frontend.memory import DeviceMemory
from loadsparse.gpu.simulator.module import Engine, _run, load
from loadsparse.gpu.simulator.program import Kernel, Variable
from loadsparse.gpu.simulator.report import Report, build
from loadsparse.gpu.simulator.request import CONSTANT


class LoadedModule:
    """One module of one GPU; its variables keep their values between launches.

    Raises PtxError for PTX that cannot be simulated.
    """

    def __init__(self, ptx: str, memory: DeviceMemory, arch: str) -> None:
        self.memory = memory
        self.module = load(ptx, arch=arch)
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
        request.allocations = {CONSTANT: self.module.variables, **self.memory.allocations}
        outcome, used = _run(request, engine, None)
        return build(request, entry.layout, outcome, used)


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
