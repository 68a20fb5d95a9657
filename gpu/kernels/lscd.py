"""Load as sparse, compute as dense: tiled-CSL weights, dense tiles rebuilt in shared memory, Tensor Cores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, uint32, uint64
from numpy.typing import NDArray

from loadsparse.gpu import compiler
from loadsparse.gpu.intrinsics import (
    barrier, ldmatrix_x2_trans, ldmatrix_x4, load_global, load_global_x4, mma_m16n8k16, pack_halves, shared_base,
    store_global_half, store_shared_half, store_shared_x4, load_global_half, zeros,
)
from loadsparse.gpu.launch import Launch, Step
from loadsparse.reference.formats import TiledCSL


@cache
def compiled(dtype: str, arch: str) -> str:
    """PTX for one 128-row strip and 8 columns per warp."""
    mma, pack = mma_m16n8k16[dtype], pack_halves[dtype]

    def lscd(tile_offsets, items, b, c, m, n, k):
        # Shared memory: A tile 128 x 64 (16 KB, swizzled), B tile 64 x 8 (1 KB).
        lane = uint32(cuda.threadIdx.x)
        strip, column = uint32(cuda.blockIdx.x), uint32(cuda.blockIdx.y) * uint32(8)
        tiles = (k + uint32(63)) >> uint32(6)
        a_tile = shared_base()
        b_tile = a_tile + uint32(128 * 64 * 2)
        a_row = a_tile + (lane & uint32(15)) * uint32(128) + (((lane >> uint32(4)) ^ (lane & uint32(7))) << uint32(4))
        zero = uint32(0)
        acc = zeros(32)
        for tile in range(uint32(0), tiles):
            barrier()
            for i in range(32):
                store_shared_x4(a_tile + lane * uint32(16), i * 512, (zero, zero, zero, zero))
            for i in range(16):
                index = lane + uint32(i * 32)
                row, col = (tile << uint32(6)) + (index >> uint32(3)), column + (index & uint32(7))
                value = uint32(0)
                if row < k and col < n:
                    value = load_global_half(b + uint64(row * n + col) * uint64(2), 0)
                store_shared_half(b_tile + index * uint32(2), 0, value)
            barrier()
            at = tile_offsets + uint64(strip * tiles + tile) * uint64(4)
            vector, stop = load_global(at, 0) + lane, load_global(at, 4)
            while vector < stop:
                for item in load_global_x4(items + uint64(vector) * uint64(16), 0):
                    store_shared_half(a_tile + ((item >> uint32(16)) << uint32(1)), 0, item)
                vector += uint32(32)
            barrier()
            for kk in range(4):
                right = ldmatrix_x2_trans(b_tile + (lane & uint32(15)) * uint32(16), kk * 256)
                row = a_row ^ uint32(kk * 32)
                left = ldmatrix_x4(row, 0) + ldmatrix_x4(row, 2048) + ldmatrix_x4(row, 4096) + ldmatrix_x4(row, 6144)
                left = left + ldmatrix_x4(row, 8192) + ldmatrix_x4(row, 10240)
                acc = mma(acc, left + ldmatrix_x4(row, 12288) + ldmatrix_x4(row, 14336), right)
        for i in range(8):
            for half in range(2):
                row = (strip << uint32(7)) + uint32(i * 16 + half * 8) + (lane >> uint32(2))
                col = column + (lane & uint32(3)) * uint32(2)
                pair = pack(acc[4 * i + 2 * half], acc[4 * i + 2 * half + 1])
                at = c + uint64(row * n + col) * uint64(2)
                if row < m and col < n:
                    store_global_half(at, 0, pair)
                if row < m and col + uint32(1) < n:
                    store_global_half(at, 2, pair >> uint32(16))

    return compiler.numba(lscd, "void(uint64, uint64, uint64, uint64, uint32, uint32, uint32)", arch)


@dataclass(frozen=True)
class Lscd:
    """The Flash-LLM kernel (Xia et al., VLDB 2024)."""

    name: str = "lscd"

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> TiledCSL:
        """Tiled-CSL form of dense weights [M, K] (float16, or uint16 bit patterns with dtype="bf16")."""
        return TiledCSL.encode(a, dtype)

    def plan(self, encoded: TiledCSL, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch:
        """The launch that computes C = A x B."""
        m, k = encoded.shape
        n = b.shape[1]
        c = np.zeros((m, n), b.dtype)
        return Launch(
            steps=(
                Step(
                    compiled(encoded.dtype, arch), "lscd", ((m + 127) // 128, (n + 7) // 8, 1), (32, 1, 1), 17 * 1024,
                    ("tile_offsets", "items", "b", "c", np.uint32(m), np.uint32(n), np.uint32(k)),
                ),
            ),
            buffers={"tile_offsets": encoded.tile_offsets, "items": encoded.items, "b": b, "c": c},
            output="c", shape=(m, n, k), arch=arch, kernel=self.name, splits=((0, k),), semantics="dense",
            in_format=encoded.dtype,
        )
