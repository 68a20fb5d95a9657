"""Run-time: cp.async, atomics and ldmatrix of one warp (operands lie where `accesses.py` says)."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.copies import issue, pending_access, pending_near, pending_source
from loadsparse.gpu.simulator.engine.counting import count, count_sectors, count_wavefronts
from loadsparse.gpu.simulator.engine.native import copy, ctz, fill, inline, invoke, load32, load64, lshr, store32
from loadsparse.gpu.simulator.engine.places import admit, all_defined, host, landing, one_place, shadow
from loadsparse.gpu.simulator.engine.races import (
    cell_of,
    floor_of,
    quick_read,
    read_suspects,
    shared_read,
    shared_write,
)
from loadsparse.gpu.simulator.engine.races_global import global_read, global_write
from loadsparse.gpu.simulator.engine.records import peek, poke


@inline
def copy_lanes(B: int, W: int, site: int, mask: int, size: int, granule: int, checks: int) -> int:
    """cp.async: destinations in W_ADDRESS, sources in W_DATA, bytes to read in W_DATA + 256 (int32)."""
    legal = 0
    for lane in range(32):
        if (mask >> lane) & 1 != 0 and load32(W + L.W_DATA + 256 + 4 * lane) == 0:
            legal = legal | (1 << lane)
    copy(W + L.W_DATA + 384, W + L.W_ADDRESS, 256)
    copy(W + L.W_ADDRESS, W + L.W_DATA, 256)
    counted = 0
    present = 0
    rest = mask & ~legal
    while rest != 0:
        present = present | (1 << load32(W + L.W_DATA + 256 + 4 * ctz(rest)))
        rest = rest & (rest - 1)
    while present != 0:
        bytes_read = ctz(present)
        present = present & (present - 1)
        chosen = 0
        rest = mask & ~legal
        while rest != 0:
            lane = ctz(rest)
            rest = rest & (rest - 1)
            if load32(W + L.W_DATA + 256 + 4 * lane) == bytes_read:
                source = load64(W + L.W_DATA + 8 * lane)
                pointer = host(B, W, lane, L.GLOBAL, source, source, bytes_read)
                thread = load64(W + L.W_INDEX) * 32 + lane
                if admit(B, site, thread, pointer, source, bytes_read, size, checks) != 0:
                    chosen = chosen | (1 << lane)
                    if checks & L.CHECK_RACES:
                        global_read(B, site, thread, source, bytes_read, 0)
        if chosen != 0:
            count_sectors(B, W, site, chosen, bytes_read, 1 - counted)
            counted = 1
        legal = legal | chosen
    copy(W + L.W_ADDRESS, W + L.W_DATA + 384, 256)
    landed = 0
    rest = legal
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        target = load64(W + L.W_ADDRESS + 8 * lane)
        there = host(B, W, lane, L.SHARED, target, target, size)
        if admit(B, site, load64(W + L.W_INDEX) * 32 + lane, there, target, size, size, checks) == 0:
            continue
        landed = landed | (1 << lane)
        source = load64(W + L.W_DATA + 8 * lane)
        bytes_read = load32(W + L.W_DATA + 256 + 4 * lane)
        pointer = 0
        known = 0
        if bytes_read != 0:
            pointer = host(B, W, lane, L.GLOBAL, source, source, bytes_read)
            if checks & L.CHECK_UNINITIALIZED:
                known = shadow(B, W, lane, L.GLOBAL, source, source)
        issue(B, W, site, lane, target, source, pointer, known, size, bytes_read, granule, checks)
    count_wavefronts(B, W, site, landed, size, 1)
    return landed


@inline
def combine_lanes(
    B: int,
    W: int,
    site: int,
    mask: int,
    space: int,
    size: int,
    replaces: int,
    kind: int,
    checks: int,
    outer: int,
    inner: int,
) -> int:
    """atom and red: b in W_DATA, c in W_DATA + 256, old values to W_DATA + 512; `outer` and `inner` combine in global
    and in other memory.  Returns the legal lanes that reach global memory.
    """
    legal = 0
    outside = 0
    known_lanes = 0
    rest = mask
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        thread = load64(W + L.W_INDEX) * 32 + lane
        address = load64(W + L.W_ADDRESS + 8 * lane)
        place = landing(space, address)
        offset = address & L.OFFSET_MASK if space == L.GENERIC else address
        pointer = host(B, W, lane, place, offset, address, size)
        if admit(B, site, thread, pointer, address, size, size, checks) == 0:
            poke(W + L.W_DATA + 512 + lane * size, size, 0)
            known_lanes = known_lanes | (1 << lane)
            continue
        legal = legal | (1 << lane)
        old = peek(pointer, size)
        b = peek(W + L.W_DATA + lane * size, size)
        c = peek(W + L.W_DATA + 256 + lane * size, size)
        poke(W + L.W_DATA + 512 + lane * size, size, old)
        new = invoke(outer, old, b, c) if place == L.GLOBAL else invoke(inner, old, b, c)
        if place == L.GLOBAL:
            outside = outside | (1 << lane)
            if checks & L.CHECK_PENDING:
                pending_source(B, site, thread, address, size)
            if checks & L.CHECK_RACES:
                global_write(B, W, site, lane, address, size, kind, 0)
        if place == L.SHARED:
            if checks & L.CHECK_PENDING:
                pending_access(B, site, thread, offset, address, size, L.WRITE)
            if checks & L.CHECK_RACES:
                shared_write(B, W, site, lane, 0, offset, size, kind, 0)
        poke(pointer, size, new)
        bits = 0
        if checks & L.CHECK_UNINITIALIZED or place == L.GLOBAL:
            bits = shadow(B, W, lane, place, offset, address)
        known = 1
        if bits != 0:
            known = all_defined(bits, size)
            given = (load32(W + L.W_DEFINED) >> lane) & 1
            sure = 1 if place == L.GLOBAL else given & (replaces | known)
            poke(bits, size, -sure)
        known_lanes = known_lanes | (known << lane)
    store32(W + L.W_DEFINED + 4, known_lanes)
    count(B, W, site, legal, space, size)
    return outside


@inline
def read_rows(B: int, W: int, site: int, mask: int, space: int, count: int, granule: int, checks: int) -> int:
    """ldmatrix: 16-byte rows to W_DATA in order of their lanes, their defined bytes to W_MATRIX_DEFINED."""
    lanes = lshr(0xFFFFFFFF, 32 - 8 * count)
    if mask & lanes != lanes or space != L.SHARED or one_place(B, W, lanes, space, 16) == 0:
        return read_rows_checked(B, W, site, mask & lanes, space, count, checks)
    data = load64(B + L.B_SHARED)
    shadows = load64(B + L.B_SHARED_DEFINED)
    pending = 0
    if checks & L.CHECK_PENDING:
        pending = pending_near(B, W, lanes, 16)
    thread = load64(W + L.W_INDEX) * 32
    floor = floor_of(B)
    exact = load64(B + L.B_EXACT)
    cell = cell_of(B, 0)
    cells = load64(B + L.B_CELLS)
    if pending != 0 or exact != 0:
        for lane in range(8 * count):
            offset = load64(W + L.W_ADDRESS + 8 * lane)
            if pending != 0:
                pending_access(B, site, thread + lane, offset, offset, 16, L.READ)
            if checks & L.CHECK_RACES and exact != 0:
                shared_read(B, site, thread + lane, offset, 16, 0)
    suspicious = 0
    for lane in range(8 * count):  # no calls here
        offset = load64(W + L.W_ADDRESS + 8 * lane)
        if checks & L.CHECK_RACES and exact == 0:
            first = cells + L.CELL_PAIR * (offset // granule)
            suspicious = suspicious | (quick_read(floor, cell | (thread + lane), first, 16 // granule) << lane)
        copy(W + L.W_DATA + 16 * lane, data + offset, 16)
        if checks & L.CHECK_UNINITIALIZED:
            copy(W + L.W_MATRIX_DEFINED + 16 * lane, shadows + offset, 16)
    while suspicious != 0:
        lane = ctz(suspicious)
        suspicious = suspicious & (suspicious - 1)
        first = cells + L.CELL_PAIR * (load64(W + L.W_ADDRESS + 8 * lane) // granule)
        read_suspects(B, first, cell | (thread + lane), 16 // granule)
    count_wavefronts(B, W, site, lanes, 16, 0)
    return lanes


def read_rows_checked(B: int, W: int, site: int, mask: int, space: int, count: int, checks: int) -> int:
    """`read_rows` for rows that may be illegal, missing (their lane takes no part: zeros) or outside shared memory."""
    legal = 0
    for lane in range(8 * count):
        thread = load64(W + L.W_INDEX) * 32 + lane
        address = load64(W + L.W_ADDRESS + 8 * lane)
        place = landing(space, address)
        offset = address & L.OFFSET_MASK if space == L.GENERIC else address
        here = W + L.W_DATA + 16 * lane
        known = W + L.W_MATRIX_DEFINED + 16 * lane
        fill(here, 0, 16)
        fill(known, 0, 16)
        if (mask >> lane) & 1 == 0:
            continue
        pointer = host(B, W, lane, place, offset, address, 16)
        if admit(B, site, thread, pointer, address, 16, 16, checks) == 0:
            fill(known, 0xFF, 16)
            continue
        if place == L.SHARED:
            legal = legal | (1 << lane)
            if checks & L.CHECK_PENDING:
                pending_access(B, site, thread, offset, address, 16, L.READ)
            if checks & L.CHECK_RACES:
                shared_read(B, site, thread, offset, 16, 0)
        if place == L.GLOBAL and checks & L.CHECK_RACES:
            global_read(B, site, thread, address, 16, 0)
        copy(here, pointer, 16)
        bits = shadow(B, W, lane, place, offset, address)
        if bits == 0:
            fill(known, 0xFF, 16)
        else:
            copy(known, bits, 16)
    count_wavefronts(B, W, site, legal, 16, 0)
    return legal


def forget_rows(W: int, mask: int) -> int:
    """The rows of these lanes are not defined: their addresses are not."""
    for lane in range(32):
        if (mask >> lane) & 1 != 0:
            fill(W + L.W_MATRIX_DEFINED + 16 * lane, 0, 16)
    return 0
