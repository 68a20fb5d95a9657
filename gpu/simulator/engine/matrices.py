"""Run-time: fragments of wmma and of integer matrices (shapes are constants at every call).

A fragment lies in memory register by register, one <32 x i32> each.  Of wmma, element i of lane l, with n elements per
lane, is element (n l + i) mod size of the row-major matrix; of elements held twice the higher lane's counts.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.native import inline, load8, load16, load32, smax, smin, store16, store32

WMMA_A, WMMA_B, WMMA_C, WMMA_D, WMMA_KNOWN = range(L.W_SCRATCH, L.W_SCRATCH + 5 * 1024, 1024)
"""Registers of the operands; masks of their defined lanes at WMMA_KNOWN: 16 words each for A, B, C and D."""
A_AREA, B_AREA, C_AREA, D_AREA, METADATA_AREA = range(L.W_MMA, L.W_MMA + 2560, 512)
"""Registers of one mma (`mma.py`).  The metadata lies where a wmma's registers would."""


@inline
def cell_place(base: int, cell: int, size: int, per_lane: int, width: int) -> int:
    """Address of a wmma element of `width` bytes."""
    lane = cell // per_lane + 32 - size // per_lane
    byte = cell % per_lane * width
    return base + 128 * (byte // 4) + 4 * lane + byte % 4


@inline
def wmma_fill(
    B: int,
    W: int,
    site: int,
    mask: int,
    m: int,
    n: int,
    k: int,
    row: int,
    column: int,
    width: int,
    per_a: int,
    per_b: int,
    wide_c: int,
) -> int:
    """The operands of the m16n8k16 (tf32: m16n8k8) at (row, column) of D, from wmma fragments of 16-bit (32-bit)
    elements; missing rows are 0."""
    per = 4 // width
    for word in range(128):
        lane = word % 32
        register = word // 32
        i = row + lane // 4 + 8 * (register & 1)
        p = per * (4 * (register // 2) + lane % 4)
        value = load32(cell_place(W + WMMA_A, i * k + p, m * k, per_a, width)) if i < m else 0
        store32(W + A_AREA + 4 * word, value)
        j = column + 2 * (lane % 4) + (register & 1)
        i = row + lane // 4 + 8 * (register // 2)
        if wide_c != 0:
            value = load32(cell_place(W + WMMA_C, i * n + j, m * n, m * n // 32, 4)) if i < m else 0
            store32(W + C_AREA + 4 * word, value)
        else:
            value = load16(cell_place(W + WMMA_C, i * n + j, m * n, m * n // 32, 2)) if i < m else 0
            store16(W + C_AREA + 128 * (register // 2) + 4 * lane + 2 * (register & 1), value)
    for word in range(64):
        lane = word % 32
        p = per * (4 * (word // 32) + lane % 4)
        j = column + lane // 4
        place = cell_place(W + WMMA_B, p * n + j, k * n, per_b, width)
        if width == 4:
            store32(W + B_AREA + 4 * word, load32(place))
        else:
            store16(W + B_AREA + 4 * word, load16(place))
            store16(W + B_AREA + 4 * word + 2, load16(cell_place(W + WMMA_B, p * n + n + j, k * n, per_b, width)))
    return 0


@inline
def wmma_take(B: int, W: int, site: int, mask: int, m: int, n: int, row: int, column: int, wide_d: int) -> int:
    """The tile at (row, column) of D back into its wmma fragment."""
    for word in range(128):
        lane = word % 32
        register = word // 32
        i = row + lane // 4 + 8 * (register // 2)
        j = column + 2 * (lane % 4) + (register & 1)
        if i < m:
            if wide_d != 0:
                store32(cell_place(W + WMMA_D, i * n + j, m * n, m * n // 32, 4), load32(W + D_AREA + 4 * word))
            else:
                half = load16(W + D_AREA + 128 * (register // 2) + 4 * lane + 2 * (register & 1))
                store16(cell_place(W + WMMA_D, i * n + j, m * n, m * n // 32, 2), half)
    return 0


@inline
def wmma_integers(
    B: int, W: int, site: int, mask: int, m: int, n: int, signed_a: int, signed_b: int, saturates: int
) -> int:
    """D = A B + C of 8-bit integers, K = 16."""
    for cell in range(m * n):
        i = cell // n
        j = cell % n
        total = signed32(load32(cell_place(W + WMMA_C, cell, m * n, m * n // 32, 4)))
        for k in range(16):
            a = byte_at(cell_place(W + WMMA_A, i * 16 + k, m * 16, m // 2, 1), signed_a)
            b = byte_at(cell_place(W + WMMA_B, k * n + j, 16 * n, n // 2, 1), signed_b)
            total += a * b
        store32(cell_place(W + WMMA_D, cell, m * n, m * n // 32, 4), saturated(total, saturates))
    return 0


@inline
def mma_integers(
    B: int, W: int, site: int, mask: int, m: int, depth: int, signed_a: int, signed_b: int, saturates: int
) -> int:
    """D = A B + C of mma.sync on 8-bit integers: M x 8, K = `depth`."""
    halves = m // 8
    for cell in range(m * 8):
        i = cell // 8
        j = cell % 8
        place = 128 * (2 * (i // 8) + (j & 1)) + 4 * (4 * (i % 8) + j // 2)
        total = signed32(load32(W + C_AREA + place))
        for k in range(depth):
            byte = 4 * (k % 16 // 4) + k % 4
            a = byte_at(W + A_AREA + 128 * (k // 16 * halves + i // 8) + 16 * (i % 8) + byte, signed_a)
            b = byte_at(W + B_AREA + 128 * (k // 16) + 16 * j + byte, signed_b)
            total += a * b
        store32(W + D_AREA + place, saturated(total, saturates))
    return 0


@inline
def byte_at(place: int, signed: int) -> int:
    value = load8(place)
    return value - 256 * (value >> 7) if signed != 0 else value


@inline
def signed32(value: int) -> int:
    return (value ^ 0x80000000) - 0x80000000


@inline
def saturated(value: int, saturates: int) -> int:
    return smax(smin(value, 0x7FFFFFFF), -0x80000000) if saturates != 0 else value


def wmma_known(W: int, m: int, n: int, k: int, per_a: int, per_b: int, width_a: int, width_c: int, width_d: int) -> int:
    """Defined masks of D: element (i, j) is defined iff row i of A, column j of B and the element of C are.

    A and B hold per_a and per_b elements of width_a bytes per lane; width_c and width_d are those of C and D (f64
    counts as 4: a register holds one element).
    """
    rows = 0
    columns = 0
    for lane in range(32):
        for e in range(per_a):
            if (load32(W + WMMA_KNOWN + 4 * (e * width_a // 4)) >> lane) & 1 == 0:
                rows = rows | (1 << ((per_a * lane + e) % (m * k) // k))
        for e in range(per_b):
            if (load32(W + WMMA_KNOWN + 64 + 4 * (e * width_a // 4)) >> lane) & 1 == 0:
                columns = columns | (1 << ((per_b * lane + e) % (k * n) % n))
    each = m * n // 32
    for register in range(each * width_d // 4):
        known = 0
        for lane in range(32):
            sure = 1
            for e in range(register * 4 // width_d, (register + 1) * 4 // width_d):
                cell = lane * each + e
                c = load32(W + WMMA_KNOWN + 128 + 4 * (e * width_c // 4)) >> lane
                sure = sure & c & ~(rows >> (cell // n)) & ~(columns >> (cell % n))
            known = known | ((sure & 1) << lane)
        store32(W + WMMA_KNOWN + 192 + 4 * register, known)
    return 0
