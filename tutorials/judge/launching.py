"""Run a learner's PTX on one trial: poisoned output, guarded inputs, every check on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import simulator
from loadsparse.gpu.poison import poison
from loadsparse.tutorials.judge.ask import Compiled
from loadsparse.tutorials.judge.puzzle import Launch

QUICK = 4000
"""Warp instructions up to which interpreting is quicker than translating."""
MOST_THREADS = 1 << 16
"""Threads that a learner's own `launch` may ask for: a grid of billions would never end."""
SLACK, PATIENCE = 20_000, 20
"""A launch may execute SLACK warp instructions and PATIENCE times the best known count."""


@dataclass(frozen=True)
class Run:
    """What one launch left behind."""

    entry: simulator.Entry
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int
    args: tuple[Any, ...]
    """As the kernel takes them; the name of an array stands for its address."""
    memory: Mapping[str, NDArray[Any]]
    unwritten: NDArray[np.bool_]
    changed: tuple[str, ...]
    report: simulator.Report

    @property
    def out(self) -> NDArray[Any]:
        return self.memory["out"]

    def fresh(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The arguments for another launch."""
        arrays = {name: np.array(value) for name, value in inputs.items() if isinstance(value, np.ndarray)}
        arrays["out"] = np.zeros_like(self.out)
        return [arrays[arg] if isinstance(arg, str) else arg for arg in self.args]


def arguments(launch: Launch, memory: Mapping[str, Any]) -> tuple[Any, ...]:
    """The kernel's arguments: Numba's seven or more words of an array, an address, or a number."""
    found: list[Any] = []
    for name, kind in launch.parameters.items():
        value = memory[name]
        if kind.endswith("]"):
            found += [0, 0, value.size, value.itemsize, name, *value.shape, *value.strides]
        elif kind == "uint64":
            found.append(name)
        else:
            found.append(np.dtype(kind).type(value))
    return tuple(found)


def run(
    launch: Launch, answer: Compiled, trial: int, inputs: Mapping[str, Any], like: NDArray[Any], best: int, seed: int,
    last: bool = False, arch: str = "sm_80",
) -> Run:  # fmt: skip
    """Execute a trial, the last one in an adversarial order of warps and lanes.

    like: an array of out's shape and dtype; best: the best known number of warp instructions.

    Raises PtxError and LaunchError, and PuzzleError where inputs or result do not fit the declared parameters.
    """
    module = simulator.load(answer.ptx, arch=arch)
    if "kernel" not in module:
        raise simulator.LaunchError("the PTX has no entry named kernel")
    entry = module["kernel"]
    if answer.launches:
        grid, block = answer.launches[trial]
        if (threads := math.prod((*grid, *block))) > MOST_THREADS:
            raise simulator.LaunchError(f"{threads} threads: no puzzle needs more than {MOST_THREADS}")
    else:
        grid = _tuple(launch.grid(inputs) if callable(launch.grid) else launch.grid or 1)
        block = _tuple(launch.block)
    fresh = poison(like.shape, like.dtype, seed)
    memory = {name: np.array(value) if isinstance(value, np.ndarray) else value for name, value in inputs.items()}
    memory["out"] = fresh.copy()
    launch.check(memory)
    args = arguments(launch, memory)
    held = {name: simulator.empty(array) if name == "out" else array for name, array in memory.items()}
    report = entry.launch(
        grid,
        block,
        *(held[arg] if isinstance(arg, str) else arg for arg in args),
        shared_bytes=launch.shared,
        budget=32 * (SLACK + PATIENCE * best),
        seed=seed,
        engine="interpreter" if best <= QUICK else "auto",
        schedule="adversarial" if last else "default",
    )
    arrays = {name: value for name, value in memory.items() if isinstance(value, np.ndarray)}
    words = np.dtype(f"u{like.itemsize}")
    unwritten = arrays["out"].view(words) == fresh.view(words)
    changed = tuple(
        name for name, value in inputs.items() if name in arrays and arrays[name].tobytes() != value.tobytes()
    )
    return Run(entry, grid, block, launch.shared, args, arrays, unwritten, changed, report)


def _tuple(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)
