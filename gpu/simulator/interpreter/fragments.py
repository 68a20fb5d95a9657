"""Which element of a matrix each lane holds in each register of mma.sync (g = lane >> 2, t = lane & 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes, mask
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP

Places = NDArray[np.int64]
G, T = LANES >> 2, LANES & 3


@dataclass(frozen=True, slots=True)
class Fragment:
    """Element i of lane l is (row[l, i], column[l, i]); `width` bits each, little end first in 32-bit registers."""

    shape: tuple[int, int]
    row: Places
    column: Places
    width: int

    def __post_init__(self) -> None:
        cells = self.row * self.shape[1] + self.column
        if np.unique(cells).size != self.shape[0] * self.shape[1]:
            raise ValueError(f"a fragment that does not cover its {self.shape} matrix")

    @property
    def per(self) -> int:
        """Elements of a register: 32 bits hold several, 64 bits one."""
        return max(1, 32 // self.width)

    @property
    def registers(self) -> int:
        return int(self.row.shape[1]) // self.per

    def gather(self, registers: list[Lanes]) -> Lanes:
        """Matrix of bit patterns from registers of 32 lanes."""
        per = self.per
        matrix = np.zeros(self.shape, np.uint64)
        for i in range(self.row.shape[1]):
            part = (registers[i // per] >> np.uint64(i % per * self.width)) & mask(self.width)
            matrix[self.row[:, i], self.column[:, i]] = part
        return matrix

    def known(self, registers: list[Flags]) -> Flags:
        """Matrix of defined bits; an element held twice is defined iff all its holders are."""
        per = self.per
        matrix = np.ones(self.shape, bool)
        for i in range(self.row.shape[1]):
            np.logical_and.at(matrix, (self.row[:, i], self.column[:, i]), registers[i // per])
        return matrix

    def scatter(self, matrix: Lanes) -> list[Lanes]:
        """Registers of 32 lanes from a matrix of bit patterns."""
        per = self.per
        registers = [np.zeros(WARP, np.uint64) for _ in range(self.registers)]
        for i in range(self.row.shape[1]):
            registers[i // per] |= matrix[self.row[:, i], self.column[:, i]] << np.uint64(i % per * self.width)
        return registers

    def scatter_known(self, matrix: Flags) -> list[Flags]:
        """Defined bits of those registers: all of their elements must be."""
        per = self.per
        registers = [np.ones(WARP, bool) for _ in range(self.registers)]
        for i in range(self.row.shape[1]):
            registers[i // per] &= matrix[self.row[:, i], self.column[:, i]]
        return registers


def _table(elements: list[tuple[Places, Places]], shape: tuple[int, int], width: int) -> Fragment:
    rows = np.stack([row for row, _ in elements], axis=1)
    columns = np.stack([column for _, column in elements], axis=1)
    return Fragment(shape, rows, columns, width)


def a_fragment(shape: str, width: int) -> Fragment:
    """A of mma.m16n8kK (or m8n8kK) with elements of `width` bits."""
    m, k = _m(shape), _k(shape)
    per = max(1, 32 // width)
    elements = []
    for register in range(m * k // (32 * per)):
        upper = register % 2 if m == 16 else 0
        right = register // 2 if m == 16 else register
        for i in range(per):
            elements.append((G + 8 * upper, T * per + i + right * 4 * per))
    return _table(elements, (m, k), width)


def b_fragment(shape: str, width: int) -> Fragment:
    """B (K x 8)."""
    k, per = _k(shape), max(1, 32 // width)
    elements = [(T * per + i + register * 4 * per, G) for register in range(k * 8 // (32 * per)) for i in range(per)]
    return _table(elements, (k, 8), width)


def c_fragment(shape: str, width: int) -> Fragment:
    """C and D (M x 8)."""
    m = _m(shape)
    elements = [(G + 8 * (i // 2), T * 2 + i % 2) for i in range(m * 8 // 32)]
    return _table(elements, (m, 8), width)


def _m(shape: str) -> int:
    return int(shape[1 : shape.index("n")])


def _k(shape: str) -> int:
    return int(shape[shape.index("k") + 1 :])
