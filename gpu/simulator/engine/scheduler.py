"""Run-time: blocks, warps in turns, block barriers (SEMANTICS.md, "Warps and blocks" and "Barriers")."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.copies import abandon
from loadsparse.gpu.simulator.engine.history import forget_shared
from loadsparse.gpu.simulator.engine.native import (
    ctz,
    fill,
    inline,
    invoke,
    invoke2,
    load32,
    load64,
    popcount,
    store32,
    store64,
)
from loadsparse.gpu.simulator.engine.order import (
    forget_cells,
    share_views,
    synchronise_all,
    synchronise_live,
    synchronise_some,
    tick,
)
from loadsparse.gpu.simulator.engine.records import report, report_lanes, stop

FRESH, FINISHED, GAVE_WAY, STOPPED = 0, 1, 2, 3


@inline
def warp_at(B: int, index: int) -> int:
    return load64(B + L.B_WARPS) + index * load64(B + L.B_WARP_BYTES)


def start_block(B: int, linear: int, clear_bytes: int) -> int:
    """Puts a fresh block in place: coordinates, undefined shared memory, warps at the entry.  STOPPED if no budget is left."""
    gx = load64(B + L.B_NCTAID)
    gy = load64(B + L.B_NCTAID + 8)
    store64(B + L.B_LINEAR, linear)
    store64(B + L.B_CTAID, linear % gx)
    store64(B + L.B_CTAID + 8, linear // gx % gy)
    store64(B + L.B_CTAID + 16, linear // (gx * gy))
    size = load64(B + L.B_SHARED_BYTES)
    fill(load64(B + L.B_SHARED), 0, size)
    fill(load64(B + L.B_SHARED_DEFINED), 0, size)
    threads = load64(B + L.B_THREADS)
    local = load64(B + L.B_LOCAL_BYTES) * load64(B + L.B_WARP_COUNT) * 32
    fill(load64(B + L.B_LOCAL), 0, local)
    fill(load64(B + L.B_LOCAL_DEFINED), 0, local)
    clock = tick(B)
    if clock - load64(B + L.B_CLOCK_BASE) >= L.CLOCK_LIMIT:
        forget_cells(B)
    store64(B + L.B_FLOOR, clock)
    worker = load64(B + L.B_WORKER)
    if load64(B + L.B_EXACT) != 0:
        forget_shared(B)
        store64(worker + L.K_STAMP, load64(worker + L.K_STAMP) + 1)
        store64(B + L.B_STAMP, load64(worker + L.K_STAMP))
    for i in range(16):
        fill(B + L.B_BARRIERS + i * L.BARRIER_BYTES, 0, L.BARRIER_BYTES)
    count = load64(B + L.B_WARP_COUNT)
    order = load64(B + L.B_ORDER)
    if order != 0:
        fill(order, 0, 4 * 32 * count * 32 * count)
    if load64(B + L.B_VIEWS) != 0:
        fill(load64(B + L.B_VIEWS), 0, L.V_BYTES * 32 * count)
    for index in range(count):
        W = warp_at(B, index)
        fill(W + L.W_PC, 0, 128)
        lanes = threads - 32 * index
        store32(W + L.W_LIVE, (1 << lanes) - 1 if lanes < 32 else -1)
        store32(W + L.W_WAITING, 0)
        store64(W + L.W_BARRED, 0)
        store64(W + L.W_STEPPED, 0)
        store32(W + L.W_ASIDE, 0)
        store32(W + L.W_SLOT, 0)
        fill(W + L.W_PASSED, 0, L.W_REGISTERS - L.W_PASSED)
        store64(W + L.W_STATUS, L.READY)
        fill(W + L.W_REGISTERS, 0, clear_bytes)
    store64(B + L.B_LIVE_WARPS, count)
    store64(B + L.B_PASSED, 0)
    if load64(worker + L.K_INSTRUCTIONS) > load64(worker + L.K_BUDGET):
        stop(B, 0, L.BUDGET, 0, 0, L.NO_DETAIL)
        return STOPPED
    return FRESH


def run_block(B: int) -> int:
    """Rounds of turns until the block finishes, gives way, or the launch stops."""
    worker = load64(B + L.B_WORKER)
    count = load64(B + L.B_WARP_COUNT)
    while True:
        yielded = 0
        moved = 0
        for index in range(count):
            W = warp_at(B, index)
            if load64(W + L.W_STATUS) == L.READY:
                store64(B + L.B_TURN, 0)
                reason = invoke2(load64(B + L.B_RUN), B, W)
                if load64(worker + L.K_INSTRUCTIONS) >= load64(worker + L.K_POLL):
                    hear(worker)
                if reason == L.STOPPED or load64(worker + L.K_STOPPED) != 0:
                    return STOPPED
                if reason == L.YIELDED:
                    yielded += 1
                else:
                    moved += 1
        if load64(B + L.B_LIVE_WARPS) == 0:
            return FINISHED
        if moved == 0:
            if yielded == 0:
                return deadlock(B)
            return GAVE_WAY
    return FINISHED


def hear(worker: int) -> int:
    """Calls back, so that Python handles signals; a handler that raises stops the workers."""
    store64(worker + L.K_POLL, load64(worker + L.K_INSTRUCTIONS) + L.POLL_INTERVAL)
    if load64(worker + L.K_HEAR) != 0:
        invoke(load64(worker + L.K_HEAR))
    return 0


def find_masked(B: int) -> int:
    """The masked form of the kernel, which the first group that needs it has translated; 0 if that failed."""
    worker = load64(B + L.B_WORKER)
    while load64(worker + L.K_MASKED) == 0 and load64(worker + L.K_STOPPED) == 0:
        store64(worker + L.K_MASKED, invoke(load64(worker + L.K_TRANSLATE)))
    return load64(worker + L.K_MASKED)


def deadlock(B: int) -> int:
    """No warp can ever run again: reported for the first waiting lane."""
    for index in range(load64(B + L.B_WARP_COUNT)):
        W = warp_at(B, index)
        live = load32(W + L.W_LIVE)
        if live != 0:
            report(B, L.DEADLOCK, load64(W + L.W_BARRIER), -1, index * 32 + ctz(live), 0, -1, L.NO_DETAIL)
            break
    store64(load64(B + L.B_WORKER) + L.K_STOPPED, L.DEADLOCK + 1)
    return STOPPED


def spin(B: int) -> int:
    """Every warp that is left spins, and nothing changes any more: reported for the first lane that does."""
    for index in range(load64(B + L.B_WARP_COUNT)):
        W = warp_at(B, index)
        if load64(W + L.W_STATUS) == L.READY:
            lane = ctz(load32(W + L.W_ASIDE))
            report(B, L.DEADLOCK, load32(W + L.W_PC + 4 * lane), -2, index * 32 + lane, 0, -1, L.SPINS)
            break
    store64(load64(B + L.B_WORKER) + L.K_STOPPED, L.DEADLOCK + 1)
    return STOPPED


def run_blocks(B: int, first: int, stop: int, step: int, clear_bytes: int) -> int:
    """Runs every block of a range to its end, one at a time; for kernels whose block order cannot be observed."""
    linear = first
    worker = load64(B + L.B_WORKER)
    halt = load64(worker + L.K_HALT)
    while linear < stop and load64(halt) == 0:
        state = start_block(B, linear, clear_bytes)
        if state != STOPPED:
            state = GAVE_WAY
        while state == GAVE_WAY:
            state = run_block(B)
            if state == GAVE_WAY and invoke(load64(worker + L.K_GAVE_WAY)) != 0:
                state = spin(B)
        if state == STOPPED:
            return STOPPED
        linear += step
    return FINISHED


def warp_exited(B: int, W: int) -> int:
    """The last lane of a warp is gone; barriers may be complete now."""
    store64(W + L.W_STATUS, L.FINISHED)
    store64(B + L.B_LIVE_WARPS, load64(B + L.B_LIVE_WARPS) - 1)
    for i in range(16):
        if load64(B + L.B_BARRIERS + i * L.BARRIER_BYTES + L.BARRIER_ARRIVED) != 0:
            check_barrier(B, i)
    return 0


def arrive(B: int, W: int, site: int, number: int, threads: int, how: int, predicate: int) -> int:
    """A warp arrives at a barrier; 1 if it has to wait.  `predicate` is the mask of bar.red's true lanes."""
    barrier = B + L.B_BARRIERS + (number & 15) * L.BARRIER_BYTES
    index = load64(W + L.W_INDEX)
    first = load64(barrier + L.BARRIER_ARRIVED) == 0
    if threads != 0 or first != 0:
        store64(barrier + L.BARRIER_NEEDED, threads)
    store64(barrier + L.BARRIER_ARRIVED, load64(barrier + L.BARRIER_ARRIVED) | (1 << index))
    live = load32(W + L.W_LIVE)
    if first != 0:
        store64(barrier + L.BARRIER_REDUCES, how & L.REDUCES)
    elif how & L.WATCHES and load64(barrier + L.BARRIER_REDUCES) != how & L.REDUCES:
        report_lanes(B, W, L.CONVERGENCE, site, live & -live, L.MIXED)
    store32(W + L.W_ARRIVALS + 4 * (number & 15), live)
    if how & L.REDUCES:
        store64(barrier + L.BARRIER_POPC, load64(barrier + L.BARRIER_POPC) + popcount(predicate & live))
        if predicate & live != live:
            store64(barrier + L.BARRIER_FALSE, 1)
    if how & L.WAITS:
        store64(barrier + L.BARRIER_WARPS, load64(barrier + L.BARRIER_WARPS) | (1 << index))
        store64(W + L.W_STATUS, L.AT_BARRIER)
        store64(W + L.W_BARRIER, site)
    else:
        store32(W + L.W_ARRIVED_AT + 4 * (number & 15), tick(B))
    check_barrier(B, number & 15)
    return load64(W + L.W_STATUS) == L.AT_BARRIER


def check_barrier(B: int, number: int) -> int:
    """Opens the barrier if all that it waits for have arrived."""
    barrier = B + L.B_BARRIERS + number * L.BARRIER_BYTES
    arrived = load64(barrier + L.BARRIER_ARRIVED)
    waiting = load64(barrier + L.BARRIER_WARPS)
    count = load64(B + L.B_WARP_COUNT)
    needed = load64(barrier + L.BARRIER_NEEDED)
    missing = 0
    exited = 0
    for index in range(count):
        W = warp_at(B, index)
        live = load32(W + L.W_LIVE)
        if (arrived >> index) & 1 == 0 and live != 0:
            missing += 1
        if live != 0xFFFFFFFF:
            exited += 1
    if needed == 0:
        if missing != 0:
            return 0
        if load64(B + L.B_PASSED) != 0:
            look_for_missing(B, waiting)
    elif popcount(arrived) * 32 < needed:
        return 0
    result = load64(barrier + L.BARRIER_POPC)
    result = result | ((result != 0) << 33) | ((load64(barrier + L.BARRIER_FALSE) == 0) << 32)
    fill(barrier, 0, L.BARRIER_BYTES)
    order(B, number, arrived, waiting, missing, exited)
    for index in range(count):
        if (waiting >> index) & 1 != 0:
            store64(warp_at(B, index) + L.W_STATUS, L.READY)
            store64(warp_at(B, index) + L.W_RESULT, result)
    return 1


def look_for_missing(B: int, waiting: int) -> int:
    """Reports threads that ended after they had gone past a barrier that opens now."""
    count = load64(B + L.B_WARP_COUNT)
    passed = load64(B + L.B_PASSED)
    for index in range(count):
        W = warp_at(B, index)
        slot = load32(W + L.W_SLOT) - 1
        if (waiting >> index) & 1 != 0 and slot >= 0 and (passed >> slot) & 1 != 0:
            passed = passed & ~(1 << slot)
            for other in range(count):
                lanes = load32(warp_at(B, other) + L.W_PASSED + 4 * slot)
                report_lanes(B, warp_at(B, other), L.CONVERGENCE, load64(W + L.W_BARRIER), lanes, L.PASSED)
    return 0


def order(B: int, number: int, arrived: int, waiting: int, missing: int, exited: int) -> int:
    """What the arrived threads did is ordered before what the waiting ones do next."""
    if missing == 0 and waiting == arrived:
        if exited == 0 or lanes_never_started(B, exited):
            synchronise_all(B)
        else:
            synchronise_live(B, load64(B + L.B_WARP_BYTES))
    elif load64(B + L.B_ORDER) != 0:
        synchronise_some(B, load64(B + L.B_WARP_BYTES), number, arrived, waiting)
    if load64(B + L.B_VIEWS) != 0:
        share_views(B, load64(B + L.B_WARP_BYTES), number, arrived, waiting)
    return 0


def lanes_never_started(B: int, exited: int) -> int:
    """1 if only the last warp is partial, and only because the block has no more threads."""
    threads = load64(B + L.B_THREADS)
    last = load32(warp_at(B, load64(B + L.B_WARP_COUNT) - 1) + L.W_LIVE)
    return exited == 1 and threads % 32 != 0 and last == (1 << (threads % 32)) - 1


# what generated code asks


def exit_lanes(B: int, W: int, mask: int, granule: int, checks: int) -> int:
    """Lanes end; those that wait at a rendezvous ask again.  1 if the rest of the warp waits at a barrier now."""
    if checks & L.CHECK_PENDING:
        abandon(B, W, mask, granule, checks)
    live = load32(W + L.W_LIVE) & ~mask
    barred = load64(W + L.W_BARRED)
    store32(W + L.W_LIVE, live)
    store32(W + L.W_WAITING, barred)
    if live == 0:
        warp_exited(B, W)
    elif live == barred:
        return arrive_lanes(B, W, load64(W + L.W_BARRIER), 0)
    return 0


def arrive_lanes(B: int, W: int, site: int, mask: int) -> int:
    """Lanes come to `barrier.sync 0`; the warp arrives with the last of them.  1 if it has to wait."""
    barred = load64(W + L.W_BARRED) | mask
    waiting = load32(W + L.W_WAITING)
    if barred != load32(W + L.W_LIVE):
        store64(W + L.W_BARRED, barred)
        store64(W + L.W_BARRIER, site)
        store32(W + L.W_WAITING, waiting | mask)
        return 0
    store64(W + L.W_BARRED, 0)
    store32(W + L.W_WAITING, waiting & ~barred)
    return arrive(B, W, site, 0, 0, L.WAITS, -1)


def gather_aligned(W: int, mask: int, block: int) -> int:
    """A rendezvous of all live lanes: who passes (all, or nobody yet)."""
    live = load32(W + L.W_LIVE)
    here = mask
    waiting = load32(W + L.W_WAITING)
    for lane in range(32):
        if (waiting >> lane) & 1 != 0 and load32(W + L.W_PC + 4 * lane) == block:
            here = here | (1 << lane)
    if here & live == live:
        store32(W + L.W_WAITING, waiting & ~here)
        return live
    store32(W + L.W_WAITING, waiting | mask)
    return 0


def gather_masked(B: int, W: int, site: int, mask: int, guards: int, block: int, checked: int) -> int:
    """A rendezvous by mask (member masks in W_DATA): lanes without guard, then strangers one by one, then full sets."""
    off = mask & ~guards
    if off != 0:
        return off
    waiting = load32(W + L.W_WAITING)
    live = load32(W + L.W_LIVE)
    here = mask
    for lane in range(32):
        if (waiting >> lane) & 1 != 0 and load32(W + L.W_PC + 4 * lane) == block:
            here = here | (1 << lane)
    rest = mask
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        if (load32(W + L.W_DATA + 4 * lane) >> lane) & 1 == 0:
            if checked:
                report_lanes(B, W, L.CONVERGENCE, site, 1 << lane, L.NOT_IN_MASK)
            return 1 << lane
    rest = here
    while rest != 0:
        lane = ctz(rest)
        members = load32(W + L.W_DATA + 4 * lane)
        same = 0
        scan = here
        while scan != 0:
            other = ctz(scan)
            scan = scan & (scan - 1)
            if load32(W + L.W_DATA + 4 * other) == members:
                same = same | (1 << other)
        if members & live & ~same == 0:
            store32(W + L.W_WAITING, waiting & ~same)
            return same
        rest = rest & ~same
    store32(W + L.W_WAITING, waiting | mask)
    return 0


def stuck(B: int, W: int) -> int:
    """No lane of the warp can run: the rendezvous will never be complete."""
    live = load32(W + L.W_LIVE)
    report(
        B, L.CONVERGENCE, load32(W + L.W_PC + 4 * ctz(live)), -2, load64(W + L.W_INDEX) * 32 + ctz(live), 0, -1, L.STUCK
    )
    store64(load64(B + L.B_WORKER) + L.K_STOPPED, L.CONVERGENCE + 1)
    return 0


def budget_spent(B: int, W: int, site: int, lane: int) -> int:
    return stop(B, W, L.BUDGET, site, load64(W + L.W_INDEX) * 32 + lane, L.NO_DETAIL)


def trapped(B: int, W: int, site: int, lane: int) -> int:
    return stop(B, W, L.TRAP, site, load64(W + L.W_INDEX) * 32 + lane, L.TRAPPED)
