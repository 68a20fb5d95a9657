"""How fast weights are packed, in GB of dense FP16 a second; bar: 5x Flash-LLM's packer on one core, faster on two.

Flash-LLM's packer handled 0.13 GB/s of dense FP16 on one core at 9216 x 9216, 80% sparse; that figure is quoted here,
not measured in this run. One core is timed in CPU seconds of the process, so that neighbours do not count; two threads
and one are compared in wall time, which wants an idle machine, and in CPU time: what two cores can gain when all of the
calling thread's work is serial and two threads take as many CPU seconds as they do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from loadsparse.gpu.kernels import pack, pack_lanes
from loadsparse.reference.formats import Adaptive, Bitmap, LaneBitmap, TiledCSL

SIZE, SPARSITY, REPEATS = 9216, 0.8, 3
FLASH_LLM = 0.13  # GB/s


def best(clock: Callable[[], float], work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


def possible(packer: Callable[..., object], dense: np.ndarray) -> float:
    """CPU seconds of one thread over those of the serial part and half of the parallel one, where two share the work."""
    alone = best(time.process_time, partial(packer, dense, threads=1))
    together = []
    for _ in range(REPEATS):
        total, own = time.process_time(), time.thread_time()
        packer(dense, threads=2)
        together.append((time.process_time() - total, time.thread_time() - own))
    total, serial = min(together)
    return alone / (serial + (total - serial) / 2)


def weights() -> np.ndarray:
    """float16 [SIZE, SIZE], SPARSITY of it zeros."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((SIZE, SIZE), dtype=np.float32).astype(np.float16)
    dense[rng.random(dense.shape, dtype=np.float32) < SPARSITY] = 0
    return dense


def rate(packer: Callable[..., object], dense: np.ndarray) -> float:
    """GB of dense FP16 per CPU second on one thread, compiled before."""
    packer(dense[:1, :1])
    return dense.nbytes / 1e9 / best(time.process_time, partial(packer, dense, threads=1))


def main() -> int:
    dense = weights()
    part = dense[:1152]
    print(f"{SIZE} x {SIZE}, {SPARSITY:.0%} sparse, dense {dense.nbytes / 1e9:.3f} GB, best of {REPEATS}")
    heads = ("1 core", "x Flash-LLM", "bar", "2 threads", "2 / 1, wall", "2 / 1, CPU", "NumPy")
    print(f"{'format':10}" + "".join(f"{head:>13}" for head in heads))
    passed = True
    for name, packer, oracle in (
        ("tiled-CSL", pack.pack_tiled_csl, TiledCSL.encode),
        ("bitmap", pack.pack_bitmap, Bitmap.encode),
        ("lanes", pack_lanes.pack_lane_bitmap, LaneBitmap.encode),
        ("adaptive", pack_lanes.pack_adaptive, Adaptive.encode),
    ):
        cpu = rate(packer, dense)
        wall = [dense.nbytes / 1e9 / best(time.perf_counter, partial(packer, dense, threads=n)) for n in (1, 2)]
        start = time.process_time()
        oracle(part)
        slow = part.nbytes / 1e9 / (time.process_time() - start)
        ratio, speedup = cpu / FLASH_LLM, wall[1] / wall[0]
        passed &= ratio >= 5 and speedup > 1
        cells = (
            f"{cpu:.2f} GB/s", f"{ratio:.1f}x", "5x", f"{wall[1]:.2f} GB/s", f"{speedup:.2f}x",
            f"{possible(packer, dense):.2f}x", f"{slow:.3f} GB/s",
        )  # fmt: skip
        print(f"{name:10}" + "".join(f"{cell:>13}" for cell in cells))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
