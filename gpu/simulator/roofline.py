"""Where a launch stands under the roof of a GPU: floating-point operations per byte, from counts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SECTOR = 32
_SHAPE = re.compile(r"^(?:@!?\S+\s+)?(?:mma|wmma\.mma)\S*\.m(\d+)n(\d+)k(\d+)\.")
_PER_THREAD = re.compile(r"^(?:@!?\S+\s+)?(fma|mad|add|sub|mul)\.\S*f(?:16|32|64)(x2)?\b")


@dataclass(frozen=True, slots=True)
class Roof:
    """Peaks from data sheets: FP16 Tensor Core FLOP/s with FP32 accumulation, FP32 FLOP/s, DRAM bytes/s."""

    gpu: str
    tensor: float
    plain: float
    bandwidth: float


ROOFS = {
    "sm_80": Roof("A100 SXM4 80 GB", 312e12, 19.5e12, 2039e9),
    "sm_89": Roof("RTX 4090", 165e12, 82.6e12, 1008e9),
    "sm_90": Roof("H100 SXM5", 989e12, 66.9e12, 3350e9),
    "sm_90a": Roof("H100 SXM5", 989e12, 66.9e12, 3350e9),
}


@dataclass(frozen=True, slots=True)
class Point:
    """A launch: operations on Tensor Cores and on CUDA cores (counted), bytes between L1 and L2 (counted)."""

    tensor_flop: int
    plain_flop: int
    bytes: int

    @property
    def intensity(self) -> float:
        """FLOP per byte; infinite where no byte moves."""
        flop = self.tensor_flop + self.plain_flop
        return flop / self.bytes if self.bytes else float("inf")

    def ceiling(self, roof: Roof) -> float:
        """FLOP/s that the roof allows at this intensity; Tensor Cores set it where they are used."""
        peak = roof.tensor if self.tensor_flop else roof.plain
        return min(peak, roof.bandwidth * self.intensity)

    def bound(self, roof: Roof) -> str:
        """What is reached first: "memory" or "arithmetic"."""
        peak = roof.tensor if self.tensor_flop else roof.plain
        return "memory" if roof.bandwidth * self.intensity < peak else "arithmetic"


def point(rows: Sequence[Mapping[str, Any]]) -> Point:
    """The point of a report's rows (`Report.lines`).  An mma of m x n x k is 2 m n k FLOP, an fma 2, an add or mul 1."""
    tensor = plain = 0
    for row in rows:
        if not row["executions"]:
            continue
        shape = _SHAPE.match(row["ptx"])
        scalar = _PER_THREAD.match(row["ptx"])
        if shape is not None:
            m, n, k = (int(size) for size in shape.groups())
            tensor += 2 * m * n * k * row["executions"]
        elif scalar is not None:
            plain += (2 if scalar[1] in ("fma", "mad") else 1) * (2 if scalar[2] else 1) * row["threads"]
    return Point(tensor, plain, SECTOR * sum(row["sectors"] for row in rows))
