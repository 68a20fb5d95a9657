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
    smax,
    store32,
    store64,
    suspicious_2,
    suspicious_4,
    suspicious_8,
)
from loadsparse.gpu.simulator.engine.records import report


def unordered(B: int, entry: int, thread: int) -> int:
    """1 if the access `entry` is not ordered before what `thread` does now; entries above FLOOR only."""
    other = entry & L.THREAD_MASK
    clock = entry >> L.CLOCK_SHIFT
    if entry == 0 or other == thread:
        return 0
    if clock < load32(load64(B + L.B_THREAD_FLOOR) + 4 * other):
        return 0
    order = load64(B + L.B_ORDER)
    if order != 0 and clock < load32(order + 4 * (thread * 1024 + other)):
        return 0
    return 1


@inline
def suspicious(cell: int, floor: int, thread: int) -> int:
    """The cheap test that almost every access passes."""
    return (cell & L.ENTRY_MASK) >= floor and (cell & L.THREAD_MASK) != thread


@inline
def any_suspicious(cells: int, count: int, floor: int, thread: int) -> int:
    """`suspicious` over a row of cells."""
    if count == 8:
        return suspicious_8(cells, floor, thread)
    if count == 4:
        return suspicious_4(cells, floor, thread)
    if count == 2:
        return suspicious_2(cells, floor, thread)
    return suspicious(load64(cells), floor, thread)


@inline
def race_read(B: int, site: int, thread: int, offset: int, size: int, granule: int, atomic: int) -> int:
    """A legal read of shared memory by one lane."""
    count = (size + granule - 1) // granule
    first = offset // granule
    floor = load64(B + L.B_FLOOR) << L.CLOCK_SHIFT
    cell = (site << L.SITE_SHIFT) | (load64(B + L.B_CLOCK) << L.CLOCK_SHIFT) | thread | atomic
    reads = load64(B + L.B_READS) + 8 * first
    older = load64(B + L.B_OLDER_READS) + 8 * first
    if any_suspicious(load64(B + L.B_WRITES) + 8 * first, count, floor, thread):
        read_conflicts(B, site, thread, first, count, atomic)
    if count == 8:
        push_reads_8(reads, older, cell, thread)
    elif count == 4:
        push_reads_4(reads, older, cell, thread)
    elif count == 2:
        push_reads_2(reads, older, cell, thread)
    else:
        newer = load64(reads)
        if (newer & L.THREAD_MASK) != thread or newer == 0:
            store64(older, newer)
        store64(reads, cell)
    return 0


def conflicts(B: int, cell: int, thread: int, atomic: int) -> int:
    """1 if the remembered access is by another thread, not ordered before, and not atomic like this one."""
    entry = cell & L.ENTRY_MASK
    if entry < load64(B + L.B_FLOOR) << L.CLOCK_SHIFT:
        return 0
    if entry & atomic != 0:
        return 0
    return unordered(B, entry, thread)


def read_conflicts(B: int, site: int, thread: int, first: int, count: int, atomic: int) -> int:
    """Reports the granules of a read whose last write conflicts."""
    granule = load64(B + L.B_GRANULE)
    for g in range(first, first + count):
        cell = load64(load64(B + L.B_WRITES) + 8 * g)
        if conflicts(B, cell, thread, atomic):
            report(B, L.RACE, site, cell >> L.SITE_SHIFT, thread, g * granule, granule, L.READ_WRITE)
    return 0


def same_bytes(W: int, lane: int, other: int, mask: int, place: int, size: int, granule: int, width: int, shared: int) -> int:
    """1 if `other`, an earlier lane of this very store, wrote the granule at `place`, and with equal bytes."""
    if other >= lane or (mask >> other) & 1 == 0:
        return 0
    start = load64(W + L.W_ADDRESS + 8 * other) & L.OFFSET_MASK
    if place < start or place >= start + size:
        return 0
    first = place - (load64(W + L.W_ADDRESS + 8 * lane) & L.OFFSET_MASK)
    for k in range(first, first + granule):
        byte = load8(W + L.W_DATA + 256 * (k // width) + lane * width + k % width)
        if byte != load8(shared + place + k - first):
            return 0
    return 1


@inline
def race_write(B: int, W: int, site: int, lane: int, mask: int, offset: int, size: int, granule: int, atomic: int, width: int) -> int:
    """A legal write; `width` is the element width of a plain store (lanes may write equal bytes), 0 otherwise."""
    thread = load64(W + L.W_INDEX) * 32 + lane
    count = (size + granule - 1) // granule
    first = offset // granule
    floor = load64(B + L.B_FLOOR) << L.CLOCK_SHIFT
    cell = (site << L.SITE_SHIFT) | (load64(B + L.B_CLOCK) << L.CLOCK_SHIFT) | thread | atomic
    writes = load64(B + L.B_WRITES) + 8 * first
    reads = load64(B + L.B_READS) + 8 * first
    older = load64(B + L.B_OLDER_READS) + 8 * first
    bad = any_suspicious(writes, count, floor, thread)
    bad = bad | any_suspicious(older, count, floor, thread)
    bad = bad | any_suspicious(reads, count, floor, thread)
    if bad != 0:
        write_conflicts(B, W, site, lane, mask, first, count, size, atomic, width)
    if count == 8:
        mark_writes_8(writes, reads, older, cell)
    elif count == 4:
        mark_writes_4(writes, reads, older, cell)
    elif count == 2:
        mark_writes_2(writes, reads, older, cell)
    else:
        store64(writes, cell)
        store64(reads, 0)
        store64(older, 0)
    return 0


def write_conflicts(B: int, W: int, site: int, lane: int, mask: int, first: int, count: int, size: int, atomic: int, width: int) -> int:
    """Reports, granule by granule, conflicts with the last write, then with the older and the newer read."""
    thread = load64(W + L.W_INDEX) * 32 + lane
    granule = load64(B + L.B_GRANULE)
    for g in range(first, first + count):
        cell = load64(load64(B + L.B_WRITES) + 8 * g)
        if conflicts(B, cell, thread, atomic):
            other = cell & L.THREAD_MASK
            twin = 0
            if width != 0 and other // 32 == thread // 32:
                shared = load64(B + L.B_SHARED)
                twin = same_bytes(W, lane, other % 32, mask, g * granule, size, granule, width, shared)
            if twin == 0:
                report(B, L.RACE, site, cell >> L.SITE_SHIFT, thread, g * granule, granule, L.WRITE_WRITE)
        cell = load64(load64(B + L.B_OLDER_READS) + 8 * g)
        if conflicts(B, cell, thread, atomic):
            report(B, L.RACE, site, cell >> L.SITE_SHIFT, thread, g * granule, granule, L.WRITE_READ)
        cell = load64(load64(B + L.B_READS) + 8 * g)
        if conflicts(B, cell, thread, atomic):
            report(B, L.RACE, site, cell >> L.SITE_SHIFT, thread, g * granule, granule, L.WRITE_READ)
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
