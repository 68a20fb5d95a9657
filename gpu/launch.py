"""A kernel call as plain data: what to run, on what, and what the result promises to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Semantics = Literal["dense", "stored"]
Algorithm = Literal["lscd", "dense", "two_four", "sputnik", "sparta"]


def same_bytes(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """True if two arrays of one type and size hold the same bits, NaNs included."""
    first, second = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, other))
    return np.array_equal(first, second)


@dataclass(frozen=True)
class Step:
    """One kernel of a launch.  An argument is the name of a buffer (one pointer) or a scalar."""

    ptx: str
    entry: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    args: tuple[str | np.generic | int | float, ...]


@dataclass(frozen=True)
class Launch:
    """C[m, n] = A[m, k] x B[k, n] by one or more kernels in order.

    splits: (start, stop) ranges of k.  Inside each the kernel adds ascending k16 steps (of zeros beyond K, where the last
    range says so); the partial sums are added in
    ascending order of the ranges in float32 (round to nearest), then rounded to the output type.
    algorithm: the oracle in reference/spmm that adds in the same order.
    semantics: "dense" multiplies every element (0 x Inf is NaN), "stored" only those that the format stores.
    counts: of a grouped product, how many columns of C belong to each expert, in order; `splits` then has the ranges of each.
    """

    steps: tuple[Step, ...]
    buffers: Mapping[str, NDArray[Any]]
    output: str
    shape: tuple[int, int, int]
    arch: str
    kernel: str
    splits: tuple[tuple[int, int], ...] | tuple[tuple[tuple[int, int], ...], ...]
    semantics: Semantics
    in_format: str
    workspace: tuple[str, ...] = ()
    algorithm: Algorithm = "lscd"
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "buffers", MappingProxyType(dict(self.buffers)))
        for step in self.steps:
            for arg in step.args:
                if isinstance(arg, str) and arg not in self.buffers:
                    raise ValueError(f"kernel {step.entry}: argument {arg!r} is not a buffer of this launch")
        if self.output not in self.buffers:
            raise ValueError(f"output {self.output!r} is not a buffer of this launch")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the buffers that the kernels may only read."""
        return tuple(name for name in self.buffers if name != self.output and name not in self.workspace)

    def run(
        self,
        engine: str = "auto",
        *,
        checks: Any = None,
        seed: int = 0,
        budget: int | None = None,
        **options: Any,
    ) -> tuple[NDArray[Any], LaunchReport]:
        """Execute on the CPU: (C, report).  Works on copies of the buffers; output and workspace start undefined.

        `options` go to the simulator's launch.  Raises RuntimeError where a kernel overwrites an input.
        """
        from loadsparse.gpu import simulator

        memory = {name: np.array(array, order="C") for name, array in self.buffers.items()}
        undefined = {self.output, *self.workspace}
        for name in undefined:
            memory[name].view(np.uint8)[...] = 0xFF  # NaN in every format
        modules = {step.ptx: simulator.load(step.ptx, arch=self.arch) for step in self.steps}
        reports = []
        for step in self.steps:
            names = {arg for arg in step.args if isinstance(arg, str)}
            held = {name: simulator.empty(memory[name]) if name in undefined else memory[name] for name in names}
            undefined -= names
            reports.append(
                modules[step.ptx][step.entry].launch(
                    step.grid,
                    step.block,
                    *(held[arg] if isinstance(arg, str) else arg for arg in step.args),
                    shared_bytes=step.shared_bytes,
                    checks=checks,
                    seed=seed,
                    budget=budget,
                    engine=engine,  # type: ignore[arg-type]
                    **options,
                )
            )
        for name in self.inputs:
            if not same_bytes(memory[name], self.buffers[name]):
                raise RuntimeError(f"kernel {self.kernel}: overwrote its input {name!r}")
        return memory[self.output], LaunchReport(tuple(reports))


@dataclass(frozen=True)
class LaunchReport:
    """The reports of a launch's kernels as one: hazards in order, counts and seconds added."""

    steps: tuple[Any, ...]

    @property
    def ok(self) -> bool:
        """True when no kernel showed a hazard."""
        return all(step.ok for step in self.steps)

    @property
    def hazards(self) -> list[Any]:
        """Hazards of all kernels."""
        return [hazard for step in self.steps for hazard in step.hazards]

    @property
    def metrics(self) -> dict[str, int]:
        """Counts of all kernels, added."""
        return self._added("metrics")

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of "translate" and "execute", added."""
        return self._added("seconds")

    @property
    def instructions(self) -> int:
        """Warp instructions of all kernels."""
        return sum(step.instructions for step in self.steps)

    @property
    def thread_instructions(self) -> int:
        """Thread instructions of all kernels."""
        return sum(step.thread_instructions for step in self.steps)

    def to_json(self) -> str:
        """A JSON object: ok, and the reports of the kernels in order."""
        return json.dumps({"ok": self.ok, "steps": [json.loads(step.to_json()) for step in self.steps]}, sort_keys=True)

    def _added(self, field: str) -> dict[str, Any]:
        total: dict[str, Any] = {}
        for step in self.steps:
            for name, value in getattr(step, field).items():
                total[name] = total.get(name, 0) + value
        return total
