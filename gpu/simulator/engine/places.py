"""Run-time: where an address lands, whether an access is legal, and whether its bytes are defined."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.native import ctz, inline, load8, load64, lshr, outside_of, uge, ugt
from loadsparse.gpu.simulator.engine.records import peek, report


@inline
def landing(space: int, address: int) -> int:
    """The space that an access reaches."""
    if space == L.GENERIC:
        number = lshr(address, L.ALLOCATION_SHIFT)
        if number == 1:
            return L.SHARED
        if number == 2:
            return L.LOCAL
        if number == 4:
            return L.PARAM
        return L.GLOBAL
    return space


@inline
def inside(base: int, limit: int, offset: int, size: int) -> int:
    """base + offset, or 0 if [offset, offset + size) leaves [0, limit)."""
    if limit < size or ugt(offset, limit - size):
        return 0
    return base + offset


@inline
def host(B: int, W: int, lane: int, place: int, offset: int, address: int, size: int) -> int:
    """Host address of an access, or 0 when any byte is out of bounds."""
    if place == L.SHARED:
        return inside(load64(B + L.B_SHARED), load64(B + L.B_SHARED_BYTES), offset, size)
    if place == L.LOCAL:
        thread = load64(W + L.W_INDEX) * 32 + lane
        stride = load64(B + L.B_LOCAL_BYTES)
        return inside(load64(B + L.B_LOCAL) + thread * stride, stride, offset, size)
    if place == L.PARAM:
        return inside(load64(B + L.B_PARAM), load64(B + L.B_PARAM_BYTES), offset, size)
    number = lshr(address, L.ALLOCATION_SHIFT)
    if uge(number, load64(B + L.B_TABLE_COUNT)):
        return 0
    entry = load64(B + L.B_TABLE) + number * L.T_ENTRY_BYTES
    return inside(load64(entry + L.T_DATA), load64(entry + L.T_BYTES), address & L.OFFSET_MASK, size)


@inline
def shadow(B: int, W: int, lane: int, place: int, offset: int, address: int) -> int:
    """Host address of the defined bits of a legal access, or 0 where everything is defined."""
    if place == L.SHARED:
        return load64(B + L.B_SHARED_DEFINED) + offset
    if place == L.LOCAL:
        thread = load64(W + L.W_INDEX) * 32 + lane
        return load64(B + L.B_LOCAL_DEFINED) + thread * load64(B + L.B_LOCAL_BYTES) + offset
    if place == L.PARAM:
        return 0
    entry = load64(B + L.B_TABLE) + lshr(address, L.ALLOCATION_SHIFT) * L.T_ENTRY_BYTES
    base = load64(entry + L.T_DEFINED)
    if base == 0:
        return 0
    return base + (address & L.OFFSET_MASK)


@inline
def all_defined(place: int, width: int) -> int:
    """1 if all bits of `width` shadow bytes are."""
    if width == 1:
        return load8(place) == 0xFF
    return peek(place, width) == lshr(-1, 64 - 8 * width)


@inline
def admit(B: int, site: int, thread: int, pointer: int, address: int, size: int, align: int, checks: int) -> int:
    """1 if the access is in bounds and aligned; reports it otherwise."""
    if pointer == 0:
        if checks & L.CHECK_BOUNDS:
            report(B, L.BOUNDS, site, -1, thread, address, size, L.NO_DETAIL)
        return 0
    if address & (align - 1) != 0:
        if checks & L.CHECK_ALIGNMENT:
            report(B, L.ALIGNMENT, site, -1, thread, address, size, L.NO_DETAIL)
        return 0
    return 1


@inline
def one_place(B: int, W: int, mask: int, space: int, size: int) -> int:
    """1 if every lane of `mask` is legal and in the allocation of the first one (global or shared space)."""
    if mask == 0:
        return 0
    if space == L.SHARED:
        limit = load64(B + L.B_SHARED_BYTES)
        if limit < size:
            return 0
        return outside_of(W + L.W_ADDRESS, 0, limit - size, size - 1) & mask == 0
    if space == L.GLOBAL:
        number = lshr(load64(W + L.W_ADDRESS + 8 * ctz(mask)), L.ALLOCATION_SHIFT)
        if uge(number, load64(B + L.B_TABLE_COUNT)):
            return 0
        limit = load64(load64(B + L.B_TABLE) + number * L.T_ENTRY_BYTES + L.T_BYTES)
        if limit < size:
            return 0
        return outside_of(W + L.W_ADDRESS, number << L.ALLOCATION_SHIFT, limit - size, size - 1) & mask == 0
    return 0


@inline
def data_base(B: int, W: int, mask: int, space: int) -> int:
    """What, added to a legal address, gives the host address."""
    if space == L.SHARED:
        return load64(B + L.B_SHARED)
    number = lshr(load64(W + L.W_ADDRESS + 8 * ctz(mask)), L.ALLOCATION_SHIFT)
    entry = load64(B + L.B_TABLE) + number * L.T_ENTRY_BYTES
    return load64(entry + L.T_DATA) - (number << L.ALLOCATION_SHIFT)


@inline
def shadow_base(B: int, W: int, mask: int, space: int, checks: int) -> int:
    """The same for the defined bytes; 0 where everything is defined."""
    if checks & L.CHECK_UNINITIALIZED == 0:
        return 0
    if space == L.SHARED:
        return load64(B + L.B_SHARED_DEFINED)
    number = lshr(load64(W + L.W_ADDRESS + 8 * ctz(mask)), L.ALLOCATION_SHIFT)
    entry = load64(B + L.B_TABLE) + number * L.T_ENTRY_BYTES
    base = load64(entry + L.T_DEFINED)
    if base == 0:
        return 0
    return base - (number << L.ALLOCATION_SHIFT)


@inline
def whole_defined(place: int, size: int) -> int:
    """`all_defined` for up to 16 bytes."""
    if size == 16:
        return load64(place) & load64(place + 8) == -1
    return all_defined(place, size)
