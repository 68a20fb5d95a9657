"""mma.sync and mma.sp.sync."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter.dot import convert_addend, core_of, dot
from loadsparse.gpu.simulator.interpreter.floats import fma
from loadsparse.gpu.simulator.interpreter.fragments import Fragment, a_fragment, b_fragment, c_fragment
from loadsparse.gpu.simulator.interpreter.loads import elements
from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes, signed, unsigned
from loadsparse.gpu.simulator.interpreter.operands import Place, defined, destination, rows, source
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.opcodes import SUB_BYTE
from loadsparse.gpu.simulator.program import WIDTH, Immediate, Instruction, Operand

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
U = np.uint64
ELEMENT = {kind: WIDTH[kind] for kind in ["f16", "bf16", "tf32", "f32", "f64", "s32", "s8", "u8", "e4m3", "e5m2"]}
ELEMENT |= SUB_BYTE


def product(arch: str, a: Lanes, b: Lanes, c: Lanes, types: tuple[str, ...], modifiers: tuple[str, ...]) -> Lanes:
    """D[m, n] = sum_k A[m, k] B[k, n] + C[m, n]; types are those of D, A, B, C.

    Of single bits, `.and.popc` counts the k where both are 1, `.xor.popc` those where they differ.
    """
    d_type, a_type, b_type, c_type = types
    satfinite = "satfinite" in modifiers
    if "xor" in modifiers:
        wide = (a[:, :, None] != b[None, :, :]).sum(axis=1) + signed(c, 32)
        return unsigned(wide, 32)
    if d_type == "s32":
        wide = _numbers(a, a_type) @ _numbers(b, b_type) + signed(c, 32)
        if satfinite:
            wide = np.clip(wide, -(1 << 31), (1 << 31) - 1)
        return unsigned(wide, 32)
    if d_type == "f64":
        return _fused(a, b, c)
    m, n = c.shape
    left = np.broadcast_to(a[:, None, :], (m, n, a.shape[1]))
    right = np.broadcast_to(b.T[None, :, :], (m, n, b.shape[0]))
    return dot(arch, left, right, convert_addend(c, c_type, d_type), (a_type, b_type), d_type)


def _numbers(bits: Lanes, kind: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return signed(bits, ELEMENT[kind]) if kind.startswith("s") else bits.astype(np.int64)


def _fused(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """f64: one fused multiply-add after the other, k ascending, each rounded to nearest."""
    add = fma(("rn", "f64"))
    left, right = np.broadcast_arrays(a[:, :, None], b[None, :, :])
    total = c.reshape(-1)
    for k in range(a.shape[1]):
        total = add(left[:, k].reshape(-1), right[:, k].reshape(-1), total)
    return total.reshape(c.shape)


class Registers:
    """One fragment operand: its registers' values, defined bits, and how to write them.

    Lanes that have exited, or never started, hold zeros.
    """

    def __init__(self, place: Place, operand: Operand, fragment: Fragment) -> None:
        self.fragment = fragment
        registers = elements(operand, fragment.registers)
        self.width = max(32, fragment.width)
        self.read = [source(place, register, f"b{self.width}") for register in registers]
        self.rows = [rows(place, register) for register in registers]
        self.place, self.registers = place, registers

    def matrix(self, warp: Warp) -> Lanes:
        return self.fragment.gather([np.where(warp.alive, read(warp), U(0)) for read in self.read])

    def known(self, warp: Warp) -> Flags:
        return self.fragment.known([defined(warp, used) | ~warp.alive for used in self.rows])

    def put(self, warp: Warp, lanes: Flags, matrix: Lanes, known: Flags) -> None:
        bits, flags = self.fragment.scatter(matrix), self.fragment.scatter_known(known)
        for register, value, flag in zip(self.registers, bits, flags, strict=True):
            destination(self.place, register, self.width)(warp, lanes, value, flag)


def result_known(a: Flags, b: Flags, c: Flags) -> Flags:
    """Element (m, n) is defined iff row m of A, column n of B and C[m, n] are."""
    rows_known: Flags = np.logical_and.reduce(a, axis=1)
    columns_known: Flags = np.logical_and.reduce(b, axis=0)
    known: Flags = rows_known[:, None] & columns_known[None, :] & c
    return known


def _mma(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    modifiers, operands = instruction.modifiers, instruction.operands
    shape = next(m for m in modifiers if m.startswith("m") and "n8k" in m)
    types = tuple(m for m in modifiers if m in ELEMENT)
    if any(modifier.startswith("sp") for modifier in modifiers):
        return _sparse(machine, place, instruction, index, shape, types)
    d, c = (Registers(place, operands[n], c_fragment(shape, ELEMENT[types[0 if n == 0 else 3]])) for n in (0, 3))
    a = Registers(place, operands[1], a_fragment(shape, ELEMENT[types[1]]))
    b = Registers(place, operands[2], b_fragment(shape, ELEMENT[types[2]]))
    arch = machine.request.arch
    if types[0] in ("f16", "f32"):
        core_of(arch, types[1])

    def execute(warp: Warp, lanes: Flags) -> None:
        matrix = product(arch, a.matrix(warp), b.matrix(warp), c.matrix(warp), types, modifiers)
        d.put(warp, lanes, matrix, result_known(a.known(warp), b.known(warp), c.known(warp)))

    return execute


def _sparse(
    machine: Machine, place: Place, instruction: Instruction, index: int, shape: str, types: tuple[str, ...]
) -> Execute:
    """A holds 2 of every 4 elements; metadata words say which.  The selected K are added as a dense product is."""
    operands = instruction.operands
    k = int(shape[shape.index("k") + 1 :])
    half = f"m16n8k{k // 2}"
    d, c = (Registers(place, operands[n], c_fragment(shape, ELEMENT[types[0 if n == 0 else 3]])) for n in (0, 3))
    a = Registers(place, operands[1], a_fragment(half, 16))
    b = Registers(place, operands[2], b_fragment(shape, 16))
    words, word_rows = source(place, operands[4], "b32"), rows(place, operands[4])
    selector = operands[5]
    suppliers = k // 16
    if not isinstance(selector, Immediate) or not 0 <= selector.value < 4 // suppliers:
        raise TypeError(f"the sparsity selector of {shape} is a number below {4 // suppliers}")
    first = selector.value * suppliers
    arch = machine.request.arch

    def positions(warp: Warp) -> tuple[Lanes, Flags]:
        """Column of B for each of the K/2 stored elements of each row, and whether the metadata is defined."""
        word = np.where(warp.alive, words(warp), U(0))
        known = defined(warp, word_rows) | ~warp.alive
        columns = np.zeros((16, k // 2), np.int64)
        sure = np.ones(16, bool)
        for row in range(16):
            for chunk in range(k // 4):
                lane = (row % 8) * 4 + first + chunk // 4
                nibble = int(word[lane]) >> (16 * (row // 8) + 4 * (chunk % 4)) & 15
                columns[row, 2 * chunk] = 4 * chunk + (nibble & 3)
                columns[row, 2 * chunk + 1] = 4 * chunk + (nibble >> 2)
                sure[row] &= bool(known[lane])
        return columns.astype(U), sure

    def execute(warp: Warp, lanes: Flags) -> None:
        columns, sure = positions(warp)
        left, right, addend = a.matrix(warp), b.matrix(warp), c.matrix(warp)
        chosen = right[columns.astype(np.int64)].transpose(0, 2, 1)
        wide = np.broadcast_to(left[:, None, :], chosen.shape)
        matrix = dot(arch, wide, chosen, convert_addend(addend, types[3], types[0]), (types[1], types[2]), types[0])
        known = result_known(a.known(warp) & sure[:, None], b.known(warp), c.known(warp))
        d.put(warp, lanes, matrix, known)

    return execute


BUILDERS: dict[str, Any] = {"mma": _mma}
