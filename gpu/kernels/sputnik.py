"""CSR on CUDA cores: the Sputnik kernel.

One-dimensional tiling: a group of 4 to 32 lanes makes one row of C times 8 to 64 columns, two columns a lane.  Rows are taken
in order of falling length (row swizzle), so that the groups of a warp end together and long rows start first.  Values and
columns come in vectors of four: a row's start is rounded down to a multiple of four and the items before it are masked.
Products are float32 fused multiply-adds in ascending k, one chain per output.

Simpler than Sputnik: all lanes of a group read a vector of items from the cache together, where Sputnik stages tiles of them
in shared memory; and the same tiling for every shape.

Source: Gale et al., Sparse GPU kernels for deep learning, SC 2020 (arXiv 2006.10901).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda, int32, uint32, uint64
from numpy.typing import NDArray

from loadsparse.gpu import compiler
from loadsparse.gpu.intrinsics import (
    fma,
    load_global,
    load_global_f32,
    load_global_half,
    load_global_x2,
    load_global_x4,
    pack_halves,
    store_global,
    store_global_half,
    unpack_halves,
    zeros,
)
from loadsparse.gpu.kernels import planning
from loadsparse.gpu.kernels.shelf import shelved
from loadsparse.gpu.launch import Launch, Step
from loadsparse.reference.formats import CSR

THREADS = 128


@shelved
def compiled(dtype: str, panels: int, paired: bool, narrow: bool, add: bool, arch: str) -> str:
    """PTX for 8*panels columns per block.

    paired: N is even; narrow: columns are uint16; add: start from float32 partials [blocks_n, padded rows, 8*panels] of
    another kernel, to which the finished chain is added.
    """
    pack, widen = pack_halves[dtype], unpack_halves[dtype]
    group = 1 << (4 * panels - 1).bit_length()  # lanes of a row
    rows = THREADS // group

    @cuda.jit(device=True, inline="always")
    def multiply(value, k, inside, b, n, right, second, low, high):
        if inside:
            at = b + (uint64(k) * uint64(n) + uint64(right)) * uint64(2)
            if paired:
                x, y = widen(load_global(at, 0))
            else:
                word = load_global_half(at, 0)
                if second:
                    word = uint32(word | uint32(load_global_half(at, 2) << uint32(16)))
                x, y = widen(word)
            low, high = fma(value, x, low), fma(value, y, high)
        return low, high

    def sputnik(row_order, row_pointers, columns, values, b, c, partials, m, n, slice_bytes):
        thread = uint32(cuda.threadIdx.x)
        place = uint32(uint32(cuda.blockIdx.x) * uint32(rows) + uint32(thread // uint32(group)))
        mine = uint32(uint32(thread % uint32(group)) * uint32(2))
        right = uint32(uint32(uint32(cuda.blockIdx.y) * uint32(8 * panels)) + mine)
        if place < m and mine < uint32(8 * panels) and right < n:
            second = uint32(right + uint32(1)) < n
            row = load_global(row_order + uint64(place) * uint64(4), 0)
            start = int32(load_global(row_pointers + uint64(row) * uint64(4), 0))
            stop = int32(load_global(row_pointers + uint64(row) * uint64(4), 4))
            low, high = zeros(2)
            item = int32(start & int32(-4))
            while item < stop:
                pairs0, pairs1 = load_global_x2(values + uint64(item) * uint64(2), 0)
                v0, v1 = widen(pairs0)
                v2, v3 = widen(pairs1)
                if narrow:
                    c01, c23 = load_global_x2(columns + uint64(item) * uint64(2), 0)
                    k0, k1 = uint32(c01 & uint32(0xFFFF)), uint32(c01 >> uint32(16))
                    k2, k3 = uint32(c23 & uint32(0xFFFF)), uint32(c23 >> uint32(16))
                else:
                    k0, k1, k2, k3 = load_global_x4(columns + uint64(item) * uint64(4), 0)
                low, high = multiply(v0, k0, item >= start, b, n, right, second, low, high)
                inside = int32(item + int32(1)) >= start and int32(item + int32(1)) < stop
                low, high = multiply(v1, k1, inside, b, n, right, second, low, high)
                inside = int32(item + int32(2)) >= start and int32(item + int32(2)) < stop
                low, high = multiply(v2, k2, inside, b, n, right, second, low, high)
                low, high = multiply(v3, k3, int32(item + int32(3)) < stop, b, n, right, second, low, high)
                item = int32(item + int32(4))
            if add:
                at = partials + uint64(uint32(cuda.blockIdx.y)) * slice_bytes
                at += (uint64(row) * uint64(8 * panels) + uint64(mine)) * uint64(4)
                low, high = load_global_f32(at, 0) + low, load_global_f32(at, 4) + high
            to, word = c + (uint64(row) * uint64(n) + uint64(right)) * uint64(2), pack(low, high)
            if paired:
                store_global(to, 0, word)
            else:
                store_global_half(to, 0, word)
                if second:
                    store_global_half(to, 2, uint32(word >> uint32(16)))

    signature = f"void({', '.join(['uint64'] * 7)}, uint32, uint32, uint64)"
    return compiler.numba(sputnik, signature, arch, launch_bounds=THREADS)


def row_order(encoded: CSR) -> NDArray[np.uint32]:
    """The row swizzle: rows by falling number of items."""
    return np.argsort(-np.diff(encoded.row_pointers), kind="stable").astype(np.uint32)


def vectors(array: NDArray[Any]) -> NDArray[Any]:
    """The array padded with zeros to whole vectors of four, at least one."""
    return np.pad(array, (0, -len(array) % 4 if len(array) else 4))


def csr_step(
    encoded: CSR, b: NDArray[Any], arch: str, add: bool, slice_bytes: int
) -> tuple[Step, dict[str, NDArray[Any]]]:
    """The kernel call and its buffers except for b, c and partials."""
    (m, _), n = encoded.shape, b.shape[1]
    panels = min(-(-n // 8), 8)
    group = 1 << (4 * panels - 1).bit_length()
    narrow = encoded.columns.dtype == np.uint16
    step = Step(
        compiled(encoded.dtype, panels, n % 2 == 0, bool(narrow), add, arch), "sputnik",
        (-(-m * group // THREADS), -(-n // (8 * panels)), 1), (THREADS, 1, 1), 0,
        ("row_order", "row_pointers", "columns", "values", "b", "c", "partials" if add else np.uint64(0),
         np.uint32(m), np.uint32(n), np.uint64(slice_bytes)),
    )  # fmt: skip
    return step, {
        "row_order": row_order(encoded),
        "row_pointers": encoded.row_pointers,
        "columns": vectors(encoded.columns),
        "values": vectors(encoded.values),
    }


@dataclass(frozen=True)
class Sputnik:
    """The CSR kernel: any M, N, K >= 1, float16 and bfloat16; zeros that are not stored are skipped."""

    name: str = "sputnik"

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> CSR:
        """CSR form of dense weights [M, K], with 16-bit columns where K allows."""
        return CSR.encode(a, dtype, np.uint16 if np.ndim(a) == 2 and np.shape(a)[1] <= 2**16 else np.int32)

    def plan(self, encoded: CSR, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch:
        """The launch that computes C = A x B; K is not split (`split_k` must be None or 1).  Raises ValueError."""
        compiler.capability(arch)
        planning.check_weights(self.name, encoded, CSR)
        planning.check_operand(encoded.shape, encoded.dtype, b)
        planning.check_whole(self.name, split_k)
        step, buffers = csr_step(encoded, b, arch, False, 0)
        (m, k), n = encoded.shape, b.shape[1]
        return Launch(
            steps=(step,), buffers=buffers | {"b": np.ascontiguousarray(b), "c": np.zeros((m, n), b.dtype)}, output="c",
            shape=(m, n, k), arch=arch, kernel=self.name, splits=((0, k),), semantics="stored",
            in_format=encoded.dtype, algorithm="sputnik",
        )  # fmt: skip
