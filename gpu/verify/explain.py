"""Which thread wrote an element of C: observed in the interpreter, not derived from what the kernel should do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import simulator
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.simulator.arguments import bind
from loadsparse.gpu.simulator.interpreter.block import Block
from loadsparse.gpu.simulator.interpreter.machine import Machine
from loadsparse.gpu.simulator.program import WIDTH, Address, Instruction, Register
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, CONSTANT, FIRST_ARRAY

MOST_INSTRUCTIONS = 40_000
"""Warp instructions that are traced for one explanation; the interpreter runs some 5,000 a second."""


@dataclass(frozen=True)
class Writer:
    """The last store to an element: block (x, y, z), warp and lane of the block, and the place of the store."""

    entry: str
    block: tuple[int, int, int]
    warp: int
    lane: int
    line: int
    source: str

    def __str__(self) -> str:
        return (
            f"written by block {self.block}, warp {self.warp}, lane {self.lane} of {self.entry[:60]} "
            f"(PTX line {self.line}{self.source})"
        )


class _Traced(Machine):
    """Runs only the chosen blocks."""

    chosen: Sequence[int] = ()

    def _blocks(self) -> None:
        for index in self.chosen:
            block = Block(self, index)
            while not self._block(block):
                pass


class _Watch:
    """An observer that keeps the last store that covers one address."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.found: tuple[int, int, int, Instruction] | None = None

    def __call__(self, event: simulator.Event) -> None:
        instruction = event.instruction
        size = _stored_bytes(instruction)
        if size == 0:
            return
        target = instruction.operands[0]
        if not isinstance(target, Address) or not isinstance(target.base, Register):
            return
        lanes: NDArray[np.bool_] = event.active.copy()
        if instruction.guard is not None:
            lanes &= (event.before[instruction.guard.register.index] != 0) != instruction.guard.negated
        start = event.before[target.base.index] + np.uint64(target.offset % 2**64)
        lanes &= (start <= np.uint64(self.address)) & (np.uint64(self.address) < start + np.uint64(size))
        if lanes.any():
            self.found = event.block, event.warp, int(np.flatnonzero(lanes)[-1]), instruction


def _stored_bytes(instruction: Instruction) -> int:
    """Bytes a lane stores to global memory, 0 for anything else."""
    parts = instruction.modifiers
    if instruction.name != "st" or "shared" in parts or "local" in parts:
        return 0
    count = next((int(part[1:]) for part in parts if part in ("v2", "v4", "v8")), 1)
    return count * WIDTH[parts[-1]] // 8


def _candidates(grid: tuple[int, int, int], row: int, column: int, m: int, n: int) -> list[int]:
    """Blocks that own the element if x walks along M and y along N, or y and x; then all, if they are few."""
    gx, gy, gz = grid
    places = [(row * gx // m, column * gy // n), (column * gx // n, row * gy // m)]
    likely = [x + gx * (y + gy * z) for x, y in places for z in range(gz)]
    every = range(gx * gy * gz) if gx * gy * gz <= 4096 else ()
    return list(dict.fromkeys([*likely, *every]))


def origin(launch: Launch, row: int, column: int, seed: int = 0) -> Writer | str:
    """Who stored C[row, column] last, or one line that says why it is not known."""
    memory: dict[str, Any] = {name: np.array(array, order="C") for name, array in launch.buffers.items()}
    place = (row * launch.shape[1] + column) * launch.buffers[launch.output].dtype.itemsize
    left = MOST_INSTRUCTIONS
    for step in reversed(launch.steps):
        names = list(dict.fromkeys(arg for arg in step.args if isinstance(arg, str)))
        if launch.output not in names:
            continue
        entry = simulator.load(step.ptx, arch=launch.arch)[step.entry]
        watch = _Watch((FIRST_ARRAY + names.index(launch.output) << ALLOCATION_BITS) + place)
        args = [memory[arg] if isinstance(arg, str) else arg for arg in step.args]
        request = entry.request(step.grid, step.block, step.shared_bytes, seed=seed, budget=32 * MOST_INSTRUCTIONS)
        bound = bind(entry.kernel, tuple(args))
        request.parameters = bound.parameters
        request.allocations = {CONSTANT: entry.module.variables, **bound.allocations}
        machine = _Traced(request, watch)
        for index in _candidates(step.grid, row, column, launch.shape[0], launch.shape[1]):
            before = int(machine.executions.sum())
            machine.chosen = (index,)
            machine.run()
            if watch.found is not None:
                return _named(step.entry, step.grid, watch.found)
            left -= int(machine.executions.sum()) - before
            if left < 0 or machine.stopped is not None:
                return "its writer was not traced: the launch is large, or stops; a smaller shape shows it"
    return "no thread stored it"


def _named(entry: str, grid: tuple[int, int, int], found: tuple[int, int, int, Instruction]) -> Writer:
    block, warp, lane, instruction = found
    x, y, z = block % grid[0], block // grid[0] % grid[1], block // (grid[0] * grid[1])
    where = instruction.location
    source = f", {os.path.basename(where.file)}:{where.line}" if where is not None else ""
    return Writer(entry, (x, y, z), warp, lane, instruction.line, source)
