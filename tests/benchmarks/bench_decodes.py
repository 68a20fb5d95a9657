"""The decodes of sparse tiles side by side: bytes of A against instructions and wavefronts, all executed, N = 16.

Every row is a whole product by a kernel of the project with each tile forced into one form; counts are the simulator's.
`python -m tests.benchmarks.bench_decodes [figure.png]` also draws the curve.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadsparse.gpu import kernels
from loadsparse.reference.formats import Adaptive, LaneBitmap, TiledCSL, entropy_floor

M, N, K, SPLIT = 512, 16, 1024, 2
DECODES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "bitmap, by half fragment": ("bitmap", lambda a: LaneBitmap.encode(a, bits=4)),
    "bitmap, by fragment": ("bitmap", lambda a: LaneBitmap.encode(a, bits=8)),
    "distances of 5 bits": ("adaptive", lambda a: Adaptive.encode(a, kind=5)),
    "distances of 6 bits": ("adaptive", lambda a: Adaptive.encode(a, kind=6)),
    "distances of 8 bits": ("adaptive", lambda a: Adaptive.encode(a, kind=8)),
    "location of each item": ("lscd", TiledCSL.encode),
    "dense": ("adaptive", lambda a: Adaptive.encode(a, kind=16)),
}


@dataclass(frozen=True)
class Point:
    """One decode at one sparsity: bytes of A over the entropy floor; instructions per output; wavefronts per 16 x 16 of A."""

    decode: str
    sparsity: float
    floor: float
    instructions: float
    wavefronts: float


def measure(decode: str, sparsity: float) -> Point:
    """Execute one product and count.  Raises RuntimeError on a hazard."""
    rng = np.random.default_rng(1)
    a = np.where(rng.random((M, K)) < 1 - sparsity, rng.standard_normal((M, K)), 0).astype(np.float16)
    b = rng.standard_normal((K, N)).astype(np.float16)
    name, encode = DECODES[decode]
    encoded = encode(a)
    _, report = kernels.get(name).plan(encoded, b, split_k=SPLIT).run()
    if not report.ok:
        raise RuntimeError(f"{decode}: {report.hazards[0]}")
    shared = "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_{}.sum"
    waves = sum(report.metrics[shared.format(op)] for op in ("ld", "st")) + report.metrics["shared_wavefronts_cp_async"]
    floor = encoded.nbytes / a.size / entropy_floor(np.count_nonzero(a) / a.size)
    return Point(decode, sparsity, floor, report.instructions * 32 / (M * N), waves / (M * K / 256))


def plot(points: list[Point], path: str) -> None:
    """Bytes over the floor against instructions per output, one line per sparsity."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for sparsity in sorted({point.sparsity for point in points}):
        row = sorted((p for p in points if p.sparsity == sparsity), key=lambda p: p.instructions)
        axes.plot([p.instructions for p in row], [p.floor for p in row], "o-", label=f"{sparsity:.0%} sparse")
        for p in row:
            axes.annotate(p.decode, (p.instructions, p.floor), fontsize=6)
    axes.axhline(1.10, color="grey", linestyle=":")
    axes.set(xlabel="instructions per output (counted)", ylabel="bytes of A / entropy floor", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> int:
    points = []
    print(f"{'decode':26}{'sparsity':>9}{'x floor':>9}{'instr/out':>11}{'wavefronts/tile':>17}")
    for sparsity in (0.6, 0.8, 0.9):
        for decode in DECODES:
            p = measure(decode, sparsity)
            points.append(p)
            cells = f"{p.sparsity:9.0%}{p.floor:9.2f}{p.instructions:11.0f}{p.wavefronts:17.1f}"
            print(f"{p.decode:26}{cells}", flush=True)
    if sys.argv[1:]:
        plot(points, sys.argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
