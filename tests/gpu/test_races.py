"""Races in global memory: planted ones are found with both lines, clean twins are silent, in both engines."""

import re
from pathlib import Path

import numpy as np
import pytest

from loadsparse.gpu import compiler, simulator
from loadsparse.gpu.simulator.engine import watch

SOURCE = (Path(__file__).parent / "races.cu").read_text()
ARCH = "sm_80"
GRID, BLOCK = 3, 64
KERNELS = {m[1]: m[2] for m in re.finditer(r"^KERNEL (\w+)\((.*?)\)", SOURCE, re.MULTILINE)}


def lines(name):
    """Source lines of a kernel that are marked, BUG first."""
    text = SOURCE.splitlines()
    start = next(n for n, line in enumerate(text) if line.startswith(f"KERNEL {name}("))
    stop = next(n for n in range(start, len(text)) if text[n] == "}")
    return [{n + 1 for n in range(start, stop) if mark in text[n]} for mark in ("// BUG", "// OTHER")]


@pytest.fixture(scope="module")
def ptx():
    return compiler.cuda(SOURCE, ARCH)


def launched(ptx, name, engine, **options):
    """(report, arrays) of one kernel, on a module whose variables are fresh."""
    arrays = [np.arange(2048, dtype=np.float32 if "float" in p else np.int32) for p in KERNELS[name].split(",")]
    for array, parameter in zip(arrays, KERNELS[name].split(","), strict=True):
        if "const" not in parameter and "float" not in parameter:
            array[:] = 0
    report = simulator.load(ptx, ARCH)[name].launch(GRID, BLOCK, *arrays, engine=engine, budget=2_000_000, **options)
    return report, arrays


@pytest.mark.claim(
    id="global-races",
    phrase="races in global memory are found, over the whole grid, with both lines and both threads; clean twins are silent",
    source="loadsparse, design",
    status="proved",
    assumption="planted races and random straight-line programs, which a brute-force oracle of the whole partial order judges",
    function="loadsparse.gpu.simulator.load",
)
@pytest.mark.parametrize("name", KERNELS)
def test_global_races(ptx, name):
    slow, expected = launched(ptx, name, "interpreter")
    fast, got = launched(ptx, name, "llvm")
    assert sorted(map(str, fast.hazards)) == sorted(map(str, slow.hazards))
    assert fast.metrics == slow.metrics
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    bug, other = lines(name)
    if not bug:
        assert slow.ok, slow
        return
    assert {hazard.kind for hazard in slow.hazards} == {"race"}, slow
    found = {line for hazard in slow.hazards for line in (hazard.source_line, hazard.other_source_line)}
    assert found == bug | other, slow
    for hazard in slow.hazards:
        assert hazard.other_thread is not None
        assert (hazard.block, hazard.thread) != (hazard.other_block, hazard.other_thread) or name == "stale"


@pytest.mark.parametrize("name", [name for name in KERNELS if not lines(name)[0]])
def test_clean_twins_are_silent_in_other_orders(ptx, name):
    for seed in (1, 2):
        report, _ = launched(ptx, name, "interpreter", schedule="adversarial", seed=seed)
        assert report.ok, report


def test_there_are_enough_planted_races():
    assert sum(bool(lines(name)[0]) for name in KERNELS) >= 25
    assert sum(not lines(name)[0] for name in KERNELS) >= 15


SMOOTH = """
#include <cooperative_groups.h>
extern "C" __global__ void smooth(const float *x, float *a, float *b, int n, int steps) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    a[i] = x[i];
    for (int s = 0; s < steps; ++s) {
        cooperative_groups::this_grid().sync();
        b[i] = 0.5f * a[i] + 0.25f * (a[(i + 1) % n] + a[(i + n - 1) % n]);
        float *t = a; a = b; b = t;
    }
}
"""


def test_a_kernel_that_synchronises_the_grid_often_needs_little_history(monkeypatch):
    kept, restore = [], watch.Watch.restore

    def measured(self):
        kept.append(sum(chunk.nbytes for chunk in self.chunks))
        restore(self)

    monkeypatch.setattr(watch.Watch, "restore", measured)
    n, steps = 512, 40
    x = np.random.default_rng(0).random(n).astype(np.float32)
    a, b = np.zeros_like(x), np.zeros_like(x)
    (kernel,) = simulator.load(compiler.cuda(SMOOTH, ARCH), ARCH).values()
    report = kernel.launch(n // 64, 64, x, a, b, np.int32(n), np.int32(steps), engine="llvm")
    assert report.ok, report
    y = x
    for _ in range(steps):
        y = np.float32(0.5) * y + np.float32(0.25) * (np.roll(y, -1) + np.roll(y, 1))
    np.testing.assert_array_equal(a, y)
    assert kept
    assert (
        max(kept) <= 2 * watch.CHUNK
    )  # views that say the same are shared: what is known, not how often it was learnt
