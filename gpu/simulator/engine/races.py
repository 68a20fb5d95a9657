"""Run-time: the filter for races, which every access to shared and global memory passes.

A granule has two cells: its last write, and its reads since.  A cell is a clock and a thread; MANY says that others did
the same since the last barrier, SEVERAL that blocks did.  That is enough never to miss a conflict, and little enough to
be quick; what it suspects is settled by another run that keeps the whole history (`history.py`).
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.history import exact_read, exact_write, same_bytes
from loadsparse.gpu.simulator.engine.native import (
    busy_2,
    busy_4,
    busy_8,
    inline,
    load32,
    load64,
    lshr,
    mark_writes_2,
    mark_writes_4,
    mark_writes_8,
    note_reads_2,
    note_reads_4,
    note_reads_8,
    store32,
    store64,
)
from loadsparse.gpu.simulator.engine.order import unordered
from loadsparse.gpu.simulator.engine.records import doubt


def stop_for(B: int, reason: int) -> int:
    """Ends this run, unless it is the one that keeps the whole history; another one follows."""
    if reason == L.UNRECORDED or load64(B + L.B_EXACT) == 0:
        doubt(B, reason)
    return 0


@inline
def floor_of(B: int) -> int:
    """Cells below this are ordered before everything that the block does now."""
    return (load64(B + L.B_FLOOR) - load64(B + L.B_CLOCK_BASE)) << L.CELL_CLOCK


@inline
def cell_of(B: int, kind: int) -> int:
    """An access by thread 0, now."""
    return ((load64(B + L.B_CLOCK) - load64(B + L.B_CLOCK_BASE)) << L.CELL_CLOCK) | (kind & L.STRONG)


@inline
def others(cell: int, mine: int) -> int:
    """Non-zero if a cell tells of more than the thread that `mine` is of."""
    return (cell ^ mine) & (L.MANY | L.THREAD_MASK)


def clashes(B: int, cell: int, mine: int) -> int:
    """1 if an access that a cell (with its block) tells of may conflict with `mine`."""
    strong = cell & mine & L.STRONG
    if lshr(cell ^ mine, 32) != 0:
        return strong == 0 or load64(load64(B + L.B_WORKER) + L.K_NARROW) != 0
    low = cell & L.LOW
    if low < floor_of(B) or others(low, mine) == 0 or strong != 0:
        return 0
    if low & L.MANY:
        return 1
    clock = (low >> L.CELL_CLOCK) + load64(B + L.B_CLOCK_BASE)
    return unordered(B, low & L.THREAD_MASK, clock, mine & L.THREAD_MASK)


def blend(B: int, cell: int, mine: int) -> int:
    """The cell that tells of an access and of those before it."""
    if cell == 0:
        return mine
    strong = cell & mine & L.STRONG
    rest = mine & ~L.STRONG
    if lshr(cell ^ mine, 32) != 0:
        return L.SEVERAL | L.MANY | (rest & L.LOW) | strong
    low = cell & L.LOW
    if low >= floor_of(B) and others(low, mine) != 0:
        rest = rest | L.MANY
    return rest | strong


# shared memory


@inline
def quick_read(floor: int, mine: int, first: int, count: int) -> int:
    """Notes a weak read of `count` granules; 1 if others wrote one of them, which `read_suspects` may settle later: a
    read leaves the cells of writes alone."""
    if count == 8:
        return note_reads_8(first, floor, mine)
    if count == 4:
        return note_reads_4(first, floor, mine)
    if count == 2:
        return note_reads_2(first, floor, mine)
    suspicious = 0
    for pair in range(first, first + L.CELL_PAIR * count, L.CELL_PAIR):
        last = load32(pair)
        if last >= floor and others(last, mine) != 0:
            suspicious = 1
        note = load32(pair + L.CELL_READS)
        many = L.MANY if note >= floor and others(note, mine) != 0 else 0
        store32(pair + L.CELL_READS, mine | many)
    return suspicious


def read_suspects(B: int, first: int, mine: int, count: int) -> int:
    for pair in range(first, first + L.CELL_PAIR * count, L.CELL_PAIR):
        if clashes(B, load32(pair), mine):
            stop_for(B, L.SUSPECTED)
    return 0


@inline
def quick_write(floor: int, mine: int, first: int, count: int) -> int:
    """Marks a weak write of `count` granules and returns 1, unless a cell tells of others: then 0, and nothing is done."""
    if count == 8:
        if busy_8(first, floor, mine) != 0:
            return 0
        mark_writes_8(first, mine)
    elif count == 4:
        if busy_4(first, floor, mine) != 0:
            return 0
        mark_writes_4(first, mine)
    elif count == 2:
        if busy_2(first, floor, mine) != 0:
            return 0
        mark_writes_2(first, mine)
    elif count == 1:
        both = load64(first)
        last = both & L.LOW
        note = lshr(both, 32)
        if (last >= floor and others(last, mine) != 0) or (note >= floor and others(note, mine) != 0):
            return 0
        store64(first, mine)
    else:
        suspicious = 0
        for pair in range(first, first + L.CELL_PAIR * count, L.CELL_PAIR):
            last = load32(pair)
            note = load32(pair + L.CELL_READS)
            if (last >= floor and others(last, mine) != 0) or (note >= floor and others(note, mine) != 0):
                suspicious = 1
        if suspicious != 0:
            return 0
        for pair in range(first, first + L.CELL_PAIR * count, L.CELL_PAIR):
            store64(pair, mine)
    return 1


@inline
def race_write(
    B: int,
    W: int,
    floor: int,
    cell: int,
    cells: int,
    lane: int,
    mask: int,
    offset: int,
    size: int,
    granule: int,
    width: int,
) -> int:
    """A legal weak write by one lane, before the bytes are there; `width` is the element width of a store (of the
    lanes of `mask`), or 0."""
    count = (size + granule - 1) // granule
    mine = cell | (load64(W + L.W_INDEX) * 32 + lane)
    first = cells + L.CELL_PAIR * (offset // granule)
    if quick_write(floor, mine, first, count) == 0:
        write_suspects(B, W, first, mine, lane, mask, offset, size, granule, width)
        for pair in range(first, first + L.CELL_PAIR * count, L.CELL_PAIR):
            store64(pair, mine)
    return 0


def write_suspects(
    B: int, W: int, first: int, mine: int, lane: int, mask: int, offset: int, size: int, granule: int, width: int
) -> int:
    """Lanes of one store that leave the same bytes (`found = 1`) are common, and no race."""
    for k in range(0, size, granule):
        pair = first + L.CELL_PAIR * (k // granule)
        last = load32(pair)
        if clashes(B, load32(pair + L.CELL_READS), mine):
            stop_for(B, L.SUSPECTED)
        if clashes(B, last, mine) and twin(B, W, last, lane, mask, offset, size, k, granule, width) == 0:
            stop_for(B, L.SUSPECTED)
    return 0


def twin(
    B: int, W: int, last: int, lane: int, mask: int, offset: int, size: int, k: int, granule: int, width: int
) -> int:
    """1 if the granule at byte `k` of a lane's store was last written by an earlier lane of it, with the same bytes."""
    other = last & L.THREAD_MASK
    if width == 0 or last & L.MANY or other // 32 != load64(W + L.W_INDEX):
        return 0
    other = other % 32
    if other >= lane or (mask >> other) & 1 == 0:
        return 0
    start = load64(W + L.W_ADDRESS + 8 * other) & L.OFFSET_MASK
    if offset + k < start or offset + k >= start + size:
        return 0
    data = W + L.W_DATA + 256 * (k // width) + lane * width + k % width
    return same_bytes(load64(B + L.B_SHARED) + offset + k, data, granule, width)


def race_strong(B: int, thread: int, offset: int, size: int, kind: int, writing: int) -> int:
    """A legal strong access of shared memory by one lane."""
    granule = load64(B + L.B_GRANULE)
    floor = floor_of(B)
    mine = cell_of(B, kind) | thread
    first = load64(B + L.B_CELLS) + L.CELL_PAIR * (offset // granule)
    for pair in range(first, first + L.CELL_PAIR * (size // granule), L.CELL_PAIR):
        last = load32(pair)
        note = load32(pair + L.CELL_READS)
        if last < floor:
            last = 0
        if note < floor:
            note = 0
        if clashes(B, last, mine) or (writing and clashes(B, note, mine)):
            stop_for(B, L.SUSPECTED)
        if writing:
            store32(pair, blend(B, last, mine))
        else:
            store32(pair + L.CELL_READS, blend(B, note, mine))
    return 0


@inline
def shared_head(B: int, offset: int, granule: int) -> int:
    return load64(B + L.B_HEADS) + L.HEAD_BYTES * (offset // granule)


def shared_read(B: int, site: int, thread: int, offset: int, size: int, kind: int) -> int:
    """A legal read by one lane, in any mode."""
    granule = load64(B + L.B_GRANULE)
    if load64(B + L.B_EXACT) != 0:
        for place in range(offset, offset + size, granule):
            exact_read(B, shared_head(B, place, granule), thread, site, kind, place, granule)
        return 0
    if kind & L.STRONG:
        return race_strong(B, thread, offset, size, kind, 0)
    first = load64(B + L.B_CELLS) + L.CELL_PAIR * (offset // granule)
    mine = cell_of(B, 0) | thread
    if quick_read(floor_of(B), mine, first, size // granule) != 0:
        read_suspects(B, first, mine, size // granule)
    return 0


def shared_write(B: int, W: int, site: int, lane: int, mask: int, offset: int, size: int, kind: int, width: int) -> int:
    """A legal write by one lane, in any mode."""
    granule = load64(B + L.B_GRANULE)
    thread = load64(W + L.W_INDEX) * 32 + lane
    if load64(B + L.B_EXACT) != 0:
        for k in range(0, size, granule):
            held = 0
            data = 0
            if width != 0:
                held = load64(B + L.B_SHARED) + offset + k
                data = W + L.W_DATA + 256 * (k // width) + lane * width + k % width
            head = shared_head(B, offset + k, granule)
            exact_write(B, head, thread, site, kind, offset + k, granule, held, data, width)
        return 0
    if kind & L.STRONG:
        return race_strong(B, thread, offset, size, kind, 1)
    first = load64(B + L.B_CELLS) + L.CELL_PAIR * (offset // granule)
    mine = cell_of(B, 0) | thread
    write_suspects(B, W, first, mine, lane, mask, offset, size, granule, width)
    for pair in range(first, first + L.CELL_PAIR * (size // granule), L.CELL_PAIR):
        store64(pair, mine)
    return 0
