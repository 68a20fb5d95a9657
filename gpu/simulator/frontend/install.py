"""Puts the simulated GPU under numba-cuda.

The seam.  numba-cuda reaches the driver in two ways: through the Python module `cuda.bindings.driver`, and through
classes of `cuda.core`, which is compiled and calls the driver library by itself.  A false `libcuda` would serve both,
but needs a C compiler on the user's machine; false devices and contexts would have to copy much of numba-cuda.  So the
names under which numba-cuda *imported* these two are bound to stand-ins (`driver.Binding`, `core`, `modules`), and all
above stays the real thing: dispatcher, compiler, NVVM, argument handling, contexts, reference counts, device arrays.
It works before and after the first kernel is defined, touches a dozen names, and what it replaces is a documented
interface of NVIDIA's; a version of numba-cuda that binds them elsewhere is refused by name.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from loadsparse.gpu.simulator.frontend.gpu import GPUS


class Unsupported(RuntimeError):
    """This numba-cuda cannot be put on the simulator; the message says which name is missing."""


SEAM = {
    "numba.cuda.cudadrv.driver": (
        "binding", "find_driver", "ExperimentalDevice", "ExperimentalStream", "Linker", "Function", "ManagedMemory",
    ),
    "numba.cuda.cudadrv.devicearray": ("Buffer", "StridedMemoryView"),
    "numba.cuda.cudadrv.nvrtc": ("Program",),
    "numba.cuda.dispatcher": ("launch", "LaunchConfig"),
    "numba.cuda.memory_management.nrt": ("launch", "LaunchConfig"),
}  # fmt: skip
"""The names that are bound anew, by module."""


def install(arch: str = "sm_80", launched: Any = None, lines: bool = False, **options: Any) -> None:
    """From now on `numba.cuda` in this process runs on a simulated GPU; a second call changes the settings.

    launched(name, report) is called after every launch; `lines` compiles kernels with source lines, so that hazards
    name them; `options` go to every launch (checks, engine, budget, seed ...).
    Raises Unsupported if numba-cuda is missing, too old or too new, ValueError for an unknown architecture, and
    RuntimeError when numba-cuda runs on a real GPU already.
    """
    if arch not in GPUS:
        raise ValueError(f"no GPU of architecture {arch!r} is described: known are {', '.join(GPUS)}")
    try:
        numba_driver: Any = import_module("numba.cuda.cudadrv.driver")
        dispatcher: Any = import_module("numba.cuda.dispatcher")
    except ImportError as error:
        raise Unsupported(f"numba-cuda cannot be imported ({error}): pip install 'numba-cuda[cu13]'") from error
    from loadsparse.gpu.simulator.frontend import core, modules
    from loadsparse.gpu.simulator.frontend.driver import Binding, Driver
    from loadsparse.gpu.simulator.frontend.memory import DeviceMemory
    from loadsparse.gpu.simulator.frontend.session import Session, begin, session

    def heard(name: str, report: Any) -> None:
        if launched is not None:
            launched(name, report)

    if isinstance(numba_driver.binding, Binding):
        active = session()
        if active.driver.gpu.arch != arch:
            raise ValueError(f"this process simulates {active.driver.gpu.arch} already; start another for {arch}")
        active.options, active.launched = options, heard
        return
    if numba_driver.driver.devices:
        raise RuntimeError("numba-cuda runs on a real GPU in this process: install the simulator before its first use")
    driver = Driver(GPUS[arch], DeviceMemory())
    begin(Session(driver, options, heard))
    standing = {
        "binding": Binding(driver),
        "find_driver": lambda: None,
        "ExperimentalDevice": core.Device,
        "ExperimentalStream": core.Stream,
        "Linker": modules.Linker,
        "Function": core.function_class(_attribute(numba_driver, "Function")),
        "ManagedMemory": core.managed_class(_attribute(numba_driver, "ManagedMemory")),
        "Buffer": core.Buffer,
        "StridedMemoryView": core.View,
        "Program": modules.Program,
        "launch": modules.launch,
        "LaunchConfig": modules.LaunchConfig,
    }
    for module_name, names in SEAM.items():
        module = import_module(module_name)
        for name in names:
            _attribute(module, name)
            setattr(module, name, standing[name])
    numba_driver.driver.__init__()
    if lines:
        _with_lines(dispatcher)


def _attribute(module: Any, name: str) -> Any:
    if not hasattr(module, name):
        raise Unsupported(
            f"this version of numba-cuda has no {module.__name__}.{name}: the simulator knows numba-cuda 0.24 to 0.30"
        )
    return getattr(module, name)


def _with_lines(dispatcher: Any) -> None:
    compile_cuda = _attribute(dispatcher, "compile_cuda")

    def with_lines(*arguments: Any, **options: Any) -> Any:
        if not options.get("debug"):
            options.update(lineinfo=True, lto=False)  # LTO refuses to mix these with linked CUDA C++
        return compile_cuda(*arguments, **options)

    dispatcher.compile_cuda = with_lines
