"""How well the performance model predicts, and how fast it answers.

Errors are mean absolute relative errors, the plain roofline's beside ours.  "counted" says whose kernel was executed to
count it, "timed" whose was timed on hardware: of ours none was.  Bars: calibration rows 8% (Flash-LLM, cuBLAS) and 15%
(Sputnik, SparTA); a shape left out of the fit 12%; every point of the Flash-LLM sweep 10%; every Flash-LLM point end to
end 15% and every out-of-memory point right; averages of published speed-ups 15%; 10,000 configurations in 60 s on 2 cores.
"""

from __future__ import annotations

import itertools
import sys
import time
from statistics import fmean

import numpy as np

from loadsparse.gpu import kernels
from loadsparse.gpu.perfmodel import count, end_to_end, fit, predict, replay
from loadsparse.gpu.perfmodel import tile as tiles

WHO = {
    "cublas": ("nobody", "A100"), "sputnik": ("nobody", "A100"), "sparta": ("nobody", "A100"),
    "flash-llm": ("interpreter", "A100"), "spinfer": ("interpreter", "RTX 4090"),
    "fastertransformer": ("nobody", "A100"), "deepspeed": ("nobody", "A100"),
    "lscd": ("simulator", "no GPU"), "bitmap": ("simulator", "no GPU"),
}  # fmt: skip
BARS = {
    ("calibration", "flash-llm"): (0.08, None), ("calibration", "cublas"): (0.08, None),
    ("calibration", "sputnik"): (0.15, None), ("calibration", "sparta"): (0.15, None),
    ("sweep", "flash-llm"): (None, 0.10), ("end to end", "flash-llm"): (None, 0.15),
    ("averages", "cublas"): (0.15, None), ("averages", "sparta"): (0.15, None), ("averages", "sputnik"): (0.15, None),
}  # fmt: skip


def accuracy() -> bool:
    print(f"{'figure':12} {'kernel':18} {'counted':12} {'timed':9} points  mean  bar  largest  bar  roofline  memory")
    passed = True
    for row in replay.summary(replay.points()):
        mean_bar, largest_bar = BARS.get((row["figure"], row["kernel"]), (None, None))
        mean, largest = row["mean_error"], row["largest_error"]
        passed &= (mean_bar is None or mean <= mean_bar) and (largest_bar is None or largest <= largest_bar)
        passed &= row["memory_agrees"]
        texts = [
            f"{v:.1%}" if v is not None else "-"
            for v in (mean, mean_bar, largest, largest_bar, row["roofline_mean_error"])
        ]
        counted, timed = WHO[row["kernel"]]
        print(
            f"{row['figure']:12} {row['kernel']:18} {counted:12} {timed:9} {row['points']:6} {texts[0]:>5} {texts[1]:>5} "
            f"{texts[2]:>7} {texts[3]:>5} {texts[4]:>8}  {'right' if row['memory_agrees'] else 'WRONG'}"
        )
    return passed


def left_out() -> bool:
    passed = True
    for kernel, shapes in fit.left_out(fit.calibration()).items():
        mean = fmean(abs(e) for each in shapes.values() for e in each)
        each = ", ".join(f"{m} x {k}: {fmean(map(abs, errors)):.1%}" for (m, k), errors in shapes.items())
        print(f"left out     {kernel:18} mean {mean:.1%} (bar 12%)   {each}")
        passed &= mean <= 0.12
    return passed


def scaling() -> bool:
    """Counts scaled by the tile model beside full counts of other shapes."""
    passed = True
    for name, m, n, k, sparsity, splits in (
        ("lscd", 640, 8, 1088, 0.75, 2), ("lscd", 1024, 16, 2048, 0.85, 3),
        ("bitmap", 1024, 8, 2048, 0.85, 2), ("bitmap", 768, 16, 1024, 0.6, 1),
        ("adaptive", 1024, 16, 2048, 0.93, 2), ("adaptive", 768, 8, 1024, 0.72, 1),
    ):  # fmt: skip
        kernel = kernels.get(name)
        a = count.random_weights(m, k, 1 - sparsity, seed=5)
        b = np.random.default_rng(6).standard_normal((k, n)).astype(np.float16)
        _, report = kernel.plan(kernel.encode(a), b, split_k=splits).run()
        full, shape = count.counted(report.steps[0]), tiles.tile(name, n, np.count_nonzero(a) / a.size)
        blocks = -(-m // shape.rows) * -(-n // shape.columns) * splits
        scaled = blocks * (shape.block + -(-k // 64) / splits * shape.step)
        off = [s / f - 1 for s, f in zip(scaled.values()[:2], full.values()[:2], strict=True)]
        passed &= max(map(abs, off)) <= 0.03
        case = f"{name:7} {m} x {n} x {k} at {sparsity:.0%}"
        print(f"scaled / full counts {case}: instructions {off[0]:+.1%}, wavefronts {off[1]:+.1%} (bar 3%)")
    return passed


def speed() -> bool:
    grid = itertools.product(
        ("cublas", "sputnik", "sparta", "flash-llm", "lscd", "bitmap"),
        ((9216, 9216), (27648, 9216), (36864, 9216), (9216, 36864), (4096, 11008)),
        range(8, 72, 8), np.linspace(0.5, 0.98, 20), ("a100-80gb", "h100-sxm"),
    )  # fmt: skip
    start = time.perf_counter()
    calls = [predict(kernel, m, n, k, float(s), gpu) for kernel, (m, k), n, s, gpu in grid]
    models = [
        end_to_end(model, kernel, gpus, batch, sparsity=s)
        for model in ("opt-30b", "opt-66b", "llama-2-7b", "llama-3-70b", "mixtral-8x7b")
        for kernel in ("fastertransformer", "flash-llm", "lscd", "bitmap")
        for gpus in (1, 2, 4, 8)
        for batch in (1, 8, 16, 64)
        for s in (0.7, 0.8)
    ]
    seconds, configurations = time.perf_counter() - start, len(calls) + len(models)
    scaled = seconds * 10_000 / configurations
    print(
        f"{configurations:,} configurations in {seconds:.1f} s on one core: {scaled:.1f} s for 10,000 (bar 60 s on 2 cores)"
    )
    return scaled <= 60


if __name__ == "__main__":
    sys.exit(0 if all([accuracy(), left_out(), speed(), scaling()]) else 1)
