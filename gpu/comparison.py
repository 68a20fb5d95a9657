"""Every SpMM kernel on one shape: bytes, counts, resources and predicted time side by side.

A launch of a tiled kernel is blocks that take steps along K, so each of its counts is bilinear in M and K once N, the
sparsity and the number of splits are fixed:

    count(M, K) = p + q M + r K + s M K

Four small instances give the coefficients ("scaled"); products of up to EXACT elements of A, and every product with
`exact`, are executed in full ("counted").  Registers and spills are reported by the compiler, times predicted by
`perfmodel`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import compiler, kernels, perfmodel
from loadsparse.gpu.kernels import planning
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.perfmodel import tile as tiles
from loadsparse.gpu.perfmodel.gpu import Gpu, PerfError
from loadsparse.gpu.verify.errors import InputError
from loadsparse.reference import pruning
from loadsparse.reference.formats import entropy_floor

Progress = Callable[[str, int, int], None]
Row = dict[str, Any]

FOUR_BIT = "dense-4bit"
FOUR_BIT_BYTES = 0.625  # per element: 4 bits, and a float16 scale and minimum for every 32 (Q4_1)
DEFAULT = ("dense", "lscd", "bitmap", "adaptive", "sparta", "sputnik", "twofour", FOUR_BIT)
PUBLISHED = ("flash-llm", "spinfer")
NAMES = (*DEFAULT, *PUBLISHED)
"""Kernels that can be compared; of the `PUBLISHED` we only know the counts of their authors' kernels."""

EXACT = 2**21
"""Elements of A up to which a product is executed in full."""
MULTIPLIES = 16 * 8 * 16  # multiply-adds that one mma does on operands it holds (mma.sp: on the selected half of k)
ROWS, DEPTH = 256, 512  # of the smallest instance, at least; the others are twice as high, as deep, or both
STRIPE = 128  # rows that are pruned on their own
SHARED = "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_{}.sum"
CONFLICTS = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_{}.sum"
SECTORS = "l1tex__t_sectors_pipe_lsu_mem_global_op_{}.sum"


@dataclass(frozen=True)
class Counts:
    """What one launch did; `values` by name, hazards as text, resources of its most demanding kernel."""

    values: dict[str, float]
    hazards: tuple[str, ...]
    splits: int
    resources: dict[str, int] = field(default_factory=dict)


def compare(
    shape: tuple[int, int, int],
    sparsity: float = 0.8,
    gpu: str | Gpu = "a100-80gb",
    names: Sequence[str] | None = None,
    *,
    weights: NDArray[np.float16] | None = None,
    exact: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Row]:
    """One row per kernel for C[M, N] = A[M, K] x B[K, N], float16, A pruned to `sparsity`.

    shape: (M, N, K).  names: of `NAMES`; None is `DEFAULT`.  weights: a real A [M, K], pruned here by magnitude; None draws
    normal values from `seed`.  exact: execute every product in full, however large.  progress: (what, done, total).
    Numbers that do not exist for a row are None.  Raises InputError.

    >>> rows = compare((64, 8, 64), 0.8, names=["lscd", "dense-4bit"])
    >>> [(row["kernel"], row["bytes_a"], row["hazards"]) for row in rows][1]
    ('dense-4bit', 2560, None)
    """
    m, n, k = _checked(shape, sparsity)
    chosen = list(DEFAULT if names is None else names)
    check_names(chosen, n)
    if weights is not None and (weights.shape != (m, k) or weights.dtype != np.float16):
        raise InputError(f"weights are {weights.dtype} {weights.shape}, expected float16 ({m}, {k})")
    try:
        device = perfmodel.load(gpu)
    except PerfError as error:
        raise InputError(str(error)) from None
    rows = []
    for done, name in enumerate(chosen):
        if progress is not None:
            progress(f"{name} {m} x {n} x {k}", done, len(chosen))
        rows.append(_row(name, (m, n, k), sparsity, device, weights, exact, seed))
    return rows


def _checked(shape: tuple[int, int, int], sparsity: float) -> tuple[int, int, int]:
    m, n, k = shape
    for name, size in (("M", m), ("N", n), ("K", k)):
        if not perfmodel.kernel.is_whole(size, 1, 2**31 - 1):
            raise InputError(f"{name} = {size} is impossible: our kernels take every M, N and K from 1 on")
    if not 0 <= sparsity <= 1:
        raise InputError(f"a sparsity lies between 0 and 1, not {sparsity}")
    if max(m * k, k * n, m * n) > 2**33:
        raise InputError(f"shape {m},{n},{k}: a matrix would have more than 2^33 elements")
    return int(m), int(n), int(k)


def check_names(names: Sequence[str], n: int) -> None:
    """Raise InputError for a kernel that is unknown or that does not take N columns."""
    for name in names:
        if name not in NAMES:
            raise InputError(f"unknown kernel {name!r}: known are {', '.join(NAMES)}")
        if name in PUBLISHED and n not in (8, 16, 32, 64) and n % 128:
            raise InputError(f"kernel {name} takes N = 8, 16, 32, 64 or a multiple of 128, not {n}; ours take every N")


def _row(
    name: str,
    shape: tuple[int, int, int],
    sparsity: float,
    device: Gpu,
    weights: NDArray[np.float16] | None,
    exact: bool,
    seed: int,
) -> Row:
    m, n, k = shape
    if name == "twofour":
        sparsity = 0.5  # it holds 2:4 weights and no others
    if name == FOUR_BIT:
        return _assembled(name, shape, 0.0, device, {"bytes_a": int(FOUR_BIT_BYTES * m * k)}, None, "computed")
    if name in PUBLISHED:
        return _assembled(name, shape, sparsity, device, _published(name, shape, sparsity), None, "published")
    whole = exact or m * k <= EXACT
    if whole:
        counts = _executed(name, _weights(name, m, k, sparsity, weights, seed), n, device.arch, None)
    else:
        counts = _scaled(name, shape, sparsity, device.arch, weights, seed)
    return _assembled(name, shape, sparsity, device, counts.values, counts, "counted" if whole else "scaled")


def _weights(
    name: str, m: int, k: int, sparsity: float, given: NDArray[np.float16] | None, seed: int, depth: int | None = None
) -> NDArray[np.float16]:
    """A[m, k] pruned by magnitude, 2:4 for the kernel that wants it: given weights, or normal values.

    Stripes of 128 rows (of `depth` columns) are pruned on their own, which bounds memory and gives nested instances the
    same share of zeros.
    """
    rng = np.random.default_rng(seed)
    pruned = np.empty((m, k), np.float16)
    for top in range(0, m, STRIPE):
        stripe = slice(top, top + STRIPE)
        height = min(STRIPE, m - top)
        dense = rng.standard_normal((height, k), np.float32).astype(np.float16) if given is None else given[stripe]
        pruned[stripe] = (
            pruning.nm(dense, 2, 4)
            if name == "twofour"
            else pruning.magnitude(dense, sparsity, scope="block", block=(STRIPE, depth or k))
        )
    return pruned


def _executed(name: str, a: NDArray[np.float16], n: int, arch: str, splits: int | None) -> Counts:
    """Counts of one launch executed in full; every hazard is kept."""
    kernel = kernels.get(name)
    b = np.random.default_rng(1).standard_normal((a.shape[1], n)).astype(np.float16)
    encoded = kernel.encode(a)
    launch = kernel.plan(encoded, b, arch, splits)
    _, report = launch.run(budget=2**62)
    metrics = report.metrics
    multiplies = MULTIPLIES * metrics["smsp__inst_executed_pipe_tensor_op_hmma.sum"] + sum(
        line["threads"]
        for step in report.steps
        for line in step.lines
        if re.match(r"(@\S+ )?fma\.rn\.f32", line["ptx"])
    )
    values: dict[str, float] = {
        "bytes_a": encoded.nbytes,
        "stored": int(np.count_nonzero(a)),
        "sectors": sum(metrics[SECTORS.format(way)] for way in ("ld", "st", "atom", "red")),
        "shared_wavefronts": sum(metrics[SHARED.format(way)] for way in ("ld", "st", "atom"))
        + metrics["shared_wavefronts_cp_async"],
        "bank_conflicts": sum(metrics[CONFLICTS.format(way)] for way in ("ld", "st", "atom")),
        "warp_instructions": report.instructions,
        "mma": metrics["smsp__inst_executed_pipe_tensor_op_hmma.sum"],
        "multiply_adds": multiplies,
    }
    hazards = tuple(str(hazard) for hazard in report.hazards)
    return Counts(values, hazards, len(launch.splits), _needs(launch, arch))


def _needs(launch: Launch, arch: str) -> dict[str, int]:
    """What the launch's kernels need of a multiprocessor; empty where NVIDIA's compiler is not installed."""
    try:
        made = [_resources(step.ptx, arch) for step in launch.steps if step.entry != "reduce_splits"]
    except compiler.NoCompilerError:
        return {}
    first = launch.steps[0]
    return {
        "registers": max(one["registers"] for one in made),
        "spill_bytes": sum(one["spill_bytes"] for one in made),
        "shared_bytes": first.shared_bytes + made[0]["shared_bytes"],
        "threads": int(np.prod(first.block)),
        "main_registers": made[0]["registers"],
    }


@cache
def _resources(ptx: str, arch: str) -> dict[str, int]:
    found = compiler.resources(ptx, arch)
    return {name: int(found[name]) for name in ("registers", "spill_bytes", "shared_bytes")}


def _scaled(
    name: str, shape: tuple[int, int, int], sparsity: float, arch: str, weights: NDArray[np.float16] | None, seed: int
) -> Counts:
    """Counts by the bilinear model from four small instances with the split of the whole product."""
    m, n, k = shape
    splits = _split_of(name, shape, sparsity, arch)
    if weights is None:
        corners = _corners(name, n, sparsity, arch, splits, seed)
    else:
        corners = _small(name, n, sparsity, arch, splits, seed, weights)
    rows, depth = _smallest(splits)
    x, y = m / rows - 1, k / depth - 1
    shares = ((1 - x) * (1 - y), (1 - x) * y, x * (1 - y), x * y)
    values = {
        key: max(0.0, sum(share * one.values[key] for share, one in zip(shares, corners, strict=True)))
        for key in corners[0].values
    }
    if weights is not None:
        values["bytes_a"] = kernels.get(name).encode(_weights(name, m, k, sparsity, weights, seed)).nbytes
    hazards = tuple(hazard for one in corners for hazard in one.hazards)
    return Counts({key: round(value) for key, value in values.items()}, hazards, splits, corners[-1].resources)


def _smallest(splits: int) -> tuple[int, int]:
    """M and K of the smallest instance: whole tiles, and whole steps of 64 for every split."""
    unit = 64 * splits
    return ROWS, -(-DEPTH // unit) * unit


@cache
def _corners(name: str, n: int, sparsity: float, arch: str, splits: int, seed: int) -> tuple[Counts, ...]:
    return _small(name, n, sparsity, arch, splits, seed, None)


def _small(
    name: str, n: int, sparsity: float, arch: str, splits: int, seed: int, given: NDArray[np.float16] | None
) -> tuple[Counts, ...]:
    """Four instances, nested in one another: (M, K), (M, 2K), (2M, K), (2M, 2K)."""
    rows, depth = _smallest(splits)
    if given is not None:
        tall, wide = -(-2 * rows // given.shape[0]), -(-2 * depth // given.shape[1])
        given = np.tile(given[: 2 * rows, : 2 * depth], (tall, wide))[: 2 * rows, : 2 * depth]
    a = _weights(name, 2 * rows, 2 * depth, sparsity, given, seed, depth)
    return tuple(_executed(name, a[:m, :k], n, arch, splits) for m in (rows, 2 * rows) for k in (depth, 2 * depth))


def _split_of(name: str, shape: tuple[int, int, int], sparsity: float, arch: str) -> int:
    """Into how many ranges the kernel divides K, if the weights' tiles are like one that is drawn."""
    kernel: Any = kernels.get(name)
    if not hasattr(kernel, "tiling"):
        return 1
    corner = kernel.encode(_weights(name, 64, 64, sparsity, None, 0))
    return planning.grid_of(kernel.tiling(corner, shape[0], arch), shape, arch)[2]


def _published(name: str, shape: tuple[int, int, int], sparsity: float) -> dict[str, float]:
    """Counts of the authors' kernel, from its counts per step of a tile; see perfmodel.tile."""
    m, n, k = shape
    one = tiles.tile(name, n, 1 - sparsity)
    blocks = -(-m // one.rows) * -(-n // one.columns) * -(-k // one.depth)
    return {
        "bytes_a": round(tiles.encoded_bytes(name, m, k, 1 - sparsity)),
        "shared_wavefronts": round(blocks * one.step.wavefronts),
        "warp_instructions": round(blocks * one.step.instructions),
        "mma": round(blocks * one.step.mma),
        "multiply_adds": round(blocks * one.step.mma) * MULTIPLIES,
    }


def _assembled(
    name: str,
    shape: tuple[int, int, int],
    sparsity: float,
    device: Gpu,
    values: dict[str, float],
    counts: Counts | None,
    origin: str,
) -> Row:
    """The row of a table from counts, resources and predictions."""
    m, n, k = shape
    outputs = m * n
    resources = counts.resources if counts is not None else {}
    resident = (
        device.resident_blocks(resources["threads"], resources["main_registers"], resources["shared_bytes"])
        if resources
        else None
    )
    bytes_a = int(values["bytes_a"])
    moved = bytes_a + 2 * n * (m + k)
    instructions, mma, multiplies = (values.get(key) for key in ("warp_instructions", "mma", "multiply_adds"))
    timed = name == "dense" or name in perfmodel.NAMES
    predicted = perfmodel.predict(name, m, n, k, sparsity, device) if timed else None
    return {
        "kernel": name,
        "shape": [m, n, k],
        "sparsity": sparsity,
        "origin": origin,
        "bytes_a": bytes_a,
        "bytes_a_floor": round(entropy_floor(1 - sparsity) * m * k) if name != FOUR_BIT else None,
        "bytes_per_element": bytes_a / (m * k),
        "dram_bytes": moved,
        "sectors": values.get("sectors"),
        "shared_wavefronts": values.get("shared_wavefronts"),
        "bank_conflicts": values.get("bank_conflicts"),
        "warp_instructions": instructions,
        "instructions_per_output": None if instructions is None else instructions * 32 / outputs,
        "mma": mma,
        "mma_per_output": None if mma is None else mma / outputs,
        "useful_multiply_adds": values.get("stored", (1 - sparsity) * m * k) * n / multiplies if multiplies else None,
        "redundant_limit_n": redundant_limit(name, m, k, bytes_a, device),
        "registers": resources.get("registers"),
        "shared_bytes": resources.get("shared_bytes"),
        "spill_bytes": resources.get("spill_bytes"),
        "resident_blocks": resident,
        "occupancy": None if resident is None else resident * -(-resources["threads"] // 32) / device.warps_per_sm,
        "splits": counts.splits if counts is not None else None,
        "hazards": len(counts.hazards) if counts is not None else None,
        "predicted_seconds": predicted and predicted.seconds,
        "bound": predicted and predicted.bound,
        "untested": list(predicted.notes)
        if predicted
        else [f"{name}: never counted or timed, so no time is predicted"],
        "roofline_seconds": predicted.roofline_seconds
        if predicted
        else max(moved / (device.dram_peak_gbs * 1e9), 2 * m * n * k / (device.tensor_tflops * 1e12)),
    }


def redundant_limit(name: str, m: int, k: int, bytes_a: float, gpu: str | Gpu = "a100-80gb") -> int | None:
    """The least N at which the Tensor Cores need longer for all products, zeros included, than DRAM for A, B and C.

    bytes_a / W + 2 N (M + K) / W = 2 N M K / P, with read bandwidth W and peak P; 2:4 weights halve the products.  None
    where it never happens, and for CUDA cores, which multiply what is stored.

    >>> redundant_limit("lscd", 36864, 9216, 0.8 * 36864 * 9216)
    75
    """
    device = perfmodel.load(gpu)
    if name == "sputnik":
        return None
    share = 0.5 if name in ("twofour", "sparta") else 1.0
    bandwidth = device.dram_bytes_per_second
    per_column = 2 * share * m * k / (device.tensor_tflops * 1e12) - 2 * (m + k) / bandwidth
    return None if per_column <= 0 else int(np.ceil(bytes_a / bandwidth / per_column))
