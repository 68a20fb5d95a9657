"""The functions of the CUDA driver that numba-cuda calls, on a simulated GPU.

`Binding` stands where numba-cuda expects the module `cuda.bindings.driver`: types, enumerations and constants are the
real ones, functions are the methods of `Driver`.  Everything is synchronous: an operation has finished when its call
returns, whatever stream it was given.  Functions that need a second process, a second GPU or a graphics library answer
CUDA_ERROR_NOT_SUPPORTED.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from cuda.bindings import driver as real
from numpy.typing import NDArray

from loadsparse.gpu.simulator.frontend.gpu import Gpu
from loadsparse.gpu.simulator.frontend.memory import DeviceMemory, InvalidAddress, OutOfMemory, host_bytes

DRIVER_VERSION = 13000


class DriverError(Exception):
    """A driver call failed; `code` is the name of its CUresult without CUDA_ERROR_."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Handle(int):
    """A stream or event: an integer with the attribute that numba-cuda reads."""

    @property
    def value(self) -> int:
        return int(self)


class Driver:
    """Methods carry the driver's names; they return values instead of (code, values...) and raise DriverError."""

    def __init__(self, gpu: Gpu, memory: DeviceMemory) -> None:
        self.gpu, self.memory = gpu, memory
        self.context = real.CUcontext(1)
        self.pid = 0
        """Process that initialised the driver: a driver does not survive a fork."""
        self.modules: dict[int, Any] = {}
        """Loaded modules by handle; see modules.Code."""
        self._stack = threading.local()
        self._pinned: dict[int, NDArray[np.uint8]] = {}
        self._mapped: dict[int, int] = {}
        self._handles = count(0x1000)
        self._events: dict[int, float | None] = {}

    # Device and context

    def cuInit(self, flags: int) -> None:
        self.pid = os.getpid()

    def cuDriverGetVersion(self) -> int:
        return DRIVER_VERSION

    def cuDeviceGetCount(self) -> int:
        return 1

    def cuDeviceGetAttribute(self, attribute: Any, device: int) -> int:
        name = attribute.name.removeprefix("CU_DEVICE_ATTRIBUTE_")
        if name not in self.gpu.attributes:
            raise DriverError("NOT_SUPPORTED")
        return self.gpu.attributes[name]

    def cuDeviceCanAccessPeer(self, device: Any, peer: Any) -> int:
        return 0

    def _contexts(self) -> list[Any]:
        if not hasattr(self._stack, "contexts"):
            self._stack.contexts = []
        contexts: list[Any] = self._stack.contexts
        return contexts

    def cuCtxGetCurrent(self) -> Any:
        contexts = self._contexts()
        return contexts[-1] if contexts else real.CUcontext(0)

    def cuCtxPushCurrent(self, context: Any) -> None:
        self._contexts().append(context)

    def cuCtxPopCurrent(self) -> Any:
        if not self._contexts():
            raise DriverError("INVALID_CONTEXT")
        return self._contexts().pop()

    def cuCtxGetDevice(self) -> Any:
        return real.CUdevice(0)

    def cuCtxSynchronize(self) -> None:
        """Everything has finished already."""

    def cuDevicePrimaryCtxRetain(self, device: Any) -> Any:
        return self.context

    def cuDevicePrimaryCtxRelease(self, device: Any) -> None:
        """The primary context lives as long as the process."""

    def cuDevicePrimaryCtxReset(self, device: Any) -> None:
        """numba-cuda has freed its allocations and modules by itself."""

    # Memory

    def cuMemGetInfo(self) -> tuple[int, int]:
        return self.memory.capacity - self.memory.used, self.memory.capacity

    def cuMemAlloc(self, size: int) -> Any:
        if size <= 0:
            raise DriverError("INVALID_VALUE")
        return real.CUdeviceptr(self.memory.allocate(size))

    def cuMemFree(self, pointer: Any) -> None:
        self.memory.free(int(pointer))

    def cuMemAllocManaged(self, size: int, flags: int) -> Any:
        return real.CUdeviceptr(self.memory.adopt(np.zeros(size, np.uint8), None, "managed memory"))

    def cuMemHostAlloc(self, size: int, flags: int) -> int:
        buffer = np.zeros(max(size, 1), np.uint8)
        pointer = buffer.ctypes.data
        self._pinned[pointer] = buffer
        if flags & real.CU_MEMHOSTALLOC_DEVICEMAP:
            self._mapped[pointer] = self.memory.adopt(buffer[:size], None, "mapped host memory")
        return pointer

    def cuMemFreeHost(self, pointer: int) -> None:
        if self._pinned.pop(pointer, None) is None:
            raise DriverError("INVALID_VALUE")
        self._unmap(pointer)

    def cuMemHostRegister(self, pointer: int, size: int, flags: int) -> None:
        if pointer in self._mapped:
            raise DriverError("HOST_MEMORY_ALREADY_REGISTERED")
        if flags & real.CU_MEMHOSTREGISTER_DEVICEMAP:
            self._mapped[pointer] = self.memory.adopt_host(pointer, size)

    def cuMemHostUnregister(self, pointer: int) -> None:
        self._unmap(pointer)

    def _unmap(self, pointer: int) -> None:
        if (address := self._mapped.pop(pointer, None)) is not None:
            self.memory.free(address)

    def cuMemHostGetDevicePointer(self, pointer: int, flags: int) -> Any:
        if pointer not in self._mapped:
            raise DriverError("INVALID_VALUE")
        return real.CUdeviceptr(self._mapped[pointer])

    def cuMemGetAddressRange(self, pointer: Any) -> tuple[Any, int]:
        start, size = self.memory.extent(int(pointer))
        return real.CUdeviceptr(start), size

    def cuPointerGetAttribute(self, attribute: Any, pointer: Any) -> Any:
        self.memory.extent(int(pointer))
        if attribute == real.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
            return pointer
        raise DriverError("NOT_SUPPORTED")

    def cuMemcpyHtoD(self, target: Any, source: Any, size: int) -> None:
        self.memory.write(int(target), host_bytes(int(source), size))

    def cuMemcpyDtoH(self, target: Any, source: Any, size: int) -> None:
        host_bytes(int(target), size)[:] = self.memory.read(int(source), size)

    def cuMemcpyDtoD(self, target: Any, source: Any, size: int) -> None:
        self.memory.copy(int(target), int(source), size)

    def cuMemsetD8(self, target: Any, byte: int, size: int) -> None:
        self.memory.fill(int(target), byte, size)

    def cuMemcpyHtoDAsync(self, target: Any, source: Any, size: int, stream: Any) -> None:
        self.cuMemcpyHtoD(target, source, size)

    def cuMemcpyDtoHAsync(self, target: Any, source: Any, size: int, stream: Any) -> None:
        self.cuMemcpyDtoH(target, source, size)

    def cuMemcpyDtoDAsync(self, target: Any, source: Any, size: int, stream: Any) -> None:
        self.cuMemcpyDtoD(target, source, size)

    def cuMemsetD8Async(self, target: Any, byte: int, size: int, stream: Any) -> None:
        self.cuMemsetD8(target, byte, size)

    # Streams and events

    def cuStreamCreate(self, flags: int) -> Handle:
        return Handle(next(self._handles))

    def cuStreamDestroy(self, stream: Any) -> None:
        """Nothing is held."""

    def cuStreamSynchronize(self, stream: Any) -> None:
        """Everything has finished already."""

    def cuStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:
        """Every event has happened already."""

    def cuStreamAddCallback(self, stream: Any, callback: int, data: int, flags: int) -> None:
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        prototype(callback)(None, 0, data)

    def cuEventCreate(self, flags: int) -> Handle:
        handle = Handle(next(self._handles))
        self._events[handle] = None
        return handle

    def cuEventDestroy(self, event: Any) -> None:
        self._events.pop(int(event), None)

    def cuEventRecord(self, event: Any, stream: Any) -> None:
        self._events[int(event)] = time.perf_counter()

    def cuEventQuery(self, event: Any) -> None:
        """Every event has happened already."""

    def cuEventSynchronize(self, event: Any) -> None:
        """Every event has happened already."""

    def cuEventElapsedTime(self, start: Any, end: Any) -> float:
        """Milliseconds the *simulation* took between the two records: no prediction of a GPU's time."""
        first, last = self._events.get(int(start)), self._events.get(int(end))
        if first is None or last is None:
            raise DriverError("INVALID_HANDLE")
        return (last - first) * 1e3

    # Modules and functions

    def cuLibraryGetGlobal(self, module: int, name: bytes) -> tuple[Any, int]:
        found = self.modules[module].global_symbol(name.decode()) if module in self.modules else None
        if found is None:
            raise DriverError("NOT_FOUND")
        return real.CUdeviceptr(found[0]), found[1]

    def cuLibraryUnload(self, module: int) -> None:
        if (loaded := self.modules.pop(module, None)) is not None:
            loaded.unload()

    def cuKernelSetCacheConfig(self, kernel: Any, config: Any, device: int) -> None:
        """A hint without effect on results."""

    def cuKernelSetAttribute(self, attribute: Any, value: int, kernel: Any, device: int) -> None:
        """A hint without effect on results (the shared-memory carve-out)."""

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, kernel: Any, block: int, shared: int) -> int:
        attributes = kernel.attributes
        gpu, warps = self.gpu, -(-block // 32)
        registers = -(-max(attributes.num_regs, 1) * 32 // 256) * 256 * warps
        shared += attributes.shared_size_bytes + gpu.attributes["RESERVED_SHARED_MEMORY_PER_BLOCK"]
        limit: int = min(
            gpu.blocks_per_multiprocessor,
            gpu.warps_per_multiprocessor // warps,
            65536 // registers,
            gpu.shared_per_multiprocessor // (-(-shared // 128) * 128),
        )
        return limit

    def cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        self, kernel: Any, block: int, shared: int, flags: int
    ) -> int:
        return self.cuOccupancyMaxActiveBlocksPerMultiprocessor(kernel, block, shared)

    def cuProfilerStart(self) -> None:
        """Nothing to start."""

    def cuProfilerStop(self) -> None:
        """Nothing to stop."""


class Binding:
    """What numba-cuda uses in place of `cuda.bindings.driver`; functions return (CUresult, values...) as there."""

    CUstreamCallback = int
    CUstream = Handle

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        if name.startswith("cu") and name[2:3].isupper():
            return _answering(self._driver, name)
        return getattr(real, name)


def _answering(driver: Driver, name: str) -> Callable[..., tuple[Any, ...]]:
    function = getattr(driver, name, None)

    def call(*arguments: Any) -> tuple[Any, ...]:
        if name != "cuInit" and driver.pid != os.getpid():
            return (real.CUresult.CUDA_ERROR_NOT_INITIALIZED,)
        if function is None:
            return (real.CUresult.CUDA_ERROR_NOT_SUPPORTED,)
        try:
            value = function(*arguments)
        except OutOfMemory:
            return (real.CUresult.CUDA_ERROR_OUT_OF_MEMORY,)
        except InvalidAddress:
            return (real.CUresult.CUDA_ERROR_INVALID_VALUE,)
        except DriverError as error:
            return (real.CUresult[f"CUDA_ERROR_{error.code}"],)
        if value is None:
            return (real.CUresult.CUDA_SUCCESS,)
        return (real.CUresult.CUDA_SUCCESS, *(value if isinstance(value, tuple) else (value,)))

    call.__name__ = name
    return call
