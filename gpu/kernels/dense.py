"""The dense Tensor Core product for skinny B, which stands for cuBLAS: what a sparse kernel has to beat.

Tiles of 128 x 64 of A and 64 x N of B travel through up to four shared-memory stages by cp.async (panels of 8 columns, no
bank conflict), ldmatrix, mma; one barrier a step; split K with float32 partials.  Four warps own 32 rows each.  Simpler than
cuBLAS: one tile shape, chosen by no heuristic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import cuda, uint32
from numpy.typing import NDArray

from loadsparse.gpu import compiler
from loadsparse.gpu.intrinsics import (
    barrier,
    cp_async_commit,
    cp_async_wait,
    keep,
    mma_m16n8k16,
    shared_base,
    zeros,
)
from loadsparse.gpu.kernels import parts, planning
from loadsparse.gpu.kernels.blocks import load_panels, load_rows
from loadsparse.gpu.kernels.shelf import shelved
from loadsparse.gpu.launch import Launch
from loadsparse.reference.formats import DTYPES, FormatError
from loadsparse.reference.formats.base import from_bits, to_bits

TILE_M, TILE_K, THREADS, STAGES = 128, 64, 128, 3
A_BYTES = TILE_M * TILE_K * 2


@dataclass(frozen=True, eq=False)
class DenseMatrix:
    """Weights as they are: values uint16[M, K], bit patterns of `dtype`."""

    shape: tuple[int, int]
    dtype: str
    values: NDArray[np.uint16]

    @property
    def nbytes(self) -> int:
        """2 M K."""
        return self.values.nbytes

    def decode(self) -> NDArray[Any]:
        """The matrix itself."""
        return from_bits(self.values, self.dtype)

    def check_layout(self) -> None:
        """Raise FormatError unless the values are the bit patterns of a matrix of that shape."""
        if self.dtype not in DTYPES:
            raise FormatError(f"DenseMatrix.dtype: {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if not isinstance(self.values, np.ndarray) or self.values.dtype != np.uint16:
            raise FormatError("DenseMatrix.values: wants an array of uint16")
        if not all(isinstance(size, int) for size in self.shape) or self.values.shape != self.shape:
            raise FormatError(f"DenseMatrix.values: {self.values.shape} elements, the shape is {self.shape}")

    validate = check_layout


@shelved
def compiled(dtype: str, panels: int, n_width: int, direct: bool, paired: bool, arch: str, *, k_width: int) -> str:
    """PTX for 8*panels columns per block; see lscd.compiled.  k_width: see parts.copy_width, for the rows of A."""
    mma, write_tile = mma_m16n8k16[dtype], parts.write_tile(dtype, panels, direct, paired, TILE_M)
    place_a, copy_a = parts.copy_tile(TILE_M, 8, k_width, THREADS)
    place_b, copy_b = parts.copy_tile(TILE_K, panels, n_width, THREADS)
    stage_bytes, ahead, oldest = A_BYTES + TILE_K * panels * 16, STAGES - 1, STAGES - 2
    acc_count, end = 8 * panels, STAGES * (A_BYTES + TILE_K * panels * 16)

    def dense(values, b, c, m, n, k):
        thread = uint32(cuda.threadIdx.x)
        lane, warp = uint32(thread & uint32(31)), uint32(thread >> uint32(5))
        strip = uint32(uint32(cuda.blockIdx.x) * uint32(TILE_M))
        column = uint32(uint32(cuda.blockIdx.y) * uint32(8 * panels))
        first, last = parts.own_steps(k)
        a_place, b_place, base = place_a(thread), place_b(thread), keep(shared_base())
        low, high = uint32(uint32(lane & uint32(15)) << uint32(4)), uint32(lane >> uint32(4))
        # panel lane/16 of 128 rows for A, of 64 rows for B; row lane%16
        a_row = keep(uint32(uint32(warp << uint32(9)) + low + uint32(high << uint32(11))))
        b_row = keep(uint32(uint32(A_BYTES) + low + uint32(high << uint32(10))))
        write, read = uint32(0), uint32(0)
        acc = zeros(acc_count)
        step = first
        while step < uint32(last + uint32(ahead)):
            ready = step >= uint32(first + uint32(ahead))
            if ready:
                cp_async_wait(oldest)
                barrier()
            if step < last:
                at = uint32(step << uint32(6))
                copy_a(a_place, uint32(base + write), values, strip, at, k, m)
                copy_b(b_place, uint32(base + write + uint32(A_BYTES)), b, at, column, n, k)
                write = uint32(write + uint32(stage_bytes))
                if write == uint32(end):
                    write = uint32(0)
            cp_async_commit()
            if ready:
                a_now, b_now = uint32(base + read + a_row), uint32(base + read + b_row)
                for kk in range(4):
                    acc = mma(acc, load_rows(a_now, kk * 4096, 2, 256), load_panels(b_now, kk * 256, panels, 1024))
                read = uint32(read + uint32(stage_bytes))
                if read == uint32(end):
                    read = uint32(0)
            step = uint32(step + uint32(1))

        within = uint32(uint32(warp << uint32(5)) + uint32(lane >> uint32(2)))
        write_tile(c, acc, strip, within, column, n, m)

    return compiler.numba(dense, "void(uint64, uint64, uint64, uint32, uint32, uint32)", arch, launch_bounds=THREADS)


@dataclass(frozen=True)
class DenseKernel:
    """The dense kernel: any M, N, K >= 1, float16 and bfloat16, sm_80 and newer."""

    name: str = "dense"

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> DenseMatrix:
        """The weights [M, K] unchanged (float16, or uint16 bit patterns with dtype="bf16")."""
        bits = to_bits(a, dtype)
        return DenseMatrix((bits.shape[0], bits.shape[1]), dtype, bits)

    def plan(self, encoded: DenseMatrix, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch:
        """The launch that computes C = A x B; see lscd.Lscd.plan."""
        planning.check_weights(self.name, encoded, DenseMatrix)
        return planning.plan_tiles(
            self.name, encoded, b, arch, split_k, self.tiling(encoded, encoded.shape[0], arch), "dense"
        )

    def tiling(self, encoded: DenseMatrix, m: int, arch: str) -> planning.Tiling:
        """How it cuts matrices of m rows into blocks: always alike."""
        return planning.Tiling(
            compiled=partial(compiled, k_width=parts.copy_width(encoded.shape[1])),
            weights=("values",),
            tile_m=lambda panels: TILE_M,
            tile_k=TILE_K,
            threads=lambda panels: THREADS,
            resident=lambda panels: 2,
            shared_bytes=lambda panels: STAGES * (A_BYTES + TILE_K * panels * 16),
        )
