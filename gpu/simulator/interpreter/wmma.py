"""wmma.load, wmma.mma and wmma.store.

PTX leaves open which lane holds which element; here element i of lane l, with n elements per lane, is element
(n * l + i) mod size of the matrix in row-major order (A: M x K, B: K x N, C and D: M x N); of elements below a byte B in
column-major order, which is that of their memory, so that each register is one word of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter import memory
from loadsparse.gpu.simulator.interpreter.fragments import Fragment
from loadsparse.gpu.simulator.interpreter.loads import check_address, elements, location, report_values
from loadsparse.gpu.simulator.interpreter.multiply import ELEMENT, Registers, product, result_known
from loadsparse.gpu.simulator.interpreter.numbers import Flags
from loadsparse.gpu.simulator.interpreter.operands import Place, defined, destination, rows, source
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP, Warp
from loadsparse.gpu.simulator.program import Instruction, Vector
from loadsparse.gpu.simulator.request import DEFINED

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)$")


def fragment(shape: str, role: str, kind: str, registers: int) -> Fragment:
    """The layout of matrix `role` (a, b, c or d) spread over so many registers."""
    found = SHAPE.match(shape)
    if found is None:
        raise TypeError(f"{shape} is no shape")
    m, n, k = (int(number) for number in found.groups())
    size = {"a": (m, k), "b": (k, n), "c": (m, n), "d": (m, n)}[role]
    width = ELEMENT[kind]
    per_lane = registers * max(1, 32 // width)
    if 32 * per_lane < size[0] * size[1]:
        raise TypeError(f"{registers} registers do not hold a {size[0]} x {size[1]} matrix of {kind}")
    cells = (LANES[:, None] * per_lane + np.arange(per_lane)) % (size[0] * size[1])
    if width < 8 and role == "b":
        return Fragment(size, cells % size[0], cells // size[0], width)
    return Fragment(size, cells // size[1], cells % size[1], width)


def _build(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    modifiers = instruction.modifiers
    shape = next(m for m in modifiers if SHAPE.match(m))
    if modifiers[0] == "mma":
        return _mma(machine, place, instruction, shape)
    return _move(machine, place, instruction, index, shape)


def _count(operand: object) -> int:
    return len(operand.elements) if isinstance(operand, Vector) else 1


def _mma(machine: Machine, place: Place, instruction: Instruction, shape: str) -> Execute:
    modifiers, operands = instruction.modifiers, instruction.operands
    kinds = [m for m in modifiers if m in ELEMENT]
    d_type, c_type = kinds[0], kinds[-1]
    a_type, b_type = (kinds[1], kinds[2]) if len(kinds) == 4 else ("f16", "f16")
    kind_of = {"d": d_type, "a": a_type, "b": b_type, "c": c_type}
    d, a, b, c = (
        Registers(place, operand, fragment(shape, role, kind_of[role], _count(operand)))
        for role, operand in zip("dabc", operands, strict=True)
    )
    arch, types = machine.request.arch, (d_type, a_type, b_type, c_type)

    def execute(warp: Warp, lanes: Flags) -> None:
        matrix = product(arch, a.matrix(warp), b.matrix(warp), c.matrix(warp), types, modifiers)
        d.put(warp, lanes, matrix, result_known(a.known(warp), b.known(warp), c.known(warp)))

    return execute


def _move(machine: Machine, place: Place, instruction: Instruction, index: int, shape: str) -> Execute:
    """wmma.load.{a,b,c} d, [p], stride and wmma.store.d [p], d, stride: one access per element, lanes ascending."""
    modifiers, operands = instruction.modifiers, instruction.operands
    loads = modifiers[0] == "load"
    role, kind = modifiers[1], modifiers[-1]
    memory_operand, register_operand = (operands[1], operands[0]) if loads else (operands[0], operands[1])
    layout = fragment(shape, role, kind, _count(register_operand))
    by_row = "row" in modifiers
    where, used = location(place, memory_operand)
    stride = source(place, operands[2], "b32") if len(operands) > 2 else None
    default = layout.shape[1] if by_row else layout.shape[0]
    registers = elements(register_operand, _count(register_operand))
    width, per, space = layout.width, layout.per, memory.space_of(modifiers)
    step = 4 if width < 8 else width // 8
    parts = range(1) if width < 8 else range(per)
    writers = [destination(place, register, max(32, width)) for register in registers] if loads else []
    read = [] if loads else [source(place, register, f"b{max(32, width)}") for register in registers]
    read_rows = [rows(place, register) for register in registers]

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        base = where(warp)
        leading = stride(warp) if stride is not None else np.full(WARP, default, np.uint64)
        major, minor = (layout.row, layout.column) if by_row else (layout.column, layout.row)
        cells = major.astype(np.uint64) * leading[:, None] + minor.astype(np.uint64)
        addresses = base[:, None] + cells * np.uint64(width) // np.uint64(8)
        for number in range(len(registers)):
            bits, sure = np.zeros(WARP, np.uint64), np.ones(WARP, bool)
            for i in parts:
                at = np.ascontiguousarray(addresses[:, number * per + i])
                if loads:
                    data, known = memory.load(machine, warp, index, lanes, at, step, space)
                    bits |= memory.from_bytes(data) << np.uint64(i * width)
                    sure &= memory.whole(known)
                else:
                    part = memory.to_bytes(read[number](warp) >> np.uint64(i * width), width)
                    flags = np.repeat(
                        DEFINED * defined(warp, read_rows[number])[:, None].astype(np.uint8), step, axis=1
                    )
                    leaked = memory.store(machine, warp, index, lanes, at, part, flags, space)
                    report_values(machine, warp, index, leaked, at, step)
            if loads:
                writers[number](warp, lanes, bits, sure)

    return execute


BUILDERS: dict[str, Any] = {"wmma": _build}
