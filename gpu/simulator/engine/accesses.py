"""Run-time: loads and stores of one warp, lane by lane, with every check; and the memory counters.

Addresses lie in W_ADDRESS; element e of lane l in W_DATA + 256 e + width l, its defined mask in W_DEFINED + 4 e.
`space`, `size`, `width`, `granule` and `checks` are constants at every call, so each kind of access is specialised.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.copies import issue, pending_access, pending_source
from loadsparse.gpu.simulator.engine.native import (
    bank_waves,
    copy,
    ctz,
    fill,
    inline,
    invoke,
    load8,
    load32,
    load64,
    lshr,
    outside_of,
    popcount,
    row_banks,
    smax,
    store8,
    store32,
    store64,
    stride_of,
    uge,
    ugt,
)
from loadsparse.gpu.simulator.engine.races import cell_of, floor_of, race_read, race_write, write_conflicts
from loadsparse.gpu.simulator.engine.records import peek, poke, report


@inline
def landing(space: int, address: int) -> int:
    """The space that an access reaches."""
    if space == L.GENERIC:
        number = lshr(address, L.ALLOCATION_SHIFT)
        if number == 1:
            return L.SHARED
        if number == 2:
            return L.LOCAL
        if number == 4:
            return L.PARAM
        return L.GLOBAL
    return space


@inline
def inside(base: int, limit: int, offset: int, size: int) -> int:
    """base + offset, or 0 if [offset, offset + size) leaves [0, limit)."""
    if limit < size or ugt(offset, limit - size):
        return 0
    return base + offset


@inline
def host(B: int, W: int, lane: int, place: int, offset: int, address: int, size: int) -> int:
    """Host address of an access, or 0 when any byte is out of bounds."""
    if place == L.SHARED:
        return inside(load64(B + L.B_SHARED), load64(B + L.B_SHARED_BYTES), offset, size)
    if place == L.LOCAL:
        thread = load64(W + L.W_INDEX) * 32 + lane
        stride = load64(B + L.B_LOCAL_BYTES)
        return inside(load64(B + L.B_LOCAL) + thread * stride, stride, offset, size)
    if place == L.PARAM:
        return inside(load64(B + L.B_PARAM), load64(B + L.B_PARAM_BYTES), offset, size)
    number = lshr(address, L.ALLOCATION_SHIFT)
    if uge(number, load64(B + L.B_TABLE_COUNT)):
        return 0
    entry = load64(B + L.B_TABLE) + number * L.T_ENTRY_BYTES
    return inside(load64(entry + L.T_DATA), load64(entry + L.T_BYTES), address & L.OFFSET_MASK, size)


@inline
def shadow(B: int, W: int, lane: int, place: int, offset: int, address: int) -> int:
    """Host address of the defined byte of a legal access, or 0 where everything is defined."""
    if place == L.SHARED:
        return load64(B + L.B_SHARED_DEFINED) + offset
    if place == L.LOCAL:
        thread = load64(W + L.W_INDEX) * 32 + lane
        return load64(B + L.B_LOCAL_DEFINED) + thread * load64(B + L.B_LOCAL_BYTES) + offset
    if place == L.PARAM:
        return 0
    entry = load64(B + L.B_TABLE) + lshr(address, L.ALLOCATION_SHIFT) * L.T_ENTRY_BYTES
    base = load64(entry + L.T_DEFINED)
    if base == 0:
        return 0
    return base + (address & L.OFFSET_MASK)


@inline
def all_defined(place: int, width: int) -> int:
    """1 if `width` shadow bytes are all 1."""
    if width == 1:
        return load8(place) == 1
    return peek(place, width) == lshr(0x0101010101010101, 64 - 8 * width)


@inline
def admit(B: int, site: int, thread: int, pointer: int, address: int, size: int, align: int, checks: int) -> int:
    """1 if the access is in bounds and aligned; reports it otherwise."""
    if pointer == 0:
        if checks & L.CHECK_BOUNDS:
            report(B, L.BOUNDS, site, -1, thread, address, size, L.NO_DETAIL)
        return 0
    if address & (align - 1) != 0:
        if checks & L.CHECK_ALIGNMENT:
            report(B, L.ALIGNMENT, site, -1, thread, address, size, L.NO_DETAIL)
        return 0
    return 1


# the common case: all lanes legal, in one allocation


@inline
def one_place(B: int, W: int, mask: int, space: int, size: int) -> int:
    """1 if every lane of `mask` is legal and in the allocation of the first one (global or shared space)."""
    if mask == 0:
        return 0
    if space == L.SHARED:
        limit = load64(B + L.B_SHARED_BYTES)
        if limit < size:
            return 0
        return outside_of(W + L.W_ADDRESS, 0, limit - size, size - 1) & mask == 0
    if space == L.GLOBAL:
        number = lshr(load64(W + L.W_ADDRESS + 8 * ctz(mask)), L.ALLOCATION_SHIFT)
        if uge(number, load64(B + L.B_TABLE_COUNT)):
            return 0
        limit = load64(load64(B + L.B_TABLE) + number * L.T_ENTRY_BYTES + L.T_BYTES)
        if limit < size:
            return 0
        return outside_of(W + L.W_ADDRESS, number << L.ALLOCATION_SHIFT, limit - size, size - 1) & mask == 0
    return 0


@inline
def data_base(B: int, W: int, mask: int, space: int) -> int:
    """What, added to a legal address, gives the host address."""
    if space == L.SHARED:
        return load64(B + L.B_SHARED)
    number = lshr(load64(W + L.W_ADDRESS + 8 * ctz(mask)), L.ALLOCATION_SHIFT)
    entry = load64(B + L.B_TABLE) + number * L.T_ENTRY_BYTES
    return load64(entry + L.T_DATA) - (number << L.ALLOCATION_SHIFT)


@inline
def shadow_base(B: int, W: int, mask: int, space: int, checks: int) -> int:
    """The same for the defined bytes; 0 where everything is defined."""
    if checks & L.CHECK_UNINITIALIZED == 0:
        return 0
    if space == L.SHARED:
        return load64(B + L.B_SHARED_DEFINED)
    number = lshr(load64(W + L.W_ADDRESS + 8 * ctz(mask)), L.ALLOCATION_SHIFT)
    entry = load64(B + L.B_TABLE) + number * L.T_ENTRY_BYTES
    base = load64(entry + L.T_DEFINED)
    if base == 0:
        return 0
    return base - (number << L.ALLOCATION_SHIFT)


@inline
def whole_defined(place: int, size: int) -> int:
    """`all_defined` for up to 16 bytes."""
    if size == 16:
        return load64(place) & load64(place + 8) == 0x0101010101010101
    return all_defined(place, size)


@inline
def read(
    B: int, W: int, site: int, mask: int, space: int, size: int, width: int, granule: int, atomic: int, checks: int
) -> int:
    """Loads every lane of `mask`; returns the mask of legal lanes."""
    if one_place(B, W, mask, space, size) == 0:
        return read_checked(B, W, site, mask, space, size, width, atomic, checks)
    data = data_base(B, W, mask, space)
    known = shadow_base(B, W, mask, space, checks)
    pending = 0
    if space == L.SHARED and checks & L.CHECK_PENDING:
        pending = load64(B + L.B_PENDING_COUNT)
    thread = load64(W + L.W_INDEX) * 32
    for e in range(size // width):
        store32(W + L.W_DEFINED + 4 * e, mask)
    floor = floor_of(B)
    cell = cell_of(B, site, atomic)
    writes = load64(B + L.B_WRITES)
    reads = load64(B + L.B_READS)
    older = load64(B + L.B_OLDER_READS)
    rest = mask
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        address = load64(W + L.W_ADDRESS + 8 * lane)
        if space == L.SHARED:
            if pending != 0:
                pending_access(B, site, thread + lane, address, address, size, L.READ)
            if checks & L.CHECK_RACES:
                race_read(B, floor, cell, writes, reads, older, thread + lane, address, size, granule)
        place = W + L.W_DATA + lane * width
        poke(place, width, peek(data + address, width))
        if size > width:
            poke(place + 256, width, peek(data + address + width, width))
        if size > 2 * width:
            poke(place + 512, width, peek(data + address + 2 * width, width))
            poke(place + 768, width, peek(data + address + 3 * width, width))
        if known != 0 and whole_defined(known + address, size) == 0:
            mark_holes(W, lane, known + address, size, width)
    count(B, W, site, mask, space, size)
    return mask


def mark_holes(W: int, lane: int, known: int, size: int, width: int) -> int:
    """Clears the lane's defined bit of every element that is not wholly defined."""
    for e in range(size // width):
        for k in range(e * width, e * width + width):
            if load8(known + k) == 0:
                place = W + L.W_DEFINED + 4 * e
                store32(place, load32(place) & ~(1 << lane))
    return 0


@inline
def write(
    B: int, W: int, site: int, mask: int, space: int, size: int, width: int, granule: int, atomic: int, checks: int
) -> int:
    """Stores every lane of `mask`; returns the mask of legal lanes that reach global memory."""
    if one_place(B, W, mask, space, size) == 0:
        return write_checked(B, W, site, mask, space, size, width, atomic, checks)
    data = data_base(B, W, mask, space)
    known = shadow_base(B, W, mask, space, checks | L.CHECK_UNINITIALIZED if space == L.GLOBAL else checks)
    pending = 0
    if checks & L.CHECK_PENDING:
        pending = load64(B + L.B_PENDING_COUNT)
    thread = load64(W + L.W_INDEX) * 32
    bits = load32(W + L.W_DEFINED)
    if size > width:
        bits = bits & load32(W + L.W_DEFINED + 4)
    if size > 2 * width:
        bits = bits & load32(W + L.W_DEFINED + 8) & load32(W + L.W_DEFINED + 12)
    floor = floor_of(B)
    cell = cell_of(B, site, atomic)
    writes = load64(B + L.B_WRITES)
    reads = load64(B + L.B_READS)
    older = load64(B + L.B_OLDER_READS)
    rest = mask
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        address = load64(W + L.W_ADDRESS + 8 * lane)
        if pending != 0:
            if space == L.SHARED:
                pending_access(B, site, thread + lane, address, address, size, L.WRITE)
            else:
                pending_source(B, site, thread + lane, address, size)
        if space == L.SHARED and checks & L.CHECK_RACES:
            race_write(B, W, floor, cell, writes, reads, older, lane, mask, address, size, granule, width)
        place = W + L.W_DATA + lane * width
        poke(data + address, width, peek(place, width))
        if size > width:
            poke(data + address + width, width, peek(place + 256, width))
        if size > 2 * width:
            poke(data + address + 2 * width, width, peek(place + 512, width))
            poke(data + address + 3 * width, width, peek(place + 768, width))
        if known != 0:
            if space == L.GLOBAL or (bits >> lane) & 1 != 0:
                fill(known + address, 1, size)
            else:
                put_known(W, lane, known + address, size, width)
    count(B, W, site, mask, space, size)
    return mask if space == L.GLOBAL else 0


def put_known(W: int, lane: int, known: int, size: int, width: int) -> int:
    """Writes the lane's defined bits, element by element."""
    for e in range(size // width):
        fill(known + e * width, (load32(W + L.W_DEFINED + 4 * e) >> lane) & 1, width)
    return 0


# every other case, lane by lane


def read_checked(
    B: int, W: int, site: int, mask: int, space: int, size: int, width: int, atomic: int, checks: int
) -> int:
    """`read` for lanes that may be illegal or in different places."""
    legal = 0
    rest = mask
    for e in range(size // width):
        store32(W + L.W_DEFINED + 4 * e, 0)
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        thread = load64(W + L.W_INDEX) * 32 + lane
        address = load64(W + L.W_ADDRESS + 8 * lane)
        place = landing(space, address)
        offset = address & L.OFFSET_MASK if space == L.GENERIC else address
        pointer = host(B, W, lane, place, offset, address, size)
        if admit(B, site, thread, pointer, address, size, size, checks) == 0:
            for e in range(size // width):
                poke(W + L.W_DATA + 256 * e + lane * width, width, 0)
            continue
        legal = legal | (1 << lane)
        if place == L.SHARED:
            if checks & L.CHECK_PENDING:
                pending_access(B, site, thread, offset, address, size, L.READ)
            if checks & L.CHECK_RACES:
                race_read_any(B, site, thread, offset, size, atomic)
        bits = shadow(B, W, lane, place, offset, address) if checks & L.CHECK_UNINITIALIZED else 0
        for e in range(size // width):
            poke(W + L.W_DATA + 256 * e + lane * width, width, peek(pointer + e * width, width))
            if bits == 0 or all_defined(bits + e * width, width):
                here = W + L.W_DEFINED + 4 * e
                store32(here, load32(here) | (1 << lane))
    count(B, W, site, legal, space, size)
    return legal


def race_read_any(B: int, site: int, thread: int, offset: int, size: int, atomic: int) -> int:
    """`race_read` where size and granule are no constants."""
    granule = load64(B + L.B_GRANULE)
    cell = cell_of(B, site, atomic)
    writes = load64(B + L.B_WRITES)
    reads = load64(B + L.B_READS)
    older = load64(B + L.B_OLDER_READS)
    for place in range(offset, offset + size, granule):
        race_read(B, floor_of(B), cell, writes, reads, older, thread, place // granule, 1, 1)
    return 0


def race_write_any(
    B: int, W: int, site: int, lane: int, mask: int, offset: int, size: int, atomic: int, width: int
) -> int:
    """`race_write` where size and granule are no constants."""
    granule = load64(B + L.B_GRANULE)
    mine = cell_of(B, site, atomic) | ((load64(W + L.W_INDEX) * 32 + lane) << L.THREAD_SHIFT)
    for g in range(offset // granule, (offset + size) // granule):
        write_conflicts(B, W, mine, lane, mask, g, 1, size, width)
        store64(load64(B + L.B_WRITES) + 8 * g, mine)
        store64(load64(B + L.B_READS) + 8 * g, 0)
        store64(load64(B + L.B_OLDER_READS) + 8 * g, 0)
    return 0


def write_checked(
    B: int, W: int, site: int, mask: int, space: int, size: int, width: int, atomic: int, checks: int
) -> int:
    """`write` for lanes that may be illegal or in different places."""
    legal = 0
    rest = mask
    outside = 0
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        thread = load64(W + L.W_INDEX) * 32 + lane
        address = load64(W + L.W_ADDRESS + 8 * lane)
        place = landing(space, address)
        offset = address & L.OFFSET_MASK if space == L.GENERIC else address
        pointer = host(B, W, lane, place, offset, address, size)
        if admit(B, site, thread, pointer, address, size, size, checks) == 0:
            continue
        legal = legal | (1 << lane)
        if place == L.SHARED:
            if checks & L.CHECK_PENDING:
                pending_access(B, site, thread, offset, address, size, L.WRITE)
            if checks & L.CHECK_RACES:
                race_write_any(B, W, site, lane, mask, offset, size, atomic, width)
        if place == L.GLOBAL:
            outside = outside | (1 << lane)
            if checks & L.CHECK_PENDING:
                pending_source(B, site, thread, address, size)
        bits = 0
        if checks & L.CHECK_UNINITIALIZED or place == L.GLOBAL:
            bits = shadow(B, W, lane, place, offset, address)
        for e in range(size // width):
            poke(pointer + e * width, width, peek(W + L.W_DATA + 256 * e + lane * width, width))
            if bits != 0:
                known = 1 if place == L.GLOBAL else (load32(W + L.W_DEFINED + 4 * e) >> lane) & 1
                poke(bits + e * width, width, lshr(0x0101010101010101, 64 - 8 * width) * known)
    count(B, W, site, legal, space, size)
    return outside


# counters


@inline
def count(B: int, W: int, site: int, legal: int, space: int, size: int) -> int:
    """Counts the legal lanes of an access where they land."""
    if space == L.GLOBAL:
        count_sectors(B, W, site, legal, size, 1)
    elif space == L.SHARED:
        count_wavefronts(B, W, site, legal, size, 1)
    elif space == L.GENERIC:
        shared = 0
        outside = 0
        rest = legal
        while rest != 0:
            lane = ctz(rest)
            rest = rest & (rest - 1)
            place = landing(space, load64(W + L.W_ADDRESS + 8 * lane))
            if place == L.SHARED:
                shared = shared | (1 << lane)
            elif place == L.GLOBAL:
                outside = outside | (1 << lane)
        count_sectors(B, W, site, outside, size, 1)
        count_wavefronts(B, W, site, shared, size, 1)
    return 0


@inline
def bump(B: int, site: int, counter: int, by: int) -> int:
    place = load64(B + L.B_COUNTERS) + site * L.C_SITE_BYTES + counter
    store64(place, load64(place) + by)
    return 0


def count_sectors(B: int, W: int, site: int, legal: int, size: int, requests: int) -> int:
    """Global: one request, its bytes, and its distinct 32-byte segments (kept in a list; most accesses ascend)."""
    if legal == 0:
        return 0
    bump(B, site, L.C_REQUESTS, requests)
    bump(B, site, L.C_BYTES, popcount(legal) * size)
    first = load64(W + L.W_ADDRESS)
    if legal == 0xFFFFFFFF:
        stride = stride_of(W + L.W_ADDRESS, 0)
        if stride >= 0 and stride <= 32:
            # neighbours are at most a segment apart: every segment in between is touched
            bump(B, site, L.C_SECTORS, lshr(first + 31 * stride + size - 1, 5) - lshr(first, 5) + 1)
            return 0
    distinct = 0
    highest = -1
    rest = legal
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        segment = lshr(load64(W + L.W_ADDRESS + 8 * lane), 5)
        new = 1
        if segment <= highest:
            for i in range(distinct):
                if load64(W + L.W_SCRATCH + 8 * i) == segment:
                    new = 0
                    break
        if new == 1:
            store64(W + L.W_SCRATCH + 8 * distinct, segment)
            distinct += 1
            highest = smax(highest, segment)
    bump(B, site, L.C_SECTORS, distinct)
    return 0


def group_words(W: int, lanes: int, words: int, place: int) -> int:
    """Collects the distinct words of a group by bank at `place`; returns wavefronts << 32 | distinct words.

    `place` holds 32 counts (bytes), then 32 lists of up to 32 words.
    """
    fill(place, 0, 32)
    most = 0
    distinct = 0
    rest = lanes
    while rest != 0:
        lane = ctz(rest)
        rest = rest & (rest - 1)
        first = lshr(load64(W + L.W_ADDRESS + 8 * lane) & L.OFFSET_MASK, 2)
        for word in range(first, first + words):
            bank = word & 31
            have = load8(place + bank)
            new = 1
            for i in range(have):
                if load32(place + 32 + 4 * (bank * 32 + i)) == word:
                    new = 0
                    break
            if new == 1:
                store32(place + 32 + 4 * (bank * 32 + have), word)
                store8(place + bank, have + 1)
                distinct += 1
                most = smax(most, have + 1)
    return (most << 32) | distinct


def same_words(a: int, b: int) -> int:
    """1 if two groups collected by `group_words` hold the same words (in whatever order)."""
    for bank in range(32):
        have = load8(a + bank)
        if have != load8(b + bank):
            return 0
        for i in range(have):
            found = 0
            for j in range(have):
                if load32(a + 32 + 4 * (bank * 32 + i)) == load32(b + 32 + 4 * (bank * 32 + j)):
                    found = 1
            if found == 0:
                return 0
    return 1


def quarters_differ(W: int) -> int:
    """1 if neighbouring quarter warps cannot touch the same words: their addresses have other sums."""
    previous = -1
    for quarter in range(0, 32, 8):
        total = 0
        for lane in range(quarter, quarter + 8):
            total += load64(W + L.W_ADDRESS + 8 * lane)
        if total == previous:
            return 0
        previous = total
    return 1


def count_wavefronts(B: int, W: int, site: int, legal: int, size: int, merging: int) -> int:
    """Shared: wavefronts and their ideal number over groups of 32, 16 or 8 lanes.

    With `merging` a group with the same words as the one before it costs nothing.
    """
    if legal == 0:
        return 0
    if size <= 4:
        waves = bank_waves(W + L.W_ADDRESS, legal)
        bump(B, site, L.C_WAVEFRONTS, waves >> 32)
        bump(B, site, L.C_IDEAL, 1)
        return 0
    easy = size == 16 and legal == 0xFFFFFFFF and row_banks(W + L.W_ADDRESS, legal) == 0xFFFFFFFF
    if easy and (merging == 0 or quarters_differ(W)):
        bump(B, site, L.C_WAVEFRONTS, 4)
        bump(B, site, L.C_IDEAL, 4)
        return 0
    lanes = 16 if size == 8 else 8
    words = size // 4
    total = 0
    ideal = 0
    previous = W + L.W_SCRATCH
    place = W + L.W_SCRATCH + 4160
    comparable = 0
    for group in range(0, 32, lanes):
        members = legal & (((1 << lanes) - 1) << group)
        if members == 0:
            comparable = 0
            continue
        packed = group_words(W, members, words, place)
        if comparable != 0 and same_words(previous, place):
            continue
        comparable = merging
        total += packed >> 32
        ideal += smax(((packed & 0xFFFFFFFF) + 31) // 32, 1)
        swap = previous
        previous = place
        place = swap
    bump(B, site, L.C_WAVEFRONTS, total)
    bump(B, site, L.C_IDEAL, ideal)
    return 0


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
    B: int, W: int, site: int, mask: int, space: int, size: int, replaces: int, checks: int, outer: int, inner: int
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
        if place == L.SHARED:
            if checks & L.CHECK_PENDING:
                pending_access(B, site, thread, offset, address, size, L.WRITE)
            if checks & L.CHECK_RACES:
                race_write_any(B, W, site, lane, 0, offset, size, L.ATOMIC_BIT, 0)
        poke(pointer, size, new)
        bits = 0
        if checks & L.CHECK_UNINITIALIZED or place == L.GLOBAL:
            bits = shadow(B, W, lane, place, offset, address)
        known = 1
        if bits != 0:
            known = all_defined(bits, size)
            given = (load32(W + L.W_DEFINED) >> lane) & 1
            sure = 1 if place == L.GLOBAL else given & (replaces | known)
            poke(bits, size, lshr(0x0101010101010101, 64 - 8 * size) * sure)
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
        pending = load64(B + L.B_PENDING_COUNT)
    thread = load64(W + L.W_INDEX) * 32
    floor = floor_of(B)
    cell = cell_of(B, site, 0)
    writes = load64(B + L.B_WRITES)
    reads = load64(B + L.B_READS)
    older = load64(B + L.B_OLDER_READS)
    for lane in range(8 * count):
        offset = load64(W + L.W_ADDRESS + 8 * lane)
        if pending != 0:
            pending_access(B, site, thread + lane, offset, offset, 16, L.READ)
        if checks & L.CHECK_RACES:
            race_read(B, floor, cell, writes, reads, older, thread + lane, offset, 16, granule)
        copy(W + L.W_DATA + 16 * lane, data + offset, 16)
        if checks & L.CHECK_UNINITIALIZED:
            copy(W + L.W_MATRIX_DEFINED + 16 * lane, shadows + offset, 16)
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
            continue
        if place == L.SHARED:
            legal = legal | (1 << lane)
            if checks & L.CHECK_PENDING:
                pending_access(B, site, thread, offset, address, 16, L.READ)
            if checks & L.CHECK_RACES:
                race_read_any(B, site, thread, offset, 16, 0)
        copy(here, pointer, 16)
        bits = shadow(B, W, lane, place, offset, address)
        if bits == 0:
            fill(known, 1, 16)
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
