"""Run a launch on a real NVIDIA GPU, where there is one.

The makers of this project had none: this path has not been run by us.  It goes through NVIDIA's own driver bindings, so
the PTX that the simulator executed is the PTX that the GPU's driver compiles.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.launch import Launch, Step
from loadsparse.gpu.simulator.parser import parse

FLOATS = {"f32": ctypes.c_float, "f64": ctypes.c_double}
WORDS = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}  # by size in bytes
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
DEFAULT_SHARED = 48 * 1024  # bytes a kernel may have without asking


class NoGpu(RuntimeError):
    """There is no GPU to run on, or it refused; the message says why."""


def _call(result: tuple[Any, ...]) -> Any:
    """The value of a driver call; NoGpu with the driver's error name unless it succeeded."""
    status, *values = result
    if int(status) != 0:
        raise NoGpu(f"the CUDA driver answered {getattr(status, 'name', status)}")
    return values[0] if values else None


def driver() -> Any:
    """The initialised driver bindings.  Raises NoGpu where there is no driver or no device."""
    try:
        bindings = importlib.import_module("cuda.bindings.driver")
        _call(bindings.cuInit(0))
        if _call(bindings.cuDeviceGetCount()) < 1:
            raise NoGpu("the CUDA driver finds no device")
    except NoGpu:
        raise
    except (ImportError, RuntimeError, OSError) as error:
        raise NoGpu(f"no CUDA driver can be loaded ({' '.join(str(error).split())[:120]})") from error
    return bindings


def architecture(bindings: Any) -> str:
    """Architecture of device 0, "sm_80" for an A100."""
    device = _call(bindings.cuDeviceGet(0))
    kinds = bindings.CUdevice_attribute
    major = _call(bindings.cuDeviceGetAttribute(kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
    minor = _call(bindings.cuDeviceGetAttribute(kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    return f"sm_{major}{minor}"


def packed(step: Step, pointers: dict[str, int]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(values, C types) of a step's arguments, typed as its PTX declares the parameters."""
    values: list[Any] = []
    kinds: list[Any] = []
    for arg, parameter in zip(step.args, parse(step.ptx).kernels[step.entry].parameters, strict=True):
        if isinstance(arg, str):
            values.append(pointers[arg])
            kinds.append(ctypes.c_void_p)
        else:
            values.append(arg.item() if isinstance(arg, np.generic) else arg)
            kinds.append(FLOATS.get(parameter.type) or WORDS[parameter.size])
    return tuple(values), tuple(kinds)


def execute(launch: Launch, memory: dict[str, NDArray[Any]], bindings: Any | None = None) -> None:
    """Run every step in order; each array of `memory` goes to the GPU, and what the GPU left there comes back into it.

    Raises NoGpu where there is none, where it refuses the PTX or the launch, or where a kernel fails on it.
    """
    cuda = driver() if bindings is None else bindings
    device = _call(cuda.cuDeviceGet(0))
    context = _call(cuda.cuDevicePrimaryCtxRetain(device))
    pointers: dict[str, Any] = {}
    try:
        _call(cuda.cuCtxSetCurrent(context))
        for name, array in memory.items():
            pointers[name] = _call(cuda.cuMemAlloc(array.nbytes))
            _call(cuda.cuMemcpyHtoD(pointers[name], array.ctypes.data, array.nbytes))
        for step in launch.steps:
            module = _call(cuda.cuModuleLoadData(step.ptx.encode() + b"\0"))
            function = _call(cuda.cuModuleGetFunction(module, step.entry.encode()))
            if step.shared_bytes > DEFAULT_SHARED:
                _call(
                    cuda.cuFuncSetAttribute(function, cuda.CUfunction_attribute(MAX_DYNAMIC_SHARED), step.shared_bytes)
                )
            arguments = packed(step, {name: int(pointer) for name, pointer in pointers.items()})
            _call(cuda.cuLaunchKernel(function, *step.grid, *step.block, step.shared_bytes, 0, arguments, 0))
            _call(cuda.cuCtxSynchronize())
            _call(cuda.cuModuleUnload(module))
        for name, array in memory.items():
            _call(cuda.cuMemcpyDtoH(array.ctypes.data, pointers[name], array.nbytes))
    finally:
        for pointer in pointers.values():
            cuda.cuMemFree(pointer)
        cuda.cuDevicePrimaryCtxRelease(device)
