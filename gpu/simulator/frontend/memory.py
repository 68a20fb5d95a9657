"""The memory of the simulated GPU: what lives between launches."""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.request import ALLOCATION_BITS, DEFINED, FIRST_ARRAY, Allocation

QUARANTINE = 4096
"""Freed allocation numbers that are kept out of use."""

OFFSET_MASK = (1 << ALLOCATION_BITS) - 1


class OutOfMemory(MemoryError):
    """The request exceeds what is left of the simulated GPU's memory."""


class InvalidAddress(ValueError):
    """A host call names device memory that does not exist, or more of it than there is."""


class DeviceMemory:
    """Every live allocation of one simulated GPU.

    A device address is ``number << 36 | offset``; a number rests for QUARANTINE others before it is used again, so that
    a pointer that outlives its allocation is found.  Fresh memory is undefined until the host or a kernel writes it.

    capacity: bytes the GPU has; by default what the host has, at most 80 GB (an A100).
    """

    def __init__(self, capacity: int | None = None) -> None:
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 80 * 10**9
        self.capacity = min(host, 80 * 10**9) if capacity is None else capacity
        self.allocations: dict[int, Allocation] = {}
        self.used = 0
        self._next = FIRST_ARRAY
        self._retired: deque[int] = deque()
        self._lock = threading.Lock()
        self.launching = threading.Lock()
        """Held by the launch that works on this memory."""

    def allocate(self, size: int, name: str = "") -> int:
        """The address of `size` fresh bytes.  Raises OutOfMemory."""
        if size > self.capacity - self.used:
            raise OutOfMemory(f"{size} bytes asked for, {self.capacity - self.used} of {self.capacity} are free")
        address = self.adopt(np.zeros(size, np.uint8), np.zeros(size, np.uint8), name)
        self.used += size
        return address

    def adopt(self, data: NDArray[np.uint8], defined: NDArray[np.uint8] | None = None, name: str = "") -> int:
        """The address under which kernels see `data` itself (no copy); `defined` None: every byte is."""
        with self._lock:
            if len(self._retired) > QUARANTINE:
                number = self._retired.popleft()
            else:
                number, self._next = self._next, self._next + 1
        self.allocations[number] = Allocation(number, name or f"allocation {number}", data, defined)
        return number << ALLOCATION_BITS

    def adopt_host(self, pointer: int, size: int, name: str = "") -> int:
        """Like `adopt` for `size` bytes of a NumPy buffer that starts at host address `pointer`."""
        return self.adopt(host_bytes(pointer, size), None, name or "mapped host memory")

    def free(self, address: int) -> None:
        """Forget the allocation that starts at `address`.  Raises InvalidAddress."""
        if address & OFFSET_MASK or address >> ALLOCATION_BITS not in self.allocations:
            raise InvalidAddress(f"{address:#x} is not the start of an allocation")
        allocation = self.allocations.pop(address >> ALLOCATION_BITS)
        self._retired.append(allocation.number)
        if allocation.defined is not None:
            self.used -= allocation.data.size

    def extent(self, address: int) -> tuple[int, int]:
        """(start, size in bytes) of the allocation that `address` lies in.  Raises InvalidAddress."""
        allocation = self.allocations.get(address >> ALLOCATION_BITS)
        if allocation is None:
            raise InvalidAddress(f"{address:#x} is in no live allocation")
        return address & ~OFFSET_MASK, allocation.data.size

    def _slice(self, address: int, size: int) -> tuple[Allocation, slice]:
        start, length = self.extent(address)
        offset = address - start
        if offset + size > length:
            raise InvalidAddress(f"bytes {offset} to {offset + size} of an allocation of {length} bytes")
        return self.allocations[address >> ALLOCATION_BITS], slice(offset, offset + size)

    def read(self, address: int, size: int) -> NDArray[np.uint8]:
        """A view of `size` bytes.  Raises InvalidAddress."""
        if size == 0:
            return np.empty(0, np.uint8)
        allocation, where = self._slice(address, size)
        return allocation.data[where]

    def write(self, address: int, data: NDArray[np.uint8]) -> None:
        """Store bytes and call them defined.  Raises InvalidAddress."""
        if data.size == 0:
            return
        allocation, where = self._slice(address, data.size)
        allocation.data[where] = data
        if allocation.defined is not None:
            allocation.defined[where] = DEFINED

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy bytes and whether each is defined.  Raises InvalidAddress."""
        if size == 0:
            return
        there, to = self._slice(target, size)
        here, origin = self._slice(source, size)
        there.data[to] = here.data[origin].copy()
        if there.defined is not None:
            there.defined[to] = DEFINED if here.defined is None else here.defined[origin].copy()

    def fill(self, address: int, byte: int, size: int) -> None:
        """Set `size` bytes to `byte`.  Raises InvalidAddress."""
        self.write(address, np.full(size, byte & 0xFF, np.uint8))


def host_bytes(pointer: int, size: int) -> NDArray[np.uint8]:
    """A view of `size` bytes at host address `pointer`, which the caller took from a NumPy buffer."""
    if size == 0:
        return np.empty(0, np.uint8)
    buffer: Any = (ctypes.c_uint8 * size).from_address(pointer)
    view: NDArray[np.uint8] = np.frombuffer(buffer, np.uint8)
    return view
