"""Run-time: what is ordered before what (SEMANTICS.md, "Races").

The clock of a block ticks at every synchronisation.  `FLOOR` is the clock below which everything is ordered before
everyone; `THREAD_FLOOR[u]` the clock below which accesses of thread u are ordered before all threads that still run;
`ORDER[t][u]`, kept only for kernels with partial synchronisation, the clock below which u's accesses are ordered
before thread t.  What a thread knows of other blocks is a view (`views.py`).
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.native import (
    copy,
    ctz,
    fill,
    inline,
    load32,
    load64,
    smax,
    store32,
    store64,
)
from loadsparse.gpu.simulator.engine.views import both, find, message_at, own_view


@inline
def row_of(B: int, thread: int) -> int:
    """The thread's row of ORDER."""
    return load64(B + L.B_ORDER) + 4 * thread * 32 * load64(B + L.B_WARP_COUNT)


@inline
def view_of(B: int, thread: int) -> int:
    """Where the thread's views are kept."""
    return load64(B + L.B_VIEWS) + L.V_BYTES * thread


def unordered(B: int, other: int, clock: int, thread: int) -> int:
    """1 unless what thread `other` of the same block did at its `clock` comes before what `thread` does now."""
    if clock < load64(B + L.B_FLOOR) or other == thread:
        return 0
    if clock < load32(load64(B + L.B_THREAD_FLOOR) + 4 * other):
        return 0
    if load64(B + L.B_ORDER) != 0 and clock < load32(row_of(B, thread) + 4 * other):
        return 0
    return 1


def unordered_foreign(B: int, block: int, other: int, clock: int, thread: int) -> int:
    """The same for a thread of another block."""
    if load64(B + L.B_VIEWS) == 0:
        return 1
    known = find(B, load64(view_of(B, thread) + L.V_KNOWN), block)
    return known == 0 or clock >= load32(known + 4 * other)


@inline
def tick(B: int) -> int:
    clock = load64(B + L.B_CLOCK) + 1
    store64(B + L.B_CLOCK, clock)
    return clock


def synchronise_all(B: int) -> int:
    """A barrier of every thread of the block: all earlier accesses are ordered."""
    clock = tick(B)
    if clock - load64(B + L.B_CLOCK_BASE) >= L.CLOCK_LIMIT:
        forget_cells(B)
    store64(B + L.B_FLOOR, clock)
    return 0


def forget_cells(B: int) -> int:
    """Clears the filter's cells of shared memory before their clock would overflow."""
    if load64(B + L.B_CELLS) != 0:
        fill(load64(B + L.B_CELLS), 0, L.CELL_PAIR * (load64(B + L.B_SHARED_BYTES) // load64(B + L.B_GRANULE)))
    store64(B + L.B_CLOCK_BASE, load64(B + L.B_CLOCK) - 1)
    return 0


def synchronise_live(B: int, warp_bytes: int) -> int:
    """A barrier of every thread that still runs, some having exited: what any of them knew, all know now."""
    clock = tick(B)
    floors = load64(B + L.B_THREAD_FLOOR)
    partial = load64(B + L.B_ORDER)
    threads = load64(B + L.B_WARP_COUNT) * 32
    for thread in range(threads):
        if alive(B, warp_bytes, thread):
            store32(floors + 4 * thread, clock)
        elif partial != 0:
            for observer in range(threads):
                if alive(B, warp_bytes, observer):
                    known = load32(row_of(B, observer) + 4 * thread)
                    store32(floors + 4 * thread, smax(load32(floors + 4 * thread), known))
    return 0


@inline
def alive(B: int, warp_bytes: int, thread: int) -> int:
    live = load32(load64(B + L.B_WARPS) + thread // 32 * warp_bytes + L.W_LIVE)
    return (live >> (thread & 31)) & 1


def join(B: int, into: int, source: int) -> int:
    """What is ordered before thread `source` becomes ordered before thread `into`."""
    raise_row(B, into, row_of(B, source))
    if load64(B + L.B_VIEWS) != 0:
        place = view_of(B, into) + L.V_KNOWN
        store64(place, both(B, load64(place), load64(view_of(B, source) + L.V_KNOWN)))
    return 0


def raise_row(B: int, thread: int, clocks: int) -> int:
    """The thread's row of ORDER is at least `clocks`."""
    row = row_of(B, thread)
    for u in range(load64(B + L.B_WARP_COUNT) * 32):
        store32(row + 4 * u, smax(load32(row + 4 * u), load32(clocks + 4 * u)))
    return 0


@inline
def came(B: int, warp_bytes: int, number: int, thread: int) -> int:
    """1 if the thread arrived at this barrier with its warp (it may have exited since)."""
    lanes = load32(load64(B + L.B_WARPS) + thread // 32 * warp_bytes + L.W_ARRIVALS + 4 * number)
    return (lanes >> (thread & 31)) & 1


def synchronise_some(B: int, warp_bytes: int, number: int, arrived: int, waiting: int) -> int:
    """A barrier of some warps: those that wait learn everything that those that arrived knew or did."""
    clock = tick(B)
    threads = load64(B + L.B_WARP_COUNT) * 32
    for u in range(threads):
        known = 0
        for thread in range(threads):
            if (arrived >> (thread // 32)) & 1 != 0 and came(B, warp_bytes, number, thread):
                known = smax(known, load32(row_of(B, thread) + 4 * u))
        if (arrived >> (u // 32)) & 1 != 0 and came(B, warp_bytes, number, u):
            known = clock
            if (waiting >> (u // 32)) & 1 == 0:
                known = load32(load64(B + L.B_WARPS) + u // 32 * warp_bytes + L.W_ARRIVED_AT + 4 * number)
        for thread in range(threads):
            if (waiting >> (thread // 32)) & 1 != 0 and alive(B, warp_bytes, thread):
                place = row_of(B, thread) + 4 * u
                store32(place, smax(load32(place), known))
    return 0


def share_views(B: int, warp_bytes: int, number: int, arrived: int, waiting: int) -> int:
    """At a barrier those that wait learn what those that arrived knew of other blocks."""
    known = 0
    threads = load64(B + L.B_WARP_COUNT) * 32
    for thread in range(threads):
        if (arrived >> (thread // 32)) & 1 != 0 and came(B, warp_bytes, number, thread):
            known = both(B, known, load64(view_of(B, thread) + L.V_KNOWN))
    for thread in range(threads):
        if (waiting >> (thread // 32)) & 1 != 0 and alive(B, warp_bytes, thread):
            place = view_of(B, thread) + L.V_KNOWN
            store64(place, both(B, load64(place), known))
    return 0


def synchronise_lanes(B: int, W: int, mask: int) -> int:
    """bar.warp.sync: the members' accesses are ordered among them."""
    base = load64(W + L.W_INDEX) * 32
    first = base + ctz(mask)
    clock = tick(B)
    rest = mask & (mask - 1)
    while rest != 0:
        join(B, first, base + ctz(rest))
        rest = rest & (rest - 1)
    rest = mask
    while rest != 0:
        store32(row_of(B, first) + 4 * (base + ctz(rest)), clock)
        rest = rest & (rest - 1)
    rest = mask & (mask - 1)
    while rest != 0:
        thread = base + ctz(rest)
        rest = rest & (rest - 1)
        copy(row_of(B, thread), row_of(B, first), 128 * load64(B + L.B_WARP_COUNT))
        if load64(B + L.B_VIEWS) != 0:
            store64(view_of(B, thread) + L.V_KNOWN, load64(view_of(B, first) + L.V_KNOWN))
    return 0


# strong accesses and fences, in kernels whose strong accesses order


def learn(B: int, thread: int, view: int) -> int:
    """The thread is ordered after all that a view knows."""
    if view != 0:
        own = find(B, view, load64(B + L.B_LINEAR))
        if own != 0:
            raise_row(B, thread, own)
        place = view_of(B, thread) + L.V_KNOWN
        store64(place, both(B, load64(place), view))
    return 0


def snapshot(B: int, thread: int) -> int:
    """A view of all that comes before what the thread does next."""
    return own_view(B, thread, load64(view_of(B, thread) + L.V_KNOWN), row_of(B, thread))


def acquire_seen(B: int, thread: int, slot: int) -> int:
    """A fence acquires what relaxed reads saw."""
    place = view_of(B, thread) + slot
    learn(B, thread, load64(place))
    store64(place, 0)
    return 0


def fence_lanes(B: int, W: int, mask: int, wide: int) -> int:
    """membar, fence: later strong writes release what came before, earlier strong reads have acquired."""
    rest = mask
    while rest != 0:
        thread = load64(W + L.W_INDEX) * 32 + ctz(rest)
        rest = rest & (rest - 1)
        acquire_seen(B, thread, L.V_SEEN_BLOCK)
        if wide:
            acquire_seen(B, thread, L.V_SEEN)
        view = snapshot(B, thread)
        store64(view_of(B, thread) + L.V_FENCED_BLOCK, view)
        if wide:
            store64(view_of(B, thread) + L.V_FENCED, view)
    tick(B)
    return 0


def order_lanes(
    B: int, W: int, mask: int, space: int, acquire: int, release: int, reads: int, writes: int, wide: int
) -> int:
    """The ordering effect of strong accesses, lane by lane; addresses lie in W_ADDRESS."""
    rest = mask
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        address = load64(W + L.W_ADDRESS + 8 * lane)
        if space == L.SHARED:
            address = address | (1 << L.ALLOCATION_SHIFT)
        number = address >> L.ALLOCATION_SHIFT
        if number == 2 or number == 4:
            continue
        thread = load64(W + L.W_INDEX) * 32 + lane
        through(B, thread, address, load64(B + L.B_LINEAR), acquire, release, reads, writes, L.V_SEEN_BLOCK)
        if wide and number != 1:
            through(B, thread, address, L.EVERYONE, acquire, release, reads, writes, L.V_SEEN)
        if release:
            tick(B)
    return 0


def through(
    B: int, thread: int, address: int, reader: int, acquire: int, release: int, reads: int, writes: int, seen: int
) -> int:
    """Reads and sends messages at an address that `reader` (a block, or everyone) may read."""
    if reads:
        message = message_at(B, address, reader, 0)
        if message != 0 and load64(message) != 0:
            if acquire:
                learn(B, thread, load64(message))
            else:
                place = view_of(B, thread) + seen
                store64(place, both(B, load64(place), load64(message)))
    if writes:
        sent = load64(view_of(B, thread) + (L.V_FENCED if reader == L.EVERYONE else L.V_FENCED_BLOCK))
        if release:
            sent = snapshot(B, thread)
        if sent != 0:
            message = message_at(B, address, reader, 1)
            store64(message, both(B, load64(message), sent))
    return 0
