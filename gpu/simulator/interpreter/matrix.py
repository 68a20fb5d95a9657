"""ldmatrix, stmatrix and movmatrix: 8 x 8 matrices of 16-bit elements between shared memory and fragments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter import memory
from loadsparse.gpu.simulator.interpreter.counters import row_wavefronts
from loadsparse.gpu.simulator.interpreter.loads import check_address, elements, location
from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes
from loadsparse.gpu.simulator.interpreter.operands import Place, defined, destination, rows, source
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP, Warp
from loadsparse.gpu.simulator.program import Instruction

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
        data, known = np.zeros((WARP, 16), np.uint8), np.zeros((WARP, 16), bool)
        parts = memory.access(machine, warp, index, givers, addresses, 16, space)
        for part in parts:
            rows_of = part.index(16)
            data[part.lanes] = part.window.data[rows_of]
            if part.window.defined is not None:
                known[part.lanes] = part.window.defined[rows_of] != 0
            memory.watch_read(machine, warp, index, part, 16, addresses)
        _count(machine, index, parts)
        cells = data.view("<u2").astype(U)
        sure = known.reshape(WARP, 8, 2).all(axis=2)
        sure &= defined(warp, used)[:, None]
        for number, write in enumerate(writers):
            block, flags = cells[8 * number : 8 * number + 8], sure[8 * number : 8 * number + 8]
            bits = block[low_row, low_column] | (block[high_row, high_column] << U(16))
            write(warp, lanes, bits, flags[low_row, low_column] & flags[high_row, high_column])

    return execute


def _scatter(registers: list[Lanes], flags: list[Flags], transposed: bool) -> tuple[Lanes, Flags]:
    """Rows of 8 elements, 8 per matrix, from fragments; and their defined bits."""
    (low_row, low_column), (high_row, high_column) = _places(transposed)
    cells, known = np.zeros((WARP, 8), U), np.zeros((WARP, 8), bool)
    for number, (bits, flag) in enumerate(zip(registers, flags, strict=True)):
        cells[8 * number + low_row, low_column] = bits & U(0xFFFF)
        cells[8 * number + high_row, high_column] = (bits >> U(16)) & U(0xFFFF)
        known[8 * number + low_row, low_column] = flag
        known[8 * number + high_row, high_column] = flag
    return cells, known


def _stmatrix(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    count, transposed, space = _parts(instruction.modifiers)
    where, used = location(place, instruction.operands[0])
    registers = elements(instruction.operands[1], count)
    read = [source(place, register, "b32") for register in registers]
    read_rows = [rows(place, register) for register in registers]
    suppliers = 8 * count > LANES

    def execute(warp: Warp, lanes: Flags) -> None:
        givers = suppliers & lanes
        check_address(machine, warp, index, givers, used)
        addresses = where(warp)
        cells, known = _scatter([take(warp) for take in read], [defined(warp, r) for r in read_rows], transposed)
        data = np.ascontiguousarray(cells.astype("<u2")).view(np.uint8)
        sure = np.repeat(known, 2, axis=1)
        parts = memory.access(machine, warp, index, givers, addresses, 16, space)
        for part in parts:
            memory.watch_write(machine, warp, index, part, data, addresses)
            memory.put(part, part.index(16), data, sure)
        _count(machine, index, parts)

    return execute


def _movmatrix(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    """Transposes an 8 x 8 matrix held in one register."""
    read, used = source(place, instruction.operands[1], "b32"), rows(place, instruction.operands[1])
    write = destination(place, instruction.operands[0], 32)
    (low_row, low_column), (high_row, high_column) = _places("trans" in instruction.modifiers)

    def execute(warp: Warp, lanes: Flags) -> None:
        cells, known = _scatter([read(warp)], [defined(warp, used)], False)
        bits = cells[low_row, low_column] | (cells[high_row, high_column] << U(16))
        write(warp, lanes, bits, known[low_row, low_column] & known[high_row, high_column])

    return execute


BUILDERS: dict[str, Any] = {"ldmatrix": _ldmatrix, "stmatrix": _stmatrix, "movmatrix": _movmatrix}
