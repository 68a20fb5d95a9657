"""2:4 structured sparsity on sparse Tensor Cores (mma.sp), the scheme of cuSPARSELt.

Tiles of 128 x 64: 128 x 32 kept values and one kilobyte of metadata travel with B's tile through three shared-memory stages
by cp.async; the values feed mma.sp.m16n8k32 through ldmatrix like dense ones, the metadata words come from shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numba import cuda, uint32
from numpy.typing import NDArray

from loadsparse.gpu import compiler
from loadsparse.gpu.intrinsics import (
    barrier,
    cp_async_commit,
    cp_async_wait,
    keep,
    ldmatrix_x4,
    load_shared,
    shared_base,
    zeros,
)
from loadsparse.gpu.kernels import parts, planning
from loadsparse.gpu.kernels.blocks import load_deep_panels, mma_sparse
from loadsparse.gpu.kernels.shelf import shelved
from loadsparse.gpu.launch import Launch
from loadsparse.reference.formats import TwoFour

TILE_M, TILE_K, THREADS, STAGES = 128, 64, 128, 3
A_BYTES, META_BYTES = TILE_M * TILE_K, TILE_M * TILE_K // 8


@shelved
def compiled(dtype: str, panels: int, n_width: int, direct: bool, paired: bool, arch: str) -> str:
    """PTX for 8*panels columns per block; see lscd.compiled."""
    mma, write_tile = mma_sparse[dtype], parts.write_tile(dtype, panels, direct, paired, TILE_M)
    place_a, copy_a = parts.copy_tile(TILE_M, 4, 16, THREADS)
    place_m, copy_m = parts.copy_tile(8, 8, 16, THREADS)
    place_b, copy_b = parts.copy_tile(TILE_K, panels, n_width, THREADS)
    b_start = A_BYTES + META_BYTES
    stage_bytes, ahead, oldest = b_start + TILE_K * panels * 16, STAGES - 1, STAGES - 2
    acc_count, end = 8 * panels, STAGES * (b_start + TILE_K * panels * 16)

    def twofour(values, metadata, b, c, m, n, k):
        thread = uint32(cuda.threadIdx.x)
        lane, warp = uint32(thread & uint32(31)), uint32(thread >> uint32(5))
        strip = uint32(uint32(cuda.blockIdx.x) * uint32(TILE_M))
        column = uint32(uint32(cuda.blockIdx.y) * uint32(8 * panels))
        first, last = parts.own_steps(k)
        # the stored matrices: rows x deep/2 values, and one row of deep/32 * 32 halfwords of metadata per 16 rows
        rows = uint32(uint32(m + uint32(15)) & uint32(0xFFFFFFF0))
        deep = uint32(uint32(k + uint32(31)) & uint32(0xFFFFFFE0))
        a_place, m_place, b_place = place_a(thread), place_m(thread), place_b(thread)
        base = keep(shared_base())
        low, high = uint32(uint32(lane & uint32(15)) << uint32(4)), uint32(lane >> uint32(4))
        a_row = keep(uint32(uint32(warp << uint32(9)) + low + uint32(high << uint32(11))))
        # word 2g + t%2 of the warp's first row tile: chunk word/4 of 8 rows x 16 bytes, row 2*warp
        word = uint32(uint32(uint32(lane >> uint32(2)) << uint32(1)) + uint32(lane & uint32(1)))
        meta = uint32(uint32(uint32(word >> uint32(2)) << uint32(7)) + uint32(uint32(word & uint32(3)) << uint32(2)))
        m_row = keep(uint32(uint32(A_BYTES) + uint32(warp << uint32(5)) + meta))
        b_row = keep(uint32(uint32(b_start) + uint32(lane << uint32(4))))
        write, read = uint32(0), uint32(0)
        acc = zeros(acc_count)
        step = first
        while step < uint32(last + uint32(ahead)):
            ready = step >= uint32(first + uint32(ahead))
            if ready:
                cp_async_wait(oldest)
                barrier()
            if step < last:
                to, at = uint32(base + write), uint32(step << uint32(6))
                copy_a(a_place, to, values, strip, uint32(step << uint32(5)), uint32(deep >> uint32(1)), rows)
                copy_m(
                    m_place, uint32(to + uint32(A_BYTES)), metadata, uint32(strip >> uint32(4)), at, deep,
                    uint32(rows >> uint32(4)),
                )  # fmt: skip
                copy_b(b_place, uint32(to + uint32(b_start)), b, at, column, n, k)
                write = uint32(write + uint32(stage_bytes))
                if write == uint32(end):
                    write = uint32(0)
            cp_async_commit()
            if ready:
                a_now, m_now = uint32(base + read + a_row), uint32(base + read + m_row)
                b_now = uint32(base + read + b_row)
                for kk in range(2):
                    upper = (ldmatrix_x4(a_now, kk * 4096), load_shared(m_now, kk * 512))
                    lower = (ldmatrix_x4(a_now, kk * 4096 + 256), load_shared(m_now, kk * 512 + 16))
                    acc = mma(
                        acc, upper[0] + lower[0], (upper[1], lower[1]), load_deep_panels(b_now, kk * 512, panels, 1024)
                    )
                read = uint32(read + uint32(stage_bytes))
                if read == uint32(end):
                    read = uint32(0)
            step = uint32(step + uint32(1))

        within = uint32(uint32(warp << uint32(5)) + uint32(lane >> uint32(2)))
        write_tile(c, acc, strip, within, column, n, m)

    signature = "void(uint64, uint64, uint64, uint64, uint32, uint32, uint32)"
    return compiler.numba(twofour, signature, arch, launch_bounds=THREADS)


@dataclass(frozen=True)
class TwoFourKernel:
    """The 2:4 kernel: any M, N, K >= 1, weights with at most 2 of 4 neighbours stored, sm_80 and newer."""

    name: str = "twofour"

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> TwoFour:
        """2:4 form of dense weights [M, K].  Raises FormatError (a ValueError) where they are not 2:4."""
        return TwoFour.encode(a, dtype)

    def plan(self, encoded: TwoFour, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch:
        """The launch that computes C = A x B; see lscd.Lscd.plan."""
        planning.check_weights(self.name, encoded, TwoFour)
        return planning.plan_tiles(
            self.name, encoded, b, arch, split_k, self.tiling(encoded, encoded.shape[0], arch), "two_four"
        )

    def tiling(self, encoded: TwoFour, m: int, arch: str) -> planning.Tiling:
        """How it cuts matrices of m rows into blocks: always alike."""
        return planning.Tiling(
            compiled=compiled,
            weights=("values", "metadata"),
            tile_m=lambda panels: TILE_M,
            tile_k=TILE_K,
            threads=lambda panels: THREADS,
            resident=lambda panels: 3,
            shared_bytes=lambda panels: STAGES * (A_BYTES + META_BYTES + TILE_K * panels * 16),
        )
