"""GPU descriptions: data that checks itself.  Packaged ones are JSON files beside this module; users add their own."""

from __future__ import annotations

import json
import tomllib
from copy import copy
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any


class PerfError(ValueError):
    """Input that the performance model refuses; one line that says what is wrong and how to mend it."""


DATA = Path(__file__).parent / "data"

# field -> (least, most) value of any GPU that exists or may soon
_RANGES: dict[str, tuple[float, float]] = {
    "sms": (1, 1024), "clock_mhz": (200, 5000), "warps_per_sm": (8, 128), "blocks_per_sm": (1, 64),
    "registers_per_sm": (8192, 1 << 20), "register_unit": (32, 4096),
    "shared_per_sm": (16384, 1 << 20), "shared_per_block": (16384, 1 << 20),
    "shared_unit": (1, 4096), "shared_reserved": (0, 8192), "shared_bytes_per_clock": (32, 1024),
    "popc_lanes_per_clock": (1, 128), "alu_lanes_per_clock": (1, 1024), "fma_lanes_per_clock": (1, 1024),
    "lsu_lanes_per_clock": (1, 1024), "tensor_tflops": (1, 1e5), "fp32_tflops": (0.5, 1e4),
    "dram_peak_gbs": (50, 1e5), "dram_read_gbs": (20, 1e5), "memory_gib": (1, 4096), "l2_mib": (0.25, 4096),
    "l2_gbs": (50, 1e6), "nvlink_gbs": (0, 1e5), "mma_interval": (1, 1024), "dram_latency": (50, 5000),
    "mma_latency": (1, 1000),
}  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """What the model must know about a GPU.

    Fields
        sms, clock_mhz                             multiprocessors and their boost clock
        warps_per_sm, blocks_per_sm                most that are resident
        registers_per_sm, register_unit            32-bit registers; granularity per warp
        shared_per_sm, shared_per_block            bytes; shared_unit is the granularity, shared_reserved is taken per block
        shared_bytes_per_clock                     per multiprocessor: one wavefront a clock
        alu_lanes_per_clock, fma_lanes_per_clock   per multiprocessor: integers and logic; FP32 and integer multiply-add
        lsu_lanes_per_clock, popc_lanes_per_clock  per multiprocessor: loads and stores; population counts
        tensor_tflops, fp32_tflops                 dense FP16 with FP32 accumulation; CUDA cores
        dram_peak_gbs, dram_read_gbs               GB/s: data sheet, and what good kernels read
        memory_gib, l2_mib, l2_gbs                 GiB, MiB, GB/s
        nvlink_gbs                                 GB/s both ways together; 0: none
        mma_interval, mma_latency, dram_latency    cycles; interval of m16n8k16 per sub-core
        sources                                    field -> where its value comes from

    Raises PerfError for impossible values.
    """

    name: str
    arch: str
    sms: int
    clock_mhz: float
    warps_per_sm: int
    blocks_per_sm: int
    registers_per_sm: int
    register_unit: int
    shared_per_sm: int
    shared_per_block: int
    shared_unit: int
    shared_reserved: int
    shared_bytes_per_clock: float
    popc_lanes_per_clock: float
    alu_lanes_per_clock: float
    fma_lanes_per_clock: float
    lsu_lanes_per_clock: float
    tensor_tflops: float
    fp32_tflops: float
    dram_peak_gbs: float
    dram_read_gbs: float
    memory_gib: float
    l2_mib: float
    l2_gbs: float
    nvlink_gbs: float
    mma_interval: float
    mma_latency: float
    dram_latency: float
    sources: dict[str, str] = field(default_factory=dict, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        where = f"GPU {self.name!r}"
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("name", "arch"):
                if not isinstance(value, str) or not value:
                    raise PerfError(f"{where}: {one.name} must be a text, got {value!r}")
            elif one.name in _RANGES:
                least, most = _RANGES[one.name]
                whole = one.type == "int"
                if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                    raise PerfError(f"{where}: {one.name} must be a {'whole ' if whole else ''}number, got {value!r}")
                if not least <= value <= most:
                    raise PerfError(
                        f"{where}: {one.name} = {value} is impossible: it lies between {least:g} and {most:g}"
                    )
        if self.dram_read_gbs > self.dram_peak_gbs:
            raise PerfError(f"{where}: dram_read_gbs {self.dram_read_gbs} exceeds dram_peak_gbs {self.dram_peak_gbs}")
        if self.l2_gbs < self.dram_read_gbs:
            raise PerfError(f"{where}: l2_gbs {self.l2_gbs} is below dram_read_gbs {self.dram_read_gbs}")
        if self.shared_per_block > self.shared_per_sm:
            raise PerfError(
                f"{where}: shared_per_block {self.shared_per_block} exceeds shared_per_sm {self.shared_per_sm}"
            )
        multiplied = 2 * self.fma_lanes_per_clock * self.sms * self.clock_mhz * 1e6 / 1e12
        if not multiplied / 1.2 <= self.fp32_tflops <= 1.2 * multiplied:
            raise PerfError(
                f"{where}: {self.fma_lanes_per_clock} multiply-adds a clock on {self.sms} multiprocessors give "
                f"{multiplied:.1f} TFLOP/s, but fp32_tflops is {self.fp32_tflops}"
            )
        issued = 4 * self.sms * self.clock_mhz * 1e6 * 4096 / self.mma_interval / 1e12
        if issued > 1.1 * self.tensor_tflops:
            raise PerfError(
                f"{where}: an m16n8k16 every {self.mma_interval} cycles gives {issued:.0f} TFLOP/s, "
                f"more than tensor_tflops {self.tensor_tflops}"
            )

    def changed(self, **values: float) -> Gpu:
        """This GPU with other values, for what-if questions: they need not be those of a GPU that may exist."""
        other = copy(self)
        for name, value in values.items():
            object.__setattr__(other, name, value)
        return other

    @property
    def hertz(self) -> float:
        """Clock in Hz."""
        return self.clock_mhz * 1e6

    @property
    def dram_bytes_per_second(self) -> float:
        """Bandwidth that good kernels reach."""
        return self.dram_read_gbs * 1e9

    def resident_blocks(self, threads: int, registers: int, shared_bytes: int) -> int:
        """Blocks of a kernel that one multiprocessor holds at once; 0 where one block is already too much.

        Registers are handed out per warp in units of `register_unit`, shared memory in units of `shared_unit` after
        `shared_reserved` bytes per block.  Source: NVIDIA cuda_occupancy.h.
        """
        warps = -(-threads // 32)
        per_warp = -(-registers * 32 // self.register_unit) * self.register_unit
        by_registers = self.registers_per_sm // 4 // per_warp * 4 // warps if per_warp else self.blocks_per_sm
        if shared_bytes > self.shared_per_block:
            return 0
        taken = -(-(shared_bytes + self.shared_reserved) // self.shared_unit) * self.shared_unit
        by_shared = self.shared_per_sm // taken if taken else self.blocks_per_sm
        return max(0, min(self.blocks_per_sm, self.warps_per_sm // warps, by_registers, by_shared))


def names() -> tuple[str, ...]:
    """Names of the packaged descriptions."""
    return tuple(sorted(path.stem.removeprefix("gpu_") for path in DATA.glob("gpu_*.json")))


def parse(values: Any, where: str) -> Gpu:
    """A description from decoded JSON or TOML.  Raises PerfError that names the missing or unknown field."""
    if not isinstance(values, dict):
        raise PerfError(f"{where}: a GPU description is one table of fields, got {type(values).__name__}")
    known = {one.name for one in fields(Gpu)}
    if unknown := sorted(set(values) - known):
        raise PerfError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    if missing := sorted(known - set(values) - {"sources"}):
        raise PerfError(f"{where}: field {missing[0]!r} is missing; start from a packaged description")
    sources = values.get("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(text, str) for text in sources.values()):
        raise PerfError(f"{where}: sources must map field names to texts")
    return Gpu(**values)


def load(gpu: str | Path | Gpu = "a100-80gb") -> Gpu:
    """A GPU by packaged name ("a100-80gb"), or from a .json or .toml file of the same fields.  Raises PerfError.

    >>> load("a100-80gb").sms
    108
    """
    if isinstance(gpu, Gpu):
        return gpu
    if str(gpu).lower().replace("_", "-") in names():
        return _packaged(str(gpu).lower().replace("_", "-"))
    path = Path(gpu)
    if path.suffix not in (".json", ".toml"):
        raise PerfError(f"unknown GPU {str(gpu)!r}: known are {', '.join(names())}, or give a .json or .toml file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PerfError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise PerfError(f"{path}: not valid {path.suffix[1:].upper()}: {error}") from None
    return parse(values, str(path))


@cache
def _packaged(name: str) -> Gpu:
    return parse(json.loads((DATA / f"gpu_{name}.json").read_text(encoding="utf-8")), name)
