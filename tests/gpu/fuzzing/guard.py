"""Host memory between pages that nobody may touch: native code that leaves device memory ends its process."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from loadsparse.gpu.simulator.engine import launch

PAGE = mmap.PAGESIZE
SPARE = 64
"""Bytes past the end that vector loads of the engine may read (see `launch.Memory.take`)."""
CANARY = 0xC3
_libc = ctypes.CDLL(None, use_errno=True)


class StrayWriteError(AssertionError):
    """Native code wrote beside a buffer, short of the guard page."""


class Region:
    """`size` bytes at `address`, 64-byte aligned, that end `spare` bytes (rounded up to 64) before a closed page and
    begin less than a page after another."""

    def __init__(self, size: int, spare: int) -> None:
        inner = -(-(size + spare) // 64) * 64
        pages = -(-inner // PAGE)
        self.map = mmap.mmap(-1, (pages + 2) * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for closed in (base, base + (pages + 1) * PAGE):
            if _libc.mprotect(ctypes.c_void_p(closed), PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.size = size
        self.address = base + (pages + 1) * PAGE - inner
        self.before = self._view(base + PAGE, self.address - base - PAGE)
        self.after = self._view(self.address + size, inner - size)
        self.before[:], self.after[:] = CANARY, CANARY
        self.after[:spare] = 0

    def _view(self, address: int, size: int) -> np.ndarray[Any, Any]:
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    @property
    def data(self) -> np.ndarray[Any, Any]:
        return self._view(self.address, self.size)

    def check(self, spare: int) -> None:
        """Raises StrayWriteError where the bytes around the buffer changed."""
        if (self.before != CANARY).any() or (self.after[spare:] != CANARY).any() or self.after[:spare].any():
            raise StrayWriteError(f"native code wrote beside a buffer of {self.size} bytes")


class GuardedMemory(launch.Memory):
    """The engine's memory, each buffer between two closed pages; arrays are copied in and, by `finish`, back."""

    def __init__(self) -> None:
        super().__init__()
        self.regions: list[tuple[Region, int, Any]] = []

    def take(self, size: int) -> int:
        region = Region(size, SPARE)
        self.regions.append((region, SPARE, None))
        return region.address

    def hold(self, array: Any) -> int:
        region = Region(array.size, 0)
        region.data[:] = array
        self.regions.append((region, 0, array))
        return region.address

    def finish(self) -> None:
        """Copies arrays back and looks at the bytes around every buffer."""
        for region, spare, array in self.regions:
            if array is not None and array.flags.writeable:
                array[:] = region.data
            region.check(spare)


@contextmanager
def guarded() -> Iterator[None]:
    """While it lasts, every launch of the LLVM engine runs on guarded memory."""
    memory, run = launch.Memory, launch.Launch.run

    def checked(self: launch.Launch) -> Any:
        outcome = run(self)
        assert isinstance(self.memory, GuardedMemory)
        self.memory.finish()
        return outcome

    launch.Memory, launch.Launch.run = GuardedMemory, checked  # type: ignore[misc, method-assign]
    try:
        yield
    finally:
        launch.Memory, launch.Launch.run = memory, run  # type: ignore[misc, method-assign]
