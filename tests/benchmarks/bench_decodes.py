"""The decodes of sparse tiles side by side: bytes of A against instructions and wavefronts, all executed, N = 16.

Every row is a whole product by a kernel of the project with each tile forced into one form; counts are the simulator's.
Clocks are predicted from them: a multiprocessor issues 4 instructions and serves 1 shared-memory wavefront a clock.
The best decode of a sparsity takes the fewest clocks among those whose bytes are within 1.10 of the entropy floor.
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
NEAR = 1.10
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

    @property
    def clocks(self) -> float:
        """Least clocks of a multiprocessor per 16 x 16 of A."""
        return max(self.instructions * M * N / 32 / (M * K / 256) / 4, self.wavefronts)


def best(points: list[Point]) -> Point:
    """The fewest clocks within 1.10 of the floor, or else the fewest bytes."""
    near = [point for point in points if point.floor <= NEAR]
    return min(near, key=lambda p: p.clocks) if near else min(points, key=lambda p: p.floor)


def frontier(points: list[Point]) -> list[Point]:
    """The points that no other beats both in bytes and in instructions, by instructions."""
    ordered = sorted(points, key=lambda p: (p.instructions, p.floor))
    return [p for i, p in enumerate(ordered) if all(p.floor < q.floor for q in ordered[:i])]


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
    """Bytes over the floor against instructions per output: a panel and its frontier per sparsity, the best point starred."""
    import matplotlib.pyplot as plt

    sparsities = sorted({point.sparsity for point in points})
    figure, panels = plt.subplots(
        1, len(sparsities), figsize=(13, 4.5), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, sparsity in zip(panels[0], sparsities, strict=True):
        row = [p for p in points if p.sparsity == sparsity]
        curve, star = frontier(row), best(row)
        axes.plot([p.instructions for p in curve], [p.floor for p in curve], color="lightgrey")
        for p in row:
            axes.plot(p.instructions, p.floor, "o", label=f"{p.decode}, {p.wavefronts:.1f} wavefronts")
        axes.plot(star.instructions, star.floor, "*", color="black", markersize=14, zorder=3)
        axes.axhline(NEAR, color="grey", linestyle=":")
        axes.set(title=f"{sparsity:.0%} sparse", xlabel="instructions per output (counted)", yscale="log")
        axes.legend(fontsize=7)
    panels[0][0].set_ylabel("bytes of A / entropy floor")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> int:
    points = []
    print(f"{'decode':26}{'sparsity':>9}{'x floor':>9}{'instr/out':>11}{'wavefronts/tile':>17}{'clocks/tile':>13}")
    for sparsity in (0.6, 0.8, 0.9):
        for decode in DECODES:
            p = measure(decode, sparsity)
            points.append(p)
            cells = f"{p.sparsity:9.0%}{p.floor:9.3f}{p.instructions:11.0f}{p.wavefronts:17.1f}{p.clocks:13.1f}"
            print(f"{p.decode:26}{cells}", flush=True)
        row = points[-len(DECODES) :]
        curve = " -> ".join(f"{p.decode} ({p.instructions:.0f}, {p.floor:.2f})" for p in frontier(row))
        print(f"curve (instructions, bytes): {curve}\nbest: {best(row).decode}", flush=True)
    if sys.argv[1:]:
        plot(points, sys.argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
