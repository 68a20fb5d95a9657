"""The grouped SpMM of a sparse MoE layer: E experts, each with its own number of tokens, in one launch.

    C[:, of e] = A_e B[:, of e],   A_e [M, K] pruned,   B [K, N] with tokens sorted by expert

The experts' weights are stacked in one encoded matrix, each from a whole tile row on. The host cuts the product into items
of (expert, rows, columns) and lists them, the longest first; a block finds its item by blockIdx.x and then does what the
plain kernel does. The hardware hands out blocks in this order to whichever multiprocessor is free first, which is list
scheduling; persistent blocks that fetch items through an atomic counter would do the same and pay for the counter. K is
split over blockIdx.z, for all items alike, when the items alone do not fill the GPU: control flow then depends on nothing
that is loaded, so the compiler can prove it uniform.

Tokens of an expert begin at a multiple of 8 columns in B's buffer (the gather pads them), so that every copy has 16 bytes.

Source: the problem is that of MegaBlocks (arXiv 2211.15841) with sparse weights; the division is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda, uint32, uint64
from numpy.typing import NDArray

from loadsparse.gpu import compiler
from loadsparse.gpu.kernels import bitmap, lscd, parts, worklist
from loadsparse.gpu.kernels.shelf import shelved
from loadsparse.gpu.kernels.splitting import SM_COUNT
from loadsparse.gpu.kernels.worklist import PANEL, Item
from loadsparse.gpu.launch import Launch, Step
from loadsparse.reference.formats import LaneBitmap, TiledCSL
from loadsparse.reference.formats.base import from_bits, to_bits
from loadsparse.reference.spmm import expert_columns


@dataclass(frozen=True, eq=False)
class ExpertWeights:
    """E pruned matrices of `shape` (M, K), stacked: expert e begins at tile row e * tile_rows of `stack`."""

    stack: TiledCSL | LaneBitmap
    experts: int
    tile_rows: int
    shape: tuple[int, int]

    @property
    def dtype(self) -> str:
        return self.stack.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all experts."""
        return self.stack.nbytes

    def decode(self) -> NDArray[Any]:
        """[E, M, K], equal to the encoded matrices in every bit."""
        m, k = self.shape
        return np.ascontiguousarray(self.stack.decode().reshape(self.experts, -1, k)[:, :m])


@dataclass(frozen=True)
class Format:
    """What the grouped kernel takes over from a plain one.

    tile: rows of a format tile; overhead: issued instructions of a step that do not depend on N, in those of a panel of 8
    columns (counted at 80% sparsity: the slope of NOTES.md).
    """

    kernel: Any
    tile: int
    overhead: float

    def tiling(self, stack: Any, m: int, arch: str) -> parts.Tiling:
        return lscd.TILING if isinstance(stack, TiledCSL) else bitmap.tiling(stack, m, arch)


FORMATS = {"lscd": Format(lscd.Lscd(), 128, 7.5), "bitmap": Format(bitmap.BitmapKernel(), 64, 15.0)}


@shelved
def reduction(dtype: str, panels: int, splits: int, paired: bool, rows: int, arch: str) -> str:
    """PTX that adds `splits` float32 partials [splits, items, rows, 8*panels] and rounds them into C; see parts.reduction."""
    add, groups = parts.sum_splits(dtype, splits, paired), 2 * panels

    def reduce_items(partials, c, work, m, ldc, slice_bytes):
        index = uint32(uint32(uint32(cuda.blockIdx.y) << uint32(7)) + uint32(cuda.threadIdx.x))
        _, top, _, column, end = parts.work_item(work)
        row = uint32(top + uint32(index // uint32(groups)))
        across = uint32(column + uint32(uint32(index % uint32(groups)) << uint32(2)))
        if row < m and across < end:
            place = uint64(cuda.blockIdx.x) * uint64(rows * groups) + uint64(index)
            to = c + (uint64(row) * uint64(ldc) + uint64(across)) * uint64(2)
            add(partials + place * uint64(16), slice_bytes, to, uint32(end - across))

    signature = "void(uint64, uint64, uint64, uint32, uint32, uint64)"
    return compiler.numba(reduce_items, signature, arch, launch_bounds=128)


@dataclass(frozen=True)
class Grouped:
    """The grouped kernel over one format: any E, M, K >= 1, any counts, float16 and bfloat16, sm_80 and newer.

    >>> kernel = Grouped("lscd")
    >>> rng = np.random.default_rng(0)
    >>> experts = [rng.standard_normal((20, 30)).astype(np.float16) for _ in range(3)]
    >>> tokens = rng.standard_normal((30, 6)).astype(np.float16)
    >>> launch = kernel.plan(kernel.encode(experts), tokens, counts=[4, 0, 2])
    >>> c, report = launch.run(engine="interpreter")
    >>> c.shape, report.ok
    ((20, 6), True)
    """

    format: str

    @property
    def name(self) -> str:
        return f"grouped_{self.format}"

    def encode(self, experts: Sequence[NDArray[Any]] | NDArray[Any], dtype: str = "f16") -> ExpertWeights:
        """Encode E dense matrices [M, K] of one shape (float16, or uint16 patterns with dtype="bf16").  Raises ValueError."""
        if not len(experts):
            raise ValueError("a grouped product needs at least one expert")
        patterns = [to_bits(one, dtype) for one in experts]
        m, k = patterns[0].shape
        for number, matrix in enumerate(patterns):
            if matrix.shape != (m, k):
                raise ValueError(f"expert {number} is {matrix.shape[0]} x {matrix.shape[1]} but expert 0 is {m} x {k}")
        one = FORMATS[self.format]
        tile_rows = -(-m // one.tile)
        stack = np.zeros((len(patterns), tile_rows * one.tile, k), np.uint16)
        stack[:, :m] = patterns
        encoded = one.kernel.encode(from_bits(stack.reshape(-1, k), dtype), dtype)
        return ExpertWeights(encoded, len(patterns), tile_rows, (m, k))

    def plan(
        self,
        encoded: ExpertWeights,
        b: NDArray[Any],
        counts: Sequence[int] | NDArray[Any],
        arch: str = "sm_80",
        split_k: int | None = None,
    ) -> Launch:
        """The launch that computes C[M, N] for B[K, N] whose tokens are sorted by expert, counts[e] of each.

        `split_k` divides K of every item over that many blocks (None: chosen so that the items fill `arch`).  Raises
        ValueError.
        """
        one = FORMATS[self.format]
        parts.check_arch(arch)
        parts.check_operand(encoded.shape, encoded.dtype, b)
        counts = check_counts(counts, encoded.experts, b.shape[1])
        (m, k), n = encoded.shape, b.shape[1]
        tiling, tiles = one.tiling(encoded.stack, m, arch), -(-k // 64)
        panels = choose_width(counts, one.overhead)
        rows = tiling.tile_m(panels)
        stored = np.diff(getattr(encoded.stack, tiling.weights[0])[::tiles].astype(np.int64))
        items = worklist.divide(counts, m, rows, PANEL * panels)
        items = longest_first(items, stored, encoded.tile_rows, one.tile, rows)
        splits = parts.check_split(split_k, tiles) or choose_split(
            len(items), tiles, panels, arch, tiling.resident(panels)
        )
        direct, paired = splits == 1, all(count % 2 == 0 for count in counts)

        starts = padded_starts(counts)
        gathered = np.zeros((k, int(starts[-1])), b.dtype)
        gathered[:, padded_columns(counts)] = b
        buffers = {field: getattr(encoded.stack, field) for field in tiling.weights}
        buffers |= {"b": gathered, "work": words(encoded, items, counts), "c": np.zeros((m, n), b.dtype)}
        target = "c" if direct else "partials"
        sizes = (np.uint32(m), np.uint32(k), np.uint32(gathered.shape[1]), np.uint32(n), *tiling.extra)
        ptx = tiling.compiled(encoded.dtype, panels, 16, direct, paired, arch, grouped=True)
        block, shared = (tiling.threads(panels), 1, 1), tiling.shared_bytes(panels)
        grid = (len(items), 1, splits)
        steps = [Step(ptx, self.name, grid, block, shared, (*tiling.weights, "b", target, "work", *sizes))]
        if not direct:
            buffers["partials"] = np.zeros((splits, len(items), rows, PANEL * panels), np.float32)
            slice_bytes = np.uint64(buffers["partials"][0].nbytes)
            adder = reduction(encoded.dtype, panels, splits, paired, rows, arch)
            grid = (len(items), rows * 2 * panels // 128, 1)
            args = ("partials", "c", "work", np.uint32(m), np.uint32(n), slice_bytes)
            steps.append(Step(adder, "reduce_items", grid, (128, 1, 1), 0, args))
        return Launch(
            steps=tuple(steps),
            buffers=buffers,
            output="c",
            shape=(m, n, k),
            arch=arch,
            kernel=self.name,
            splits=parts.split_ranges(k, tiling.tile_k, splits),
            semantics="dense",
            in_format=encoded.dtype,
            workspace=() if direct else ("partials",),
            counts=counts,
        )


def check_counts(counts: Sequence[int] | NDArray[Any], experts: int, tokens: int) -> tuple[int, ...]:
    """Tokens of every expert as plain integers.  Raises ValueError unless they are E integers >= 0 that add up to N."""
    found = np.asarray(counts)
    if found.ndim != 1 or found.size != experts or found.dtype.kind not in "iu":
        raise ValueError(f"counts must be {experts} integers, the tokens of each expert, got {counts!r:.80}")
    plain = tuple(int(count) for count in found)
    expert_columns(plain, tokens)
    return plain


def padded_starts(counts: Sequence[int]) -> NDArray[np.int64]:
    """First column of every expert in B's buffer, and the columns of the buffer: int64[E + 1], multiples of 8.

    >>> padded_starts([3, 0, 9]).tolist()
    [0, 8, 8, 24]
    """
    edges: NDArray[np.int64] = np.cumsum([0, *(-(-count // PANEL) * PANEL for count in counts)])
    return edges


def padded_columns(counts: Sequence[int]) -> NDArray[np.int64]:
    """Column of B's buffer for every token in the order of the experts: int64[N]."""
    own = np.asarray(counts, np.int64)
    first = np.cumsum(own) - own
    columns: NDArray[np.int64] = np.arange(int(own.sum())) + np.repeat(padded_starts(counts)[:-1] - first, own)
    return columns


def choose_width(counts: Sequence[int], overhead: float) -> int:
    """Panels of 8 columns per item, 1 to 8, for the least issued work: an item costs `overhead` + its panels a step."""
    most = min(-(-max(counts) // PANEL), 8)
    return min(
        range(1, most + 1),
        key=lambda panels: sum(-(-count // (PANEL * panels)) for count in counts) * (overhead + panels),
    )


def choose_split(items: int, tiles: int, panels: int, arch: str, resident: int) -> int:
    """Factor of K with which the busiest multiprocessor has the least to do.

    With q = ceil(items S / multiprocessors) blocks it takes max(q, resident) ceil(tiles / S): fewer blocks than `resident`
    leave latency in sight. Where K is split, each block writes float32 partials that are read again: for a panel of columns
    as many bytes as 1.25 tiles of A have at 80% sparsity, but through L2, which is three times as fast: 0.4 of a tile.
    """
    sms = SM_COUNT.get(arch, 108)

    def cost(splits: int) -> float:
        blocks = -(-items * splits // sms)
        return max(blocks, resident) * -(-tiles // splits) + (0.4 * panels * blocks if splits > 1 else 0.0)

    return min(range(1, min(tiles, 32) + 1), key=cost)


def longest_first(items: list[Item], stored: NDArray[np.integer], tile_rows: int, tile: int, rows: int) -> list[Item]:
    """Items in descending order of the weights that they read; stored[r]: units stored in tile row r of the stack."""
    begins = np.concatenate([[0], np.cumsum(stored)])

    def read(item: Item) -> int:
        first = item.expert * tile_rows + item.top // tile
        return int(begins[min(first + rows // tile, (item.expert + 1) * tile_rows)] - begins[first])

    return sorted(items, key=read, reverse=True)


def words(encoded: ExpertWeights, items: list[Item], counts: Sequence[int]) -> NDArray[np.uint32]:
    """The list as the kernel reads it: see parts.work_item."""
    table = np.zeros((len(items), parts.WORK_BYTES // 4), np.uint32)
    starts, first = padded_starts(counts), np.cumsum([0, *counts])
    for row, item in zip(table, items, strict=True):
        column = first[item.expert] + item.first
        row[:5] = (
            item.expert * encoded.tile_rows,
            item.top,
            starts[item.expert] + item.first,
            column,
            column + item.columns,
        )
    return table
