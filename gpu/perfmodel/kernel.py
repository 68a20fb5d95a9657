"""The time of C[m, n] = A[m, k] x B[k, n] on a GPU: what the multiprocessors issue against what memory delivers.

For a tiled kernel (see `tile`), with r blocks resident on a multiprocessor and w = r * threads / 128 warps per scheduler,

    issue    = instructions / (4 min(1, w / latency))     a warp issues once per `issue_latency` cycles
    exposed  = steps * barriers * exposed_share * dram latency / steps ahead    what no other work of the block hides
    shared   = wavefronts                                 one per clock
    tensor   = mma * interval / 4
    alu, fma, lsu, popc = 32 instructions of the pipe / its lanes per clock
    dram     = (A + B + C) / read bandwidth;   l2 = (A + B once per row of blocks + C) / L2 bandwidth

    time = call + reduction of split K + ((issue + exposed)^p + sum of pipe^p + dram^p + l2^p)^(1/p)

Blocks run in waves of r per multiprocessor; the last wave has what is left.  The seven fitted constants are in
data/fitted.json; the rest is counted, or stands in the GPU's description.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Literal

from loadsparse.gpu.perfmodel import tile as tiles
from loadsparse.gpu.perfmodel.constants import Constants, fitted
from loadsparse.gpu.perfmodel.gpu import Gpu, PerfError, load
from loadsparse.gpu.perfmodel.pipes import PIPES, busy
from loadsparse.gpu.perfmodel.tile import COUNTED_PEERS, OURS, Tile, encoded_bytes, sparta_rest

NAMES = ("cublas", "flash-llm", "sparta", "sputnik", "spinfer", "twofour", "lscd", "bitmap", "adaptive")
"""Kernels that can be predicted."""
ALIASES = {"dense": "cublas", "flashllm": "flash-llm"}
CacheState = Literal["warm", "flushed"]
TESTED = (7168, 49152)
"""Least and most M and K of the measured products: the matmuls of OPT-30B, 66B and 175B."""
COLUMNS = (8, 32)
"""Least and most N of them."""


@dataclass(frozen=True)
class Prediction:
    """Predicted seconds of one call.

    bound             the longest part: "dram", "l2", "issue", "shared", "tensor", "alu", "fma", "lsu", "popc", "cuda cores",
                      "latency", "call", ...
    roofline_seconds  the plain roofline: max(bytes / peak bandwidth, 2 m n k / peak Tensor Core rate)
    low, high         seconds between which hardware is expected
    parts             seconds of every part of the model
    notes             where the question leaves what the model was tested on
    """

    seconds: float
    bound: str
    roofline_seconds: float
    low: float
    high: float
    parts: Mapping[str, float] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    split_k: int = 1
    resident_blocks: int = 0

    @property
    def tested(self) -> bool:
        """True where published measurements cover the question."""
        return not self.notes


@dataclass(frozen=True)
class Work:
    """Parts of a call in seconds: those that overlap, joined by a norm, and those that are added."""

    overlapping: Mapping[str, float]
    added: Mapping[str, float]
    split_k: int = 1
    resident_blocks: int = 0

    def seconds(self, join: float) -> float:
        """added + (sum of overlapping^join)^(1/join)."""
        return sum(self.added.values()) + norm(self.overlapping, join)

    @property
    def bound(self) -> str:
        """Name of the longest part."""
        parts = {**self.overlapping, **self.added}
        return max(parts, key=lambda name: parts[name])


def norm(parts: Mapping[str, float], join: float) -> float:
    """(sum of parts^join)^(1/join), without overflow."""
    largest = max(parts.values(), default=0.0)
    if largest <= 0:
        return 0.0
    return float(largest * sum((part / largest) ** join for part in parts.values()) ** (1 / join))


def canonical(kernel: str) -> str:
    """The name in NAMES.  Raises PerfError that lists them.

    >>> canonical("Flash_LLM")
    'flash-llm'
    """
    name = str(kernel).lower().replace("_", "-")
    name = ALIASES.get(name, name)
    if name not in NAMES:
        raise PerfError(f"unknown kernel {kernel!r}: known are {', '.join(NAMES)}")
    return name


def is_whole(value: Any, least: int, most: int) -> bool:
    """Whether a value is an integer (NumPy's too, a bool not) from least to most."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def check_holds(kernel: str, sparsity: float) -> None:
    """Raise PerfError where a kernel's format cannot hold a random matrix of this sparsity."""
    if kernel == "twofour" and sparsity < 0.5:
        raise PerfError(f"twofour keeps 2 of 4: sparsity is at least 0.5, not {sparsity:g}; sparta holds the rest")


def check_shape(m: int, n: int, k: int, sparsity: float) -> None:
    """Raise PerfError unless m, n, k are positive whole numbers and 0 <= sparsity <= 1."""
    for name, size in (("M", m), ("N", n), ("K", k)):
        if not is_whole(size, 1, 2**31 - 1):
            raise PerfError(f"{name} must be a positive whole number below 2^31, got {size!r}")
    if isinstance(sparsity, bool) or not isinstance(sparsity, Real) or not 0 <= sparsity <= 1:
        raise PerfError(f"sparsity must lie between 0 and 1, got {sparsity!r}")


def predict(
    kernel: str,
    m: int,
    n: int,
    k: int,
    sparsity: float,
    gpu: str | Gpu = "a100-80gb",
    *,
    split_k: int | None = None,
    l2: CacheState = "warm",
    constants: Constants | None = None,
) -> Prediction:
    """Predicted time of C[m, n] = A[m, k] x B[k, n] with A pruned to `sparsity`, FP16.

    kernel: one of NAMES.  split_k: None lets the kernel choose.  l2: "warm" leaves in L2 what fits from the call before.
    Raises PerfError.

    >>> predict("cublas", 36864, 8, 9216, 0.8).bound
    'dram'
    """
    check_shape(m, n, k, sparsity)
    kernel, device, values = canonical(kernel), load(gpu), constants or fitted()
    m, n, k, sparsity = int(m), int(n), int(k), float(sparsity)
    check_holds(kernel, sparsity)
    if split_k is not None and not is_whole(split_k, 1, 2**31 - 1):
        raise PerfError(f"split_k must be a positive whole number or None, got {split_k!r}")
    if l2 not in ("warm", "flushed"):
        raise PerfError(f"l2 must be 'warm' or 'flushed', got {l2!r}")
    done = work(kernel, m, n, k, 1 - sparsity, device, values, split_k=split_k, l2=l2)
    seconds = done.seconds(values.join)
    notes = outside(kernel, n, sparsity, device) + untested_sizes(m, k)
    if l2 == "flushed" and done != work(kernel, m, n, k, 1 - sparsity, device, values, split_k=split_k):
        notes.append("flushed L2: every measurement used is of a warm one")
    spread = values.spread[kernel if kernel in values.spread else "flash-llm"]
    if notes:
        spread = max(spread, 0.3)
    parts = {**done.overlapping, **done.added}
    return Prediction(
        seconds, done.bound, roofline(kernel, m, n, k, sparsity, device), seconds / (1 + spread), seconds * (1 + spread),
        parts, tuple(notes), done.split_k, done.resident_blocks,
    )  # fmt: skip


def roofline(kernel: str, m: int, n: int, k: int, sparsity: float, gpu: str | Gpu = "a100-80gb") -> float:
    """Seconds of the plain roofline: encoded A, B and C once at peak bandwidth, or dense arithmetic at the peak rate.

    Sputnik multiplies only what is stored, on CUDA cores.
    """
    device, kernel = load(gpu), canonical(kernel)
    moved = encoded_bytes(kernel, m, k, 1 - sparsity) + 2 * (k * n + m * n)
    if kernel == "sputnik":
        arithmetic = 2 * m * n * k * (1 - sparsity) / (device.fp32_tflops * 1e12)
    else:
        arithmetic = 2 * m * n * k / (device.tensor_tflops * 1e12)
    return max(moved / (device.dram_peak_gbs * 1e9), arithmetic)


def outside(kernel: str, n: int, sparsity: float, gpu: Gpu) -> list[str]:
    """In what a question leaves the measurements that the model was judged on."""
    notes = []
    if gpu != load("a100-80gb"):
        notes.append(f"extrapolated to {gpu.name}: every measurement used is of an A100 SXM4 80 GB")
    if not COLUMNS[0] <= n <= COLUMNS[1]:
        notes.append(f"N = {n} is outside the tested range {COLUMNS[0]} to {COLUMNS[1]}")
    if kernel != "cublas" and sparsity < 0.6:
        notes.append(f"sparsity {sparsity:g} is outside the tested range 0.6 to 1")
    if kernel in OURS:
        notes.append(
            f"{kernel} was counted by the simulator and never timed; constants are those of Flash-LLM's timings"
        )
        if not tiles.tile(kernel, n, 1 - sparsity).width_counted:
            notes.append(f"no count for this width: the next wider counted one stands in for N = {n}")
    if kernel == "twofour":
        notes.append(
            "twofour: never timed alone; its bandwidth is that of SparTA's 2:4 part, and it holds 2:4 weights only"
        )
    if kernel == "spinfer":
        notes.append("spinfer: instructions counted, never timed here; registers and shared memory as published")
    return notes


def untested_sizes(m: int, k: int) -> list[str]:
    """Which of M and K no measured product had."""
    return [
        f"{name} = {size} is outside the tested range {TESTED[0]} to {TESTED[1]}"
        for name, size in (("M", m), ("K", k))
        if not TESTED[0] <= size <= TESTED[1]
    ]


def work(
    kernel: str,
    m: int,
    n: int,
    k: int,
    density: float,
    gpu: Gpu,
    constants: Constants,
    *,
    split_k: int | None = None,
    l2: CacheState = "warm",
    one: Tile | None = None,
) -> Work:
    """The parts of one call of a kernel whose name is canonical; `one` replaces its counted tile."""
    if one is not None or kernel in OURS or kernel in COUNTED_PEERS:
        shape = one or tiles.tile(kernel, n, density)
        moved = encoded_bytes(kernel, m, k, density)
        choices = (split_k,) if split_k is not None else _splits(kernel, m, n, k, shape, gpu)
        options = [tiled(shape, moved, m, n, k, gpu, constants, choice, l2) for choice in choices]
        return min(options, key=lambda option: option.seconds(constants.join))
    peers: dict[str, Callable[..., Work]] = {
        "cublas": dense,
        "sputnik": csr,
        "sparta": with_rest,
        "twofour": two_of_four,
    }
    return peers[kernel](m, n, k, density, gpu, constants, l2)


def _splits(kernel: str, m: int, n: int, k: int, shape: Tile, gpu: Gpu) -> tuple[int, ...]:
    """Factors of K to try: our kernels choose one by their own rule; the peers' is hand-tuned, so the best."""
    blocks, steps = -(-m // shape.rows) * -(-n // shape.columns), -(-k // shape.depth)
    if kernel not in OURS:
        return tuple(range(1, min(8, steps) + 1))
    from loadsparse.gpu.kernels.splitting import choose_split, expected_resident

    return (choose_split(blocks, steps, gpu.arch, expected_resident(shape.rows)),)


def tiled(
    shape: Tile,
    moved: float,
    m: int,
    n: int,
    k: int,
    gpu: Gpu,
    constants: Constants,
    splits: int,
    l2: CacheState = "warm",
) -> Work:
    """Parts of a tiled kernel whose A takes `moved` bytes, with K split over `splits` blocks.  Raises PerfError."""
    resident = gpu.resident_blocks(shape.threads, shape.registers, shape.shared_bytes)
    if resident == 0:
        raise PerfError(f"a block of this kernel ({shape.shared_bytes} bytes of shared memory) does not fit {gpu.name}")
    rows, across = math.ceil(m / shape.rows), math.ceil(n / shape.columns)
    blocks, steps = rows * across * splits, math.ceil(math.ceil(k / shape.depth) / splits)
    counts = shape.block + steps * shape.step
    full, left = divmod(blocks, gpu.sms * resident)
    waves = [(resident, full)] + ([(-(-left // gpu.sms), 1)] if left else [])
    barriers = shape.step.barriers / (shape.threads / 32)
    exposed = steps * barriers * constants.exposed_share * gpu.dram_latency / shape.ahead
    cycles = dict.fromkeys(("issue", *PIPES), 0.0)
    per_block = busy(counts, gpu)
    for together, times in waves:
        rate = min(1.0, together * shape.threads / 128 / constants.issue_latency)
        cycles["issue"] += times * (together * counts.instructions / 4 / rate + exposed)
        for pipe, spent in per_block.items():
            cycles[pipe] += times * together * spent
    parts = {name: value / gpu.hertz for name, value in cycles.items()}
    b, c = 2.0 * k * n, 2.0 * m * n
    partials = splits * shape.partial_bytes * m * n * 2 if splits > 1 else 0  # written and read again, through L2
    parts["dram"] = _from_dram(moved + b, gpu, l2) + c / gpu.dram_bytes_per_second
    parts["l2"] = (moved + rows * b + c) / (gpu.l2_gbs * 1e9)
    added = {"call": constants.call, "reduction": partials / gpu.dram_bytes_per_second}
    return Work(parts, added, splits, resident)


def _from_dram(moved: float, gpu: Gpu, l2: CacheState) -> float:
    """Seconds to read a matrix from DRAM: nothing where it stayed in a warm L2, since a stream that is larger evicts itself."""
    if l2 == "warm" and moved < 0.8 * gpu.l2_mib * 2**20:
        return 0.0
    return moved / gpu.dram_bytes_per_second


def dense(m: int, n: int, k: int, density: float, gpu: Gpu, constants: Constants, l2: CacheState) -> Work:
    """cuBLAS on Tensor Cores: A, B and C at read bandwidth; 85% of the peak rate once N is large."""
    moved = 2.0 * (m * k + k * n)
    rows = -(-m // 128)
    parts = {
        "dram": _from_dram(moved, gpu, l2) + 2.0 * m * n / gpu.dram_bytes_per_second,
        "l2": (2.0 * m * k * -(-n // 256) + rows * 2.0 * k * n) / (gpu.l2_gbs * 1e9),
        "tensor": 2.0 * m * n * k / (0.85 * gpu.tensor_tflops * 1e12),
    }
    return Work(parts, {"call": constants.call})


def csr(m: int, n: int, k: int, density: float, gpu: Gpu, constants: Constants, l2: CacheState) -> Work:
    """Sputnik: CSR on CUDA cores.

    Per stored item `item_cycles` on its multiprocessor and 2N bytes of B through L1; a row is walked by min(N, 32)
    threads at `item_latency` cycles per item, so few rows leave latency in sight.
    """
    parts = _rows(m, n, k, density, gpu, constants)
    parts["dram"] = _from_dram(encoded_bytes("sputnik", m, k, density) + 2.0 * k * n, gpu, l2)
    return Work(parts, {"call": constants.call})


def _rows(m: int, n: int, k: int, density: float, gpu: Gpu, constants: Constants) -> dict[str, float]:
    items = density * m * k
    width = gpu.sms * gpu.hertz
    rounds = max(1, math.ceil(m * min(n, 32) / (32 * gpu.warps_per_sm * gpu.sms)))
    return {
        "cuda cores": items * (constants.item_cycles + 2 * n / gpu.shared_bytes_per_clock) / width,
        "latency": rounds * density * k * constants.item_latency / gpu.hertz,
    }


def with_rest(m: int, n: int, k: int, density: float, gpu: Gpu, constants: Constants, l2: CacheState) -> Work:
    """SparTA: the 2:4 part, then the rest as Sputnik does it: two calls."""
    first = two_of_four(m, n, k, density, gpu, constants, l2)
    rest = _rows(m, n, k, sparta_rest(density), gpu, constants)
    added = {"call": 2 * constants.call, "rest on cuda cores": norm(rest, constants.join)}
    return Work(first.overlapping, added)


def two_of_four(m: int, n: int, k: int, density: float, gpu: Gpu, constants: Constants, l2: CacheState) -> Work:
    """2 of 4 on sparse Tensor Cores, 1.125 bytes per element at the bandwidth that SparTA's part reaches."""
    share = constants.sparta_read_share * gpu.dram_bytes_per_second
    stream = {
        "dram": 1.125 * m * k / share + 2.0 * n * (k + m) / gpu.dram_bytes_per_second,
        "tensor": m * n * k / (gpu.tensor_tflops * 1e12),
    }
    return Work(stream, {"call": constants.call})


def sensitivities(
    kernel: str, m: int, n: int, k: int, sparsity: float, gpu: str | Gpu = "a100-80gb", change: float = 0.1
) -> dict[str, float]:
    """What if: relative change of the time when one thing is made better by `change`.  -0.05 means 5% faster.

    Things of the GPU: DRAM and L2 bandwidth, clock, multiprocessors (whole ones), shared-memory wavefronts, Tensor Cores,
    and the lanes of each other pipe.  Things of the software: the cost of a call, latency left in sight at barriers and
    between instructions.
    """
    device, values = load(gpu), fitted()
    base = predict(kernel, m, n, k, sparsity, device).seconds
    more = 1 + change
    variants: dict[str, tuple[Gpu, Constants]] = {
        "dram bandwidth": (_faster_memory(device, more), values),
        "l2 bandwidth": (device.changed(l2_gbs=device.l2_gbs * more), values),
        "clock": (
            device.changed(clock_mhz=device.clock_mhz * more, tensor_tflops=device.tensor_tflops * more),
            values,
        ),
        "multiprocessors": (
            device.changed(sms=round(device.sms * more), tensor_tflops=device.tensor_tflops * more),
            values,
        ),
        "shared memory": (device.changed(shared_bytes_per_clock=device.shared_bytes_per_clock * more), values),
        "tensor cores": (
            device.changed(mma_interval=device.mma_interval / more, tensor_tflops=device.tensor_tflops * more),
            values,
        ),
        "integer and logic": (device.changed(alu_lanes_per_clock=device.alu_lanes_per_clock * more), values),
        "multiply-add": (device.changed(fma_lanes_per_clock=device.fma_lanes_per_clock * more), values),
        "load and store": (device.changed(lsu_lanes_per_clock=device.lsu_lanes_per_clock * more), values),
        "population counts": (device.changed(popc_lanes_per_clock=device.popc_lanes_per_clock * more), values),
        "call": (device, replace(values, call=values.call / more)),
        "exposed latency": (device, replace(values, exposed_share=values.exposed_share / more)),
        "issue latency": (device, replace(values, issue_latency=values.issue_latency / more)),
    }
    return {
        what: predict(kernel, m, n, k, sparsity, changed, constants=using).seconds / base - 1
        for what, (changed, using) in variants.items()
    }


def _faster_memory(gpu: Gpu, more: float) -> Gpu:
    read, peak = gpu.dram_read_gbs * more, gpu.dram_peak_gbs * more
    return gpu.changed(dram_read_gbs=read, dram_peak_gbs=peak, l2_gbs=max(gpu.l2_gbs, read))
