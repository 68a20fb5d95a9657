"""The variants of mma.sync and mma.sp on floats: how an architecture adds, and where a variant's operands lie.

A variant is a function of one memory area of a warp, one <32 x i32> per register: A at 0, B at 512, C at 1024, D at
1536, and the metadata of mma.sp at 2048.  `mma_complete.py` and `mma_usual.py` emit it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from loadsparse.gpu.simulator.program import WIDTH

A_AREA, B_AREA, C_AREA, D_AREA, METADATA_AREA, AREA_BYTES = 0, 512, 1024, 1536, 2048, 2176


@dataclass(frozen=True, slots=True)
class TensorCore:
    """How products of one kind are added: F fraction bits under the largest exponent, K_b products per block, the least
    exponents (f32 and f16 results), fraction bits kept in an f32 result."""

    fraction: int
    block: int
    clamp_f32: int
    clamp_f16: int
    kept: int = 23


TENSOR_CORES = {
    70: TensorCore(23, 4, -1000, -19),
    75: TensorCore(24, 8, -1000, -1000),
    80: TensorCore(24, 8, -132, -20),
    90: TensorCore(25, 16, -133, -21),
}
"""Of 16-bit formats; a block holds half as many tf32."""
EIGHT_BITS = {
    89: TensorCore(13, 16, -132, -20, kept=13),
    90: TensorCore(25, 32, -133, -21),
}


def tensor_core(arch: str, kind: str) -> TensorCore:
    """The adder of ``sm_XY`` for inputs of one kind."""
    number = int("".join(c for c in arch if c.isdigit()))
    cores = EIGHT_BITS if WIDTH[kind] == 8 else TENSOR_CORES
    core = cores[max((n for n in cores if n <= number), default=min(cores))]
    return replace(core, block=core.block // 2) if kind == "tf32" else core


@dataclass(frozen=True)
class Multiply:
    """One variant of mma.sync: input kinds of A and B, K, result and accumulator formats, the adder.

    If `sparse` it is mma.sp with selector 0: A holds K / 2 elements per row.
    """

    kinds: tuple[str, str]
    k: int
    d_format: str
    c_format: str
    core: TensorCore
    sparse: bool = False

    @property
    def name(self) -> str:
        c = self.core
        sparse = "sp_" * self.sparse
        return f"mma_{sparse}{'_'.join(self.kinds)}_{self.k}_{self.d_format}_{self.c_format}_{c.fraction}_{c.block}_{c.kept}"

    @property
    def products(self) -> int:
        """Products of one element of D: the stored k's of a row of A."""
        return self.k // 2 if self.sparse else self.k

    @property
    def per_register(self) -> int:
        return 32 // WIDTH[self.kinds[0]]

    def place(self, which: str, row_half: int, k: int) -> tuple[int, int, int]:
        """(register, part of it, lane within a quad) of A[g + 8 row_half][k], or of B[k][quad]."""
        per = self.per_register
        register = k // (4 * per)
        return 2 * register + row_half if which == "A" else register, k % per, k % (4 * per) // per

    def supplier(self, k: int) -> tuple[int, int]:
        """(lane within a quad, shift) of the metadata that places stored element k of row g: 2 bits, those of row g + 8
        16 bits higher."""
        return k // 8, 4 * (k // 2 % 4) + 2 * (k % 2)


def variant(
    arch: str, kinds: tuple[str, str], k: int, d_format: str = "f32", c_format: str = "f32", sparse: bool = False
) -> Multiply:
    """The variant that ``sm_XY`` executes."""
    return Multiply(kinds, k, d_format, c_format, tensor_core(arch, kinds[0]), sparse)
