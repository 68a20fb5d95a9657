"""From weights and B to a launch: what every kernel refuses, how tiled ones cut the product, and their plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import compiler
from loadsparse.gpu.kernels import parts
from loadsparse.gpu.kernels.splitting import choose_split
from loadsparse.gpu.launch import Algorithm, Launch, Step
from loadsparse.reference.formats import FormatError

LARGE = 2**22
"""Elements of weights from which compiled packers pay (seconds, once) and reading every item again does not."""


def check_weights(kernel: str, encoded: Any, form: type[Any]) -> None:
    """Raise ValueError with one line unless the weights are of the kernel's form and consistent.

    Of LARGE weights only the layout is looked at; items that lie are then hazards of the launch.
    """
    if not isinstance(encoded, form):
        raise ValueError(
            f"kernel {kernel} multiplies {form.__name__}, got {type(encoded).__name__}: encode the weights with "
            f"kernels.get({kernel!r}).encode"
        )
    try:
        encoded.check_layout()
        if encoded.shape[0] * encoded.shape[1] < LARGE:
            encoded.validate()
    except FormatError as error:
        raise ValueError(f"kernel {kernel}: {error}; encode the weights again") from None


def check_operand(shape: tuple[int, int], dtype: str, b: NDArray[np.generic]) -> None:
    """Raise ValueError with one line unless b[K, N] fits weights[M, K] of that dtype."""
    expected = {"f16": np.float16, "bf16": np.uint16}[dtype]
    if not isinstance(b, np.ndarray):
        raise ValueError(f"B must be a NumPy array [K, N], got {type(b).__name__}: convert it")
    if b.ndim != 2:
        raise ValueError(f"B must be a matrix [K, N], got {b.ndim} dimensions: reshape it")
    if b.dtype != expected:
        word = "uint16 bit patterns" if dtype == "bf16" else "float16"
        raise ValueError(f"B must be {word} like the {dtype} weights, got {b.dtype}: convert it")
    if b.shape[0] != shape[1]:
        raise ValueError(f"B has {b.shape[0]} rows but the weights {shape[0]} x {shape[1]} need K = {shape[1]}")
    if b.shape[1] < 1:
        raise ValueError("B has no columns: N must be at least 1")


def check_arch(arch: str) -> None:
    """Raise ValueError unless the architecture has cp.async and m16n8k16, which these kernels use."""
    if compiler.capability(arch) < (8, 0):
        raise ValueError(f"architecture {arch} has no cp.async and no m16n8k16: the kernels need sm_80 or newer")


def split_ranges(k: int, tile: int, splits: int) -> tuple[tuple[int, int], ...]:
    """(start, stop) of each split in elements of k, whole tiles; split i takes tiles [i*T//S, (i+1)*T//S)."""
    tiles = -(-k // tile)
    return tuple(pairwise(i * tiles // splits * tile for i in range(splits + 1)))


def check_split(split_k: int | None, tiles: int) -> int | None:
    """Clamp a requested factor to the number of K tiles.  Raises ValueError unless it is a positive integer."""
    if split_k is None:
        return None
    if isinstance(split_k, bool) or not isinstance(split_k, (int, np.integer)) or split_k < 1:
        raise ValueError(f"split_k must be a positive integer or None, got {split_k!r}")
    return min(int(split_k), tiles)


def check_whole(name: str, split_k: int | None) -> None:
    """Raise ValueError unless K is to stay whole, for kernels that do not split it."""
    if check_split(split_k, 2) == 2:
        raise ValueError(f"kernel {name} does not split K: leave split_k None or 1, not {split_k}")


@dataclass(frozen=True)
class Tiling:
    """How a kernel cuts a product into blocks of tile_m(panels) rows and 8*panels columns, which step along K by tile_k.

    compiled(dtype, panels, copy width, direct, paired, arch) gives its PTX, whose entry has the kernel's name and the
    parameters (*weights, b, c, m, n, k, *extra); `weights` are array fields of the encoded matrix.  threads(panels) and
    shared_bytes(panels): of a block; resident(panels): blocks that a multiprocessor is expected to hold; panels(N): of a block.
    """

    compiled: Callable[..., str]
    weights: tuple[str, ...]
    tile_m: Callable[[int], int]
    tile_k: int
    threads: Callable[[int], int]
    resident: Callable[[int], int]
    shared_bytes: Callable[[int], int]
    extra: tuple[np.generic, ...] = ()
    panels: Callable[[int], int] = lambda n: min(-(-n // 8), 8)


def grid_of(tiling: Tiling, shape: tuple[int, int, int], arch: str, split_k: int | None = None) -> tuple[int, int, int]:
    """(strips of rows, blocks of columns, splits of K) of a product of that shape (M, N, K).  Raises ValueError."""
    m, n, k = shape
    panels = tiling.panels(n)
    strips, blocks, tiles = -(-m // tiling.tile_m(panels)), -(-n // (8 * panels)), -(-k // tiling.tile_k)
    splits = check_split(split_k, tiles) or choose_split(strips * blocks, tiles, arch, tiling.resident(panels))
    return strips, blocks, splits


def plan_tiles(
    name: str,
    encoded: Any,
    b: NDArray[Any],
    arch: str,
    split_k: int | None,
    tiling: Tiling,
    algorithm: Algorithm = "lscd",
) -> Launch:
    """The launch of a kernel whose grid is that of `grid_of`."""
    check_arch(arch)
    check_operand(encoded.shape, encoded.dtype, b)
    (m, k), n = encoded.shape, b.shape[1]
    panels = tiling.panels(n)
    height = tiling.tile_m(panels)
    strips, blocks, splits = grid = grid_of(tiling, (m, n, k), arch, split_k)
    direct = splits == 1
    ptx = tiling.compiled(encoded.dtype, panels, parts.copy_width(n), direct, n % 2 == 0, arch)
    sizes = (np.uint32(m), np.uint32(n), np.uint32(k), *tiling.extra)
    buffers = {field: getattr(encoded, field) for field in tiling.weights}
    buffers |= {"b": np.ascontiguousarray(b), "c": np.zeros((m, n), b.dtype)}
    target = "c" if direct else "partials"
    args: tuple[str | np.generic | int | float, ...] = (*tiling.weights, "b", target, *sizes)
    steps = [Step(ptx, name, grid, (tiling.threads(panels), 1, 1), tiling.shared_bytes(panels), args)]
    if not direct:
        buffers["partials"] = np.zeros((splits, blocks, strips * height, 8 * panels), np.float32)
        block_bytes = strips * height * panels * 32
        args = ("partials", "c", np.uint32(m), np.uint32(n), np.uint64(block_bytes), np.uint64(blocks * block_bytes))
        grid = (-(-m * 2 * panels // 128), blocks, 1)
        adder = parts.reduction(encoded.dtype, panels, splits, n % 2 == 0, arch)
        steps.append(Step(adder, "reduce_splits", grid, (128, 1, 1), 0, args))
    return Launch(
        steps=tuple(steps),
        buffers=buffers,
        output="c",
        shape=(m, n, k),
        arch=arch,
        kernel=name,
        splits=split_ranges(k, tiling.tile_k, splits),
        semantics="dense",
        in_format=encoded.dtype,
        workspace=() if direct else ("partials",),
        algorithm=algorithm,
    )
