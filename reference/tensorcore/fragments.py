"""Which lane holds which element: fragment layouts of mma.sync as data that proves itself.

A lane number has 5 bits and an element number (counted over a lane's registers) a few more; every one of these bits is
one bit of a matrix coordinate. So a layout is a list of coordinate bits: A of m16n8k16 is

    lane bits 0..4 -> k1 k2 m0 m1 m2        element bits 0..2 -> k0 m3 k3

that is, lane 4g+t holds row g (+8) and columns 2t, 2t+1 (+8). Source: PTX ISA 9.1, "Matrix fragments for mma".
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Registers = NDArray[np.uint32]  # [..., 32 lanes, registers]
LANES = 32


def _ascend(bits: tuple[str, ...]) -> bool:
    """Are the bits of every dimension named in ascending order?"""
    return all(x < y for i, x in enumerate(bits) for y in bits[i + 1 :] if x[0] == y[0])


@dataclass(frozen=True)
class Fragment:
    """Layout of one operand: `dims` names its rows and columns, `lane` and `element` the coordinate bits they select.

    Elements are 16 or 32 bits wide (`width`); two 16-bit ones share a register, the lower element in the low half.
    Raises ValueError where the bits do not place every matrix element exactly once, or not in 8-row tiles per register.
    """

    dims: str  # "mk": rows m, columns k; "kn"; "mn"
    lane: tuple[str, ...]
    element: tuple[str, ...]
    width: int = 16

    def __post_init__(self) -> None:
        placed = self.lane + self.element
        if len(self.lane) != 5 or len(self.dims) != 2 or self.width not in (16, 32):
            raise ValueError(f"a fragment has 5 lane bits, 2 dimensions and 16 or 32-bit elements: {self}")
        wanted = [f"{dim}{bit}" for dim in self.dims for bit in range(sum(p[0] == dim for p in placed))]
        if Counter(placed) != Counter(wanted):  # then lane and element number <-> row and column is a bijection
            raise ValueError(f"{placed} do not place each of {wanted} once")
        if not _ascend(self.lane) or not _ascend(self.element):
            raise ValueError(f"the bits of a dimension must ascend: {self.lane} {self.element}")
        run = "k" if "k" in self.dims else "n"  # neighbours within a lane and within a quad lie along it
        across = self.dims.replace(run, "")
        tile = self.element[:1] + self.lane if self.width == 16 or run == "n" else self.lane
        if tile != tuple(f"{run}{bit}" for bit in range(len(tile) - 3)) + tuple(f"{across}{bit}" for bit in range(3)):
            raise ValueError(f"lane 4g+t must hold {across} = g and consecutive {run}: {self.lane} {self.element}")
        if self.element[len(tile) - 5 :] != tuple(sorted(self.element[len(tile) - 5 :], key=lambda bit: bit[0] == run)):
            raise ValueError(f"registers must go over {across} before {run}: {self.element}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        bits = self.lane + self.element
        rows, columns = (1 << sum(bit[0] == dim for bit in bits) for dim in self.dims)
        return rows, columns

    @property
    def registers(self) -> int:
        """32-bit registers per lane."""
        return (1 << len(self.element)) * self.width // 32

    def _coordinate(self, dim: str) -> NDArray[np.intp]:
        lanes = np.arange(LANES)[:, None]
        elements = np.arange(1 << len(self.element))[None, :]
        parts = [((lanes >> i) & 1) << int(bit[1:]) for i, bit in enumerate(self.lane) if bit[0] == dim]
        parts += [((elements >> i) & 1) << int(bit[1:]) for i, bit in enumerate(self.element) if bit[0] == dim]
        total = np.zeros((LANES, elements.size), np.intp)
        for part in parts:
            total += part
        return total

    @cached_property
    def row(self) -> NDArray[np.intp]:
        """Matrix row of every element: [32, elements]."""
        return self._coordinate(self.dims[0])

    @cached_property
    def column(self) -> NDArray[np.intp]:
        """Matrix column of every element: [32, elements]."""
        return self._coordinate(self.dims[1])

    def to_registers(self, matrix: NDArray[Any]) -> Registers:
        """Deal a matrix of bit patterns, uint [..., rows, columns], out to the lanes: uint32 [..., 32, registers]."""
        if matrix.shape[-2:] != self.shape or matrix.dtype.kind != "u":
            raise ValueError(f"expected unsigned integers {self.shape}, not {matrix.dtype} {matrix.shape}")
        held: Registers = matrix[..., self.row, self.column].astype(np.uint32)
        return held if self.width == 32 else held[..., 0::2] | held[..., 1::2] << np.uint32(16)

    def to_matrix(self, registers: Registers) -> NDArray[Any]:
        """Collect the lanes' registers, uint32 [..., 32, registers], into a matrix: uint [..., rows, columns]."""
        if registers.shape[-2:] != (LANES, self.registers) or registers.dtype != np.uint32:
            raise ValueError(f"expected uint32 {(LANES, self.registers)}, not {registers.dtype} {registers.shape}")
        held: NDArray[Any] = registers
        if self.width == 16:
            held = np.stack([registers & 0xFFFF, registers >> 16], axis=-1).reshape(*registers.shape[:-1], -1)
        matrix = np.empty(registers.shape[:-2] + self.shape, f"u{self.width // 8}")
        matrix[..., self.row, self.column] = held
        return matrix


@dataclass(frozen=True)
class Shape:
    """An mma shape: fragments that fit together, and the first architecture that has it.

    `inputs` names the input formats. In a sparse shape A is compressed 2:4, half as wide as k, and B's k bits need not
    lie where A's do. Raises ValueError where A, B and C disagree.
    """

    name: str
    inputs: tuple[str, ...]
    a: Fragment
    b: Fragment
    c: Fragment  # 32-bit accumulators
    since: int  # sm number
    sparse: bool = False

    def __post_init__(self) -> None:
        (m, a_k), (b_k, n) = self.a.shape, self.b.shape
        if self.c.shape != (m, n) or b_k != a_k * (2 if self.sparse else 1):
            raise ValueError(f"{self.name}: A {self.a.shape}, B {self.b.shape} and C {self.c.shape} do not multiply")
        if self.name != f"m{m}n{n}k{b_k}":
            raise ValueError(f"{self.name} has the fragments of m{m}n{n}k{b_k}")
        if not self.sparse and _where(self.a, "k") != _where(self.b, "k"):
            raise ValueError(f"{self.name}: a lane's k in A differ from its k in B")
        if _where(self.a, "m") != _where(self.c, "m"):
            raise ValueError(f"{self.name}: a lane's rows in A differ from its rows in C")

    @property
    def c16(self) -> Fragment:
        """The accumulator fragment of f16 output: the same places, two elements per register."""
        return Fragment(self.c.dims, self.c.lane, self.c.element, 16)


def _where(fragment: Fragment, dim: str) -> tuple[list[tuple[int, str]], list[str]]:
    """Lane positions and element order of the bits of one dimension."""
    lanes = [(i, bit) for i, bit in enumerate(fragment.lane) if bit[0] == dim]
    return lanes, [bit for bit in fragment.element if bit[0] == dim]


_C = Fragment("mn", ("n1", "n2", "m0", "m1", "m2"), ("n0", "m3"), 32)
_A_LANE, _B_LANE = ("k1", "k2", "m0", "m1", "m2"), ("k1", "k2", "n0", "n1", "n2")
_A16 = Fragment("mk", _A_LANE, ("k0", "m3", "k3"))

M16N8K16 = Shape("m16n8k16", ("f16", "bf16"), _A16, Fragment("kn", _B_LANE, ("k0", "k3")), _C, 80)
M16N8K8 = Shape(
    "m16n8k8", ("f16", "bf16"), Fragment("mk", _A_LANE, ("k0", "m3")), Fragment("kn", _B_LANE, ("k0",)), _C, 75
)
M16N8K8_TF32 = Shape(
    "m16n8k8",
    ("tf32",),
    Fragment("mk", ("k0", "k1", "m0", "m1", "m2"), ("m3", "k2"), 32),
    Fragment("kn", ("k0", "k1", "n0", "n1", "n2"), ("k2",), 32),
    _C,
    80,
)
SPARSE_M16N8K32 = Shape(
    "m16n8k32", ("f16", "bf16"), _A16, Fragment("kn", _B_LANE, ("k0", "k3", "k4")), _C, 80, sparse=True
)
SHAPES = (M16N8K16, M16N8K8, M16N8K8_TF32, SPARSE_M16N8K32)
