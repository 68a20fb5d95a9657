"""What the Tensor Core kernels share: B tiles, the split of K, the results, their reduction.

A B tile is K rows x N columns kept as 8-column panels: panel j holds its rows one after the other, 16 bytes each.  Eight
rows of a panel are 128 consecutive bytes, so cp.async writes and ldmatrix reads have no bank conflict without a swizzle,
and every ldmatrix address is the lane's own plus a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import cuda, uint32, uint64

from loadsparse.gpu import compiler
from loadsparse.gpu.intrinsics import (
    cp_async_4,
    cp_async_8,
    cp_async_16,
    keep,
    load_global_half,
    load_global_x4,
    load_global_x4_f32,
    pack_halves,
    store_global,
    store_global_half,
    store_shared_half,
)
from loadsparse.gpu.kernels.blocks import store_partials, store_rounded
from loadsparse.gpu.kernels.shelf import shelved

WORK_BYTES = 32
"""Of a work item: eight words, one sector."""


def copy_width(n: int) -> int:
    """Bytes that one copy of B may move: rows of N 16-bit elements start at multiples of it (16, 8, 4 or 2)."""
    return math.gcd(2 * n, 16)


def copy_tile(rows: int, panels: int, width: int, threads: int, narrow: bool = False) -> tuple[Any, Any]:
    """Device functions (place, tile) that copy a B tile (rows x 8*panels) global -> shared, zeros outside of the matrix.

    place(thread) -> what a thread keeps in registers; tile(place, shared, b, row, column, n, k): the tile starts at element
    (row, column) of B[k, n].  The copies are asynchronous except for odd N, whose elements are moved one by one.
    narrow: the place may come from `first_panels`.
    """
    lanes = 1 << (panels - 1).bit_length()  # panels that the threads cover side by side, a power of two
    pass_rows = min(rows, threads // lanes)
    passes, active, shift = rows // pass_rows, pass_rows * lanes, (lanes - 1).bit_length()
    copy = {16: cp_async_16, 8: cp_async_8, 4: cp_async_4}.get(width)
    per_chunk, elements = 16 // width, width // 2
    everyone = active == threads and lanes == panels and not narrow

    @cuda.jit(device=True, inline="always")
    def place(thread):
        panel = uint32((thread >> uint32(3)) & uint32(lanes - 1))
        down = uint32(((thread >> uint32(3 + shift)) << uint32(3)) | (thread & uint32(7)))
        taken = panel < uint32(panels) and thread < uint32(active)
        limit = down if everyone or taken else uint32(0x80000000)
        at = uint32(uint32(panel * uint32(rows) + down) * uint32(16))
        return keep(limit), keep(uint32(panel << uint32(3))), keep(at)

    if copy is None:

        @cuda.jit(device=True, inline="always")
        def tile(place, shared, b, row, column, n, k):
            down, right, at = place
            if everyone or down < uint32(0x80000000):
                for i in range(passes):
                    here = uint32(row + down + uint32(i * pass_rows))
                    for e in range(8):
                        across = uint32(column + right + uint32(e))
                        value = uint32(0)
                        if here < k and across < n:
                            value = load_global_half(b + (uint64(here) * uint64(n) + uint64(across)) * uint64(2), 0)
                        store_shared_half(uint32(shared + at + uint32(i * pass_rows * 16 + 2 * e)), 0, value)
    else:

        @cuda.jit(device=True, inline="always")
        def tile(place, shared, b, row, column, n, k):
            down, right, at = place
            across, here, to = uint32(column + right), uint32(row + down), uint32(shared + at)
            source = b + (uint64(here) * uint64(n) + uint64(across)) * uint64(2)
            if everyone or down < uint32(0x80000000):
                for i in range(passes):
                    for part in range(per_chunk):
                        size = uint32(0)
                        if here < k and uint32(across + uint32(part * elements)) < n:
                            size = uint32(width)
                        copy(to, i * pass_rows * 16 + part * width, source, part * width, size)
                    here = uint32(here + uint32(pass_rows))
                    source += uint64(n) * uint64(2 * pass_rows)

    return place, tile


@cuda.jit(device=True, inline="always")
def first_panels(place, used):
    """The place of a thread, see `copy_tile`, that copies the first `used` panels only."""
    limit, right, at = place
    return (limit if right < uint32(used << uint32(3)) else uint32(0x80000000)), right, at


def narrowing(step: Callable[[int], Any], panels: int, narrow: bool) -> Any:
    """Device function (acc, operands, used) -> acc of step(panels), or, if `narrow`, of the narrowest step that holds `used`
    panels: all of them, half, a quarter ..., see `narrowest`.  step(width): device function (acc, operands) -> acc.
    """
    whole, half = step(panels), -(-panels // 2)
    if not narrow or panels == 1:

        @cuda.jit(device=True, inline="always")
        def only(acc, operands, used):
            return whole(acc, operands)

        return only
    narrower = narrowing(step, half, True)

    @cuda.jit(device=True, inline="always")
    def fitting(acc, operands, used):
        if used <= uint32(half):
            acc = narrower(acc, operands, used)
        else:
            acc = whole(acc, operands)
        return acc

    return fitting


def narrowest(used: int, panels: int) -> int:
    """Panels that a kernel of `panels` multiplies where `used` are needed, see `narrowing`.

    >>> [narrowest(used, 7) for used in range(1, 8)]
    [1, 2, 4, 4, 7, 7, 7]
    """
    half = -(-panels // 2)
    return panels if used > half or panels == 1 else narrowest(used, half)


@cuda.jit(device=True, inline="always")
def work_item(work):
    """What this block does: two times four words.

    (first tile row of the expert, first row of C, first column in B, in C), (columns + 256 times the panels to multiply, first
    step along K, the one after the last, where its partials lie: 0 where it stores C itself, else 1 + their place).
    """
    at = work + uint64(cuda.blockIdx.x) * uint64(WORK_BYTES)
    return load_global_x4(at, 0), load_global_x4(at, 16)


@cuda.jit(device=True, inline="always")
def own_steps(k):
    """Steps of 64 along K: (the first of this block's split, the one after its last)."""
    part, splits = uint32(cuda.blockIdx.z), uint32(cuda.gridDim.z)
    steps = uint32(uint32(k + uint32(63)) >> uint32(6))
    return uint32(uint32(part * steps) // splits), uint32(uint32(uint32(part + uint32(1)) * steps) // splits)


@cuda.jit(device=True, inline="always")
def partial_block():
    """Number of this block's partials, in blocks: [splits, blocks_n, strips]."""
    part = uint32(uint32(cuda.blockIdx.z) * uint32(cuda.gridDim.y) + uint32(cuda.blockIdx.y))
    return uint64(part) * uint64(cuda.gridDim.x) + uint64(cuda.blockIdx.x)


def write_rounded(dtype: str, panels: int, paired: bool) -> Any:
    """Device function that stores a block's accumulators rounded into C[m, end).

    top, column: first row and column of the block in C; within: of the lane's first row, from `top`; ldc: row length of C.
    paired: rows of C start at words.
    """
    store, even = store_rounded[dtype], int(paired)

    @cuda.jit(device=True, inline="always")
    def write(c, acc, top, within, column, end, m, ldc):
        down, across = uint32(top + within), uint32(column + own_column())
        to = c + (uint64(down) * uint64(ldc) + uint64(across)) * uint64(2)
        rows_left = uint32(m - down) if down < m else uint32(0)
        columns_left = uint32(end - across) if across < end else uint32(0)
        store(to, acc, panels, even, rows_left, columns_left, uint32(ldc * uint32(2)))

    return write


def write_partials(panels: int, tile_m: int) -> Any:
    """Device function that stores the first `used` panels of a block's accumulators as float32 partials number `block`."""

    @cuda.jit(device=True, inline="always")
    def write(partials, acc, block, within, used):
        down = block * uint64(tile_m) + uint64(within)
        store_partials(partials + (down * uint64(8 * panels) + uint64(own_column())) * uint64(4), acc, panels, used)

    return write


@cuda.jit(device=True, inline="always")
def own_column():
    """First column of a lane's accumulators in a panel."""
    return uint32(uint32(uint32(cuda.threadIdx.x) & uint32(3)) * uint32(2))


def write_tile(dtype: str, panels: int, direct: bool, paired: bool, tile_m: int) -> Any:
    """Device function that stores a block's accumulators: `write_rounded` if `direct`, else `write_partials`."""
    rounded, unrounded = write_rounded(dtype, panels, paired), write_partials(panels, tile_m)

    @cuda.jit(device=True, inline="always")
    def write(c, acc, top, within, column, n, m):
        if direct:
            rounded(c, acc, top, within, column, n, m, n)
        else:
            unrounded(c, acc, partial_block(), within, uint32(panels))

    return write


def write_item(dtype: str, panels: int, direct: bool, paired: bool, tile_m: int) -> Any:
    """Device function that stores the accumulators of a work item; width, place: see `work_item`.  direct: none has partials."""
    rounded, unrounded = write_rounded(dtype, panels, paired), write_partials(panels, tile_m)

    @cuda.jit(device=True, inline="always")
    def write(c, partials, acc, top, within, column, width, place, m, ldc):
        if direct or place == uint32(0):
            rounded(c, acc, top, within, column, uint32(column + uint32(width & uint32(0xFF))), m, ldc)
        else:
            unrounded(partials, acc, uint64(place - uint32(1)), within, uint32(width >> uint32(8)))

    return write


def sum_splits(dtype: str, paired: bool) -> Any:
    """Device function: add `splits` times 4 float32 partials in ascending order, round them, store those inside of C.

    at: address of the first four, slice_bytes from one split to the next; to: address in C; inside: how many columns of C
    lie there.  paired: rows of C start at words, and `inside` is even.
    """
    pack = pack_halves[dtype]

    @cuda.jit(device=True, inline="always")
    def add(at, slice_bytes, splits, to, inside):
        a0, a1, a2, a3 = load_global_x4_f32(at, 0)
        for _ in range(splits - 1):
            at += slice_bytes
            b0, b1, b2, b3 = load_global_x4_f32(at, 0)
            a0, a1, a2, a3 = a0 + b0, a1 + b1, a2 + b2, a3 + b3
        low, high = pack(a0, a1), pack(a2, a3)
        if paired:
            store_global(to, 0, low)
            if inside > uint32(2):
                store_global(to, 4, high)
        else:
            store_global_half(to, 0, low)
            if inside > uint32(1):
                store_global_half(to, 2, uint32(low >> uint32(16)))
            if inside > uint32(2):
                store_global_half(to, 4, high)
            if inside > uint32(3):
                store_global_half(to, 6, uint32(high >> uint32(16)))

    return add


@shelved
def reduction(dtype: str, panels: int, splits: int, paired: bool, arch: str) -> str:
    """PTX that adds `splits` float32 partials [splits, blocks_n, rows, 8*panels] in ascending order and rounds them to C[m, n].

    A thread makes 4 consecutive columns of one row.  paired: n is even.  slice_bytes: size of one split's partials;
    block_bytes: of one block of columns.
    """
    add, groups = sum_splits(dtype, paired), 2 * panels

    def reduce_splits(partials, c, m, n, block_bytes, slice_bytes):
        index = uint32(uint32(uint32(cuda.blockIdx.x) << uint32(7)) + uint32(cuda.threadIdx.x))
        row = uint32(index // uint32(groups))
        block = uint32(cuda.blockIdx.y)
        group = uint32(uint32(index % uint32(groups)) + uint32(block * uint32(groups)))
        column = uint32(group << uint32(2))
        if row < m and column < n:
            at = partials + block * block_bytes + uint64(index) * uint64(16)
            to = c + (uint64(row) * uint64(n) + uint64(column)) * uint64(2)
            add(at, slice_bytes, splits, to, uint32(n - column))

    signature = "void(uint64, uint64, uint32, uint32, uint64, uint64)"
    return compiler.numba(reduce_splits, signature, arch, launch_bounds=128)
