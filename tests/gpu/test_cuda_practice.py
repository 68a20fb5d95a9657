"""CUDA C++ in the manner of practitioners: the patterns of samples, libraries and textbooks, in both engines."""

import numpy as np
import pytest
from ptx_text import entry
from two_engines import both

from loadsparse.gpu import compiler, simulator
from loadsparse.gpu.simulator.parser import parse

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


def test_groups_of_a_partial_warp_part_at_a_rendezvous():
    """Sixteen lanes come to the shuffle together and leave it as groups of eight: none of them starts anew."""
    source = """(int* count, int* o) {
  int t = threadIdx.x;
  atomicAdd(count, 1);
  o[t] = __shfl_up_sync(0xffu << (t & 24), t, 1, 8);
}"""
    arrays, report = both(K + source, zeros(1), zeros(16), block=16)
    assert report.ok, report
    assert arrays[0].tolist() == [16]
    assert arrays[1].tolist() == [t - (t % 8 > 0) for t in range(16)]


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


SWAPS = {
    "double addition, as in the programming guide": """(unsigned long long* a, double* o) {
  unsigned long long old = *a, assumed;
  do { assumed = old;
       old = atomicCAS(a, assumed, __double_as_longlong(threadIdx.x + __longlong_as_double(assumed))); } while (assumed != old);
}""",
    "in shared memory": """(unsigned long long* a, double* o) {
  __shared__ unsigned s; if (threadIdx.x == 0) s = 0;
  __syncthreads();
  unsigned old = s, assumed;
  do { assumed = old; old = atomicCAS(&s, assumed, assumed + threadIdx.x); } while (assumed != old);
  __syncthreads();
  if (threadIdx.x == 0) *a = __double_as_longlong(s);
}""",
}


def test_the_address_of_a_swap_may_be_counted_in_another_register():
    """atomicAdd of bfloat16 before sm_90: the load names rd + 4, the swap of the word another register that holds it."""
    source = """(__nv_bfloat16* a) { atomicAdd(a + 2, __float2bfloat16(1.0f)); }"""
    arrays, report = both("#include <cuda_bf16.h>\n" + K + source, zeros(4, np.uint16), block=64)
    assert report.ok, report
    assert arrays[0].tolist() == [0, 0, 0x4280, 0]


CIRCLES = {
    "a register that counts itself": "add.u64 %rd1, %rd1, 4;",
    "two registers that count each other": "add.u64 %rd1, %rd2, 4; add.u64 %rd2, %rd1, 4;",
}


@pytest.mark.parametrize("name", CIRCLES)
def test_registers_counted_from_themselves_do_not_hang_the_parser(name):
    swap = "ld.global.u32 %r1, [%rd1]; atom.global.cas.b32 %r2, [%rd1], %r1, 7;"
    assert set(simulator.load(entry(CIRCLES[name] + swap))) == {"k"}


def relaxed(body):
    (kernel,) = parse(entry(body, ".param .u64 p")).kernels.values()
    return ["relaxed" in i.modifiers for i in kernel.instructions if i.name == "ld" and "param" not in i.modifiers]


def test_only_the_load_at_the_address_of_the_swap_is_relaxed():
    swap = "atom.global.cas.b32 %r2, [%rd2+4], %r1, 7;"
    start = "ld.param.u64 %rd1, [p]; add.u64 %rd2, %rd1, 4;"
    assert relaxed(start + "ld.global.u32 %r1, [%rd1+8];" + swap) == [True]
    assert relaxed(start + "ld.global.u32 %r1, [%rd1+4];" + swap) == [False]
    again = "ld.global.v2.u64 {%rd2, %rd3}, [%rd1];"  # %rd2 is no longer %rd1 + 4
    assert relaxed(start + again + "ld.global.u32 %r1, [%rd1+8];" + swap)[-1] is False


@pytest.mark.parametrize("name", SWAPS)
def test_the_plain_first_read_of_a_swap_loop_is_no_race(name):
    arrays, report = both(K + SWAPS[name], zeros(1, np.float64), zeros(1, np.float64), block=64)
    assert report.ok, report
    assert arrays[0].tolist() == [64 * 63 / 2]


def test_what_nvcc_provides_by_itself():
    """INFINITY, NAN, M_PI, __int128 and the standard headers for types and limits."""
    source = (
        "#include <cfloat>\n#include <limits.h>\n#include <limits>\n#include <type_traits>\n#include <cuda.h>\n"
        + K
        + """(float* o, unsigned __int128* p) {
  static_assert(CUDA_VERSION >= 12000 && std::is_same<int, int>::value, "");
  o[0] = -INFINITY; o[1] = NAN; o[2] = M_PI; o[3] = FLT_MAX; o[4] = INT_MAX; o[5] = std::numeric_limits<float>::min(); p[0] *= 3;
}"""
    )
    arrays, report = both(source, zeros(6, np.float32), np.array([5, 1], np.uint64), block=1)
    assert report.ok, report
    limits = np.finfo(np.float32)
    np.testing.assert_array_equal(
        arrays[0], np.float32([-np.inf, np.nan, np.pi, limits.max, 2**31 - 1, limits.smallest_normal])
    )
    assert arrays[1].tolist() == [15, 3]


BUGS = {
    "in a function that was inlined": (
        "race",
        """
__device__ void put(int* s, int t) {
  s[t] = t;
}
__device__ int get(const int* s, int t) {
  return s[63 - t];  // BUG
}
extern "C" __global__ void k(int* o) {
  __shared__ int s[64];
  put(s, threadIdx.x);
  o[threadIdx.x] = get(s, threadIdx.x);
}""",
    ),
    "written again after bar.arrive has handed it over": (
        "race",
        """
extern "C" __global__ void k(int* o) {
  __shared__ int s[32]; int t = threadIdx.x;
  if (t < 32) {
    s[t] = t;
    asm volatile("bar.arrive 1, 64;" ::: "memory");
    s[t] = 2 * t;  // BUG
  } else {
    asm volatile("bar.sync 1, 64;" ::: "memory");
    o[t - 32] = s[t - 32];
  }
}""",
    ),
    "a product of matrices after half of the warp has left": (
        "convergence",
        """
extern "C" __global__ void k(float* o) {
  float d[4] = {1, 2, 3, 4}; unsigned a = threadIdx.x * 77;
  if (threadIdx.x % 32 >= 16) return;
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %4}, {%4}, {%0, %1, %2, %3};"  // BUG
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a));
  o[threadIdx.x] = d[0] + d[3];
}""",
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_bugs_are_found_at_their_line(name):
    kind, source = BUGS[name]
    line = next(number for number, text in enumerate(source.splitlines(), 1) if "BUG" in text)
    _, report = both(source, zeros(64), block=64)
    assert [f for f in report.hazards if f.kind == kind and line in (f.source_line, f.other_source_line)], report


MIXED = """(int* o) {
  int n = 0;
  if (threadIdx.x < 32) n = __syncthreads_count(threadIdx.x < 5);
  else
    WHERE
  o[threadIdx.x] = n;
}"""


@pytest.mark.parametrize(
    ("where", "kinds"),
    [
        ("__syncthreads();", {"convergence"}),
        ('asm volatile("bar.arrive 0, 64;");', {"convergence"}),
        ("n = __syncthreads_count(1);", set()),
    ],
)
def test_reductions_meet_only_reductions_at_a_barrier(where, kinds):
    source = K + MIXED.replace("WHERE", where)
    _, report = both(source, zeros(64), block=64)
    assert {hazard.kind for hazard in report.hazards} == kinds, report
    for hazard in report.hazards:
        assert "bar.red meets bar.sync" in hazard.message
        assert (hazard.thread, hazard.source_line) == ((32, 0, 0), 5)
    ptx = compiler.cuda(source)
    assert simulator.load(ptx)["k"].launch(1, 64, zeros(64), checks=simulator.Checks.none()).ok
