"""SparTA: the part of the weights that is 2:4 on sparse Tensor Cores, the rest in CSR on CUDA cores.

Of every four neighbours the first two stored elements go to mma.sp, what is left to a CSR kernel, which adds its sums to the
float32 results of the first and rounds.  Simpler than SparTA: two launches (theirs is one kernel), and the first two stored
elements of a group where theirs may choose others; both give the same bytes and products.

Source: Zheng et al., SparTA, OSDI 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.kernels import parts, planning, sputnik, twofour
from loadsparse.gpu.launch import Launch, Step
from loadsparse.reference.formats import CSR, FormatError, TwoFour
from loadsparse.reference.formats.base import from_bits, to_bits


@dataclass(frozen=True, eq=False)
class TwoFourAndRest:
    """Weights as the sum of a 2:4 matrix and a CSR matrix that share no element."""

    structured: TwoFour
    rest: CSR

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""
        return self.structured.shape

    @property
    def dtype(self) -> str:
        """ "f16" or "bf16"."""
        return self.structured.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of both parts."""
        return self.structured.nbytes + self.rest.nbytes

    def decode(self) -> NDArray[Any]:
        """The dense matrix."""
        bits = to_bits(self.structured.decode(), self.dtype) | to_bits(self.rest.decode(), self.dtype)
        return from_bits(bits, self.dtype)

    def check_layout(self) -> None:
        """See `SparseFormat.check_layout`, of both parts.  Raises FormatError."""
        for part, form in ((self.structured, TwoFour), (self.rest, CSR)):
            if not isinstance(part, form):
                raise FormatError(f"TwoFourAndRest: a part is {type(part).__name__}, must be {form.__name__}")
            part.check_layout()
        if (self.structured.shape, self.structured.dtype) != (self.rest.shape, self.rest.dtype):
            raise FormatError("TwoFourAndRest: the parts differ in shape or dtype")

    def validate(self) -> None:
        """See `SparseFormat.validate`, of both parts, which share no element.  Raises FormatError."""
        self.check_layout()
        self.structured.validate()
        self.rest.validate()
        both = (to_bits(self.structured.decode(), self.dtype) != 0) & (to_bits(self.rest.decode(), self.dtype) != 0)
        if both.any():
            row, column = (int(place) for place in np.argwhere(both)[0])
            raise FormatError(f"TwoFourAndRest: both parts hold element ({row}, {column})")


@dataclass(frozen=True)
class Sparta:
    """The SparTA kernel: any M, N, K >= 1, any weights, float16 and bfloat16, sm_80 and newer."""

    name: str = "sparta"

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> TwoFourAndRest:
        """2:4 part and CSR rest of dense weights [M, K]."""
        structured, rest = TwoFour.split(a, dtype)
        return TwoFourAndRest(TwoFour.encode(structured, dtype), sputnik.Sputnik().encode(rest, dtype))

    def plan(self, encoded: TwoFourAndRest, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch:
        """The launch that computes C = A x B; K is not split (`split_k` must be None or 1).  Raises ValueError."""
        planning.check_arch(arch)
        planning.check_weights(self.name, encoded, TwoFourAndRest)
        planning.check_operand(encoded.shape, encoded.dtype, b)
        planning.check_whole(self.name, split_k)
        (m, k), n = encoded.shape, b.shape[1]
        panels = min(-(-n // 8), 8)
        strips, blocks = -(-m // twofour.TILE_M), -(-n // (8 * panels))
        ptx = twofour.compiled(encoded.dtype, panels, parts.copy_width(n), False, n % 2 == 0, arch)
        shared = twofour.STAGES * (twofour.A_BYTES + twofour.META_BYTES + twofour.TILE_K * panels * 16)
        first = Step(
            ptx, "twofour", (strips, blocks, 1), (twofour.THREADS, 1, 1), shared,
            ("kept", "metadata", "b", "partials", np.uint32(m), np.uint32(n), np.uint32(k)),
        )  # fmt: skip
        padded = strips * twofour.TILE_M
        second, buffers = sputnik.csr_step(encoded.rest, b, arch, True, padded * panels * 32)
        buffers |= {
            "kept": encoded.structured.values,
            "metadata": encoded.structured.metadata,
            "b": np.ascontiguousarray(b),
            "c": np.zeros((m, n), b.dtype),
            "partials": np.zeros((blocks, padded, 8 * panels), np.float32),
        }
        return Launch(
            steps=(first, second), buffers=buffers, output="c", shape=(m, n, k), arch=arch, kernel=self.name,
            splits=((0, k),), semantics="stored", in_format=encoded.dtype, workspace=("partials",), algorithm="sparta",
        )  # fmt: skip
