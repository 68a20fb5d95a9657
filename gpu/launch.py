"""A kernel call as plain data: what to run, on what, and what the result promises to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Semantics = Literal["dense", "stored"]


@dataclass(frozen=True)
class Step:
    """One kernel of a launch.  An argument is the name of a buffer (one pointer) or a scalar."""

    ptx: str
    entry: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    args: tuple[str | np.generic, ...]


@dataclass(frozen=True)
class Launch:
    """C[m, n] = A[m, k] x B[k, n] by one or more kernels in order.

    splits: (start, stop) ranges of k.  Inside each the kernel adds ascending k16 steps; the partial sums are added in
    ascending order of the ranges in float32 (round to nearest), then rounded to the output type.
    semantics: "dense" multiplies every element (0 x Inf is NaN), "stored" only those that the format stores.
    """

    steps: tuple[Step, ...]
    buffers: Mapping[str, NDArray[Any]]
    output: str
    shape: tuple[int, int, int]
    arch: str
    kernel: str
    splits: tuple[tuple[int, int], ...]
    semantics: Semantics
    in_format: str
    workspace: tuple[str, ...] = ()

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
    ) -> tuple[NDArray[Any], Any]:
        """Execute on the CPU: (C, Report).  The output and the workspace start undefined; the buffers are not touched."""
        from loadsparse.gpu import simulator

        undefined = (self.output, *self.workspace)
        memory: dict[str, Any] = {
            name: simulator.empty(array.shape, array.dtype) if name in undefined else array.copy()
            for name, array in self.buffers.items()
        }
        modules: dict[str, Any] = {}
        reports = []
        for step in self.steps:
            module = modules.setdefault(step.ptx, None) or simulator.load(step.ptx, arch=self.arch)
            modules[step.ptx] = module
            args = [memory[arg] if isinstance(arg, str) else arg for arg in step.args]
            reports.append(
                module[step.entry].launch(
                    step.grid, step.block, *args, shared_bytes=step.shared_bytes,
                    checks=simulator.Checks() if checks is None else checks, seed=seed, budget=budget, engine=engine,
                    **options,
                )
            )
        for name in self.inputs:
            if not np.array_equal(memory[name].view(np.uint8), self.buffers[name].view(np.uint8)):
                raise RuntimeError(f"kernel {self.kernel}: overwrote its input {name!r}")
        return np.asarray(memory[self.output]), reports
