"""What is handed to an engine and what comes back: plain data, the same for both engines."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.program import Kernel, Program

ALLOCATION_BITS = 36
"""A device address is ``allocation << ALLOCATION_BITS | offset``."""

NULL, SHARED, LOCAL, CONSTANT, PARAM, GRID_WORKSPACE, FIRST_ARRAY = 0, 1, 2, 3, 4, 5, 16
"""Allocation numbers of the windows; arrays count up from FIRST_ARRAY."""

DEFINED = 0xFF
"""The defined bits of a byte that is wholly defined."""

QUANTUM = 20_000
"""Warp instructions after which a backward branch ends a warp's turn."""

DEFAULT_BUDGET, DEFAULT_THREAD_BUDGET = 2**35, 2**30
"""Thread instructions that a launch, and each of its threads on average, may execute when no budget is given: about a
minute of machine code."""
INTERPRETED = 2**10
"""How many times less the interpreter may execute then."""

HazardKind = Literal[
    "bounds", "alignment", "uninitialized", "race", "pending", "convergence", "deadlock", "budget", "trap"
]

COUNTERS = (
    "requests", "sectors", "bytes", "wavefronts", "ideal_wavefronts", "divergent", "local_requests", "local_sectors",
)  # fmt: skip
"""Per-instruction counters beside executions and threads.

requests, sectors and bytes: global accesses (bytes counts what the lanes asked for; cp.async counts its global reads);
wavefronts and ideal_wavefronts: shared accesses (for cp.async its shared writes); divergent: executions of a branch
whose lanes disagreed; local_requests and local_sectors: local accesses.
"""


@dataclass(frozen=True, slots=True)
class Checks:
    """One switch per check; everything is on by default."""

    bounds: bool = True
    alignment: bool = True
    uninitialized: bool = True
    races: bool = True
    barriers: bool = True
    convergence: bool = True

    @classmethod
    def none(cls) -> Checks:
        """No checks.  Illegal accesses are still dropped (memory safety is not a switch), only not reported."""
        return cls(False, False, False, False, False, False)


@dataclass(slots=True)
class Allocation:
    """`data` is a 1-D uint8 array; `defined` has the defined bits of each byte, or is None when all bits are."""

    number: int
    name: str
    data: NDArray[np.uint8]
    defined: NDArray[np.uint8] | None = None
    read_only: bool = False


@dataclass(slots=True)
class Request:
    """One kernel launch."""

    program: Program
    kernel: Kernel
    arch: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    parameters: NDArray[np.uint8]
    allocations: dict[int, Allocation]
    static_shared_bytes: int
    dynamic_shared_bytes: int
    local_bytes: int
    checks: Checks = field(default_factory=Checks)
    budget: int | None = None
    schedule: Literal["default", "adversarial"] = "default"
    cp_async: Literal["late", "eager"] = "late"
    seed: int = 0
    max_live_blocks: int = 1024

    def limit(self, interpreted: bool = False) -> int:
        """Thread instructions that the launch may execute."""
        if self.budget is not None:
            return self.budget
        most = min(DEFAULT_BUDGET, DEFAULT_THREAD_BUDGET * math.prod(self.grid) * math.prod(self.block))
        return most // INTERPRETED if interpreted else most


@dataclass(slots=True)
class Hazard:
    """First occurrence and number of lane events of one (kind, instruction, other) triple.

    `instruction` and `other` are indices into the instructions of the kernel followed by those of its functions, in
    the order of `layout.Layout.functions`; `block` and `thread` are linear indices, x fastest, and `other_block` and
    `other_thread` those of the access that a race conflicts with.
    """

    kind: HazardKind
    instruction: int
    other: int | None
    block: int
    thread: int
    address: int | None
    size: int | None
    detail: str
    count: int = 1
    other_block: int | None = None
    other_thread: int | None = None


@dataclass(slots=True)
class Outcome:
    """What an engine observed.  Arrays have one int64 entry per instruction of the kernel.

    Instructions of called functions are appended after the kernel's own, in the order of `layout.Layout.functions`.
    """

    executions: NDArray[np.int64]
    threads: NDArray[np.int64]
    counters: dict[str, NDArray[np.int64]]
    hazards: list[Hazard]
    stopped: HazardKind | None = None
    printed: str = ""
    translate_seconds: float = 0.0
    execute_seconds: float = 0.0
