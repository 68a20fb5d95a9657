"""Stand-ins for the classes of `cuda.core` that describe devices, streams and memory.

The real ones call the driver library by themselves; `modules.py` has those that compile, link and launch.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda.core._utils.cuda_utils import CUDAError

from loadsparse.gpu.simulator.frontend.driver import Handle
from loadsparse.gpu.simulator.frontend.session import session


class Device:
    """`cuda.core.Device`: the one simulated GPU."""

    def __init__(self, device_id: int = 0) -> None:
        if device_id:
            raise CUDAError("CUDA_ERROR_INVALID_DEVICE: one GPU is simulated")
        self.device_id = 0
        self.compute_capability = session().driver.gpu.compute_capability
        self.name = session().driver.gpu.name
        self.uuid = "00000000-0000-0000-0000-000000000000"
        self.memory_resource: Any = None

    @property
    def context(self) -> Any:
        return SimpleNamespace(handle=session().driver.context, _handle=session().driver.context)

    def set_current(self) -> None:
        driver = session().driver
        if int(driver.cuCtxGetCurrent()) == 0:
            driver.cuCtxPushCurrent(driver.context)

    def allocate(self, size: int, stream: Any = None) -> Buffer:
        return Buffer(session().driver.memory.allocate(size), size, owned=True)


class Stream:
    """`cuda.core.Stream`: a number, since everything happens in program order."""

    def __init__(self, handle: int) -> None:
        self.handle = Handle(handle)

    @classmethod
    def from_handle(cls, handle: Any) -> Stream:
        return cls(int(handle))

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, int(self.handle)

    def sync(self) -> None:
        """Everything has finished already."""


class Buffer:
    """`cuda.core.Buffer`: device memory that is given back when the last reference goes."""

    def __init__(self, address: int, size: int, owned: bool = False) -> None:
        self.handle, self.size, self._owned = address, size, owned

    @classmethod
    def from_handle(cls, ptr: Any, size: int, mr: Any = None, owner: Any = None) -> Buffer:
        return cls(int(ptr), size)

    def __del__(self) -> None:
        if self._owned:
            session().driver.memory.free(self.handle)


class View:
    """`cuda.core.utils.StridedMemoryView`: where an array lies and how; strides are counted in elements."""

    def __init__(
        self, ptr: int, shape: tuple[int, ...], dtype: np.dtype[Any], strides: tuple[int, ...] | None, owner: Any
    ) -> None:
        self.ptr, self.shape, self.dtype, self.exporting_obj = ptr, shape, dtype, owner
        self.size = int(np.prod(shape, dtype=np.int64))
        in_bytes = None if strides is None else tuple(stride * dtype.itemsize for stride in strides)
        self._layout = layout(shape, dtype.itemsize, in_bytes)
        self.strides = strides

    @classmethod
    def from_array_interface(cls, obj: Any) -> View:
        array = np.asarray(obj)
        steps = None if array.flags.c_contiguous else array.strides
        strides = None if steps is None else tuple(step // (array.dtype.itemsize or 1) for step in steps)
        return cls(array.__array_interface__["data"][0], array.shape, array.dtype, strides, obj)

    @classmethod
    def from_any_interface(cls, obj: Any, stream_ptr: int | None = None) -> View:
        if hasattr(obj, "__cuda_array_interface__"):
            return cls.from_cuda_array_interface(obj, stream_ptr)
        return cls.from_array_interface(obj)

    @classmethod
    def from_cuda_array_interface(cls, obj: Any, stream_ptr: int | None = None) -> View:
        description = obj.__cuda_array_interface__
        dtype = np.dtype(description["typestr"])
        steps = description.get("strides")
        strides = None if steps is None else tuple(step // dtype.itemsize for step in steps)
        return cls(description["data"][0], tuple(description["shape"]), dtype, strides, obj)

    @classmethod
    def from_dlpack(cls, obj: Any, stream_ptr: int | None = None) -> View:
        if hasattr(obj, "__cuda_array_interface__"):
            return cls.from_cuda_array_interface(obj, stream_ptr)
        return cls.from_array_interface(np.from_dlpack(obj))

    @classmethod
    def from_buffer(
        cls,
        buffer: Buffer,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None = None,
        *,
        dtype: np.dtype[Any],
        **ignored: Any,
    ) -> View:
        return cls(buffer.handle, shape, np.dtype(dtype), strides, buffer)


def layout(shape: tuple[int, ...], itemsize: int, strides: tuple[int, ...] | None) -> SimpleNamespace:
    """What numba-cuda asks of a layout; strides in bytes, None for C order."""
    forward = _strides(shape, itemsize)
    backward = _strides(shape[::-1], itemsize)[::-1]

    def matches(wanted: tuple[int, ...]) -> bool:
        return (
            strides is None
            or 0 in shape
            or all(s == w for s, w, n in zip(strides, wanted, shape, strict=True) if n > 1)
        )

    c, f = matches(forward), (matches(backward) if strides is not None else forward == backward)
    return SimpleNamespace(strides_in_bytes=strides, is_contiguous_c=c, is_contiguous_f=f, is_contiguous_any=c or f)


def _strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides = [itemsize]
    for n in shape[:0:-1]:
        strides.append(strides[-1] * n)
    return tuple(strides[: len(shape)][::-1])


def function_class(base: type) -> type:
    """numba-cuda's Function with resources that are looked up when asked for: assembling takes longer than loading."""

    class Function(base):  # type: ignore[misc]
        def __init__(self, module: Any, kernel: Any, name: str) -> None:
            self.module, self.kernel, self.handle, self.name = module, kernel, kernel, name

        @property
        def attrs(self) -> Any:
            attributes = self.kernel.attributes
            return SimpleNamespace(
                regs=attributes.num_regs,
                shared=attributes.shared_size_bytes,
                local=attributes.local_size_bytes,
                const=attributes.const_size_bytes,
                maxthreads=attributes.max_threads_per_block,
            )

    return Function


def managed_class(base: type) -> type:
    """numba-cuda's ManagedMemory whose host side is the simulated allocation itself."""

    class ManagedMemory(base):  # type: ignore[misc]
        def __init__(self, context: Any, pointer: Any, size: int, **options: Any) -> None:
            super().__init__(context, pointer, size, **options)
            self._bufptr_ = session().driver.memory.read(int(pointer), size).ctypes.data

    return ManagedMemory
