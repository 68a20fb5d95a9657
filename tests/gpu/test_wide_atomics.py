"""Atomics on vectors and on 128 bits, and moves of vector registers."""

import numpy as np
import pytest
from ptx_text import run

from loadsparse.gpu import compiler, simulator
from loadsparse.gpu.simulator.program import PtxError

CUDA = r"""
struct alignas(16) Pair { unsigned long long a, b; };
extern "C" __global__ void sums(float2 *two, float4 *four) {
    atomicAdd(two, make_float2(threadIdx.x, 1));
    float4 old = atomicAdd(four + 1 + threadIdx.x % 2, make_float4(1, 2, 3, threadIdx.x));
    if (threadIdx.x == 0) two[1] = make_float2(old.x, old.w);
}
extern "C" __global__ void swaps(Pair *p) {
    Pair mine = {threadIdx.x, 100 + threadIdx.x}, first = {7, 8};
    Pair old = atomicCAS(p, first, mine);
    if (old.a == 7) p[1] = mine;
    if (threadIdx.x == 5) p[3] = atomicExch(p + 2, mine);
}
"""


def test_cuda():
    loaded = simulator.load(compiler.cuda(CUDA, "sm_90"), "sm_90")
    two, four = np.full((2, 2), 5, np.float32), np.zeros((3, 4), np.float32)
    assert loaded["sums"].launch(1, 32, two, four).ok
    np.testing.assert_array_equal(two, [[5 + 496, 37], [0, 0]])
    np.testing.assert_array_equal(four, [[0] * 4, [16, 32, 48, 240], [16, 32, 48, 256]])
    pairs = np.array([[7, 8], [0, 0], [3, 4], [0, 0]], np.uint64)
    assert loaded["swaps"].launch(1, 32, pairs).ok
    np.testing.assert_array_equal(pairs, [[0, 100], [0, 100], [5, 105], [3, 4]])


def test_a_swap_of_128_bits_compares_all_of_them():
    body = """
.reg .b128 want, mine, was; mov.u64 %rd1, 7; mov.u64 %rd2, 9; mov.b128 want, {%rd1, %rd2}; mov.b128 mine, {%rd2, %rd2};
atom.global.cas.b128 was, [%rd0], want, mine; mov.b128 {%rd3, %rd4}, was; st.global.v2.u64 [%rd0+16], {%rd3, %rd4};
"""
    data = np.array([7, 8, 0, 0], np.uint64)
    assert run(body, data, block=1).ok
    assert data.tolist() == [7, 8, 7, 8]


def test_vector_registers():
    body = """
.reg .v4 .b32 v, w; mov.u32 %r1, 1; mov.u32 %r2, 2; mov.v4.b32 v, {%r1, %r2, %r2, %r1};
mov.v4.b32 w, v; add.u32 w.z, w.z, v.y; st.global.v4.b32 [%rd0], w;
"""
    data = np.zeros(4, np.uint32)
    assert run(body, data, block=1).ok
    assert data.tolist() == [1, 2, 4, 1]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("atom.shared.add.v2.f32 {%f1, %f2}, [%r1], {%f3, %f4};", "vectors in global memory"),
        (".reg .b128 a; atom.global.add.b128 a, [%rd1], a;", "does not combine .b128"),
        (".reg .v4 .f32 v<4>;", "family of vectors"),
        ("mov.v4.b32 {%r1, %r2, %r3, %r4}, {%r1, %r2};", "one of its length"),
        ("mov.b128 {%r1, %r2}, {%r3, %r4};", "wants 64 bits"),
    ],
)
def test_refused(body, reason):
    with pytest.raises(PtxError, match=reason):
        run(body)
