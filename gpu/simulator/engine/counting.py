"""Run-time: the memory counters of SEMANTICS.md (requests, sectors, bytes, wavefronts)."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.native import (
    bank_waves,
    ctz,
    fill,
    inline,
    load8,
    load32,
    load64,
    lshr,
    popcount,
    row_banks,
    smax,
    store8,
    store32,
    store64,
    stride_of,
)
from loadsparse.gpu.simulator.engine.places import landing


@inline
def count(B: int, W: int, site: int, legal: int, space: int, size: int) -> int:
    """Counts the legal lanes of an access where they land."""
    if space == L.GLOBAL:
        count_sectors(B, W, site, legal, size, 1)
    elif space == L.SHARED:
        count_wavefronts(B, W, site, legal, size, 1)
    elif space == L.LOCAL:
        count_local(B, W, site, legal, size)
    elif space == L.GENERIC:
        shared = 0
        local = 0
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
            elif place == L.LOCAL:
                local = local | (1 << lane)
        count_sectors(B, W, site, outside, size, 1)
        count_wavefronts(B, W, site, shared, size, 1)
        count_local(B, W, site, local, size)
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


def count_local(B: int, W: int, site: int, legal: int, size: int) -> int:
    """Local: one request, and the distinct segments, each of which holds one 4-byte word of 8 threads."""
    if legal == 0:
        return 0
    bump(B, site, L.C_LOCAL_REQUESTS, 1)
    total = 0
    for octet in range(0, 32, 8):
        total += group_words(W, legal & (0xFF << octet), smax(size // 4, 1), W + L.W_SCRATCH) & L.LOW
    bump(B, site, L.C_LOCAL_SECTORS, total)
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
