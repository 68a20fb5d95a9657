"""`simulator.run(kernel)[grid, block](a, b)`: one Numba kernel on the simulator, with NumPy arrays as arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.frontend.memory import DeviceMemory

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.frontend.launcher import LoadedModule
    from loadsparse.gpu.simulator.report import Report

Dimensions = int | Sequence[int]


class Runner:
    """A Numba kernel that waits for its launch configuration; see `run`."""

    def __init__(self, kernel: Any, arch: str, options: dict[str, Any]) -> None:
        cuda: Any = import_module("numba.cuda")
        self.dispatcher = kernel if hasattr(kernel, "py_func") else cuda.jit(kernel)
        self.arch, self.options = arch, options
        self.memory = DeviceMemory()
        self._ptx: dict[Any, str] = {}
        self._modules: dict[Any, LoadedModule] = {}
        extra = [name for name in ("link", "extensions") if self.dispatcher.targetoptions.get(name)]
        if extra:
            raise ValueError(
                f"kernel {self.dispatcher.py_func.__name__} uses {' and '.join(extra)}: "
                "run its script with `python -m loadsparse.gpu.simulator`"
            )

    def __getitem__(self, configuration: tuple[Any, ...]) -> Callable[..., Report]:
        """[grid, block], [grid, block, stream] or [grid, block, stream, shared bytes]; the stream is ignored."""
        if not isinstance(configuration, tuple) or not 2 <= len(configuration) <= 4:
            raise ValueError("a launch is kernel[grid, block], [grid, block, stream] or [grid, block, stream, shared]")
        grid, block = dimensions(configuration[0]), dimensions(configuration[1])
        shared = configuration[3] if len(configuration) == 4 else 0

        def launch(*arguments: Any) -> Report:
            return self._launch(grid, block, shared, arguments)

        return launch

    def ptx(self, types: tuple[Any, ...]) -> str:
        """The PTX of the kernel for these Numba argument types."""
        from loadsparse.gpu import compiler
        from loadsparse.gpu.simulator.frontend.linker import link

        if types not in self._ptx:
            asked = self.dispatcher.targetoptions
            ptx = compiler.numba(
                self.dispatcher,
                types,
                self.arch,
                launch_bounds=asked.get("launch_bounds"),
                fastmath=bool(asked.get("fastmath")),
                opt=bool(asked.get("opt", True)),
            )
            self._ptx[types] = link([ptx])
        return self._ptx[types]

    def _launch(self, grid: Any, block: Any, shared: int, arguments: tuple[Any, ...]) -> Report:
        from loadsparse.gpu.simulator.frontend.launcher import LoadedModule, pack

        types = tuple(self.dispatcher.typeof_pyval(argument) for argument in arguments)
        if types not in self._modules:
            self._modules[types] = LoadedModule(self.ptx(types), self.memory, self.arch)
        module = self._modules[types]
        ((name, kernel),) = module.kernels.items()
        arrays = [a for a in _flat(arguments) if isinstance(a, np.ndarray | np.void)]
        with placed(arrays, self.memory) as addresses:
            values = [v for t, a in zip(types, arguments, strict=True) for v in expand(t, a, addresses)]
            return module.launch(name, grid, block, pack(kernel.parameters, values), shared, **self.options)


def run(kernel: Any, *, arch: str = "sm_80", **options: Any) -> Runner:
    """Run a Numba kernel as it is, without a GPU or a driver: ``run(kernel)[grid, block](a, b) -> Report``.

    kernel: a function decorated with `numba.cuda.jit`, or a plain one.  Arguments are what Numba accepts: NumPy arrays
    of any layout (written in place; arrays that overlap do so on the device, too), records, scalars, tuples, complex
    numbers, dates, enumerations.  arch: the GPU to compile for; options: checks, seed, budget, engine ... as for
    `Kernel.launch`.  Kernels are compiled with source lines; `debug=True` is ignored, so kernels raise no exceptions.

    >>> from loadsparse.gpu import simulator
    >>> import numpy as np
    >>> from numba import cuda
    >>> def double(x):
    ...     i = cuda.grid(1)
    ...     if i < x.size:
    ...         x[i] *= 2
    >>> x = np.arange(5.0)
    >>> simulator.run(double)[1, 32](x).ok
    True
    >>> x
    array([0., 2., 4., 6., 8.])
    """
    return Runner(kernel, arch, options)


def dimensions(given: Dimensions) -> tuple[int, int, int]:
    """1 to 3 extents, filled up with ones.  Raises ValueError for more, and for extents below 1."""
    extents = tuple(int(n) for n in given) if isinstance(given, Sequence) else (int(given),)
    if not 1 <= len(extents) <= 3 or min(extents) < 1:
        raise ValueError(f"a grid or block has 1 to 3 extents of at least 1, not {given}")
    x, y, z = (*extents, 1, 1)[:3]
    return x, y, z


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple):
            yield from _flat(value)
        else:
            yield value


@contextmanager
def placed(arrays: Sequence[NDArray[Any] | np.void], memory: DeviceMemory) -> Iterator[dict[int, int]]:
    """Device address of each array by its host address; arrays whose bytes overlap share one allocation."""
    merged: list[list[int]] = []
    for low, high in sorted(np.lib.array_utils.byte_bounds(np.asarray(array)) for array in arrays):
        if merged and low < merged[-1][1]:
            merged[-1][1] = max(high, merged[-1][1])
        elif high > low:
            merged.append([low, high])
    bases = [(low, high, memory.adopt_host(low, high - low, "argument")) for low, high in merged]
    addresses = {}
    for array in arrays:
        pointer = _pointer(array)
        addresses[pointer] = next((base + pointer - low for low, high, base in bases if low <= pointer < high), 0)
    try:
        yield addresses
    finally:
        for _, _, base in bases:
            memory.free(base)


def _pointer(array: NDArray[Any] | np.void) -> int:
    return int(np.asarray(array).__array_interface__["data"][0])


def expand(kind: Any, value: Any, addresses: dict[int, int]) -> Iterator[Any]:
    """The parameters that Numba's kernel ABI makes of one argument of Numba type `kind`.

    An array becomes: two null pointers (meminfo, parent), its number of elements, bytes per element, data pointer,
    extents, strides in bytes.  Raises TypeError for a type without a place in the ABI.
    """
    types: Any = import_module("numba.types")
    if isinstance(kind, types.Array):
        array = np.asarray(value)
        yield from (0, 0, array.size, array.itemsize, addresses[_pointer(array)], *array.shape, *array.strides)
    elif isinstance(kind, types.Record):
        yield addresses[_pointer(value)]
    elif isinstance(kind, types.BaseTuple):
        for inner, element in zip(kind, value, strict=True):
            yield from expand(inner, element, addresses)
    elif isinstance(kind, types.EnumMember):
        yield from expand(kind.dtype, value.value, addresses)
    elif isinstance(kind, types.Complex):
        part = np.float32 if kind == types.complex64 else np.float64
        yield from (part(value.real), part(value.imag))
    elif isinstance(kind, types.NPDatetime | types.NPTimedelta):
        yield np.asarray(value).view(np.int64)[()]
    elif isinstance(kind, types.Boolean):
        yield bool(value)
    elif isinstance(kind, types.Number):
        yield np.dtype(str(kind)).type(value)
    else:
        raise TypeError(f"a Numba kernel takes no argument of type {kind}")
