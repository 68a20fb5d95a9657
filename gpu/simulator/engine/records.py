"""Run-time: hazard records (see `native.py` for the language of this file)."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.native import (
    ctz,
    inline,
    invoke,
    load8,
    load16,
    load32,
    load64,
    store8,
    store16,
    store32,
    store64,
)


@inline
def peek(address: int, width: int) -> int:
    """Zero-extended little-endian number of 1, 2, 4 or 8 bytes."""
    if width == 1:
        return load8(address)
    if width == 2:
        return load16(address)
    if width == 4:
        return load32(address)
    return load64(address)


@inline
def poke(address: int, width: int, value: int) -> int:
    if width == 1:
        store8(address, value)
    elif width == 2:
        store16(address, value)
    elif width == 4:
        store32(address, value)
    else:
        store64(address, value)
    return 0


def report(B: int, kind: int, site: int, other: int, thread: int, address: int, size: int, detail: int) -> int:
    """Counts an event of (kind, site, other); the first one keeps thread, address, size (-1: no access), detail.

    Returns the record of a first event, else 0.
    """
    table = load64(B + L.B_HAZARDS)
    count = load64(table + L.H_COUNT)
    for i in range(count):
        record = table + L.H_RECORDS + i * L.H_BYTES
        same = load64(record + L.H_KIND) == kind and load64(record + L.H_SITE) == site
        if same and load64(record + L.H_OTHER) == other:
            store64(record + L.H_EVENTS, load64(record + L.H_EVENTS) + 1)
            return 0
    if count >= L.H_CAPACITY:
        return 0
    record = table + L.H_RECORDS + count * L.H_BYTES
    store64(record + L.H_KIND, kind)
    store64(record + L.H_SITE, site)
    store64(record + L.H_OTHER, other)
    store64(record + L.H_BLOCK, load64(B + L.B_LINEAR))
    store64(record + L.H_THREAD, thread)
    store64(record + L.H_ADDRESS, address)
    store64(record + L.H_SIZE, size)
    store64(record + L.H_DETAIL, detail)
    store64(record + L.H_EVENTS, 1)
    store64(record + L.H_OTHER_BLOCK, -1)
    store64(record + L.H_OTHER_THREAD, -1)
    store64(table + L.H_COUNT, count + 1)
    return record


def report_pair(
    B: int,
    site: int,
    other: int,
    thread: int,
    address: int,
    size: int,
    detail: int,
    other_block: int,
    other_thread: int,
) -> int:
    """A race, with the block and thread of the other access."""
    record = report(B, L.RACE, site, other, thread, address, size, detail)
    if record != 0:
        store64(record + L.H_OTHER_BLOCK, other_block)
        store64(record + L.H_OTHER_THREAD, other_thread)
    return 0


def report_lanes(B: int, W: int, kind: int, site: int, mask: int, detail: int) -> int:
    """One event without an address per lane of `mask`."""
    rest = mask
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        report(B, kind, site, -1, load64(W + L.W_INDEX) * 32 + lane, 0, -1, detail)
    return 0


def report_undefined(B: int, W: int, site: int, guards: int, addresses: int, values: int, size: int) -> int:
    """Undefined guards, addresses and stored values; per lane in this order.  `size` is -1 without an access."""
    rest = guards | addresses | values
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        thread = load64(W + L.W_INDEX) * 32 + lane
        if (guards >> lane) & 1 != 0:
            report(B, L.UNINITIALIZED, site, -1, thread, 0, -1, L.GUARD)
        if (addresses >> lane) & 1 != 0:
            report(B, L.UNINITIALIZED, site, -1, thread, 0, -1, L.ADDRESS)
        if (values >> lane) & 1 != 0:
            report(B, L.UNINITIALIZED, site, -1, thread, load64(W + L.W_ADDRESS + 8 * lane), size, L.VALUE)
    return 0


def doubt(B: int, reason: int) -> int:
    """Ends this run; another one, for this reason, follows."""
    worker = load64(B + L.B_WORKER)
    store64(worker + L.K_AGAIN, reason)
    store64(worker + L.K_STOPPED, L.UNINITIALIZED + 1)
    store64(worker + L.K_BUDGET, 0)
    store64(load64(worker + L.K_HALT), 1)
    return 0


def print_lanes(B: int, W: int, mask: int) -> int:
    """printf: addresses of formats in W_ADDRESS, of arguments in W_DATA; how many were taken comes to W_PRINTED."""
    worker = load64(B + L.B_WORKER)
    store64(worker + L.K_ARGUMENT, W)
    store64(worker + L.K_BLOCK, B)
    store64(worker + L.K_LANES, mask)
    invoke(load64(worker + L.K_PRINT))
    return 0


def stop(B: int, W: int, kind: int, site: int, thread: int, detail: int) -> int:
    """A hazard that ends the launch."""
    report(B, kind, site, -1, thread, 0, -1, detail)
    store64(load64(B + L.B_WORKER) + L.K_STOPPED, kind + 1)
    return L.STOPPED
