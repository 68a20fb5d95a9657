"""CUDA C++ as people write it, through NVRTC: right against NumPy, and bit for bit, count for count in both engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from two_engines import both

from loadsparse.gpu import compiler, simulator

K = 'extern "C" __global__ void k'
CG = "#include <cooperative_groups/reduce.h>\nnamespace cg = cooperative_groups;\n"
MMA = "#include <mma.h>\nusing namespace nvcuda;\n"
RNG = np.random.default_rng


def floats(n, seed=0):
    return RNG(seed).standard_normal(n).astype(np.float32)


def integers(n, low=-1000, high=1000, seed=0):
    return RNG(seed).integers(low, high, n).astype(np.int32)


@dataclass(frozen=True)
class Program:
    """A kernel, its arguments (the last array is the result), and what NumPy says the result is."""

    source: str
    arguments: tuple
    expected: Callable[..., np.ndarray]
    grid: int = 1
    block: int = 32
    native: bool = True


def _wmma(shape, kind, total):
    m, n, k = shape
    return f"""{MMA}#include <cuda_fp16.h>
{K}(const {kind}* a_, const {kind}* b_, const {total}* c_, {total}* d_) {{
  wmma::fragment<wmma::matrix_a, {m}, {n}, {k}, {kind}, wmma::row_major> a;
  wmma::fragment<wmma::matrix_b, {m}, {n}, {k}, {kind}, wmma::col_major> b;
  wmma::fragment<wmma::accumulator, {m}, {n}, {k}, {total}> c;
  wmma::load_matrix_sync(a, a_, {k}); wmma::load_matrix_sync(b, b_, {k});
  wmma::load_matrix_sync(c, c_, {n}, wmma::mem_row_major);
  wmma::mma_sync(c, a, b, c);
  wmma::store_matrix_sync(d_, c, {n}, wmma::mem_row_major);
}}"""


def _product(m, n, k):
    def expected(a, b, c, d):
        wide = a.reshape(m, k).astype(np.float64) @ b.reshape(n, k).astype(np.float64).T
        return (wide + c.reshape(m, n)).astype(d.dtype).reshape(-1)

    return expected


def _small(n, dtype, seed):
    return RNG(seed).integers(-8, 9, n).astype(dtype)


def _wmma_program(shape, kind, dtype, total, result):
    m, n, k = shape
    sizes = ((m * k, dtype, 1), (n * k, dtype, 2), (m * n, result, 3))
    arguments = (*(_small(*s) for s in sizes), np.zeros(m * n, result))
    return Program(_wmma(shape, kind, total), arguments, _product(m, n, k))


PROGRAMS = {
    "wmma f16 to f32": _wmma_program((16, 16, 16), "half", np.float16, "float", np.float32),
    "wmma f16 to f16, 32 x 8": _wmma_program((32, 8, 16), "half", np.float16, "half", np.float16),
    "wmma s8, 8 x 32": _wmma_program((8, 32, 16), "signed char", np.int8, "int", np.int32),
    "wmma tf32": Program(
        _wmma((16, 16, 8), "wmma::precision::tf32", "float").replace("const wmma::precision::tf32*", "const float*"),
        (_small(128, np.float32, 1), _small(128, np.float32, 2), _small(256, np.float32, 3), np.zeros(256, np.float32)),
        _product(16, 16, 8),
        native=False,
    ),
    "packed integers": Program(
        K + "(unsigned* a, unsigned* b, unsigned* c) { int t = threadIdx.x; unsigned x = a[t], y = b[t];"
        "c[t] = __vsadu4(x, y) + __vabsdiffu4(x, y) + __vmaxs2(x, y) + __vadd2(x, y) + __vminu2(x, y); }",
        (*(RNG(n).integers(0, 2**32, 32).astype(np.uint32) for n in (1, 2)), np.zeros(32, np.uint32)),
        lambda a, b, c: (
            lambda d, h, k: d.sum(1) + _word(d, np.uint8) + _word(np.maximum(h, k), np.int16) + _word(h + k, np.int16)
            + _word(np.minimum(h.view(np.uint16), k.view(np.uint16)), np.uint16)
        )(
            np.abs(a.view(np.uint8).astype(np.int64) - b.view(np.uint8)).reshape(32, 4),
            a.view(np.int16), b.view(np.int16),
        ).astype(np.uint32),
    ),
    "half2": Program(
        "#include <cuda_fp16.h>\n" + K + "(half2* a, half2* b, half2* c) { int t = threadIdx.x; half2 x = a[t], y = b[t];"
        "half2 r = __hfma2(x, y, __hadd2(x, y)); if (__hbgt2(x, y)) r = __hneg2(r);"
        "c[t] = __hadd2(__hmax2(r, y), __hgt2(x, y)); }",
        (_small(64, np.float16, 1), _small(64, np.float16, 2), np.zeros(64, np.float16)),
        lambda a, b, c: (
            lambda r: np.maximum(np.where(np.repeat((a > b).reshape(-1, 2).all(1), 2), -r, r), b) + (a > b)
        )(a * b + (a + b)),
    ),
    "cooperative groups": Program(
        CG + K + "(int* a, int* c) { auto w = cg::tiled_partition<32>(cg::this_thread_block());"
        "auto q = cg::tiled_partition<8>(w); int x = a[threadIdx.x];"
        "c[threadIdx.x] = cg::reduce(w, x, cg::plus<int>()) + cg::reduce(q, x, cg::greater<int>()) + w.shfl_xor(x, 5); }",
        (integers(64), np.zeros(64, np.int32)),
        lambda a, c: np.repeat(a.reshape(2, 32).sum(1), 32) + np.repeat(a.reshape(8, 8).max(1), 8)
        + a.reshape(2, 32)[:, np.arange(32) ^ 5].reshape(-1),
        block=64,
    ),
    "a block barrier in a divergent warp": Program(
        K + "(int* a, int* c) { __shared__ int s[64]; int t = threadIdx.x;"
        "if (t >= 60) return; if (t % 3 == 0) { s[t] = a[t]; asm volatile(\"barrier.sync 0;\" ::: \"memory\"); }"
        "else { s[t] = -a[t]; asm volatile(\"barrier.sync 0;\" ::: \"memory\"); } __syncthreads(); c[t] = s[59 - t]; }",
        (integers(64), np.zeros(64, np.int32)),
        lambda a, c: np.concatenate([np.where(np.arange(60) % 3 == 0, a[:60], -a[:60])[::-1], [0] * 4]),
        block=64,
    ),
    "asynchronous pipeline": Program(
        "#include <cuda_pipeline.h>\n" + K + "(int* a, int* c) { __shared__ int s[2][64]; int t = threadIdx.x, sum = 0;"
        "__pipeline_memcpy_async(&s[0][t], &a[t], 4); __pipeline_commit();"
        "for (int i = 0; i < 4; i++) { if (i < 3) __pipeline_memcpy_async(&s[(i + 1) & 1][t], &a[64 * (i + 1) + t], 4);"
        "__pipeline_commit(); __pipeline_wait_prior(1); __syncthreads(); sum += s[i & 1][63 - t] * (i + 1);"
        "__syncthreads(); } c[t] = sum; }",
        (integers(256), np.zeros(64, np.int32)),
        lambda a, c: (a.reshape(4, 64)[:, ::-1] * np.arange(1, 5)[:, None]).sum(0),
        block=64,
    ),
    "decoupled look-back": Program(
        K + "(int* a, int* flag, volatile int* c) { int b = blockIdx.x; if (threadIdx.x == 0) { int v = a[b];"
        "if (b > 0) { while (atomicAdd(&flag[b - 1], 0) == 0); __threadfence(); v += c[b - 1]; }"
        "c[b] = v; __threadfence(); atomicExch(&flag[b], 1); } }",
        (integers(8), np.zeros(8, np.int32), np.zeros(8, np.int32)),
        lambda a, flag, c: np.cumsum(a),
        grid=8,
    ),
    "warp match and reduce": Program(
        K + "(int* a, int* c) { int x = a[threadIdx.x]; c[threadIdx.x] = __popc(__match_any_sync(-1, x & 3)) * 1000"
        "+ (int)__reduce_max_sync(-1, (unsigned)(x & 255)) + __shfl_up_sync(-1, x, 1); }",
        (integers(32), np.zeros(32, np.int32)),
        lambda a, c: np.bincount(a & 3)[a & 3] * 1000 + (a & 255).max() + np.concatenate([a[:1], a[:-1]]),
    ),
    "constant memory, __ldg, vectors": Program(
        "__constant__ int tab[32] = {5, 4, 3, 2, 1}; __device__ int g[4] = {9, 8, 7, 6};\n" + K
        + "(const int4* __restrict__ a, int4* c) { int t = threadIdx.x; int4 v = __ldg(a + t);"
        "v.x += tab[t]; v.w += g[t & 3] + __ldcs(&a[t].y); c[t] = v; }",
        (integers(128), np.zeros(128, np.int32)),
        lambda a, c: (
            lambda v: np.stack(
                [v[:, 0] + np.r_[[5, 4, 3, 2, 1], [0] * 27], v[:, 1], v[:, 2],
                 v[:, 3] + np.tile([9, 8, 7, 6], 8) + v[:, 1]], 1
            )
        )(a.reshape(32, 4)).reshape(-1),
    ),
    "bit fields and dot products": Program(
        K + "(unsigned* a, int* b, unsigned* c) { int t = threadIdx.x; unsigned x = a[t];"
        "c[t] = __funnelshift_l(x, b[t], t) + __brev(x) + __clz(x) + __popc(x) + __ffs(x) + __byte_perm(x, b[t], 0x5410)"
        "+ __umulhi(x, b[t]) + ((x >> 5) & 0x7f); }",
        (integers(32, 1).view(np.uint32) * np.uint32(2654435761), integers(32, 1, 9), np.zeros(32, np.uint32)),
        lambda a, b, c: np.array([_bits(int(x), int(y), t) for t, (x, y) in enumerate(zip(a, b, strict=True))], np.uint64)
        .astype(np.uint32),
    ),
    "directed rounding": Program(
        "#include <cuda_fp16.h>\n" + K + "(long long* a, double* c) { int t = threadIdx.x; c[t] = __ll2double_ru(a[t])"
        "- __ll2double_rd(a[t]) + __ll2float_rz(a[t]) * 0.0 + __half2float(__ushort2half_rd(t)) * 0.0; }",
        (RNG(0).integers(2**60, 2**62, 32) | 1, np.zeros(32)),
        lambda a, c: np.spacing(a.astype(np.float64) * (1 - 2.0**-53)),
    ),
    "clocks and sleeping": Program(
        K + "(int* c) { long long a = clock64(); int b = clock(); __nanosleep(100); c[threadIdx.x] = (clock64() > a) + b * 0; }",
        (np.zeros(32, np.int32),),
        lambda c: np.ones(32),
    ),
    "switch, loops, early exits": Program(
        K + "(int* a, int* c) { int t = threadIdx.x, x = a[t] & 7, r; switch (x) { case 0: r = 3; break; case 1: r = 7; break;"
        "case 2: r = t; break; case 3: r = x ^ t; break; case 4: r = 99; break; case 5: return; default: r = -x; }"
        "while (r > 5 && r < 90) { if (r & 1) { r = r * 3 + 1; if (r > 80) break; continue; } r >>= 1; } c[t] = r; }",
        (integers(32), np.full(32, -77, np.int32)),
        lambda a, c: np.array([_walk(int(x) & 7, t) for t, x in enumerate(a)]),
    ),
    "functions that are not inlined": Program(
        "struct R { float x, y[3]; }; __device__ __noinline__ R mk(float a, const R& b) { R r; r.x = a + b.x;"
        "for (int i = 0; i < 3; i++) r.y[i] = b.y[i] * a; return r; }\n" + K
        + "(float* a, float* c) { R r{1, {2, 3, 4}}; for (int i = 0; i < 3; i++) r = mk(a[threadIdx.x], r);"
        "c[threadIdx.x] = r.x + r.y[1]; }",
        (_small(32, np.float32, 1), np.zeros(32, np.float32)),
        lambda a, c: 3 * a + 1 + 3 * a**3,
        native=False,
    ),
    "function pointers": Program(
        "typedef float (*Op)(float, float); __device__ float plus(float a, float b) { return a + b; }\n"
        "__device__ float times(float a, float b) { return a * b; }\n__device__ Op table[2] = {plus, times};\n" + K
        + "(float* a, int* which, float* c) { c[threadIdx.x] = table[which[threadIdx.x]](a[threadIdx.x], 3); }",
        (_small(32, np.float32, 1), integers(32, 0, 2), np.zeros(32, np.float32)),
        lambda a, which, c: np.where(which, a * 3, a + 3),
        native=False,
    ),
    "virtual functions": Program(
        "struct S { float w; __device__ S(float w) : w(w) {} __device__ virtual float area() const = 0;"
        "__device__ virtual float both(const S& o) const { return area() + o.area(); } };\n"
        "struct Square : S { __device__ Square(float w) : S(w) {} __device__ float area() const override { return w * w; } };\n"
        "struct Line : S { __device__ Line(float w) : S(w) {} __device__ float area() const override { return 5; } };\n" + K
        + "(float* a, int n, float* c) { int t = threadIdx.x; Square s(a[t]); Line l(a[t]);"
        "S *p = t % n ? (S*)&s : (S*)&l, *q = t % 2 ? (S*)&s : (S*)&l; c[t] = p->both(*q); }",
        (_small(32, np.float32, 1), 3, np.zeros(32, np.float32)),
        lambda a, n, c: sum(np.where(np.arange(32) % m, a * a, np.float32(5)) for m in (n, 2)),
        native=False,
    ),
    "recursion": Program(
        "__device__ __noinline__ int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }\n"
        "__device__ __noinline__ void sum(int n, int* up) { int mine[2] = {n, *up}; if (n) sum(n - 1, mine + 1);"
        "*up = mine[0] + mine[1]; }  // each depth has its own frame\n" + K
        + "(int* a, int* c) { int n = a[threadIdx.x], s = 0; sum(n, &s); c[threadIdx.x] = 1000 * fib(n) + s; }",
        (integers(32, 0, 10), np.zeros(32, np.int32)),
        lambda a, c: 1000 * np.array([0, 1, 1, 2, 3, 5, 8, 13, 21, 34])[a] + a * (a + 1) // 2,
        native=False,
    ),
    "wmma f64": Program(
        _wmma((8, 8, 4), "double", "double"),
        (_small(32, np.float64, 1), _small(32, np.float64, 2), _small(64, np.float64, 3), np.zeros(64)),
        _product(8, 8, 4),
        native=False,
    ),
    "8-bit floats": Program(
        "#include <cuda_fp8.h>\n" + K
        + "(float* a, float* c) { int t = threadIdx.x; float4 v = make_float4(a[t], 2 * a[t], 300, -a[t]);"
        "__nv_fp8x4_e4m3 q(v); float4 w(q); __nv_fp8_e5m2 r(a[t]); c[t] = w.x + w.y + w.z + w.w + float(r); }",
        (_small(32, np.float32, 1), np.zeros(32, np.float32)),
        lambda a, c: 3 * a + 288,  # 300 lies between 288 and 320
    ),
    "printf": Program(
        "#include <cstdio>\n" + K + '(int* c) { if (threadIdx.x < 2) printf("%d %5.2f %s %c\\n", threadIdx.x, 1.5, "hi", 65);'
        'c[threadIdx.x] = threadIdx.x == 2 ? printf("%s %*d\\n", (char*)0, 3, 7) : 1; }',
        (np.zeros(32, np.int32),),
        lambda c: np.where(np.arange(32) == 2, 3, 1),
        native=False,
    ),
    "atomics of every width": Program(
        K + "(int* out) { __shared__ int i[4]; __shared__ unsigned long long l[2]; __shared__ float f; int t = threadIdx.x;"
        "if (t < 4) i[t] = 0; if (t < 2) l[t] = 0; if (t == 0) f = 0; __syncthreads(); atomicAdd(i, t); atomicMax(i + 1, t);"
        "atomicXor(i + 2, t * 3); atomicInc((unsigned*)i + 3, 4); atomicAdd(l, 1ull << 40); atomicMax(l + 1, 7ull * t);"
        "atomicAdd(&f, 0.5f); __syncthreads(); if (t < 4) out[t] = i[t]; if (t < 2) out[4 + t] = (int)(l[t] >> (t ? 0 : 40));"
        "if (t == 0) out[6] = (int)f; }",
        (np.zeros(7, np.int32),),
        lambda out: np.array([496, 31, np.bitwise_xor.reduce(np.arange(32) * 3), 32 % 5, 32, 217, 16]),
    ),
    "128-bit integers": Program(
        K + "(unsigned long long* a, unsigned long long* c) { int t = threadIdx.x;"
        "unsigned __int128 x = (unsigned __int128)a[t] * a[31 - t] + a[t]; c[t] = (unsigned long long)(x >> 37); }",
        (RNG(3).integers(0, 2**62, 32).astype(np.uint64), np.zeros(32, np.uint64)),
        lambda a, c: np.array([(int(x) * int(y) + int(x)) >> 37 & (2**64 - 1) for x, y in zip(a, a[::-1], strict=True)],
                              np.uint64),
    ),
}  # fmt: skip


def _word(fields, dtype):
    """Fields packed into 32-bit words."""
    return np.ascontiguousarray(fields.astype(dtype)).reshape(-1).view(np.uint32).astype(np.int64)


def _bits(x, y, t):
    """Sum of the operations of "bit fields and dot products"."""
    top, low = y, x
    shifted = ((top << 32 | low) << t >> 32) & 0xFFFFFFFF
    reverse = int(f"{x:032b}"[::-1], 2)
    return (
        shifted + reverse + (32 - x.bit_length()) + x.bit_count() + (x & -x).bit_length()
        + (x & 0xFFFF | (y & 0xFFFF) << 16) + (x * y >> 32) + (x >> 5 & 0x7F)
    ) & 0xFFFFFFFF  # fmt: skip


def _walk(x, t):
    if x == 5:
        return -77
    r = {0: 3, 1: 7, 2: t, 3: x ^ t, 4: 99}.get(x, -x)
    while 5 < r < 90:
        if r & 1:
            r = r * 3 + 1
            if r > 80:
                break
        else:
            r >>= 1
    return r


ON_SM_89 = ("wmma bf16", "half2", "8-bit floats", "functions that are not inlined")
"""What differs on sm_89, and a little of what does not."""
LEFT_OUT = {
    ("8-bit floats", "sm_80"),  # which has no instructions for them
    ("cooperative groups", "sm_90"),  # whose headers take NVRTC seconds
}
CASES = [
    (name, arch)
    for name in PROGRAMS
    for arch in ("sm_80", "sm_89", "sm_90")
    if (name, arch) not in LEFT_OUT and (arch != "sm_89" or name.startswith(ON_SM_89))
]


@pytest.mark.parametrize(("name", "arch"), CASES)
def test_programs(name, arch):
    p = PROGRAMS[name]
    options = ("--device-int128",) if "128-bit" in name else ()
    arrays, report = both(
        p.source, *p.arguments, arch=arch, grid=p.grid, block=p.block, options=options, native=p.native
    )
    assert report.ok, report
    np.testing.assert_array_equal(arrays[-1], p.expected(*p.arguments))
    if name == "printf":
        assert report.printed == "0  1.50 hi A\n1  1.50 hi A\n(null)   7\n"


def test_recursion_that_is_too_deep_says_so():
    source = "__device__ __noinline__ int down(int n) { return n ? down(n - 1) * 3 + n : 1; }\n" + K
    source += "(int* c, int n) { c[threadIdx.x] = down(n); }"
    module = simulator.load(compiler.cuda(source, "sm_80"), "sm_80")
    c = np.zeros(32, np.int32)
    assert module["k"].launch(1, 32, c, 60).ok
    report = module["k"].launch(1, 32, c, 70)
    assert [hazard.kind for hazard in report.hazards] == ["trap"]
    assert "recursion deeper than 64 calls" in str(report.hazards[0])
    assert "kernel.cu:1" in str(report.hazards[0])


INTEGER_MMA = (
    K
    + """(int* a, int* d, int n) {
  __shared__ int s[32]; int t = threadIdx.x;
  if (t % n) s[t] = a[t];
  __syncthreads();
  int v[4] = {t, t, t, t}, x = s[t], y = a[32 + t];
  asm volatile("mma.sync.aligned.m16n8k16.row.col.satfinite.s32.s8.u8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
    : "+r"(v[0]), "+r"(v[1]), "+r"(v[2]), "+r"(v[3]) : "r"(x), "r"(y), "r"(y));
  for (int i = 0; i < 4; i++) d[4 * t + i] = v[i];
}"""
)
PARTIAL_WMMA = (
    MMA
    + "#include <cuda_fp16.h>\n"
    + K
    + """(half* a, float* d, int n) {
  __shared__ half s[256]; int t = threadIdx.x;
  for (int i = t; i < 256; i += blockDim.x) if (i % n) s[i] = a[i];
  __syncthreads();
  if (t / 32) return;
  wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> x;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major> y;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> c;
  wmma::fill_fragment(c, 1.f);
  wmma::load_matrix_sync(x, s, 16); wmma::load_matrix_sync(y, a, 16);
  wmma::mma_sync(c, x, y, c);
  wmma::store_matrix_sync(d, c, 16, wmma::mem_row_major);
}"""
)


@pytest.mark.parametrize("block", [32, 40, 20])
@pytest.mark.parametrize(("source", "inputs", "result"), [
    (INTEGER_MMA, RNG(0).integers(-(2**31), 2**31, 72).astype(np.int32), np.zeros(160, np.int32)),
    (PARTIAL_WMMA, RNG(0).standard_normal(256).astype(np.float16), np.zeros(256, np.float32)),
])  # fmt: skip
def test_undefined_elements_and_partial_warps(source, inputs, result, block):
    _, report = both(source, inputs, result, 7, block=block)
    assert any(finding.kind == "uninitialized" for finding in report.hazards)
