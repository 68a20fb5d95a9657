"""Run a launch on the simulator with a poisoned output, guarded inputs and every check on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from loadsparse.gpu import simulator
from loadsparse.gpu.launch import Launch
from numpy.typing import NDArray

Matrix = NDArray[np.generic]


@dataclass(frozen=True)
class Execution:
    """What one run left behind."""

    c: Matrix
    hazards: tuple[str, ...]
    """One line each."""
    unwritten: NDArray[np.bool_]
    """Elements of C that still hold their poison."""
    changed: tuple[str, ...]
    """Names of inputs that the kernel overwrote."""
    seconds: float
    metrics: dict[str, float]

    @property
    def clean(self) -> bool:
        return not self.hazards

    @property
    def complete(self) -> bool:
        return not self.unwritten.any() and not self.changed


def poison(shape: tuple[int, ...], dtype: np.dtype[Any], bf16: bool, seed: int) -> Matrix:
    """Signalling NaNs with random payloads, which no arithmetic produces: what is left of them was never written."""
    rng = np.random.default_rng([seed, 77])
    if dtype.itemsize == 4:
        return (rng.integers(0x100, 0x3FFFFF, shape, dtype=np.uint32) | np.uint32(0x7F800000)).view(dtype)
    exponent, payload = (0x7F80, 0x3F) if bf16 else (0x7C00, 0x1FF)
    return (rng.integers(1, payload, shape, dtype=np.uint16) | np.uint16(exponent)).view(dtype)


def _words(matrix: Matrix) -> NDArray[np.unsignedinteger[Any]]:
    return np.ascontiguousarray(matrix).view(np.uint32 if matrix.dtype.itemsize == 4 else np.uint16)


def run(launch: Launch, *, seed: int = 0, budget: int | None = None, **options: Any) -> Execution:
    """Every step in order, on copies of the buffers; `options` go to the simulator's launch (engine, schedule).

    Raises PtxError for PTX that is refused and LaunchError for a launch that the architecture cannot hold.
    """
    target = launch.buffers[launch.output]
    filled = poison(target.shape, target.dtype, target.dtype == np.uint16, seed)
    memory: dict[str, Any] = {name: np.array(launch.buffers[name], order="C") for name in launch.inputs}
    memory |= {
        name: simulator.empty(launch.buffers[name].shape, launch.buffers[name].dtype)
        for name in (launch.output, *launch.workspace)
    }
    memory[launch.output][...] = filled
    hazards: list[str] = []
    metrics: dict[str, float] = {}
    modules = {step.ptx: simulator.load(step.ptx, arch=launch.arch) for step in launch.steps}
    started = time.perf_counter()
    for step in launch.steps:
        args = [memory[arg] if isinstance(arg, str) else arg for arg in step.args]
        report = modules[step.ptx][step.entry].launch(
            step.grid, step.block, *args, shared_bytes=step.shared_bytes, seed=seed, budget=budget, **options
        )
        hazards += [f"{step.entry}: {hazard}" for hazard in report.hazards]
        for name, value in report.metrics.items():
            metrics[name] = metrics.get(name, 0) + value
    seconds = time.perf_counter() - started
    c = np.asarray(memory[launch.output])
    changed = tuple(name for name in launch.inputs if memory[name].tobytes() != launch.buffers[name].tobytes())
    return Execution(c, tuple(hazards), _words(c) == _words(filled), changed, seconds, metrics)
