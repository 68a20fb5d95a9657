"""Run a launch on the simulator with a poisoned output, guarded inputs and every check on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import device as gpu
from loadsparse.gpu import simulator
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.poison import poison

Matrix = NDArray[np.generic]


@dataclass(frozen=True)
class Execution:
    """What one run left behind."""

    c: Matrix
    hazards: tuple[str, ...] | None
    """One line each; None where nothing watched (a real GPU)."""
    unwritten: NDArray[np.bool_]
    """Elements of C that still hold their poison."""
    changed: tuple[str, ...]
    """Names of inputs that the kernel overwrote."""
    stopped: bool
    """Whether a launch was ended early (deadlock, budget, trap)."""
    seconds: float
    metrics: dict[str, float]

    @property
    def clean(self) -> bool | None:
        return None if self.hazards is None else not self.hazards

    @property
    def complete(self) -> bool:
        return not self.unwritten.any() and not self.changed


def words(matrix: Matrix) -> NDArray[np.unsignedinteger[Any]]:
    """The bit patterns of a matrix."""
    return np.ascontiguousarray(matrix).view(np.uint32 if matrix.dtype.itemsize == 4 else np.uint16)


def run(
    launch: Launch, *, seed: int = 0, budget: int | None = None, device: str = "simulator", **options: Any
) -> Execution:
    """Every step in order, on copies of the buffers; `options` go to the simulator's launch (engine, schedule).

    Output and workspace start undefined and hold poison.  Raises PtxError for PTX that is refused and LaunchError for a
    launch that the architecture cannot hold; with device="cuda", which runs on a real GPU, NoGpu where there is none.
    """
    memory = {name: np.array(launch.buffers[name], order="C") for name in launch.inputs}
    fresh = {
        name: poison(launch.buffers[name].shape, launch.buffers[name].dtype, seed)
        for name in (launch.output, *launch.workspace)
    }
    memory |= {name: array.copy() for name, array in fresh.items()}
    if device == "cuda":
        started = time.perf_counter()
        gpu.execute(launch, memory)
        return _left(launch, memory, fresh, None, False, time.perf_counter() - started, {})
    untouched = set(fresh)
    hazards: list[str] = []
    stopped = False
    metrics: dict[str, float] = {}
    modules = {step.ptx: simulator.load(step.ptx, arch=launch.arch) for step in launch.steps}
    started = time.perf_counter()
    for step in launch.steps:
        names = [arg for arg in step.args if isinstance(arg, str)]
        held = {name: simulator.empty(memory[name]) if name in untouched else memory[name] for name in names}
        untouched -= set(names)
        if step.entry not in modules[step.ptx]:
            raise simulator.LaunchError(f"no entry {step.entry!r}; the PTX has {', '.join(modules[step.ptx])}")
        report = modules[step.ptx][step.entry].launch(
            step.grid,
            step.block,
            *(held[arg] if isinstance(arg, str) else arg for arg in step.args),
            shared_bytes=step.shared_bytes,
            seed=seed,
            budget=budget,
            **options,
        )
        stopped |= report.stopped is not None
        hazards += [str(hazard) for hazard in report.hazards]
        for name, value in report.metrics.items():
            metrics[name] = metrics.get(name, 0) + value
    seconds = time.perf_counter() - started
    return _left(launch, memory, fresh, tuple(hazards), stopped, seconds, metrics)


def _left(
    launch: Launch,
    memory: dict[str, Matrix],
    fresh: dict[str, Matrix],
    hazards: tuple[str, ...] | None,
    stopped: bool,
    seconds: float,
    metrics: dict[str, float],
) -> Execution:
    """What the run left in `memory`, compared with the inputs and the poison it began with."""
    c = memory[launch.output]
    changed = tuple(name for name in launch.inputs if memory[name].tobytes() != launch.buffers[name].tobytes())
    unwritten = words(c) == words(fresh[launch.output])
    return Execution(c, hazards, unwritten, changed, stopped, seconds, metrics)
