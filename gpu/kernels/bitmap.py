"""Bitmap weights decoded from shared memory straight into mma fragments: no dense tile, no scatter, no zero-fill.

A warp owns 4 strips of 16 rows x 64 columns (2 beyond 32 columns of B) and decodes them as `decode.py` says.  A block has 256
rows (512 beyond 32 columns where shared memory holds them, so that more warps share B's tile).  Tiles travel through up to four
shared-memory stages by cp.async, with one barrier a step.  K is split over blocks; float32 partials are added by a second
kernel in ascending order.

The tiles of `Adaptive` weights are of several kinds; those that are no bitmaps take the road of `scatter.py`.

Bank conflicts: the halfwords that a warp reads in one instruction lie among the values of one group of elements (see
`LaneBitmap.bits`).  While those fill at most 31 words, no two of them share a bank; denser groups conflict.

Source: the format and the idea of decoding into registers: SpInfer (EuroSys 2025); this decode is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda, uint32, uint64
from numpy.typing import NDArray

from loadsparse.gpu import compiler
from loadsparse.gpu.intrinsics import (
    barrier,
    cp_async_commit,
    cp_async_wait,
    keep,
    load_global,
    load_shared,
    shared_base,
    uniform,
    warp_barrier,
    zeros,
)
from loadsparse.gpu.kernels import parts, planning
from loadsparse.gpu.kernels.blocks import clear_shared, copy_while, load_panels
from loadsparse.gpu.kernels.decode import decode_and_multiply, locate
from loadsparse.gpu.kernels.scatter import area_bytes, scatter_half, take_and_multiply
from loadsparse.gpu.kernels.shelf import shelved
from loadsparse.gpu.kernels.splitting import expected_resident, shared_per_block
from loadsparse.gpu.launch import Launch
from loadsparse.reference.formats.adaptive import BITMAP, DENSE, DENSE_START, Adaptive
from loadsparse.reference.formats.delta import STREAM
from loadsparse.reference.formats.lane_bitmap import LaneBitmap

TILE_K = 64


def product(
    dtype: str,
    panels: int,
    n_width: int,
    narrow: bool,
    *,
    tile_m: int,
    bits: int,
    stages: int,
    copies: int,
    rounds: int,
) -> Any:
    """Device function that multiplies tile_m rows by 8*panels columns; see lscd.product.  final_row: the last tile row.

    bits: of the format; stages: shared-memory stages; copies: 16-byte copies of A that a thread issues at once; rounds: 0
    where every tile is a bitmap, else that many for each half of a delta tile.  The last parameter of the function is the
    bytes of a tile slot.
    """
    step_by, take = decode_and_multiply[dtype], take_and_multiply[dtype]
    strips, threads = strips_per_warp(panels), threads_per_block(tile_m, panels)
    place_b, copy_b = parts.copy_tile(TILE_K, panels, n_width, threads, narrow)
    sharers = 4 // strips  # warps that work on one format tile
    loaders, slots, ahead = 32 * sharers, tile_m // 64, stages - 1
    at_once, stride = copies, 512 * sharers
    acc_count, b_bytes = strips * 4 * panels, TILE_K * panels * 16
    lane_shift, lane_bits, oldest = bits.bit_length() - 1, bits // 4, stages - 2
    mixed, dense_area, area_rows = rounds > 0, area_bytes(strips), 2 * strips
    scatter = scatter_half(strips == 4, rounds)

    def step_of(width: int) -> Any:
        @cuda.jit(device=True, inline="always")
        def multiply(acc, operands):
            tile, words_at, headers_at, b_tile, before, shift = operands
            words, starts = locate(tile, words_at, headers_at, strips)
            acc = step_by(acc, words, starts, 0, bits, before, shift, load_panels(b_tile, 0, width, 1024))
            acc = step_by(acc, words, starts, 1, bits, before, shift, load_panels(b_tile, 256, width, 1024))
            acc = step_by(acc, words, starts, 2, bits, before, shift, load_panels(b_tile, 512, width, 1024))
            return step_by(acc, words, starts, 3, bits, before, shift, load_panels(b_tile, 768, width, 1024))

        return multiply

    by_bitmap = parts.narrowing(step_of, panels, narrow)

    @cuda.jit(device=True, inline="always")
    def strips_product(offsets, data, b, tile_row, final_row, first, last, column, used, n, k, slot):
        thread = uint32(cuda.threadIdx.x)
        lane, warp = uint32(thread & uint32(31)), uint32(thread >> uint32(5))
        mine, sub = uint32(warp // uint32(sharers)), uint32(uint32(warp % uint32(sharers)) * uint32(strips))
        loader = uint32(thread % uint32(loaders))
        tiles = uint32(uint32(k + uint32(63)) >> uint32(6))
        # a warp beyond the last row repeats the last tile, which is not stored: control flow stays uniform
        own_row = min(uint32(tile_row + mine), final_row)
        shift = keep(uint32(uint32(lane >> uint32(lane_shift)) * uint32(lane_bits)))
        before = keep(uint32(uint32(uint32(uint32(1) << shift) - uint32(1)) * uint32(0x01010101)))
        b_place = place_b(thread)
        if narrow:
            b_place = parts.first_panels(b_place, used)

        stage_bytes = uint32(slot * uint32(slots) + uint32(b_bytes))
        base = keep(shared_base())
        limit = keep(uint32(base + stage_bytes * uint32(stages)))
        write, read = base, base
        a_at = keep(uint32(mine * slot))
        word_at = keep(uint32(uint32(lane << uint32(2)) + uint32(sub << uint32(7))))
        header_at = keep(uint32(sub << uint32(1)))
        b_at = uint32(slot * uint32(slots))
        b_row = keep(row_of_b(b_at, lane))
        if mixed:
            dense_at = uint32(limit + uint32(warp * uint32(dense_area)))
            clear_shared(uint32(dense_at + uint32(lane << uint32(4))), area_rows, 512)
        at = offsets + (uint64(own_row) * uint64(tiles) + uint64(first)) * uint64(4)
        start, stop = load_global(at, 0), load_global(at, 4)
        acc = zeros(acc_count)
        step = first
        while step < uint32(last + uint32(ahead)):
            ready = step >= uint32(first + uint32(ahead))
            if ready:
                cp_async_wait(oldest)
                barrier()
            if step < last:
                size = uint32(stop - start)
                remaining, to = uint32(size - loader), uint32(write + a_at + uint32(loader << uint32(4)))
                source = data + uint64(uint32(start + loader)) * uint64(16)
                copy_while(to, source, at_once, stride, remaining)
                done = uint32(at_once * loaders)
                while done < size:  # a tile larger than most
                    remaining = uint32(uint32(size - done) - loader)
                    copy_while(
                        uint32(to + uint32(done << uint32(4))), source + uint64(done) * uint64(16), 1, stride, remaining
                    )
                    done = uint32(done + uint32(loaders))
                copy_b(b_place, uint32(write + b_at), b, uint32(step * uint32(64)), column, n, k)
                start = stop
                if uint32(step + uint32(1)) < last:
                    at += uint64(4)
                    stop = load_global(at, 4)
                write = uint32(write + stage_bytes)
                if write == limit:
                    write = base
            cp_async_commit()
            if ready:
                tile = uint32(read + a_at)
                b_tile = uint32(read + b_row)
                if mixed:  # what depends on the thread alone is computed anew: registers are short
                    me = keep(thread)
                    my_lane, my_warp = uint32(me & uint32(31)), uint32(me >> uint32(5))
                    if panels == 8:
                        b_tile = uint32(read + row_of_b(b_at, my_lane))
                    my_sub = uint32(uint32(my_warp % uint32(sharers)) * uint32(strips))
                    head = load_shared(tile, 0)
                    kind = uniform(uint32(head & uint32(0xFFFF)))
                    if kind == uint32(BITMAP):
                        my_shift = uint32(uint32(my_lane >> uint32(lane_shift)) * uint32(lane_bits))
                        my_before = uint32(uint32(uint32(uint32(1) << my_shift) - uint32(1)) * uint32(0x01010101))
                        words_at = uint32(tile + uint32(my_lane << uint32(2)) + uint32(my_sub << uint32(7)))
                        headers_at = uint32(tile + uint32(my_sub << uint32(1)))
                        acc = by_bitmap(acc, (tile, words_at, headers_at, b_tile, my_before, my_shift), used)
                    else:
                        left, right = uint32(head >> uint32(16)), load_shared(tile, 4)
                        octets, pair = uint32(left + right), uint32(my_sub >> uint32(1))
                        area = uint32(limit + uint32(my_warp * uint32(dense_area)))
                        fragments, next_half = uint32(area + uint32(my_lane << uint32(4))), uint32(0)
                        if kind == uint32(DENSE):
                            fragments = uint32(tile + uint32(DENSE_START) + uint32(my_lane << uint32(4)))
                            fragments = uint32(fragments + uint32(pair * uint32(STREAM)))
                            next_half = uint32(STREAM * 2)
                        scatter(tile, kind, octets, uint32(0), left, my_lane, area, pair)
                        warp_barrier()
                        acc = take(acc, fragments, 0, load_panels(b_tile, 0, panels, 1024))
                        acc = take(acc, fragments, 1, load_panels(b_tile, 256, panels, 1024))
                        fragments = uint32(fragments + next_half)
                        scatter(tile, kind, octets, left, right, my_lane, area, pair)
                        warp_barrier()
                        acc = take(acc, fragments, 0, load_panels(b_tile, 512, panels, 1024))
                        acc = take(acc, fragments, 1, load_panels(b_tile, 768, panels, 1024))
                else:
                    words_at, headers_at = uint32(tile + word_at), uint32(tile + header_at)
                    acc = by_bitmap(acc, (tile, words_at, headers_at, b_tile, before, shift), used)
                read = uint32(read + stage_bytes)
                if read == limit:
                    read = base
            step = uint32(step + uint32(1))

        return acc, uint32(uint32(mine << uint32(6)) + uint32(sub << uint32(4)) + uint32(lane >> uint32(2)))

    return strips_product


@shelved
def compiled(
    dtype: str,
    panels: int,
    n_width: int,
    direct: bool,
    paired: bool,
    arch: str,
    *,
    grouped: bool = False,
    tile_m: int,
    bits: int,
    stages: int,
    copies: int,
    rounds: int = 0,
) -> str:
    """PTX of the kernel for a grid of (tile_m rows, 8*panels columns, splits of K), or for one of work items; see `product`."""
    how = {"tile_m": tile_m, "bits": bits, "stages": stages, "copies": copies, "rounds": rounds}
    multiply = product(dtype, panels, n_width, grouped, **how)
    write_tile = parts.write_tile(dtype, panels, direct, paired, tile_m)
    write_item = parts.write_item(dtype, panels, direct, paired, tile_m)

    def bitmap(offsets, data, b, c, m, n, k, slot):
        top = uint32(uint32(cuda.blockIdx.x) * uint32(tile_m))
        column = uint32(uint32(cuda.blockIdx.y) * uint32(8 * panels))
        row, final_row = uint32(top >> uint32(6)), uint32(uint32(m - uint32(1)) >> uint32(6))
        first, last = parts.own_steps(k)
        acc, within = multiply(offsets, data, b, row, final_row, first, last, column, uint32(panels), n, k, slot)
        if uint32(top + within) < m:
            write_tile(c, acc, top, within, column, n, m)

    def grouped_bitmap(offsets, data, b, c, partials, work, m, k, ldb, ldc, slot):
        (row, top, b_column, column), (width, first, last, place) = parts.work_item(work)
        final_row = uint32(row + uint32(uint32(uint32(m - uint32(1)) - top) >> uint32(6)))
        used = uint32(width >> uint32(8))
        acc, within = multiply(offsets, data, b, row, final_row, first, last, b_column, used, ldb, k, slot)
        if uint32(top + within) < m:
            write_item(c, partials, acc, top, within, column, width, place, m, ldc)

    threads, most = threads_per_block(tile_m, panels), registers(panels)
    if panels == 4 and rounds and n_width == 2:
        most = 128  # copying odd rows takes more; as many blocks of 128 threads fit as with 112
    if rounds and panels <= 2 and (rounds > 2 or (panels == 2 and (bits == 4 or n_width < 16))):
        most = 96  # rounds, half fragments and narrow copies each take more
    if grouped:
        signature = "void(uint64, uint64, uint64, uint64, uint64, uint64, uint32, uint32, uint32, uint32, uint32)"
        return compiler.numba(grouped_bitmap, signature, arch, launch_bounds=threads, registers=most)
    signature = "void(uint64, uint64, uint64, uint64, uint32, uint32, uint32, uint32)"
    name = "adaptive" if rounds else "bitmap"
    return compiler.numba(bitmap, signature, arch, name=name, launch_bounds=threads, registers=most)


@cuda.jit(device=True, inline="always")
def row_of_b(at, lane):
    """Address of the lane's row of ldmatrix in the tile of B at `at`."""
    return uint32(at + uint32(uint32(lane & uint32(15)) << uint32(4)) + uint32(uint32(lane >> uint32(4)) << uint32(10)))


def threads_per_block(tile_m: int, panels: int) -> int:
    """Enough warps for the strips of tile_m rows, which a tile of B serves."""
    return 32 * (tile_m // 16) // strips_per_warp(panels)


def registers(panels: int) -> int:
    """Registers that a thread may use: what its accumulators and fragments need, and no more, so that blocks fit."""
    return 80 if panels <= 2 else 112 if panels <= 4 else 128


def strips_per_warp(panels: int) -> int:
    """Strips of 16 rows that a warp keeps accumulators for."""
    return 4 if panels <= 4 else 2


@dataclass(frozen=True)
class BitmapKernel:
    """The bitmap kernel: any M, N, K >= 1, any density of any tile, float16 and bfloat16, sm_80 and newer."""

    name: str = "bitmap"

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> LaneBitmap:
        """Lane-ordered bitmap form of dense weights [M, K] (float16, or uint16 bit patterns with dtype="bf16")."""
        if np.size(a) < planning.LARGE:
            return LaneBitmap.encode(a, dtype)
        from loadsparse.gpu.kernels.pack_lanes import pack_lane_bitmap

        return pack_lane_bitmap(a, dtype)

    def plan(self, encoded: LaneBitmap, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch:
        """The launch that computes C = A x B for B[K, N] of the weights' dtype.

        `split_k` divides K over that many blocks (None: chosen from the multiprocessors of `arch`).  Raises ValueError.
        """
        planning.check_weights(self.name, encoded, LaneBitmap)
        return planning.plan_tiles(self.name, encoded, b, arch, split_k, tiling(encoded, encoded.shape[0], arch))

    def tiling(self, encoded: LaneBitmap, m: int, arch: str) -> planning.Tiling:
        """See `tiling`."""
        return tiling(encoded, m, arch)


@dataclass(frozen=True)
class AdaptiveKernel:
    """The bitmap kernel on weights whose tiles each have the form that suits their density; see `Adaptive`."""

    name: str = "adaptive"

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> Adaptive:
        """Dense weights [M, K] (float16, or uint16 bit patterns with dtype="bf16"), each tile in its best form."""
        if np.size(a) < planning.LARGE:
            return Adaptive.encode(a, dtype)
        from loadsparse.gpu.kernels.pack_lanes import pack_adaptive

        return pack_adaptive(a, dtype)

    def plan(self, encoded: Adaptive, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch:
        """The launch that computes C = A x B, see `BitmapKernel.plan`."""
        planning.check_weights(self.name, encoded, Adaptive)
        return planning.plan_tiles(self.name, encoded, b, arch, split_k, tiling(encoded, encoded.shape[0], arch))

    def tiling(self, encoded: Adaptive, m: int, arch: str) -> planning.Tiling:
        """See `tiling`."""
        return tiling(encoded, m, arch)


def tiling(encoded: LaneBitmap | Adaptive, m: int, arch: str) -> planning.Tiling:
    """How the kernel cuts matrices of m rows: its height, stages and copies depend on the largest tile of the weights."""
    slot, limit = 16 * int(np.diff(encoded.offsets).max()), shared_per_block(arch)
    bits, rounds = int(encoded.bits[0]), encoded.rounds() if isinstance(encoded, Adaptive) else 0

    def panels(n: int) -> int:
        total, most = -(-n // 8), 6 if rounds > 1 else 7 if rounds and n % 8 else 8  # more would spill
        return -(-total // -(-total // most)) if rounds else min(total, most)

    def needs(stages: int, tile_m: int, panels: int) -> int:
        areas = tile_m // 16 // strips_per_warp(panels) * area_bytes(strips_per_warp(panels)) if rounds else 0
        return stages * (tile_m // 64 * slot + TILE_K * panels * 16) + areas

    def tile_m(panels: int) -> int:
        return 512 if panels > 4 and m > 256 and needs(3, 512, panels) <= limit else 256

    def stages(panels: int) -> int:
        """Four within 48 KB for every 256 rows, else three, or two where three do not fit."""
        height = tile_m(panels)
        if needs(4, height, panels) <= min(limit, 192 * height):
            return 4
        return 3 if needs(3, height, panels) <= limit else 2

    def copies(panels: int) -> int:
        return min(-(-slot * strips_per_warp(panels) // (4 * 32 * 16)), 10)

    def build(dtype: str, panels: int, n_width: int, direct: bool, paired: bool, arch: str, **how: Any) -> str:
        variant = {
            "tile_m": tile_m(panels), "bits": bits, "stages": stages(panels), "copies": copies(panels), "rounds": rounds,
        }  # fmt: skip
        return compiled(dtype, panels, n_width, direct, paired, arch, **variant, **how)

    return planning.Tiling(
        compiled=build,
        weights=("offsets", "data"),
        tile_m=tile_m,
        tile_k=TILE_K,
        threads=lambda panels: threads_per_block(tile_m(panels), panels),
        resident=lambda panels: expected_resident(tile_m(panels)),
        shared_bytes=lambda panels: needs(stages(panels), tile_m(panels), panels),
        extra=(np.uint32(slot),),
        panels=panels,
    )
