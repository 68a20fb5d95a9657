"""Load as sparse, compute as dense (LSCD): the Flash-LLM kernel.

Tiled-CSL weights cross DRAM compressed; each tile of 128 x 64 is rebuilt dense in shared memory and multiplied by Tensor
Cores.  Four warps own 32 rows each.  Two shared buffers: while the Tensor Cores work on tile t, the items of tile t+1
travel into registers, B's tile t+1 comes by cp.async and the other A buffer is filled with zeros; after a barrier the
items are scattered into it.  A tile may hold any number of items: those beyond the staged registers follow in a loop.
K is split over blocks; float32 partials are added by a second kernel in ascending order.

Where it differs from the authors' kernel: tiles of 128 rows for every N (theirs 256 for N <= 32), panels of 8 columns for
B, float32 partials (theirs float16), and no limit on M, N, K or the items of a tile.

Source: Xia et al., Flash-LLM, VLDB 2024 (arXiv 2309.10285), section 4.
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
    load_global_x4,
    mma_m16n8k16,
    shared_base,
    zero_words,
    zeros,
)
from loadsparse.gpu.kernels import parts, planning
from loadsparse.gpu.kernels.blocks import (
    clear_shared,
    load_panels,
    load_rows,
    load_while,
    scatter_items,
)
from loadsparse.gpu.kernels.shelf import shelved
from loadsparse.gpu.kernels.splitting import expected_resident
from loadsparse.gpu.launch import Launch
from loadsparse.reference.formats import TiledCSL

TILE_M, TILE_K, THREADS = 128, 64, 128
A_BYTES = TILE_M * TILE_K * 2
STAGED = 4  # vectors of 4 items that a thread keeps in registers: 2048 items of a tile


def product(dtype: str, panels: int, n_width: int, narrow: bool = False) -> Any:
    """Device function: one strip of 128 rows times 8*panels columns -> (accumulators, the lane's first row in the strip).

    tile_row: of the weights, counted from the first; first, last: steps along K; column: first in B[k, n].  n_width: see
    parts.copy_width.  narrow: only the first `used` panels are wanted, see parts.narrowing.
    """
    mma = mma_m16n8k16[dtype]
    place_b, copy_b = parts.copy_tile(TILE_K, panels, n_width, THREADS, narrow)
    b_bytes = TILE_K * panels * 16
    acc_count, staged_words = 2 * 4 * panels, 4 * STAGED
    vector_pitch, clears = THREADS * 16, A_BYTES // (THREADS * 16)

    def step_of(width: int) -> Any:
        @cuda.jit(device=True, inline="always")
        def multiply(acc, operands):
            a_row, b_now = operands
            for kk in range(4):
                left = load_rows(uint32(a_row ^ uint32(kk * 32)), 0, 2, 2048)
                acc = mma(acc, left, load_panels(b_now, kk * 256, width, 1024))
            return acc

        return multiply

    multiply = parts.narrowing(step_of, panels, narrow)

    @cuda.jit(device=True, inline="always")
    def strip_product(tile_offsets, items, b, tile_row, first, last, column, used, n, k):
        thread = uint32(cuda.threadIdx.x)
        lane, warp = uint32(thread & uint32(31)), uint32(thread >> uint32(5))
        tiles = uint32(uint32(k + uint32(63)) >> uint32(6))
        a_base = shared_base()
        b_base = uint32(a_base + uint32(2 * A_BYTES))
        # ldmatrix address of this lane: row lane%16 of the warp's first row tile, 16-byte chunk lane/16, swizzled
        row_at = uint32(warp * uint32(4096) + uint32(lane & uint32(15)) * uint32(128))
        row_at = uint32(row_at + uint32(uint32(uint32(lane >> uint32(4)) ^ uint32(lane & uint32(7))) << uint32(4)))
        b_row = keep(
            uint32(uint32(uint32(lane & uint32(15)) << uint32(4)) + uint32(uint32(lane >> uint32(4)) << uint32(10)))
        )
        b_place = place_b(thread)
        if narrow:
            b_place = parts.first_panels(b_place, used)
        offsets = tile_offsets + (uint64(tile_row) * uint64(tiles) + uint64(first)) * uint64(4)
        start = load_global(offsets, 0)
        staged = zero_words(staged_words)
        acc = zeros(acc_count)
        stop, vector = start, start
        step = first
        while True:
            other = uint32(uint32(step) & uint32(1))  # buffer of tile `step`; tile step-1 is in the other one
            a_next = uint32(a_base + uint32(other * uint32(A_BYTES)))
            a_now = uint32(a_base + uint32(uint32(other ^ uint32(1)) * uint32(A_BYTES)))
            if step < last:
                offsets += uint64(4)
                stop = load_global(offsets, 0)
                vector = uint32(start + thread)
                at = items + uint64(vector) * uint64(16)
                staged = load_while(at, STAGED, vector_pitch, uint32(stop - vector))
                copy_b(
                    b_place,
                    uint32(b_base + uint32(other * uint32(b_bytes))),
                    b,
                    uint32(step * uint32(64)),
                    column,
                    n,
                    k,
                )
                cp_async_commit()
                clear_shared(uint32(a_next + thread * uint32(16)), clears, vector_pitch)
            if step > first:
                b_now = uint32(b_base + uint32(uint32(other ^ uint32(1)) * uint32(b_bytes)) + b_row)
                acc = multiply(acc, (uint32(a_now + row_at), b_now), used)
            if step == last:
                break
            barrier()  # zeros are in place
            scatter_items(a_next, staged, THREADS, uint32(stop - vector))
            vector = uint32(vector + uint32(STAGED * THREADS))
            while vector < stop:
                scatter_items(a_next, load_global_x4(items + uint64(vector) * uint64(16), 0), THREADS, uint32(1))
                vector = uint32(vector + uint32(THREADS))
            start = stop
            cp_async_wait(0)
            barrier()  # tile `step` is complete
            step = uint32(step + uint32(1))

        return acc, uint32(uint32(warp * uint32(32)) + uint32(lane >> uint32(2)))

    return strip_product


@shelved
def compiled(
    dtype: str, panels: int, n_width: int, direct: bool, paired: bool, arch: str, *, grouped: bool = False
) -> str:
    """PTX of the kernel for a grid of (strips, 8*panels columns, splits of K), or for one of work items; see `product`."""
    multiply = product(dtype, panels, n_width, grouped)
    write_tile = parts.write_tile(dtype, panels, direct, paired, TILE_M)
    write_item = parts.write_item(dtype, panels, direct, paired, TILE_M)

    def lscd(tile_offsets, items, b, c, m, n, k):
        strip = uint32(cuda.blockIdx.x)
        column = uint32(uint32(cuda.blockIdx.y) * uint32(8 * panels))
        first, last = parts.own_steps(k)
        acc, within = multiply(tile_offsets, items, b, strip, first, last, column, uint32(panels), n, k)
        write_tile(c, acc, uint32(strip * uint32(TILE_M)), within, column, n, m)

    def grouped_lscd(tile_offsets, items, b, c, partials, work, m, k, ldb, ldc):
        (tile_row, top, b_column, column), (width, first, last, place) = parts.work_item(work)
        used = uint32(width >> uint32(8))
        acc, within = multiply(tile_offsets, items, b, tile_row, first, last, b_column, used, ldb, k)
        write_item(c, partials, acc, top, within, column, width, place, m, ldc)

    if grouped:
        signature = "void(uint64, uint64, uint64, uint64, uint64, uint64, uint32, uint32, uint32, uint32)"
        return compiler.numba(grouped_lscd, signature, arch, launch_bounds=THREADS)
    signature = "void(uint64, uint64, uint64, uint64, uint32, uint32, uint32)"
    return compiler.numba(lscd, signature, arch, launch_bounds=THREADS)


@dataclass(frozen=True)
class Lscd:
    """The LSCD kernel: any M, N, K >= 1, any density of any tile, float16 and bfloat16, sm_80 and newer."""

    name: str = "lscd"

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> TiledCSL:
        """Tiled-CSL form of dense weights [M, K] (float16, or uint16 bit patterns with dtype="bf16").

        Large matrices go through the compiled packer, which makes the same bytes 60 times faster.
        """
        if np.size(a) < planning.LARGE:
            return TiledCSL.encode(a, dtype)
        from loadsparse.gpu.kernels.pack import pack_tiled_csl

        return pack_tiled_csl(a, dtype)

    def plan(self, encoded: TiledCSL, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch:
        """The launch that computes C = A x B for B[K, N] of the weights' dtype.

        `split_k` divides K over that many blocks (None: chosen from the multiprocessors of `arch`).  Raises ValueError.
        """
        planning.check_weights(self.name, encoded, TiledCSL)
        return planning.plan_tiles(self.name, encoded, b, arch, split_k, TILING)

    def tiling(self, encoded: TiledCSL, m: int, arch: str) -> planning.Tiling:
        """How it cuts matrices of m rows into blocks: always alike."""
        return TILING


TILING = planning.Tiling(
    compiled=compiled,
    weights=("tile_offsets", "items"),
    tile_m=lambda panels: TILE_M,
    tile_k=TILE_K,
    threads=lambda panels: THREADS,
    resident=lambda panels: expected_resident(TILE_M),
    shared_bytes=lambda panels: 2 * (A_BYTES + TILE_K * panels * 16),
)
