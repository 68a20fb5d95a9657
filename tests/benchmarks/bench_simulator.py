"""The simulator's speed: against Numba's own CUDA simulator and plain NumPy, in thread-instructions and exact mma per
second and core, in translation time, and on layers.

`python bench_simulator.py` prints the table; `--large` adds the 49152 x 12288 layer (it needs ~8 GB).

Of LSCD's time with every check the race check in shared memory is the largest part: two cells of 4 bytes for each granule of
2 bytes.  Cells side by side alone (one load and one store instead of two) won nothing; loops over lanes without calls, so
that nothing is spilled, and what is suspicious settled after the loop won 18% of the execute phase.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_mma import nanoseconds
from bench_mma import operands as mma_operands

from loadsparse.gpu import kernels, simulator
from loadsparse.gpu.simulator.engine import compiled, mma
from loadsparse.gpu.simulator.engine.launch import Launch as EngineLaunch

MATMUL = """
import sys, time
import numpy as np
from numba import cuda, float32

def tiled(a, b, c):
    sa = cuda.shared.array((16, 16), float32)
    sb = cuda.shared.array((16, 16), float32)
    x, y = cuda.grid(2)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    total = float32(0.0)
    for i in range(a.shape[1] // 16):
        sa[ty, tx] = a[y, tx + i * 16]
        sb[ty, tx] = b[ty + i * 16, x]
        cuda.syncthreads()
        for j in range(16):
            total += sa[ty, j] * sb[j, tx]
        cuda.syncthreads()
    c[y, x] = total
"""
NUMBA = (
    MATMUL
    + """
a = np.ones((64, 64), np.float32)
c = np.zeros_like(a)
kernel = cuda.jit(tiled)
begin, used = time.perf_counter(), time.process_time()
kernel[(4, 4), (16, 16)](a, a, c)
print(time.perf_counter() - begin, time.process_time() - used)
assert (c == 64).all()
"""
)


def numba_seconds() -> tuple[float, float]:
    """Wall and CPU seconds of one 64^3 tiled matmul in Numba's simulator, in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "matmul.py")
        script.write_text(NUMBA)
        run = subprocess.run(
            [sys.executable, str(script)], env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
    wall, used = map(float, run.stdout.split()[-2:])
    return wall, used


def matmul(checks: simulator.Checks) -> tuple[float, float, float]:
    """(translate, best execute, best CPU of the whole call) seconds of the same matmul in the engine."""
    from numba import cuda, float32

    space: dict = {}
    exec(compile(MATMUL, "matmul", "exec"), space)
    ptx, _ = cuda.compile_ptx(space["tiled"], (float32[:, ::1],) * 3, cc=(8, 0))
    module = simulator.load(ptx, arch="sm_80")
    kernel = next(iter(module.values()))
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
    c = np.zeros_like(a)

    def flat(x):
        return [np.uint64(0), np.uint64(0), np.int64(x.size), np.int64(4), x, *map(np.int64, (*x.shape, *x.strides))]

    best, used, translate = float("inf"), float("inf"), 0.0
    for _ in range(50):
        begin = time.process_time()
        report = kernel.launch((4, 4), (16, 16), *flat(a), *flat(b), *flat(c), checks=checks, engine="llvm")
        translate = max(translate, report.seconds["translate"])
        used = min(used, time.process_time() - begin)
        best = min(best, report.seconds["execute"])
        assert report.ok, report
    np.testing.assert_allclose(c, a @ b, atol=1e-4)
    return translate, best, used


def layer(m: int, k: int, n: int, checks: simulator.Checks, repeat: int = 1) -> dict[str, float]:
    """The LSCD kernel on one layer at 80%: wall seconds of the whole run and of its parts."""
    rng = np.random.default_rng(0)
    a = np.empty((m, k), np.float16)
    for start in range(0, m, 2048):
        rows = rng.standard_normal((min(2048, m - start), k), np.float32)
        rows[rng.random(rows.shape, np.float32) < 0.8] = 0
        a[start : start + 2048] = rows
    b = rng.standard_normal((k, n)).astype(np.float16)
    kernel = kernels.get("lscd")
    plan = kernel.plan(kernel.encode(a), b)
    del a
    result = {"execute": float("inf")}
    for _ in range(repeat):
        begin = time.perf_counter()
        _, report = plan.run(engine="llvm", checks=checks)
        wall = time.perf_counter() - begin
        assert report.ok, report
        if report.seconds["execute"] < result["execute"]:
            result = {"wall": wall, "threads": float(report.thread_instructions), **report.seconds}
    return result


def translation(name: str) -> tuple[float, int]:
    """CPU seconds that one kernel's first launch spends on translation without any cache, and its PTX instructions."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((64, 128)).astype(np.float16)
    a[rng.random(a.shape) < 0.8] = 0
    kernel = kernels.get(name)
    plan = kernel.plan(kernel.encode(a), rng.standard_normal((128, 16)).astype(np.float16))
    step = plan.steps[0]
    entry = simulator.load(step.ptx, "sm_80")[step.entry]
    request = entry.request(step.grid, step.block, step.shared_bytes)
    with tempfile.TemporaryDirectory() as folder:
        kept, os.environ["LOADSPARSE_CACHE"] = os.environ.get("LOADSPARSE_CACHE"), folder
        try:
            compiled.prepare(request)  # the run-time library and the kinds of access that kernels share
            compiled._kept.clear()
            for file in Path(folder).glob("full-*"):
                file.unlink()
            begin = time.process_time()
            compiled.prepare(request)
            return time.process_time() - begin, len(entry.kernel.instructions)
        finally:
            os.environ.pop("LOADSPARSE_CACHE")
            if kept is not None:
                os.environ["LOADSPARSE_CACHE"] = kept


def numpy_seconds(m: int, k: int, n: int) -> float:
    """The same product as `layer` by plain NumPy: dense f32 A (from f16) times B."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((m, k), np.float32)
    a[rng.random((m, k), np.float32) < 0.8] = 0
    b = rng.standard_normal((k, n), np.float32)
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begin)
    return best


def exact_products() -> dict[str, float]:
    """m16n8k16 of f16 with f32 sums, a second and core, bit for bit."""
    area = mma_operands("f16", "f32")
    return {arch: 1e9 / nanoseconds(mma.variant(arch, ("f16", "f16"), 16), area) for arch in ("sm_80", "sm_90")}


def one_core(checks: simulator.Checks) -> float:
    """Thread-instructions per CPU second of LSCD on one thread (CPU time: other processes do not count)."""
    run, count = EngineLaunch.run, EngineLaunch.worker_count
    spent: list[float] = []

    def timed(launch: EngineLaunch) -> object:
        begin = time.process_time()
        outcome = run(launch)
        spent.append(time.process_time() - begin)
        return outcome

    EngineLaunch.run, EngineLaunch.worker_count = timed, lambda self: 1  # type: ignore[assignment,method-assign]
    try:
        repeat = 8
        found = layer(1024, 4096, 16, checks, repeat)
        steps = len(spent) // repeat
        best = min(sum(spent[i : i + steps]) for i in range(0, len(spent), steps))
        return found["threads"] / best
    finally:
        EngineLaunch.run, EngineLaunch.worker_count = run, count  # type: ignore[method-assign]


def main(large: bool) -> int:
    every, none = simulator.Checks(), simulator.Checks.none()
    theirs, their_cpu = numba_seconds()
    print(f"64^3 tiled matmul: Numba's simulator {theirs:.2f} s ({their_cpu:.2f} s of CPU)")
    for name, checks, bar in (("every check", every, 2_000), ("no check", none, 10_000)):
        translate, execute, used = matmul(checks)
        ratio = theirs / execute
        print(f"  ours, {name:12} {execute * 1e3:7.2f} ms = {ratio:7.0f}x (bar {bar}x); translate {translate:.2f} s")
        print(f"    CPU time, the whole call included: {used * 1e3:.2f} ms = {their_cpu / used:.0f}x")
    for name, checks in (("every check", every), ("no check", none)):
        rate = one_core(checks)
        print(f"lscd 1024 x 4096, N=16, {name:12} {rate:.2e} thread-instructions/s and core (bar 1e9 with every check)")
    for arch, rate in exact_products().items():
        print(f"mma.m16n8k16 f16, f32 sums, {arch}: {rate:.2e} exact products/s and core (bar 1e6)")
    for name in ("lscd", "bitmap"):
        seconds, count = translation(name)
        print(f"translation of {name}: {seconds:.2f} s of CPU for {count} PTX instructions")
    found = layer(4096, 4096, 16, every)
    print(f"lscd 4096 x 4096, N=16, 80%: {found['wall']:.2f} s wall (bar 30 s), execute {found['execute']:.2f} s")
    dense = numpy_seconds(4096, 4096, 16)
    print(f"  plain NumPy, dense f32: {dense:.4f} s, {found['execute'] / dense:.0f} times as fast")
    if large:
        found = layer(49152, 12288, 16, every)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"lscd 49152 x 12288, N=16, 80%: {found['wall']:.2f} s wall (bar 15 s), execute {found['execute']:.2f} s")
        print(f"  peak memory of this process, encoding included: {peak:.1f} GB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main("--large" in sys.argv))
