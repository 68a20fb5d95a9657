"""Run-time: what a thread knows of the threads of all blocks.

A view is a tree with 32 children per node and K_LEVELS levels, keyed by block; its leaves are the clocks (32 bits) of
a block's threads below which their accesses are known.  Views are never changed in place and share what they have in
common, so that to merge two costs what they differ in.  All live until the launch ends.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.native import (
    copy,
    fill,
    inline,
    invoke,
    load32,
    load64,
    lshr,
    smax,
    store32,
    store64,
)


def reserve(B: int, size: int) -> int:
    """`size` fresh bytes (a multiple of 8), not cleared."""
    worker = load64(B + L.B_WORKER)
    while load64(worker + L.K_NEXT) + size > load64(worker + L.K_LIMIT):
        store64(worker + L.K_ARGUMENT, size)
        invoke(load64(worker + L.K_MORE))
    place = load64(worker + L.K_NEXT)
    store64(worker + L.K_NEXT, place + size)
    return place


def take_node(B: int) -> int:
    worker = load64(B + L.B_WORKER)
    node = load64(worker + L.K_FREE_NODE)
    if node == 0:
        return reserve(B, L.NODE_BYTES)
    store64(worker + L.K_FREE_NODE, load64(node))
    return node


@inline
def levels(B: int) -> int:
    return load64(load64(B + L.B_WORKER) + L.K_LEVELS)


def find(B: int, view: int, block: int) -> int:
    """The clocks of a block's threads, or 0."""
    level = levels(B)
    while level != 0 and view != 0:
        level -= 1
        view = load64(view + 8 * (lshr(block, 5 * level) & 31))
    return view


def both(B: int, first: int, second: int) -> int:
    """What either view knows."""
    return merged(B, first, second, levels(B))


def merged(B: int, first: int, second: int, level: int) -> int:
    if first == 0:
        return second
    if second == 0 or first == second:
        return first
    if level == 0:
        return merged_clocks(B, first, second)
    node = take_node(B)
    as_first = 1
    as_second = 1
    for i in range(0, L.NODE_BYTES, 8):
        child = merged(B, load64(first + i), load64(second + i), level - 1)
        as_first = as_first & (child == load64(first + i))
        as_second = as_second & (child == load64(second + i))
        store64(node + i, child)
    if (as_first | as_second) == 0:
        return node
    worker = load64(B + L.B_WORKER)
    store64(node, load64(worker + L.K_FREE_NODE))
    store64(worker + L.K_FREE_NODE, node)
    if as_first:
        return first
    return second


def merged_clocks(B: int, first: int, second: int) -> int:
    threads = load64(B + L.B_WARP_COUNT) * 32
    earlier = 0
    later = 0
    for i in range(0, 4 * threads, 4):
        if load32(second + i) > load32(first + i):
            later = 1
        elif load32(second + i) < load32(first + i):
            earlier = 1
    if later == 0:
        return first
    if earlier == 0:
        return second
    clocks = reserve(B, 4 * threads)
    for i in range(0, 4 * threads, 4):
        store32(clocks + i, smax(load32(first + i), load32(second + i)))
    return clocks


def own_view(B: int, thread: int, known: int, row: int) -> int:
    """`known`, and what the thread's own block did before what it does next; `row` is its row of ORDER."""
    threads = load64(B + L.B_WARP_COUNT) * 32
    floor = load64(B + L.B_FLOOR)
    floors = load64(B + L.B_THREAD_FLOOR)
    clocks = reserve(B, 4 * threads)
    for i in range(0, 4 * threads, 4):
        store32(clocks + i, smax(floor, smax(load32(floors + i), load32(row + i))))
    store32(clocks + 4 * thread, load64(B + L.B_CLOCK) + 1)
    block = load64(B + L.B_LINEAR)
    view = clocks
    for level in range(levels(B)):
        node = take_node(B)
        fill(node, 0, L.NODE_BYTES)
        store64(node + 8 * (lshr(block, 5 * level) & 31), view)
        view = node
    return both(B, known, view)


# messages: a table of (address, reader) -> view


def message_at(B: int, address: int, reader: int, create: int) -> int:
    """Where the view that was sent through an address to a reader is kept; 0 if there is none."""
    worker = load64(B + L.B_WORKER)
    if create:
        count = load64(worker + L.K_MESSAGE_COUNT)
        if 2 * count >= load64(worker + L.K_MESSAGE_LIMIT):
            widen_messages(B)
    limit = load64(worker + L.K_MESSAGE_LIMIT)
    if limit == 0:
        return 0
    table = load64(worker + L.K_MESSAGES)
    slot = (lshr(address * 0x9E3779B97F4A7C1 + reader * 0xC2B2AE3D27D4EB5, 20)) % limit
    while True:
        entry = table + L.M_BYTES * slot
        found = load64(entry + L.M_ADDRESS)
        if found == 0:
            if create == 0:
                return 0
            store64(worker + L.K_MESSAGE_COUNT, load64(worker + L.K_MESSAGE_COUNT) + 1)
            store64(entry + L.M_ADDRESS, address)
            store64(entry + L.M_READER, reader)
            return entry + L.M_VIEW
        if found == address and load64(entry + L.M_READER) == reader:
            return entry + L.M_VIEW
        slot = (slot + 1) % limit
    return 0


def widen_messages(B: int) -> int:
    """A table of twice the size."""
    worker = load64(B + L.B_WORKER)
    old = load64(worker + L.K_MESSAGES)
    limit = load64(worker + L.K_MESSAGE_LIMIT)
    wider = 2 * limit if limit != 0 else 1024
    table = reserve(B, L.M_BYTES * wider)
    fill(table, 0, L.M_BYTES * wider)
    store64(worker + L.K_MESSAGES, table)
    store64(worker + L.K_MESSAGE_LIMIT, wider)
    store64(worker + L.K_MESSAGE_COUNT, 0)
    for i in range(limit):
        entry = old + L.M_BYTES * i
        if load64(entry + L.M_ADDRESS) != 0:
            place = message_at(B, load64(entry + L.M_ADDRESS), load64(entry + L.M_READER), 1)
            copy(place, entry + L.M_VIEW, 8)
    return 0
