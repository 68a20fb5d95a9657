"""ldmatrix, stmatrix and movmatrix: 8 x 8 matrices of 16-bit elements between shared memory and fragments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter import memory
from loadsparse.gpu.simulator.interpreter.counters import row_wavefronts
from loadsparse.gpu.simulator.interpreter.loads import check_address, elements, location
from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes
from loadsparse.gpu.simulator.interpreter.operands import ALL, Place, defined, destination, source, unknown
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP, Warp
from loadsparse.gpu.simulator.program import Instruction
from loadsparse.gpu.simulator.request import DEFINED

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
U = np.uint64


def _parts(modifiers: tuple[str, ...]) -> tuple[int, bool, str]:
    """(matrices, transposed, space)"""
    count = int(next(m for m in modifiers if m in ("x1", "x2", "x4"))[1:])
    return count, "trans" in modifiers, "shared" if any(m.startswith("shared") for m in modifiers) else "generic"


def _places(
    transposed: bool,
) -> list[tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """(row, column) of the low and the high element that each lane holds of an 8 x 8 matrix."""
    major, minor = LANES >> 2, 2 * (LANES & 3)
    pairs = [(major, minor), (major, minor + 1)]
    return [(column, row) for row, column in pairs] if transposed else pairs


def _count(machine: Machine, index: int, parts: list[memory.Part]) -> None:
    offsets = np.zeros(WARP, np.int64)
    lanes = np.zeros(WARP, bool)
    for part in parts:
        if part.window.space == "shared":
            offsets[part.lanes], lanes = part.offsets[part.lanes], lanes | part.lanes
    for start in range(0, WARP, 8):
        inside = lanes[start : start + 8]
        if inside.any():
            total, ideal = row_wavefronts(offsets[start : start + 8][inside])
            machine.counters["wavefronts"][index] += total
            machine.counters["ideal_wavefronts"][index] += ideal


def _ldmatrix(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    count, transposed, space = _parts(instruction.modifiers)
    where, used = location(place, instruction.operands[1])
    writers = [destination(place, register, 32) for register in elements(instruction.operands[0], count)]
    (low_row, low_column), (high_row, high_column) = _places(transposed)
    suppliers = 8 * count > LANES

    def execute(warp: Warp, lanes: Flags) -> None:
        givers = suppliers & lanes
        check_address(machine, warp, index, givers, used)
        addresses = where(warp)
        data, holes = np.zeros((WARP, 16), np.uint8), np.full((WARP, 16), DEFINED, np.uint8)
        holes[givers] = 0
        parts = memory.access(machine, warp, index, givers, addresses, 16, space)
        for part in parts:
            rows_of = part.index(16)
            data[part.lanes] = part.window.data[rows_of]
            if part.window.defined is not None:
                holes[part.lanes] = ~part.window.defined[rows_of]
            memory.watch_read(machine, warp, index, part, 16, addresses)
        _count(machine, index, parts)
        holes[~defined(warp, used)] = DEFINED
        cells, missing = data.view("<u2").astype(U), holes.view("<u2").astype(U)
        for number, write in enumerate(writers):
            pairs = (
                block[low_row, low_column] | (block[high_row, high_column] << U(16))
                for block in (cells[8 * number :], missing[8 * number :])
            )
            bits, unknown_bits = pairs
            write(warp, lanes, bits, ALL, unknown_bits)

    return execute


def _scatter(registers: list[Lanes], transposed: bool) -> Lanes:
    """Rows of 8 elements, 8 per matrix, from fragments."""
    (low_row, low_column), (high_row, high_column) = _places(transposed)
    cells = np.zeros((WARP, 8), U)
    for number, bits in enumerate(registers):
        cells[8 * number + low_row, low_column] = bits & U(0xFFFF)
        cells[8 * number + high_row, high_column] = (bits >> U(16)) & U(0xFFFF)
    return cells


def _stmatrix(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    count, transposed, space = _parts(instruction.modifiers)
    where, used = location(place, instruction.operands[0])
    registers = elements(instruction.operands[1], count)
    read = [source(place, register, "b32") for register in registers]
    holes = [unknown(place, register, "b32") for register in registers]
    suppliers = 8 * count > LANES

    def execute(warp: Warp, lanes: Flags) -> None:
        givers = suppliers & lanes
        check_address(machine, warp, index, givers, used)
        addresses = where(warp)
        cells, missing = (_scatter([take(warp) for take in takes], transposed) for takes in (read, holes))
        data, known = cells.astype("<u2").view(np.uint8), ~missing.astype("<u2").view(np.uint8)
        parts = memory.access(machine, warp, index, givers, addresses, 16, space)
        for part in parts:
            memory.watch_write(machine, warp, index, part, data, addresses)
            memory.put(part, part.index(16), data, known)
        _count(machine, index, parts)

    return execute


def _movmatrix(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    """Transposes an 8 x 8 matrix held in one register."""
    read, holes = (take(place, instruction.operands[1], "b32") for take in (source, unknown))
    write = destination(place, instruction.operands[0], 32)
    (low_row, low_column), (high_row, high_column) = _places("trans" in instruction.modifiers)

    def execute(warp: Warp, lanes: Flags) -> None:
        values, missing = (
            cells[low_row, low_column] | (cells[high_row, high_column] << U(16))
            for cells in (_scatter([np.where(warp.alive, take(warp), U(0))], False) for take in (read, holes))
        )
        write(warp, lanes, values, ALL, missing)

    return execute


BUILDERS: dict[str, Any] = {"ldmatrix": _ldmatrix, "stmatrix": _stmatrix, "movmatrix": _movmatrix}
