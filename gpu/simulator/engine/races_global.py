"""Run-time: the filter for races in global memory (`races.py`): every worker has its own cells, with the block in them."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.history import exact_read, exact_write
from loadsparse.gpu.simulator.engine.native import ctz, inline, invoke, load64, lshr, store64
from loadsparse.gpu.simulator.engine.races import blend, cell_of, clashes, stop_for


@inline
def entry_of(B: int, address: int) -> int:
    """The allocation table's entry of a legal address."""
    return load64(B + L.B_TABLE) + lshr(address, L.ALLOCATION_SHIFT) * L.T_ENTRY_BYTES


@inline
def cells(B: int, entry: int) -> int:
    """The worker's row of writes; that of reads follows."""
    return load64(entry + L.T_HISTORY) + 2 * load64(entry + L.T_ROW) * load64(load64(B + L.B_WORKER) + L.K_NUMBER)


@inline
def global_cell(B: int, kind: int, thread: int) -> int:
    return ((load64(B + L.B_LINEAR) + 1) << 32) | cell_of(B, kind) | thread


@inline
def untouched(place: int, row: int, count: int) -> int:
    """1 if neither of the two cells of each of `count` granules tells of anything."""
    told = 0
    for i in range(0, 8 * count, 8):
        told = told | load64(place + i) | load64(place + row + i)
    return told == 0


@inline
def quick_cells(B: int, entry: int, kind: int) -> int:
    """The worker's rows if a weak access of the filter may use them, else 0."""
    if load64(entry + L.T_HISTORY) == 0 or load64(B + L.B_EXACT) != 0 or kind != 0:
        return 0
    return cells(B, entry)


@inline
def global_reads(B: int, W: int, site: int, mask: int, size: int, granule: int, kind: int) -> int:
    """Legal reads by a warp of one allocation."""
    entry = entry_of(B, load64(W + L.W_ADDRESS + 8 * ctz(mask)))
    quick = 0
    if load64(entry + L.T_READS) == L.RECORDED:
        quick = quick_cells(B, entry, kind)
    row = load64(entry + L.T_ROW)
    rest = mask
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        address = load64(W + L.W_ADDRESS + 8 * lane)
        thread = load64(W + L.W_INDEX) * 32 + lane
        place = quick + 8 * ((address & L.OFFSET_MASK) // granule)
        if quick != 0 and untouched(place, row, size // granule) != 0:
            for i in range(0, 8 * (size // granule), 8):
                store64(place + row + i, global_cell(B, 0, thread))
        else:
            global_read(B, site, thread, address, size, kind)
    return 0


def global_read(B: int, site: int, thread: int, address: int, size: int, kind: int) -> int:
    """A legal read by one lane.  What nobody writes needs no record: it is kept from the next run on if someone does."""
    entry = entry_of(B, address)
    if load64(entry + L.T_READS) != L.RECORDED:
        if load64(entry + L.T_READS) == L.UNREAD:
            store64(entry + L.T_READS, L.READ_BLINDLY)
        if load64(entry + L.T_HISTORY) != 0:
            stop_for(B, L.UNRECORDED)
        return 0
    granule = load64(B + L.B_GLOBAL_GRANULE)
    offset = address & L.OFFSET_MASK
    first = offset // granule
    last = (offset + size - 1) // granule
    if load64(B + L.B_EXACT) != 0:
        for g in range(first, last + 1):
            head = load64(entry + L.T_HISTORY) + L.HEAD_BYTES * g
            exact_read(B, head, thread, site, kind, address - offset + g * granule, granule)
        return 0
    mine = global_cell(B, kind, thread)
    row = load64(entry + L.T_ROW)
    start = cells(B, entry)
    for place in range(start + 8 * first, start + 8 * last + 8, 8):
        written = load64(place)
        if written != 0 and (kind & L.STALE or clashes(B, written, mine)):
            stop_for(B, L.SUSPECTED)
        store64(place + row, blend(B, load64(place + row), mine))
    return 0


def global_write(B: int, W: int, site: int, lane: int, address: int, size: int, kind: int, width: int) -> int:
    """A legal write by one lane, before the bytes are there; `width` as for `race_write`."""
    entry = entry_of(B, address)
    if load64(entry + L.T_HISTORY) == 0:
        worker = load64(B + L.B_WORKER)
        store64(worker + L.K_ARGUMENT, lshr(address, L.ALLOCATION_SHIFT))
        invoke(load64(worker + L.K_FIRST_WRITE))
        if load64(entry + L.T_READS) == L.READ_BLINDLY:
            stop_for(B, L.UNRECORDED)
        if load64(entry + L.T_HISTORY) == 0:
            return 0
    granule = load64(B + L.B_GLOBAL_GRANULE)
    offset = address & L.OFFSET_MASK
    first = offset // granule
    last = (offset + size - 1) // granule
    thread = load64(W + L.W_INDEX) * 32 + lane
    if load64(B + L.B_EXACT) != 0:
        for g in range(first, last + 1):
            held = 0
            data = 0
            skipped = g * granule - offset
            if width != 0:
                held = load64(entry + L.T_DATA) + g * granule
                data = W + L.W_DATA + 256 * (skipped // width) + lane * width + skipped % width
            head = load64(entry + L.T_HISTORY) + L.HEAD_BYTES * g
            exact_write(B, head, thread, site, kind, address + skipped, granule, held, data, width)
        return 0
    mine = global_cell(B, kind, thread)
    row = load64(entry + L.T_ROW)
    start = cells(B, entry)
    for place in range(start + 8 * first, start + 8 * last + 8, 8):
        written = load64(place)
        read = load64(place + row)
        if (written != 0 and clashes(B, written, mine)) or (read != 0 and clashes(B, read, mine)):
            stop_for(B, L.SUSPECTED)
        if kind & L.STRONG:
            store64(place, blend(B, written, mine))
        else:
            store64(place, mine)
            store64(place + row, 0)
    return 0


@inline
def global_store(
    B: int,
    W: int,
    site: int,
    lane: int,
    address: int,
    quick: int,
    row: int,
    size: int,
    granule: int,
    kind: int,
    width: int,
) -> int:
    """`global_write`, without a call where `quick` cells (see `quick_cells`) are untouched."""
    place = quick + 8 * ((address & L.OFFSET_MASK) // granule)
    if quick != 0 and untouched(place, row, size // granule) != 0:
        for i in range(0, 8 * (size // granule), 8):
            store64(place + i, global_cell(B, 0, load64(W + L.W_INDEX) * 32 + lane))
    else:
        global_write(B, W, site, lane, address, size, kind, width)
    return 0


@inline
def watches_reads(B: int, W: int, mask: int) -> int:
    """0 if the warp reads an allocation whose reads are known to be left alone."""
    return load64(entry_of(B, load64(W + L.W_ADDRESS + 8 * ctz(mask))) + L.T_READS) != L.READ_BLINDLY
