"""The grouped SpMM of a sparse MoE layer: E experts, each with its own number of tokens, in one launch.

    C[:, of e] = A_e B[:, of e],   A_e [M, K] pruned,   B [K, N] with tokens sorted by expert

The experts' weights are stacked in one encoded matrix, each from a whole tile row on. The host cuts the product into items
of (expert, rows, columns), their K into as many parts as the expert needs, and lists these, the longest first; a block
finds its part by blockIdx.x and then does what the plain kernel does. The hardware hands out blocks in this order to
whichever multiprocessor is free first, which is list scheduling; persistent blocks that fetch items through an atomic counter
would do the same and pay for the counter. A block multiplies all 8-column panels that it has accumulators for, or half of
them, or a quarter ..., whatever holds its item's columns. An item whose K is whole stores C; the others store float32
partials, and a second kernel with a list of its own adds them.

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
from loadsparse.gpu.kernels import bitmap, lscd, parts, planning, worklist
from loadsparse.gpu.kernels.shelf import shelved
from loadsparse.gpu.kernels.splitting import SM_COUNT
from loadsparse.gpu.kernels.worklist import PANEL, Item
from loadsparse.gpu.launch import Launch, Step
from loadsparse.reference.formats import FormatError, LaneBitmap, TiledCSL
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

    def check_layout(self) -> None:
        """See `SparseFormat.check_layout`; every expert has the same whole tile rows.  Raises FormatError."""
        self.stack.check_layout()
        (one,) = (one for one in FORMATS.values() if isinstance(self.stack, one.form))
        (m, k), (rows, columns) = self.shape, self.stack.shape
        if self.experts < 1 or self.tile_rows != -(-m // one.tile) or k != columns:
            raise FormatError(
                f"ExpertWeights: {self.experts} experts of {self.tile_rows} tile rows are not {m} x {k} each"
            )
        if rows != self.experts * self.tile_rows * one.tile:
            raise FormatError(
                f"ExpertWeights.stack: {rows} rows are not {self.experts} x {self.tile_rows} x {one.tile}"
            )

    def validate(self) -> None:
        """See `SparseFormat.validate`.  Raises FormatError."""
        self.check_layout()
        self.stack.validate()


@dataclass(frozen=True)
class Format:
    """What the grouped kernel takes over from a plain one.

    form: class of the encoded weights; tile: rows of a format tile; overhead: issued instructions of a step that do not
    depend on N, in those of a panel of 8 columns (counted at 80% sparsity: the slope of NOTES.md).
    """

    kernel: Any
    form: type[TiledCSL] | type[LaneBitmap]
    tile: int
    overhead: float


PARTIALS = 0.4
"""Cost of writing and reading the partials of a panel, in steps of its block: as many bytes as 1.25 tiles of A have at 80%
sparsity, but through L2, which is three times as fast."""
FORMATS = {
    "lscd": Format(lscd.Lscd(), TiledCSL, 128, 7.5),
    "bitmap": Format(bitmap.BitmapKernel(), LaneBitmap, 64, 15.0),
}


@shelved
def reduction(dtype: str, panels: int, paired: bool, rows: int, arch: str) -> str:
    """PTX that adds float32 partials [places, rows, 8*panels] of the items of a list and rounds them into C; see `sums`."""
    add, groups = parts.sum_splits(dtype, paired), 2 * panels

    def reduce_items(partials, c, work, m, ldc):
        index = uint32(uint32(uint32(cuda.blockIdx.y) << uint32(7)) + uint32(cuda.threadIdx.x))
        (_, top, _, column), (width, place, splits, _) = parts.work_item(work)
        row = uint32(top + uint32(index // uint32(groups)))
        across = uint32(uint32(index % uint32(groups)) << uint32(2))
        columns = uint32(width & uint32(0xFF))
        if row < m and across < columns:
            slice_bytes = uint64(rows * groups * 16)
            at = partials + uint64(place) * slice_bytes + uint64(index) * uint64(16)
            to = c + (uint64(row) * uint64(ldc) + uint64(column) + uint64(across)) * uint64(2)
            add(at, slice_bytes, splits, to, uint32(columns - across))

    return compiler.numba(reduce_items, "void(uint64, uint64, uint64, uint32, uint32)", arch, launch_bounds=128)


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
        if not isinstance(experts, (Sequence, np.ndarray)) or not len(experts):
            raise ValueError("a grouped product needs a sequence of one expert or more")
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

        `split_k` divides K of every item over that many blocks (None: chosen for each expert so that the blocks fill
        `arch`). The launch's `splits` are those of every expert. Raises ValueError.
        """
        one = FORMATS[self.format]
        planning.check_arch(arch)
        planning.check_weights(self.name, encoded, ExpertWeights)
        if not isinstance(encoded.stack, one.form):
            raise ValueError(
                f"kernel {self.name} multiplies experts in {one.form.__name__}, got {type(encoded.stack).__name__}: encode "
                f"them with kernels.get({self.name!r}).encode"
            )
        planning.check_operand(encoded.shape, encoded.dtype, b)
        counts = check_counts(counts, encoded.experts, b.shape[1])
        (m, k), n = encoded.shape, b.shape[1]
        tiling, tiles = one.kernel.tiling(encoded.stack, m, arch), -(-k // 64)
        panels = min(-(-max(counts) // PANEL), 8)
        rows = tiling.tile_m(panels)
        items = worklist.divide(counts, m, rows, PANEL * panels)
        owner = np.array([item.expert for item in items])
        used = np.array([parts.narrowest(worklist.panels(item), panels) for item in items])
        step = one.overhead + used
        if asked := planning.check_split(split_k, tiles):
            chosen = np.full(encoded.experts, asked)
        else:
            slots, resident = SM_COUNT.get(arch, 108), tiling.resident(panels)
            chosen = worklist.choose_splits(owner, step, PARTIALS * used * step, tiles, slots, resident)
        splits = chosen[owner]
        blocks = worklist.parts_of(splits, tiles)
        stored = read_units(encoded, items, tiling, one.tile, rows)
        blocks = blocks[longest_first(blocks, step, stored)]
        direct, paired = bool((splits == 1).all()), all(count % 2 == 0 for count in counts)

        starts = padded_starts(counts)
        gathered = np.zeros((k, int(starts[-1])), b.dtype)
        gathered[:, padded_columns(counts)] = b
        places = np.cumsum(np.where(splits > 1, splits, 0)) - splits  # of an item's first partials
        common = words(encoded, items, used, counts, one.tile)
        buffers = {field: getattr(encoded.stack, field) for field in tiling.weights}
        buffers |= {"b": gathered, "work": block_words(common, blocks, splits, places, tiles)}
        buffers |= {"c": np.zeros((m, n), b.dtype)}
        target = "c" if direct else "partials"
        sizes = (np.uint32(m), np.uint32(k), np.uint32(gathered.shape[1]), np.uint32(n), *tiling.extra)
        ptx = tiling.compiled(encoded.dtype, panels, 16, direct, paired, arch, grouped=True)
        block, shared = (tiling.threads(panels), 1, 1), tiling.shared_bytes(panels)
        args: tuple[str | np.generic | int | float, ...] = (*tiling.weights, "b", "c", target, "work", *sizes)
        steps = [Step(ptx, self.name, (len(blocks), 1, 1), block, shared, args)]
        if not direct:
            many = np.flatnonzero(splits > 1)
            buffers["sums"] = np.concatenate(
                [common[many], np.stack([places, splits, 0 * splits], axis=1)[many]], axis=1
            )
            buffers["sums"] = np.ascontiguousarray(buffers["sums"], np.uint32)
            buffers["partials"] = np.zeros((int(splits[many].sum()), rows, PANEL * panels), np.float32)
            adder = reduction(encoded.dtype, panels, paired, rows, arch)
            grid = (len(many), rows * 2 * panels // 128, 1)
            adder_args = ("partials", "c", "sums", np.uint32(m), np.uint32(n))
            steps.append(Step(adder, "reduce_items", grid, (128, 1, 1), 0, adder_args))
        ranges = [planning.split_ranges(k, tiling.tile_k, int(many)) for many in chosen]
        whole = planning.split_ranges(k, tiling.tile_k, 1)
        ranges += [whole] * (encoded.experts - len(ranges))  # the last have no tokens
        return Launch(
            steps=tuple(steps),
            buffers=buffers,
            output="c",
            shape=(m, n, k),
            arch=arch,
            kernel=self.name,
            splits=tuple(ranges),
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


def read_units(
    encoded: ExpertWeights, items: list[Item], tiling: planning.Tiling, tile: int, rows: int
) -> NDArray[np.int64]:
    """Units of 16 bytes that the weights of every item take: what its rows of tiles store."""
    tiles = -(-encoded.shape[1] // 64)
    begins = getattr(encoded.stack, tiling.weights[0])[::tiles].astype(np.int64)  # of every tile row
    first = np.array([item.expert * encoded.tile_rows + item.top // tile for item in items])
    end = np.array([(item.expert + 1) * encoded.tile_rows for item in items])
    units: NDArray[np.int64] = begins[np.minimum(first + rows // tile, end)] - begins[first]
    return units


def longest_first(blocks: NDArray[np.int64], step: NDArray[np.float64], stored: NDArray[np.int64]) -> NDArray[np.intp]:
    """Order of blocks (item, first step, end) by descending instructions; of equal ones, by what their items store."""
    item, first, last = blocks.T
    return np.lexsort((-stored[item] * (last - first), -step[item] * (last - first)))


def words(
    encoded: ExpertWeights, items: list[Item], used: NDArray[np.integer], counts: Sequence[int], tile: int
) -> NDArray[np.int64]:
    """The first five words of every item as the kernels read them: see parts.work_item."""
    starts, first = padded_starts(counts), np.cumsum([0, *counts])
    return np.array(
        [
            (
                item.expert * encoded.tile_rows + item.top // tile,
                item.top,
                starts[item.expert] + item.first,
                first[item.expert] + item.first,
                item.columns + 256 * wide,
            )
            for item, wide in zip(items, used.tolist(), strict=True)
        ]
    )


def block_words(
    common: NDArray[np.int64],
    blocks: NDArray[np.int64],
    splits: NDArray[np.int64],
    places: NDArray[np.int64],
    tiles: int,
) -> NDArray[np.uint32]:
    """uint32[blocks, 8]: what every block does.  Part p of an item lies at its place p."""
    item, first, last = blocks.T
    many = splits[item]
    part = ((first + 1) * many - 1) // tiles
    place = np.where(many > 1, places[item] + part + 1, 0)
    return np.concatenate([common[item], np.stack([first, last, place], axis=1)], axis=1).astype(np.uint32)
