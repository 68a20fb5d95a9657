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
from loadsparse.gpu.kernels import parts
from loadsparse.gpu.kernels.blocks import (
    clear_shared,
    load_panels,
    load_rows,
    load_while,
    scatter_items,
)
from loadsparse.gpu.kernels.shelf import shelved
from loadsparse.gpu.launch import Launch
from loadsparse.reference.formats import TiledCSL

TILE_M, TILE_K, THREADS = 128, 64, 128
A_BYTES = TILE_M * TILE_K * 2
STAGED = 4  # vectors of 4 items that a thread keeps in registers: 2048 items of a tile


def product(dtype: str, panels: int, n_width: int, direct: bool, paired: bool) -> Any:
    """Device function that multiplies one strip of 128 rows by 8*panels columns, over this block's part of K (blockIdx.z).

    origin: tile row where the matrix begins; top: first row in C; b_column, column: first in B and in C; end: of the
    columns in C; ldb, ldc: row lengths of B and of C.  direct: round and store C; otherwise store float32 partials.
    n_width: see parts.copy_width.  paired: rows of C start at words.
    """
    mma, write_tile = mma_m16n8k16[dtype], parts.write_tile(dtype, panels, direct, paired, TILE_M)
    place_b, copy_b = parts.copy_tile(TILE_K, panels, n_width, THREADS)
    b_bytes = TILE_K * panels * 16
    acc_count, staged_words = 2 * 4 * panels, 4 * STAGED
    vector_pitch, clears = THREADS * 16, A_BYTES // (THREADS * 16)

    @cuda.jit(device=True, inline="always")
    def strip_product(tile_offsets, items, b, c, origin, top, b_column, column, end, m, k, ldb, ldc):
        thread = uint32(cuda.threadIdx.x)
        lane, warp = uint32(thread & uint32(31)), uint32(thread >> uint32(5))
        tiles, first, last = parts.own_steps(k)
        a_base = shared_base()
        b_base = uint32(a_base + uint32(2 * A_BYTES))
        # ldmatrix address of this lane: row lane%16 of the warp's first row tile, 16-byte chunk lane/16, swizzled
        row_at = uint32(warp * uint32(4096) + uint32(lane & uint32(15)) * uint32(128))
        row_at = uint32(row_at + uint32(uint32(uint32(lane >> uint32(4)) ^ uint32(lane & uint32(7))) << uint32(4)))
        b_row = keep(
            uint32(uint32(uint32(lane & uint32(15)) << uint32(4)) + uint32(uint32(lane >> uint32(4)) << uint32(10)))
        )
        b_place = place_b(thread)
        offsets = tile_offsets + (uint64(origin + uint32(top >> uint32(7))) * uint64(tiles) + uint64(first)) * uint64(4)
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
                    b_column,
                    ldb,
                    k,
                )
                cp_async_commit()
                clear_shared(uint32(a_next + thread * uint32(16)), clears, vector_pitch)
            if step > first:
                b_now = uint32(b_base + uint32(uint32(other ^ uint32(1)) * uint32(b_bytes)) + b_row)
                a_row = uint32(a_now + row_at)
                for kk in range(4):
                    left = load_rows(uint32(a_row ^ uint32(kk * 32)), 0, 2, 2048)
                    acc = mma(acc, left, load_panels(b_now, kk * 256, panels, 1024))
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

        within = uint32(uint32(warp * uint32(32)) + uint32(lane >> uint32(2)))
        write_tile(c, acc, top, within, column, end, m, ldc)

    return strip_product


@shelved
def compiled(
    dtype: str, panels: int, n_width: int, direct: bool, paired: bool, arch: str, *, grouped: bool = False
) -> str:
    """PTX of the kernel for a grid of (strips, 8*panels columns, splits of K), or for one of work items; see `product`."""
    multiply = product(dtype, panels, n_width, direct, paired)

    def lscd(tile_offsets, items, b, c, m, n, k):
        top = uint32(uint32(cuda.blockIdx.x) * uint32(TILE_M))
        column = uint32(uint32(cuda.blockIdx.y) * uint32(8 * panels))
        multiply(tile_offsets, items, b, c, uint32(0), top, column, column, n, m, k, n, n)

    def grouped_lscd(tile_offsets, items, b, c, work, m, k, ldb, ldc):
        origin, top, b_column, column, end = parts.work_item(work)
        multiply(tile_offsets, items, b, c, origin, top, b_column, column, end, m, k, ldb, ldc)

    if grouped:
        signature = "void(uint64, uint64, uint64, uint64, uint64, uint32, uint32, uint32, uint32)"
        return compiler.numba(grouped_lscd, signature, arch, launch_bounds=THREADS)
    signature = "void(uint64, uint64, uint64, uint64, uint32, uint32, uint32)"
    return compiler.numba(lscd, signature, arch, launch_bounds=THREADS)


LARGE = 2**22
"""Elements from which compiling the packer (seconds, once) pays."""


@dataclass(frozen=True)
class Lscd:
    """The LSCD kernel: any M, N, K >= 1, any density of any tile, float16 and bfloat16, sm_80 and newer."""

    name: str = "lscd"

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> TiledCSL:
        """Tiled-CSL form of dense weights [M, K] (float16, or uint16 bit patterns with dtype="bf16").

        Large matrices go through the compiled packer, which makes the same bytes 60 times faster.
        """
        if a.size < LARGE:
            return TiledCSL.encode(a, dtype)
        from loadsparse.gpu.kernels.pack import pack_tiled_csl

        return pack_tiled_csl(a, dtype)

    def plan(self, encoded: TiledCSL, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch:
        """The launch that computes C = A x B for B[K, N] of the weights' dtype.

        `split_k` divides K over that many blocks (None: chosen from the multiprocessors of `arch`).  Raises ValueError.
        """
        return parts.plan_tiles(self.name, encoded, b, arch, split_k, TILING)


TILING = parts.Tiling(
    compiled=compiled,
    weights=("tile_offsets", "items"),
    tile_m=lambda panels: TILE_M,
    tile_k=TILE_K,
    threads=lambda panels: THREADS,
    resident=lambda panels: 3,
    shared_bytes=lambda panels: 2 * (A_BYTES + TILE_K * panels * 16),
)
