"""Run-time: loads and stores of one warp, lane by lane, with every check; and the memory counters.

Addresses lie in W_ADDRESS; element e of lane l in W_DATA + 256 e + width l, its defined mask in W_DEFINED + 4 e.
`space`, `size`, `width`, `granule` and `checks` are constants at every call, so each kind of access is specialised.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.copies import pending_access, pending_near, pending_source
from loadsparse.gpu.simulator.engine.counting import count
from loadsparse.gpu.simulator.engine.native import ctz, fill, inline, load8, load32, load64, smin, store8, store32
from loadsparse.gpu.simulator.engine.places import (
    admit,
    all_defined,
    data_base,
    host,
    landing,
    one_place,
    shadow,
    shadow_base,
    whole_defined,
)
from loadsparse.gpu.simulator.engine.races import (
    cell_of,
    floor_of,
    quick_read,
    quick_write,
    race_write,
    read_suspects,
    shared_read,
    shared_write,
)
from loadsparse.gpu.simulator.engine.races_global import (
    entry_of,
    global_read,
    global_reads,
    global_store,
    global_write,
    quick_cells,
    watches_reads,
)
from loadsparse.gpu.simulator.engine.records import peek, poke


@inline
def read(
    B: int, W: int, site: int, mask: int, space: int, size: int, width: int, granule: int, kind: int, checks: int
) -> int:
    """Loads every lane of `mask`; returns the mask of legal lanes."""
    if checks & L.CHECK_FINE or one_place(B, W, mask, space, size) == 0:
        return read_checked(B, W, site, mask, space, size, width, kind, checks)
    data = data_base(B, W, mask, space)
    known = shadow_base(B, W, mask, space, checks)
    pending = 0
    if space == L.SHARED and checks & L.CHECK_PENDING:
        pending = pending_near(B, W, mask, size)
    thread = load64(W + L.W_INDEX) * 32
    for e in range(size // width):
        store32(W + L.W_DEFINED + 4 * e, mask)
    if space == L.GLOBAL and checks & L.CHECK_RACES and watches_reads(B, W, mask):
        global_reads(B, W, site, mask, size, granule, kind)
    settled = kind & L.STRONG or load64(B + L.B_EXACT)
    floor = floor_of(B)
    cell = cell_of(B, 0)
    cells = load64(B + L.B_CELLS)
    if space == L.SHARED and (pending != 0 or settled != 0):
        rest = mask
        while rest != 0:
            lane = ctz(rest)
            rest = rest & (rest - 1)
            address = load64(W + L.W_ADDRESS + 8 * lane)
            if pending != 0:
                pending_access(B, site, thread + lane, address, address, size, L.READ)
            if checks & L.CHECK_RACES and settled != 0:
                shared_read(B, site, thread + lane, address, size, kind)
    suspicious = 0
    holes = 0
    rest = mask
    while rest != 0:  # no calls here
        lane = ctz(rest)
        rest = rest & (rest - 1)
        address = load64(W + L.W_ADDRESS + 8 * lane)
        if space == L.SHARED and checks & L.CHECK_RACES and settled == 0:
            first = cells + L.CELL_PAIR * (address // granule)
            suspicious = suspicious | (quick_read(floor, cell | (thread + lane), first, size // granule) << lane)
        place = W + L.W_DATA + lane * width
        poke(place, width, peek(data + address, width))
        if size > width:
            poke(place + 256, width, peek(data + address + width, width))
        if size > 2 * width:
            poke(place + 512, width, peek(data + address + 2 * width, width))
            poke(place + 768, width, peek(data + address + 3 * width, width))
        if known != 0:
            holes = holes | ((whole_defined(known + address, size) == 0) << lane)
    while suspicious != 0:
        lane = ctz(suspicious)
        suspicious = suspicious & (suspicious - 1)
        first = cells + L.CELL_PAIR * (load64(W + L.W_ADDRESS + 8 * lane) // granule)
        read_suspects(B, first, cell | (thread + lane), size // granule)
    while holes != 0:
        lane = ctz(holes)
        holes = holes & (holes - 1)
        mark_holes(W, lane, known + load64(W + L.W_ADDRESS + 8 * lane), size, width)
    count(B, W, site, mask, space, size)
    return mask


def mark_holes(W: int, lane: int, known: int, size: int, width: int) -> int:
    """Clears the lane's defined bit of every element that is not wholly defined."""
    for e in range(size // width):
        for k in range(e * width, e * width + width):
            if load8(known + k) != 0xFF:
                place = W + L.W_DEFINED + 4 * e
                store32(place, load32(place) & ~(1 << lane))
    return 0


@inline
def write(
    B: int, W: int, site: int, mask: int, space: int, size: int, width: int, granule: int, kind: int, checks: int
) -> int:
    """Stores every lane of `mask`; returns the mask of legal lanes that reach global memory."""
    if checks & L.CHECK_FINE or one_place(B, W, mask, space, size) == 0:
        return write_checked(B, W, site, mask, space, size, width, kind, checks)
    data = data_base(B, W, mask, space)
    known = shadow_base(B, W, mask, space, checks | L.CHECK_UNINITIALIZED if space == L.GLOBAL else checks)
    pending = 0
    if checks & L.CHECK_PENDING:
        pending = pending_near(B, W, mask, size) if space == L.SHARED else load64(B + L.B_PENDING_COUNT)
    thread = load64(W + L.W_INDEX) * 32
    bits = load32(W + L.W_DEFINED)
    if size > width:
        bits = bits & load32(W + L.W_DEFINED + 4)
    if size > 2 * width:
        bits = bits & load32(W + L.W_DEFINED + 8) & load32(W + L.W_DEFINED + 12)
    settled = kind & L.STRONG or load64(B + L.B_EXACT)
    floor = floor_of(B)
    cell = cell_of(B, 0)
    cells = load64(B + L.B_CELLS)
    quick = 0
    row = 0
    if space == L.GLOBAL and checks & L.CHECK_RACES:
        entry = entry_of(B, load64(W + L.W_ADDRESS + 8 * ctz(mask)))
        quick = quick_cells(B, entry, kind)
        row = load64(entry + L.T_ROW)
    rest = mask
    if space == L.SHARED and pending == 0 and settled == 0 and (known == 0 or mask & ~bits == 0):
        # as below, but without calls, up to the first lane that meets others
        while rest != 0:
            lane = ctz(rest)
            address = load64(W + L.W_ADDRESS + 8 * lane)
            if checks & L.CHECK_RACES:
                first = cells + L.CELL_PAIR * (address // granule)
                if quick_write(floor, cell | (thread + lane), first, size // granule) == 0:
                    break
            put_elements(data + address, W + L.W_DATA + lane * width, size, width)
            if known != 0:
                fill(known + address, 0xFF, size)
            rest = rest & (rest - 1)
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        address = load64(W + L.W_ADDRESS + 8 * lane)
        if pending != 0:
            if space == L.SHARED:
                pending_access(B, site, thread + lane, address, address, size, L.WRITE)
            else:
                pending_source(B, site, thread + lane, address, size)
        if checks & L.CHECK_RACES:
            if space == L.GLOBAL:
                global_store(B, W, site, lane, address, quick, row, size, granule, kind, width)
            elif settled != 0:
                shared_write(B, W, site, lane, mask, address, size, kind, width)
            else:
                race_write(B, W, floor, cell, cells, lane, mask, address, size, granule, width)
        put_elements(data + address, W + L.W_DATA + lane * width, size, width)
        if known != 0:
            if space == L.GLOBAL or (bits >> lane) & 1 != 0:
                fill(known + address, 0xFF, size)
            else:
                put_known(W, lane, known + address, size, width)
    count(B, W, site, mask, space, size)
    return mask if space == L.GLOBAL else 0


@inline
def put_elements(target: int, place: int, size: int, width: int) -> int:
    """One lane's elements from the exchange area to memory."""
    poke(target, width, peek(place, width))
    if size > width:
        poke(target + width, width, peek(place + 256, width))
    if size > 2 * width:
        poke(target + 2 * width, width, peek(place + 512, width))
        poke(target + 3 * width, width, peek(place + 768, width))
    return 0


def put_known(W: int, lane: int, known: int, size: int, width: int) -> int:
    """Writes the lane's defined bits, element by element."""
    for e in range(size // width):
        fill(known + e * width, 0xFF * ((load32(W + L.W_DEFINED + 4 * e) >> lane) & 1), width)
    return 0


def read_checked(
    B: int, W: int, site: int, mask: int, space: int, size: int, width: int, kind: int, checks: int
) -> int:
    """`read` for lanes that may be illegal or in different places."""
    legal = 0
    rest = mask
    for e in range(size // width):
        store32(W + L.W_DEFINED + 4 * e, 0)
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        thread = load64(W + L.W_INDEX) * 32 + lane
        address = load64(W + L.W_ADDRESS + 8 * lane)
        place = landing(space, address)
        offset = address & L.OFFSET_MASK if space == L.GENERIC else address
        pointer = host(B, W, lane, place, offset, address, size)
        if admit(B, site, thread, pointer, address, size, size, checks) == 0:
            for e in range(size // width):
                poke(W + L.W_DATA + 256 * e + lane * width, width, 0)
                poke(W + L.W_KNOWN + 256 * e + lane * width, width, -1)
                store32(W + L.W_DEFINED + 4 * e, load32(W + L.W_DEFINED + 4 * e) | (1 << lane))
            continue
        legal = legal | (1 << lane)
        if place == L.SHARED:
            if checks & L.CHECK_PENDING:
                pending_access(B, site, thread, offset, address, size, L.READ)
            if checks & L.CHECK_RACES:
                shared_read(B, site, thread, offset, size, kind)
        if place == L.GLOBAL and checks & L.CHECK_RACES:
            global_read(B, site, thread, address, size, kind)
        bits = shadow(B, W, lane, place, offset, address) if checks & L.CHECK_UNINITIALIZED else 0
        cell = checks >> L.CHECK_CELL
        for e in range(size // width):
            poke(W + L.W_DATA + 256 * e + lane * width, width, peek(pointer + e * width, width))
            if checks & L.CHECK_FINE:
                known = peek(bits + e * width, width) if bits != 0 else -1
                poke(W + L.W_KNOWN + 256 * e + lane * width, width, known)
                if cell != 0 and (place == L.SHARED or place == L.LOCAL):
                    limit = load64(B + L.B_SHARED_BYTES) if place == L.SHARED else load64(B + L.B_LOCAL_BYTES)
                    fill_padding(
                        W + L.W_KNOWN + 256 * e + lane * width, bits - offset, offset + e * width, width, cell, limit
                    )
            elif bits == 0 or all_defined(bits + e * width, width):
                here = W + L.W_DEFINED + 4 * e
                store32(here, load32(here) | (1 << lane))
    count(B, W, site, legal, space, size)
    return legal


def fill_padding(known: int, bits: int, offset: int, width: int, cell: int, limit: int) -> int:
    """Makes those of `width` bytes defined whose aligned cell has any defined bit; `bits` is the window's shadow."""
    for k in range(width):
        first = (offset + k) // cell * cell
        some = 0
        for i in range(first, smin(first + cell, limit)):
            some = some | load8(bits + i)
        if some != 0:
            store8(known + k, 0xFF)
    return 0


def write_checked(
    B: int, W: int, site: int, mask: int, space: int, size: int, width: int, kind: int, checks: int
) -> int:
    """`write` for lanes that may be illegal or in different places."""
    legal = 0
    rest = mask
    outside = 0
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        thread = load64(W + L.W_INDEX) * 32 + lane
        address = load64(W + L.W_ADDRESS + 8 * lane)
        place = landing(space, address)
        offset = address & L.OFFSET_MASK if space == L.GENERIC else address
        pointer = host(B, W, lane, place, offset, address, size)
        if admit(B, site, thread, pointer, address, size, size, checks) == 0:
            continue
        legal = legal | (1 << lane)
        if place == L.SHARED:
            if checks & L.CHECK_PENDING:
                pending_access(B, site, thread, offset, address, size, L.WRITE)
            if checks & L.CHECK_RACES:
                shared_write(B, W, site, lane, mask, offset, size, kind, width)
        if place == L.GLOBAL:
            outside = outside | (1 << lane)
            if checks & L.CHECK_RACES:
                global_write(B, W, site, lane, address, size, kind, width)
            if checks & L.CHECK_PENDING:
                pending_source(B, site, thread, address, size)
        bits = 0
        if checks & L.CHECK_UNINITIALIZED or place == L.GLOBAL:
            bits = shadow(B, W, lane, place, offset, address)
        for e in range(size // width):
            poke(pointer + e * width, width, peek(W + L.W_DATA + 256 * e + lane * width, width))
            if bits != 0:
                known = -((load32(W + L.W_DEFINED + 4 * e) >> lane) & 1)
                if checks & L.CHECK_FINE:
                    known = peek(W + L.W_KNOWN + 256 * e + lane * width, width)
                poke(bits + e * width, width, -1 if place == L.GLOBAL else known)
    count(B, W, site, legal, space, size)
    return outside
