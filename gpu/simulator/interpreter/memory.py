"""Loads and stores: addresses resolved to windows, checked, counted, and read or written byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.interpreter.counters import local_sectors, sectors, wavefronts
from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes
from loadsparse.gpu.simulator.interpreter.races import WEAK, Strength
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP, Warp
from loadsparse.gpu.simulator.request import (
    ALLOCATION_BITS,
    CONSTANT,
    DEFINED,
    FIRST_ARRAY,
    GRID_WORKSPACE,
    LOCAL,
    PARAM,
    SHARED,
)

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.block import Block
    from loadsparse.gpu.simulator.interpreter.machine import Machine

WINDOW_OF = {"shared": SHARED, "local": LOCAL, "param": PARAM}
OFFSET = np.uint64((1 << ALLOCATION_BITS) - 1)
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Window:
    """Memory that some lanes address: lane i's byte at offset o is `data[start[i] + o]`, for o < `size`."""

    number: int
    space: str
    data: Bytes
    defined: Bytes | None
    start: NDArray[np.int64]
    size: int


@dataclass(frozen=True, slots=True)
class Part:
    """The legal lanes of an access that fall into one window, with their byte offsets."""

    window: Window
    lanes: Flags
    offsets: NDArray[np.int64]

    def index(self, size: int) -> NDArray[np.int64]:
        """Flat byte indices, one row per legal lane."""
        first = (self.window.start + self.offsets)[self.lanes]
        return first[:, None] + np.arange(size)


def space_of(modifiers: tuple[str, ...]) -> str:
    """State space of a memory instruction: global (with const), shared, local, param or generic."""
    for modifier in modifiers:
        base = modifier.partition("::")[0]
        if base in ("global", "shared", "local", "param"):
            return base
        if base == "const":
            return "global"
    return "generic"


def shared_window(block: Block) -> Window:
    """The shared memory of a block."""
    return Window(SHARED, "shared", block.shared, block.shared_defined, np.zeros(WARP, np.int64), block.shared.size)


def _window(machine: Machine, warp: Warp, number: int) -> Window | None:
    zero = np.zeros(WARP, np.int64)
    block = warp.block
    if number == SHARED:
        return shared_window(block)
    if number == LOCAL:
        return Window(
            number, "local", block.local, block.local_defined, warp.threads * block.local_bytes, block.local_bytes
        )
    if number == PARAM:
        return Window(
            number, "param", block.param, block.param_defined, warp.threads * block.param_bytes, block.param_bytes
        )
    allocation = machine.request.allocations.get(number)
    if allocation is None:
        return None
    return Window(number, "global", allocation.data, allocation.defined, zero, allocation.data.size)


def _windows(
    machine: Machine, warp: Warp, lanes: Flags, address: Lanes, space: str
) -> Iterator[tuple[Window | None, Flags, Lanes]]:
    """(window or None, lanes, offsets) for every window that the lanes address."""
    if space in WINDOW_OF:
        yield _window(machine, warp, WINDOW_OF[space]), lanes, address
        return
    numbers = address >> np.uint64(ALLOCATION_BITS)
    for number in np.unique(numbers[lanes]).tolist():
        legal = (
            number >= FIRST_ARRAY
            or number in (CONSTANT, GRID_WORKSPACE)
            or (space == "generic" and number in (SHARED, LOCAL, PARAM))
        )
        chosen = lanes & (numbers == np.uint64(number))
        yield (_window(machine, warp, number) if legal else None), chosen, address & OFFSET


def access(
    machine: Machine, warp: Warp, index: int, lanes: Flags, address: Lanes, size: int, space: str, align: int = 0
) -> list[Part]:
    """Splits an access by window, reports what is out of bounds or misaligned, and keeps the legal lanes."""
    parts: list[Part] = []
    outside, crooked = np.zeros(WARP, bool), np.zeros(WARP, bool)
    wanted = np.uint64((align or size) - 1)
    for window, chosen, offsets in _windows(machine, warp, lanes, address, space):
        limit = window.size - size if window is not None else -1
        fits = chosen & (offsets <= np.uint64(limit)) if limit >= 0 else np.zeros(WARP, bool)
        straight = fits & ((offsets & wanted) == 0)
        outside |= chosen & ~fits
        crooked |= fits & ~straight
        if window is not None and straight.any():
            safe = np.where(straight, offsets, np.uint64(0)).astype(np.int64)
            parts.append(Part(window, straight, safe))
    for kind, bad in (("bounds", outside), ("alignment", crooked)):
        for lane in np.flatnonzero(bad).tolist():
            machine.lane_hazard(kind, index, warp, lane, None, int(address[lane]), size)
    return parts


def load(
    machine: Machine,
    warp: Warp,
    index: int,
    lanes: Flags,
    address: Lanes,
    size: int,
    space: str,
    strength: Strength = WEAK,
    cell: int = 0,
) -> tuple[Bytes, Bytes]:
    """(bytes, their defined bits) [32, size] of the lanes; dropped accesses, which are reported themselves, give 0.

    With `cell`, undefined bytes of shared and local memory beside defined ones of that aligned cell are padding.
    """
    data, known = np.zeros((WARP, size), np.uint8), np.full((WARP, size), DEFINED, np.uint8)
    for part in access(machine, warp, index, lanes, address, size, space):
        window, where = part.window, part.index(size)
        data[part.lanes] = window.data[where]
        if cell and window.space in ("shared", "local"):
            known[part.lanes] = _with_padding(part, size, cell)
        else:
            known[part.lanes] = DEFINED if window.defined is None else window.defined[where]
        count(machine, index, part, address, size, window.space)
        watch_read(machine, warp, index, part, size, address, strength)
    return data, known


def _with_padding(part: Part, size: int, cell: int) -> Bytes:
    """Defined bits of the bytes of each legal lane; a byte whose aligned cell has any is defined."""
    window, span = part.window, max(size, cell)
    assert window.defined is not None
    first = part.offsets[part.lanes] & -span
    offsets = first[:, None] + np.arange(span)
    inside = offsets < window.size
    bits = np.where(inside, window.defined[window.start[part.lanes][:, None] + np.where(inside, offsets, 0)], 0)
    cells = bits.reshape(len(first), -1, cell)
    filled = np.where(cells.any(axis=2, keepdims=True), DEFINED, cells).reshape(len(first), span)
    chosen = (part.offsets[part.lanes] - first)[:, None] + np.arange(size)
    return np.take_along_axis(filled, chosen, axis=1).astype(np.uint8)


def store(
    machine: Machine,
    warp: Warp,
    index: int,
    lanes: Flags,
    address: Lanes,
    data: Bytes,
    known: Bytes,
    space: str,
    strength: Strength = WEAK,
) -> Flags:
    """Writes bytes[32, size] with their defined bits; returns the lanes that stored something undefined to global memory."""
    size = data.shape[1]
    leaked = np.zeros(WARP, bool)
    for part in access(machine, warp, index, lanes, address, size, space):
        window, where = part.window, part.index(size)
        count(machine, index, part, address, size, window.space, "store")
        watch_write(machine, warp, index, part, data, address, strength)
        if window.space == "global":
            leaked |= part.lanes & ~whole(known)
        put(part, where, data, known)
    return leaked


def put(part: Part, where: NDArray[np.int64], data: Bytes, known: Bytes) -> None:
    """Writes the bytes of the legal lanes, in ascending order; global memory counts as defined afterwards."""
    window = part.window
    window.data[where] = data[part.lanes]
    if window.defined is not None:
        window.defined[where] = DEFINED if window.space == "global" else known[part.lanes]


def whole(known: Bytes) -> Flags:
    """Lanes whose bytes are all defined."""
    flags: Flags = (known == DEFINED).all(axis=1)
    return flags


def watch_read(
    machine: Machine, warp: Warp, index: int, part: Part, size: int, address: Lanes, strength: Strength = WEAK
) -> None:
    """Race and pending checks of a read of shared or global memory."""
    lanes = np.flatnonzero(part.lanes)
    if part.window.space == "shared":
        warp.block.copies.touched(index, warp, lanes, part.offsets[lanes], size, address, "read")
    history = warp.block.history(part.window.number)
    if history is not None:
        history.read(warp.block, warp.threads[lanes], part.offsets[lanes], size, index, strength)


def watch_write(
    machine: Machine, warp: Warp, index: int, part: Part, data: Bytes, address: Lanes, strength: Strength = WEAK
) -> None:
    """Race and pending checks of a write to shared or global memory, before its bytes are there."""
    lanes, size = np.flatnonzero(part.lanes), data.shape[1]
    if part.window.space == "shared":
        warp.block.copies.touched(index, warp, lanes, part.offsets[lanes], size, address, "write")
    elif part.window.space == "global":
        warp.block.copies.source_written(index, warp, part, address, size)
    history = warp.block.history(part.window.number)
    if history is not None:
        held = part.window.data[part.index(size)]
        history.written(warp.block, warp.threads[lanes], part.offsets[lanes], data[lanes], held, index, strength)


def count(
    machine: Machine, index: int, part: Part, address: Lanes, size: int, space: str, direction: str = "load"
) -> None:
    """Requests and sectors of global and local accesses, bytes of global and wavefronts of shared ones."""
    del direction
    counters = machine.counters
    if space == "global":
        machine.requested.add(index)
        counters["sectors"][index] += sectors(address[part.lanes], size)
        counters["bytes"][index] += int(part.lanes.sum()) * size
    elif space == "local":
        lanes = LANES[part.lanes]
        counters["local_requests"][index] += 1
        counters["local_sectors"][index] += local_sectors(lanes, part.offsets[lanes], size)
    elif space == "shared":
        lanes = LANES[part.lanes]
        total, ideal = wavefronts(lanes, part.offsets[lanes], size)
        counters["wavefronts"][index] += total
        counters["ideal_wavefronts"][index] += ideal


def to_bytes(bits: Lanes, width: int) -> Bytes:
    """Little-endian bytes [32, width / 8] of bit patterns."""
    return np.ascontiguousarray(bits.astype("<u8").view(np.uint8).reshape(WARP, 8)[:, : max(1, width // 8)])


def from_bytes(data: Bytes) -> Lanes:
    """Bit patterns from little-endian bytes [32, n], n <= 8."""
    wide = np.zeros((WARP, 8), np.uint8)
    wide[:, : data.shape[1]] = data
    return wide.reshape(-1).view("<u8").astype(np.uint64)
