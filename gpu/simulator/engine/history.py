"""Run-time: the whole history of granules, for launches that the filter (`races.py`) suspects of a race.

A granule's head holds its last weak write and three lists, the latest access first: weak reads, strong writes, strong
reads.  The lists keep one access per thread.  One worker runs all blocks in order, and only then is this exact.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.native import fill, inline, load8, load64, smax, store64
from loadsparse.gpu.simulator.engine.order import unordered, unordered_foreign
from loadsparse.gpu.simulator.engine.records import report_pair
from loadsparse.gpu.simulator.engine.views import reserve


def take_record(B: int) -> int:
    worker = load64(B + L.B_WORKER)
    record = load64(worker + L.K_FREE)
    if record == 0:
        return reserve(B, L.R_BYTES)
    store64(worker + L.K_FREE, load64(record + L.R_NEXT))
    return record


@inline
def release_record(B: int, record: int) -> int:
    worker = load64(B + L.B_WORKER)
    store64(record + L.R_NEXT, load64(worker + L.K_FREE))
    store64(worker + L.K_FREE, record)
    return 0


def release_list(B: int, slot: int) -> int:
    """Forgets a list."""
    record = load64(slot)
    while record != 0:
        following = load64(record + L.R_NEXT)
        release_record(B, record)
        record = following
    store64(slot, 0)
    return 0


def remember(B: int, slot: int, thread: int, site: int, kind: int) -> int:
    """The thread's access becomes the first of a list; its earlier one is dropped."""
    block = load64(B + L.B_LINEAR)
    start = load64(B + L.B_STAMP)
    previous = slot
    record = load64(slot)
    mine = 0
    # accesses from before this block started are not by its threads
    while record != 0 and load64(record + L.R_STAMP) >= start:
        if load64(record + L.R_THREAD) == thread and load64(record + L.R_BLOCK) == block:
            store64(previous + L.R_NEXT, load64(record + L.R_NEXT))
            mine = record
            break
        previous = record + L.R_NEXT
        record = load64(record + L.R_NEXT)
    if mine == 0:
        mine = take_record(B)
    sign(B, mine, thread, site, kind)
    store64(mine + L.R_NEXT, load64(slot))
    store64(slot, mine)
    return 0


def sign(B: int, record: int, thread: int, site: int, kind: int) -> int:
    """Who, when and where."""
    store64(record + L.R_BLOCK, load64(B + L.B_LINEAR))
    store64(record + L.R_THREAD, thread)
    store64(record + L.R_CLOCK, load64(B + L.B_CLOCK))
    store64(record + L.R_SITE, site)
    store64(record + L.R_KIND, kind)
    worker = load64(B + L.B_WORKER)
    store64(record + L.R_STAMP, load64(worker + L.K_STAMP))
    time = load64(worker + L.K_TIME) + 1
    store64(worker + L.K_TIME, time)
    store64(record + L.R_TIME, time)
    return 0


def conflicts(B: int, record: int, thread: int, kind: int) -> int:
    """1 unless a remembered access is the thread's own, ordered before it, or strong like it with scopes that fit."""
    if kind & L.STALE:
        return 1
    block = load64(record + L.R_BLOCK)
    other = load64(record + L.R_THREAD)
    theirs = load64(record + L.R_KIND)
    near = block == load64(B + L.B_LINEAR)
    if near and other == thread:
        return 0
    if kind & theirs & L.STRONG and (near or (kind | theirs) & L.NARROW == 0):
        return 0
    return unordered_access(B, record, thread)


def unordered_access(B: int, record: int, thread: int) -> int:
    """1 unless a remembered access is the thread's own or ordered before what it does now."""
    block = load64(record + L.R_BLOCK)
    other = load64(record + L.R_THREAD)
    if block == load64(B + L.B_LINEAR):
        return unordered(B, other, load64(record + L.R_CLOCK), thread)
    return unordered_foreign(B, block, other, load64(record + L.R_CLOCK), thread)


def seen_until(B: int, head: int, thread: int, kind: int) -> int:
    """When the last strong access was made that came before this one: the strong writes before it were seen."""
    if kind & L.STALE or load64(head + L.HEAD_STRONG_WRITES) == 0:
        return 0
    return smax(
        first_ordered(B, load64(head + L.HEAD_STRONG_WRITES), thread),
        first_ordered(B, load64(head + L.HEAD_STRONG_READS), thread),
    )


def first_ordered(B: int, record: int, thread: int) -> int:
    while record != 0:
        if unordered_access(B, record, thread) == 0:
            return load64(record + L.R_TIME)
        record = load64(record + L.R_NEXT)
    return 0


def clash(B: int, record: int, thread: int, site: int, address: int, granule: int, detail: int) -> int:
    return report_pair(
        B, site, load64(record + L.R_SITE), thread, address, granule, detail, load64(record + L.R_BLOCK),
        load64(record + L.R_THREAD),
    )  # fmt: skip


def clash_all(
    B: int, record: int, since: int, thread: int, site: int, kind: int, address: int, granule: int, detail: int
) -> int:
    """Reports every conflict of a list after the time `since`."""
    while record != 0 and load64(record + L.R_TIME) > since:
        if conflicts(B, record, thread, kind):
            clash(B, record, thread, site, address, granule, detail)
        record = load64(record + L.R_NEXT)
    return 0


def clash_latest(
    B: int, record: int, since: int, thread: int, site: int, kind: int, address: int, granule: int, detail: int
) -> int:
    """Reports the latest conflict of a list after the time `since`."""
    while record != 0 and load64(record + L.R_TIME) > since:
        if conflicts(B, record, thread, kind):
            return clash(B, record, thread, site, address, granule, detail)
        record = load64(record + L.R_NEXT)
    return 0


def exact_read(B: int, head: int, thread: int, site: int, kind: int, address: int, granule: int) -> int:
    """A read of one granule; `address` is what reports name."""
    detail = L.STALE_READ if kind & L.STALE else L.READ_WRITE
    last = load64(head + L.HEAD_WRITE)
    if last != 0 and conflicts(B, last, thread, kind):
        clash(B, last, thread, site, address, granule, detail)
    seen = seen_until(B, head, thread, kind)
    clash_latest(B, load64(head + L.HEAD_STRONG_WRITES), seen, thread, site, kind, address, granule, detail)
    return remember(B, head + (L.HEAD_STRONG_READS if kind & L.STRONG else L.HEAD_READS), thread, site, kind)


def exact_write(
    B: int, head: int, thread: int, site: int, kind: int, address: int, granule: int, held: int, data: int, width: int
) -> int:
    """A write of one granule.  A plain store changes the bytes at `held` to those at `data` (see `same_bytes`);
    `held` is 0 for other writes."""
    last = load64(head + L.HEAD_WRITE)
    if last != 0 and conflicts(B, last, thread, kind):
        again = 0
        if held != 0 and load64(last + L.R_SITE) == site:
            again = same_bytes(held, data, granule, width)
        if again == 0:
            clash(B, last, thread, site, address, granule, L.WRITE_WRITE)
    weak = load64(head + L.HEAD_READS)
    writes = load64(head + L.HEAD_STRONG_WRITES)
    reads = load64(head + L.HEAD_STRONG_READS)
    seen = seen_until(B, head, thread, kind)
    if kind & L.STRONG:
        clash_latest(B, weak, 0, thread, site, kind, address, granule, L.WRITE_READ)
        clash_latest(B, writes, seen, thread, site, kind, address, granule, L.WRITE_WRITE)
        clash_latest(B, reads, 0, thread, site, kind, address, granule, L.WRITE_READ)
        return remember(B, head + L.HEAD_STRONG_WRITES, thread, site, kind)
    clash_all(B, weak, 0, thread, site, kind, address, granule, L.WRITE_READ)
    clash_all(B, writes, seen, thread, site, kind, address, granule, L.WRITE_WRITE)
    clash_all(B, reads, 0, thread, site, kind, address, granule, L.WRITE_READ)
    release_list(B, head + L.HEAD_READS)
    release_list(B, head + L.HEAD_STRONG_WRITES)
    release_list(B, head + L.HEAD_STRONG_READS)
    if last == 0:
        last = take_record(B)
        store64(head + L.HEAD_WRITE, last)
    return sign(B, last, thread, site, kind)


def same_bytes(held: int, data: int, granule: int, width: int) -> int:
    """1 if the lane's data are what memory holds.  Elements of `width` bytes lie 256 apart: `data` is where the
    granule's first byte lies, `granule` no wider than an element or made of whole ones."""
    for k in range(granule):
        if load8(held + k) != load8(data + 256 * (k // width) + k % width):
            return 0
    return 1


def forget_shared(B: int) -> int:
    """A fresh block's shared memory has no history."""
    heads = load64(B + L.B_HEADS)
    end = heads + L.HEAD_BYTES * (load64(B + L.B_SHARED_BYTES) // load64(B + L.B_GRANULE))
    while heads < end:
        last = load64(heads + L.HEAD_WRITE)
        if last != 0:
            release_record(B, last)
        release_list(B, heads + L.HEAD_READS)
        release_list(B, heads + L.HEAD_STRONG_WRITES)
        release_list(B, heads + L.HEAD_STRONG_READS)
        fill(heads, 0, L.HEAD_BYTES)
        heads += L.HEAD_BYTES
    return 0
