"""Run-time: cp.async.  Every thread keeps a ring of copies; a copy's destination is pending until its wait lands it."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.native import (
    copy,
    ctz,
    fill,
    inline,
    load8,
    load64,
    outside_of,
    smax,
    smin,
    store8,
    store64,
    ugt,
    ult,
)
from loadsparse.gpu.simulator.engine.races import cell_of, floor_of, race_write, shared_write
from loadsparse.gpu.simulator.engine.records import report


def pending_scan(B: int, site: int, thread: int, offset: int, address: int, size: int, detail: int) -> int:
    """Reports the access if any of its 4-byte words is pending; the lowest one names the copy."""
    pending = load64(B + L.B_PENDING)
    if size == 16:
        row = pending + 2 * offset
        if load64(row) | load64(row + 8) | load64(row + 16) | load64(row + 24) == 0:
            return 0
    for word in range(offset // 4, (offset + size - 1) // 4 + 1):
        mark = load64(pending + 8 * word)
        if mark != 0:
            report(B, L.PENDING, site, (mark & 0xFFFFF) - 1, thread, address, size, detail)
            return 1
    return 0


@inline
def pending_access(B: int, site: int, thread: int, offset: int, address: int, size: int, detail: int) -> int:
    if load64(B + L.B_PENDING_COUNT) == 0:
        return 0
    if offset < load64(B + L.B_PENDING_HIGH) and offset + size > load64(B + L.B_PENDING_LOW):
        pending_scan(B, site, thread, offset, address, size, detail)
    return 0


@inline
def pending_near(B: int, W: int, mask: int, size: int) -> int:
    """Non-zero if a lane of `mask` accesses shared memory between the ends of what is pending."""
    if load64(B + L.B_PENDING_COUNT) == 0:
        return 0
    low = load64(B + L.B_PENDING_LOW) - size + 1
    return mask & ~outside_of(W + L.W_ADDRESS, low, load64(B + L.B_PENDING_HIGH) - 1 - low, 0)


@inline
def pending_source(B: int, site: int, thread: int, address: int, size: int) -> int:
    """A write to global memory that a pending copy of this block reads."""
    if load64(B + L.B_PENDING_COUNT) == 0:
        return 0
    if ult(address, load64(B + L.B_SOURCE_HIGH)) and ugt(address + size, load64(B + L.B_SOURCE_LOW)):
        source_scan(B, site, thread, address, size)
    return 0


def source_scan(B: int, site: int, thread: int, address: int, size: int) -> int:
    """The oldest pending copy whose source the write touches is named."""
    oldest = -1
    name = 0
    for other in range(load64(B + L.B_WARP_COUNT) * 32):
        queue = load64(B + L.B_QUEUE) + other * L.QUEUE_BYTES
        first = load64(queue + L.Q_FIRST)
        for i in range(first, first + load64(queue + L.Q_COUNT)):
            entry = queue + L.QUEUE_HEADER + (i % L.QUEUE_CAPACITY) * L.Q_COPY_BYTES
            start = load64(entry + L.Q_SOURCE)
            mark = load64(entry + L.Q_MARK)
            touches = address < start + load64(entry + L.Q_READ) and address + size > start
            if touches and (oldest == -1 or mark < oldest):
                oldest = mark
                name = load64(entry + L.Q_SITE)
    if oldest != -1:
        report(B, L.PENDING, site, name, thread, address, size, L.SOURCE)
    return 0


def land(B: int, W: int, lane: int, entry: int, granule: int, checks: int) -> int:
    """One copy arrives on behalf of `lane`: a write by this lane, now."""
    target = load64(entry + L.Q_TARGET)
    size = load64(entry + L.Q_BYTES)
    mark = load64(entry + L.Q_MARK)
    if load64(B + L.B_EAGER) == 0:
        put(B, entry, checks)
    place = load64(B + L.B_PENDING) + 2 * target
    for end in range(place, place + 2 * size, 8):
        if load64(end) == mark:
            store64(end, 0)
    store64(B + L.B_PENDING_COUNT, load64(B + L.B_PENDING_COUNT) - 1)
    if checks & L.CHECK_RACES:
        cells = load64(B + L.B_CELLS)
        if load64(B + L.B_EXACT) != 0 or size != 16 or granule == 1:
            shared_write(B, W, load64(entry + L.Q_SITE), lane, 0, target, size, 0, 0)
        elif granule == 2:
            race_write(B, W, floor_of(B), cell_of(B, 0), cells, lane, 0, target, 16, 2, 0)
        else:
            race_write(B, W, floor_of(B), cell_of(B, 0), cells, lane, 0, target, 16, 4, 0)
    return 0


@inline
def move(to: int, origin: int, size: int) -> int:
    """`copy` of a size that is almost always 16, then without a call."""
    if size == 16:
        copy(to, origin, 16)
    else:
        copy(to, origin, size)
    return 0


def put(B: int, entry: int, checks: int) -> int:
    """The bytes and their defined bits."""
    target = load64(entry + L.Q_TARGET)
    size = load64(entry + L.Q_BYTES)
    move(load64(B + L.B_SHARED) + target, entry + L.Q_DATA, size)
    known = load64(entry + L.Q_DEFINED)
    shadow = load64(B + L.B_SHARED_DEFINED) + target
    if known == 65535 and size == 16:
        fill(shadow, 0xFF, 16)
    elif known == 65535:
        fill(shadow, 0xFF, size)
    else:
        for i in range(size):
            store8(shadow + i, (known >> i) & 1)
    return 0


@inline
def take(queue: int) -> int:
    """Removes the oldest copy; returns its entry."""
    first = load64(queue + L.Q_FIRST)
    store64(queue + L.Q_FIRST, (first + 1) % L.QUEUE_CAPACITY)
    store64(queue + L.Q_COUNT, load64(queue + L.Q_COUNT) - 1)
    return queue + L.QUEUE_HEADER + first * L.Q_COPY_BYTES


def commit_group(B: int, W: int, mask: int) -> int:
    rest = mask
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        queue = load64(B + L.B_QUEUE) + (load64(W + L.W_INDEX) * 32 + lane) * L.QUEUE_BYTES
        store64(queue + L.Q_OPEN, load64(queue + L.Q_OPEN) + 1)
    return 0


def wait_group(B: int, W: int, mask: int, allowed: int, granule: int, checks: int) -> int:
    """Lands every copy of all but the `allowed` most recent groups; allowed = -1 lands everything."""
    rest = mask
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        queue = load64(B + L.B_QUEUE) + (load64(W + L.W_INDEX) * 32 + lane) * L.QUEUE_BYTES
        last = load64(queue + L.Q_OPEN) - allowed
        while load64(queue + L.Q_COUNT) != 0:
            entry = queue + L.QUEUE_HEADER + load64(queue + L.Q_FIRST) * L.Q_COPY_BYTES
            if load64(entry + L.Q_GROUP) >= last:
                break
            land(B, W, lane, take(queue), granule, checks)
    if load64(B + L.B_PENDING_COUNT) == 0:
        store64(B + L.B_SOURCE_LOW, -1)
        store64(B + L.B_SOURCE_HIGH, 0)
    return 0


def abandon(B: int, W: int, mask: int, granule: int, checks: int) -> int:
    """Exiting lanes: what was never waited for lands now, and is reported at the copy's line."""
    rest = mask
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        thread = load64(W + L.W_INDEX) * 32 + lane
        queue = load64(B + L.B_QUEUE) + thread * L.QUEUE_BYTES
        while load64(queue + L.Q_COUNT) != 0:
            entry = take(queue)
            if checks & L.CHECK_PENDING:
                target = load64(entry + L.Q_TARGET)
                report(
                    B, L.PENDING, load64(entry + L.Q_SITE), -1, thread, target, load64(entry + L.Q_BYTES), L.UNWAITED
                )
            land(B, W, lane, entry, granule, checks)
    return 0


def issue(
    B: int,
    W: int,
    site: int,
    lane: int,
    target: int,
    source: int,
    pointer: int,
    shadow: int,
    size: int,
    bytes_read: int,
    granule: int,
    checks: int,
) -> int:
    """Queues one legal copy; `pointer` and `shadow` are host addresses of the source (shadow 0: all defined)."""
    thread = load64(W + L.W_INDEX) * 32 + lane
    queue = load64(B + L.B_QUEUE) + thread * L.QUEUE_BYTES
    if checks & L.CHECK_PENDING:
        pending_access(B, site, thread, target, target, size, L.WRITE)
    if load64(queue + L.Q_COUNT) >= L.QUEUE_CAPACITY:
        land(B, W, lane, take(queue), granule, checks)
    slot = (load64(queue + L.Q_FIRST) + load64(queue + L.Q_COUNT)) % L.QUEUE_CAPACITY
    entry = queue + L.QUEUE_HEADER + slot * L.Q_COPY_BYTES
    store64(queue + L.Q_COUNT, load64(queue + L.Q_COUNT) + 1)
    store64(entry + L.Q_TARGET, target)
    store64(entry + L.Q_SOURCE, source)
    store64(entry + L.Q_BYTES, size)
    store64(entry + L.Q_READ, bytes_read)
    store64(entry + L.Q_SITE, site)
    store64(entry + L.Q_GROUP, load64(queue + L.Q_OPEN))
    store64(entry + L.Q_DATA, 0)
    store64(entry + L.Q_DATA + 8, 0)
    move(entry + L.Q_DATA, pointer, bytes_read)
    known = 65535
    if shadow != 0:
        for i in range(bytes_read):
            if load8(shadow + i) == 0:
                known = known & ~(1 << i)
    store64(entry + L.Q_DEFINED, known)
    number = load64(B + L.B_ISSUED) + 1
    store64(B + L.B_ISSUED, number)
    mark = (number << 20) | (site + 1)
    store64(entry + L.Q_MARK, mark)
    place = load64(B + L.B_PENDING) + 2 * target
    for end in range(place, place + 2 * size, 8):
        store64(end, mark)
    if load64(B + L.B_PENDING_COUNT) == 0:
        store64(B + L.B_PENDING_LOW, target)
        store64(B + L.B_PENDING_HIGH, target)
    store64(B + L.B_PENDING_LOW, smin(load64(B + L.B_PENDING_LOW), target))
    store64(B + L.B_PENDING_HIGH, smax(load64(B + L.B_PENDING_HIGH), target + size))
    store64(B + L.B_PENDING_COUNT, load64(B + L.B_PENDING_COUNT) + 1)
    if ult(source, load64(B + L.B_SOURCE_LOW)):
        store64(B + L.B_SOURCE_LOW, source)
    if ugt(source + bytes_read, load64(B + L.B_SOURCE_HIGH)):
        store64(B + L.B_SOURCE_HIGH, source + bytes_read)
    if load64(B + L.B_EAGER) != 0:
        put(B, entry, checks)
    return 0
