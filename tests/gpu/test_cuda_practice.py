"""CUDA C++ in the manner of practitioners: the patterns of samples, libraries and textbooks, in both engines."""

import numpy as np
import pytest
from two_engines import both

K = 'extern "C" __global__ void k'


def zeros(n, dtype=np.int32):
    return np.zeros(n, dtype)


SPINS = {
    "a lane waits for another of its warp": (
        """(volatile int* f, int* o) {
  if (threadIdx.x > 0) { while (f[0] == 0); o[threadIdx.x] = 1; } else { __threadfence(); f[0] = 1; }
}""",
        [0] + 31 * [1],
        1,
        32,
    ),
    "lanes of a warp take a lock by turns": (
        """(int* lock, int* c) {
  while (atomicCAS(lock, 0, 1) != 0);
  __threadfence(); *(volatile int*)c = *(volatile int*)c + 1; __threadfence();
  atomicExch(lock, 0);
}""",
        [3],
        1,
        3,
    ),
    "the first thread of each block spins on a flag, the others wait at a barrier.sync": (
        """(int* arrived, int* o) {
  asm volatile("barrier.sync 0;");
  if (threadIdx.x == 0) { __threadfence(); atomicAdd(arrived, 1); while (atomicAdd(arrived, 0) < gridDim.x); __threadfence(); }
  asm volatile("barrier.sync 0;");
  o[blockIdx.x * blockDim.x + threadIdx.x] = 7;
}""",
        64 * [7],
        2,
        32,
    ),
}


@pytest.mark.parametrize("name", SPINS)
def test_lanes_that_spin_stand_back_in_both_engines(name):
    source, expected, grid, block = SPINS[name]
    arrays, report = both(K + source, zeros(1), zeros(len(expected)), grid=grid, block=block)
    assert report.ok, report
    assert arrays[1].tolist() == expected


def test_128_bit_division():
    """NVIDIA's expansion reads the carry of a subtraction with addc."""
    low, high, by = np.random.default_rng(0).integers(1, 2**63, (3, 32)).astype(np.uint64)
    high[:4], low[:4] = 0, [5, 10**9, 3 * 10**9, 2**62]
    source = """(const unsigned long long* l, const unsigned long long* h, const unsigned long long* b, unsigned long long* o) {
  int i = threadIdx.x;
  unsigned __int128 p = ((unsigned __int128)h[i] << 64) | l[i];
  o[i] = p % 1000000007u; o[32 + i] = p / b[i]; o[64 + i] = (p / 7) >> 64;
}"""
    arrays, report = both(K + source, low, high, by, zeros(96, np.uint64), options=("--device-int128",))
    wide = [(int(h) << 64) + int(b) for h, b in zip(high, low, strict=True)]
    expected = [p % 1000000007 for p in wide] + [p // int(d) % 2**64 for p, d in zip(wide, by, strict=True)]
    assert report.ok, report
    assert arrays[3].tolist() == expected + [p // 7 >> 64 for p in wide]
