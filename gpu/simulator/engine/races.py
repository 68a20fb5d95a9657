"""Run-time: happens-before races in shared memory.

A granule remembers its last write and its last two reads by different threads since; an access is a clock and a
thread.  The clock of a block ticks at every synchronisation.  `FLOOR` is the clock below which everything is ordered
before everyone; `THREAD_FLOOR[u]` the clock below which accesses of thread u are ordered before all threads that
still run; `ORDER[t][u]`, kept only for kernels with partial synchronisation, the clock below which u's accesses are
ordered before thread t.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.native import inline, load8, load16, load32, load64, smax, store16, store32, store64
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
def suspicious(entry: int, floor: int, thread: int) -> int:
    """The cheap test that almost every access passes."""
    return entry >= floor and (entry & L.THREAD_MASK) != thread


@inline
def race_read(B: int, site: int, thread: int, offset: int, size: int, granule: int, atomic: int) -> int:
    floor = load64(B + L.B_FLOOR) << L.CLOCK_SHIFT
    now = (load64(B + L.B_CLOCK) << L.CLOCK_SHIFT) | thread | atomic
    writes = load64(B + L.B_WRITES)
    reads = load64(B + L.B_READS)
    older = load64(B + L.B_OLDER_READS)
    sites = load64(B + L.B_READ_SITES)
    older_sites = load64(B + L.B_OLDER_READ_SITES)
    for g in range(offset // granule, (offset + size - 1) // granule + 1):
        entry = load32(writes + 4 * g)
        if suspicious(entry, floor, thread):
            if (entry & atomic) == 0 and unordered(B, entry, thread):
                other = load16(load64(B + L.B_WRITE_SITES) + 2 * g)
                report(B, L.RACE, site, other, thread, g * granule, granule, L.READ_WRITE)
        newer = load32(reads + 4 * g)
        if (newer & L.THREAD_MASK) != thread or newer == 0:
            store32(older + 4 * g, newer)
            store16(older_sites + 2 * g, load16(sites + 2 * g))
        store32(reads + 4 * g, now)
        store16(sites + 2 * g, site)
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
    """`width` is the element width of a plain store (its lanes may write equal bytes), 0 otherwise."""
    thread = load64(W + L.W_INDEX) * 32 + lane
    floor = load64(B + L.B_FLOOR) << L.CLOCK_SHIFT
    now = (load64(B + L.B_CLOCK) << L.CLOCK_SHIFT) | thread | atomic
    writes = load64(B + L.B_WRITES)
    reads = load64(B + L.B_READS)
    older = load64(B + L.B_OLDER_READS)
    sites = load64(B + L.B_WRITE_SITES)
    for g in range(offset // granule, (offset + size - 1) // granule + 1):
        entry = load32(writes + 4 * g)
        if suspicious(entry, floor, thread):
            race_write_check(B, W, site, lane, mask, entry, g, size, granule, atomic, width)
        entry = load32(older + 4 * g)
        if suspicious(entry, floor, thread):
            if (entry & atomic) == 0 and unordered(B, entry, thread):
                other = load16(load64(B + L.B_OLDER_READ_SITES) + 2 * g)
                report(B, L.RACE, site, other, thread, g * granule, granule, L.WRITE_READ)
        entry = load32(reads + 4 * g)
        if suspicious(entry, floor, thread):
            if (entry & atomic) == 0 and unordered(B, entry, thread):
                other = load16(load64(B + L.B_READ_SITES) + 2 * g)
                report(B, L.RACE, site, other, thread, g * granule, granule, L.WRITE_READ)
        store32(writes + 4 * g, now)
        store16(sites + 2 * g, site)
        store32(reads + 4 * g, 0)
        store32(older + 4 * g, 0)
    return 0


def race_write_check(B: int, W: int, site: int, lane: int, mask: int, entry: int, g: int, size: int, granule: int, atomic: int, width: int) -> int:
    thread = load64(W + L.W_INDEX) * 32 + lane
    if (entry & atomic) != 0 or unordered(B, entry, thread) == 0:
        return 0
    other = entry & L.THREAD_MASK
    if width != 0 and other // 32 == thread // 32:
        if same_bytes(W, lane, other % 32, mask, g * granule, size, granule, width, load64(B + L.B_SHARED)):
            return 0
    report(B, L.RACE, site, load16(load64(B + L.B_WRITE_SITES) + 2 * g), thread, g * granule, granule, L.WRITE_WRITE)
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
