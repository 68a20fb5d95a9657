"""Run-time: happens-before races in shared memory.

A granule remembers its last write and its last two reads by different threads since; an access is a clock and a
thread.  The clock of a block ticks at every synchronisation.  `FLOOR` is the clock below which everything is ordered
before everyone; `THREAD_FLOOR[u]` the clock below which accesses of thread u are ordered before all threads that
still run; `ORDER[t][u]`, kept only for kernels with partial synchronisation, the clock below which u's accesses are
ordered before thread t.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.native import (
    inline,
    load8,
    load32,
    load64,
    mark_writes_2,
    mark_writes_4,
    mark_writes_8,
    push_reads_2,
    push_reads_4,
    push_reads_8,
    recent_2,
    recent_4,
    recent_8,
    smax,
    store32,
    store64,
    suspicious_2,
    suspicious_4,
    suspicious_8,
)
from loadsparse.gpu.simulator.engine.records import report


def unordered(B: int, cell: int, thread: int) -> int:
    """1 if the access that a cell remembers is by another thread and not ordered before what `thread` does now."""
    other = (cell >> L.THREAD_SHIFT) & L.THREAD_MASK
    clock = cell >> L.CLOCK_SHIFT
    if clock < load64(B + L.B_FLOOR) or other == thread:
        return 0
    if clock < load32(load64(B + L.B_THREAD_FLOOR) + 4 * other):
        return 0
    order = load64(B + L.B_ORDER)
    if order != 0 and clock < load32(order + 4 * (thread * 1024 + other)):
        return 0
    return 1


@inline
def floor_of(B: int) -> int:
    """Cells below this are ordered before everything that happens now."""
    return load64(B + L.B_FLOOR) << L.CLOCK_SHIFT


@inline
def cell_of(B: int, site: int, atomic: int) -> int:
    """An access by thread 0, now."""
    return (load64(B + L.B_CLOCK) << L.CLOCK_SHIFT) | atomic | site


@inline
def suspicious(cell: int, floor: int, thread: int) -> int:
    """The cheap test that almost every access passes."""
    return cell >= floor and ((cell >> L.THREAD_SHIFT) & L.THREAD_MASK) != thread


@inline
def race_read(
    B: int,
    floor: int,
    cell: int,
    writes: int,
    reads: int,
    older: int,
    thread: int,
    offset: int,
    size: int,
    granule: int,
) -> int:
    """A legal read of shared memory by one lane; `cell` is `cell_of`, the rows are the block's."""
    count = (size + granule - 1) // granule
    first = offset // granule
    mine = cell | (thread << L.THREAD_SHIFT)
    w = writes + 8 * first
    r = reads + 8 * first
    o = older + 8 * first
    if count == 8:
        if suspicious_8(w, floor, thread) != 0:
            read_conflicts(B, mine, first, count)
        push_reads_8(r, o, mine, thread)
    elif count == 4:
        if suspicious_4(w, floor, thread) != 0:
            read_conflicts(B, mine, first, count)
        push_reads_4(r, o, mine, thread)
    elif count == 2:
        if suspicious_2(w, floor, thread) != 0:
            read_conflicts(B, mine, first, count)
        push_reads_2(r, o, mine, thread)
    else:
        for i in range(count):
            if suspicious(load64(w + 8 * i), floor, thread):
                read_conflicts(B, mine, first + i, 1)
            newer = load64(r + 8 * i)
            if ((newer >> L.THREAD_SHIFT) & L.THREAD_MASK) != thread or newer == 0:
                store64(o + 8 * i, newer)
            store64(r + 8 * i, mine)
    return 0


def conflict(B: int, cell: int, mine: int) -> int:
    """1 if two accesses conflict: unordered, and not both atomic."""
    if cell & mine & L.ATOMIC_BIT != 0:
        return 0
    return unordered(B, cell, (mine >> L.THREAD_SHIFT) & L.THREAD_MASK)


def clash(B: int, cell: int, mine: int, g: int, detail: int) -> int:
    """Reports the race of two accesses of granule `g`."""
    thread = (mine >> L.THREAD_SHIFT) & L.THREAD_MASK
    granule = load64(B + L.B_GRANULE)
    return report(B, L.RACE, mine & L.SITE_MASK, cell & L.SITE_MASK, thread, g * granule, granule, detail)


def read_conflicts(B: int, mine: int, first: int, count: int) -> int:
    """Reports the granules of a read whose last write conflicts."""
    for g in range(first, first + count):
        cell = load64(load64(B + L.B_WRITES) + 8 * g)
        if conflict(B, cell, mine):
            clash(B, cell, mine, g, L.READ_WRITE)
    return 0


def same_bytes(B: int, W: int, lane: int, other: int, mask: int, place: int, size: int, width: int) -> int:
    """1 if `other`, an earlier lane of this very store, wrote the granule at `place`, and with equal bytes."""
    if other >= lane or (mask >> other) & 1 == 0:
        return 0
    start = load64(W + L.W_ADDRESS + 8 * other) & L.OFFSET_MASK
    if place < start or place >= start + size:
        return 0
    first = place - (load64(W + L.W_ADDRESS + 8 * lane) & L.OFFSET_MASK)
    shared = load64(B + L.B_SHARED)
    for k in range(first, first + load64(B + L.B_GRANULE)):
        byte = load8(W + L.W_DATA + 256 * (k // width) + lane * width + k % width)
        if byte != load8(shared + place + k - first):
            return 0
    return 1


@inline
def race_write(
    B: int,
    W: int,
    floor: int,
    cell: int,
    writes: int,
    reads: int,
    older: int,
    lane: int,
    mask: int,
    offset: int,
    size: int,
    granule: int,
    width: int,
) -> int:
    """A legal write by one lane; `width` is the element width of a plain store (equal bytes do not race), or 0."""
    thread = load64(W + L.W_INDEX) * 32 + lane
    count = (size + granule - 1) // granule
    first = offset // granule
    mine = cell | (thread << L.THREAD_SHIFT)
    w = writes + 8 * first
    r = reads + 8 * first
    o = older + 8 * first
    if count == 8:
        if recent_8(w, r, o, floor) != 0:
            write_conflicts(B, W, mine, lane, mask, first, count, size, width)
        mark_writes_8(w, r, o, mine)
    elif count == 4:
        if recent_4(w, r, o, floor) != 0:
            write_conflicts(B, W, mine, lane, mask, first, count, size, width)
        mark_writes_4(w, r, o, mine)
    elif count == 2:
        if recent_2(w, r, o, floor) != 0:
            write_conflicts(B, W, mine, lane, mask, first, count, size, width)
        mark_writes_2(w, r, o, mine)
    else:
        for i in range(count):
            last = load64(r + 8 * i)
            if smax(load64(w + 8 * i), last) >= floor or load64(o + 8 * i) >= floor:
                write_conflicts(B, W, mine, lane, mask, first + i, 1, size, width)
            store64(w + 8 * i, mine)
            if last != 0:
                store64(r + 8 * i, 0)
                store64(o + 8 * i, 0)
    return 0


def write_conflicts(
    B: int, W: int, mine: int, lane: int, mask: int, first: int, count: int, size: int, width: int
) -> int:
    """Reports, granule by granule, conflicts with the last write, then with the older and the newer read."""
    thread = (mine >> L.THREAD_SHIFT) & L.THREAD_MASK
    granule = load64(B + L.B_GRANULE)
    for g in range(first, first + count):
        cell = load64(load64(B + L.B_WRITES) + 8 * g)
        if conflict(B, cell, mine):
            other = (cell >> L.THREAD_SHIFT) & L.THREAD_MASK
            twin = 0
            if width != 0 and other // 32 == thread // 32:
                twin = same_bytes(B, W, lane, other % 32, mask, g * granule, size, width)
            if twin == 0:
                clash(B, cell, mine, g, L.WRITE_WRITE)
        cell = load64(load64(B + L.B_OLDER_READS) + 8 * g)
        if conflict(B, cell, mine):
            clash(B, cell, mine, g, L.WRITE_READ)
        cell = load64(load64(B + L.B_READS) + 8 * g)
        if conflict(B, cell, mine):
            clash(B, cell, mine, g, L.WRITE_READ)
    return 0


def synchronise_all(B: int) -> int:
    """A barrier of every thread of the block: all earlier accesses are ordered."""
    clock = load64(B + L.B_CLOCK) + 1
    store64(B + L.B_CLOCK, clock)
    store64(B + L.B_FLOOR, clock)
    return 0


def synchronise_live(B: int, warp_bytes: int) -> int:
    """A barrier of every thread that still runs, some having exited: what any of them knew, all know now."""
    clock = load64(B + L.B_CLOCK) + 1
    store64(B + L.B_CLOCK, clock)
    floors = load64(B + L.B_THREAD_FLOOR)
    order = load64(B + L.B_ORDER)
    threads = load64(B + L.B_WARP_COUNT) * 32
    for thread in range(threads):
        if alive(B, warp_bytes, thread):
            store32(floors + 4 * thread, clock)
        elif order != 0:
            for observer in range(threads):
                if alive(B, warp_bytes, observer):
                    known = load32(order + 4 * (observer * 1024 + thread))
                    store32(floors + 4 * thread, smax(load32(floors + 4 * thread), known))
    return 0


@inline
def alive(B: int, warp_bytes: int, thread: int) -> int:
    live = load32(load64(B + L.B_WARPS) + thread // 32 * warp_bytes + L.W_LIVE)
    return (live >> (thread & 31)) & 1


def join(B: int, into: int, source: int) -> int:
    """What is ordered before thread `source` becomes ordered before thread `into`."""
    order = load64(B + L.B_ORDER)
    for u in range(load64(B + L.B_WARP_COUNT) * 32):
        here = order + 4 * (into * 1024 + u)
        store32(here, smax(load32(here), load32(order + 4 * (source * 1024 + u))))
    return 0


@inline
def came(B: int, warp_bytes: int, number: int, thread: int) -> int:
    """1 if the thread arrived at this barrier with its warp (it may have exited since)."""
    lanes = load32(load64(B + L.B_WARPS) + thread // 32 * warp_bytes + L.W_ARRIVALS + 4 * number)
    return (lanes >> (thread & 31)) & 1


def synchronise_some(B: int, warp_bytes: int, number: int, arrived: int, waiting: int) -> int:
    """A barrier of some warps: those that wait learn everything that those that arrived knew or did."""
    clock = load64(B + L.B_CLOCK) + 1
    store64(B + L.B_CLOCK, clock)
    order = load64(B + L.B_ORDER)
    threads = load64(B + L.B_WARP_COUNT) * 32
    for u in range(threads):
        known = 0
        for thread in range(threads):
            if (arrived >> (thread // 32)) & 1 != 0 and came(B, warp_bytes, number, thread):
                known = smax(known, load32(order + 4 * (thread * 1024 + u)))
        if (arrived >> (u // 32)) & 1 != 0 and came(B, warp_bytes, number, u):
            known = clock
        for thread in range(threads):
            if (waiting >> (thread // 32)) & 1 != 0 and alive(B, warp_bytes, thread):
                place = order + 4 * (thread * 1024 + u)
                store32(place, smax(load32(place), known))
    return 0
