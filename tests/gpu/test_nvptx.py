"""llvmlite instead of NVIDIA's compiler: the same words from every kernel, the same lines, and names for what is missing."""

from __future__ import annotations

import math
import random
import re
from functools import partial

import numpy as np
import pytest
import shelf as maker
from numba import cuda, float32, int32, int64, uint32

from loadsparse.gpu import compiler, intrinsics, kernels, simulator
from loadsparse.gpu.kernels import router
from loadsparse.gpu.verify import experts, inputs

N = random.Random("llvmlite").sample([1, 4, 7, 8, 9, 16], 3)


@pytest.mark.parametrize("name", ["bitmap", "lscd", "dense", "sparta", "sputnik", "twofour", "adaptive"])
def test_a_kernel_compiled_both_ways_computes_the_same_words(name: str) -> None:
    kernel = kernels.get(name)
    n = N[len(name) % 3]
    case = inputs.random_case(n, shape=(96, n, 192))
    a = case.a.copy()
    if name == "twofour":
        a[:, 2::4] = a[:, 3::4] = 0
    assert maker.different(partial(kernel.plan, kernel.encode(a), case.b, maker.ARCH)) == ""


@pytest.mark.parametrize("name", kernels.GROUPED)
def test_so_do_the_grouped_kernels(name: str) -> None:
    grouped, dealt = kernels.get(name), experts.deal(inputs.random_case(3, shape=(130, 9, 96)), 0)
    plan = partial(grouped.plan, grouped.encode(dealt.a, dealt.dtype), dealt.b, dealt.counts, maker.ARCH)
    assert maker.different(plan) == ""


def test_what_differs_is_found() -> None:
    case = inputs.random_case(3, shape=(64, 8, 64))
    lscd = kernels.get("lscd")
    plans = iter([lscd.plan(lscd.encode(case.a), case.b), lscd.plan(lscd.encode(-case.a), case.b)])
    assert "same PTX" in maker.different(lambda: next(plans))
    other = compiler.numba(_nothing, "void(uint64, uint64, uint64, uint64, uint32, uint32, uint32)", name="lscd")
    launch = lscd.plan(lscd.encode(case.a), case.b, split_k=1)
    changed = type(launch)(
        **{**vars(launch), "steps": (type(launch.steps[0])(**{**vars(launch.steps[0]), "ptx": other}),)}
    )
    both = iter([launch, changed])
    assert "words differ" in maker.different(lambda: next(both))


def _nothing(a, b, c, d, m, n, k):
    pass


def test_the_router_too_but_for_the_exponential(monkeypatch) -> None:
    made = partial(router.compiled.__wrapped__.__wrapped__, 1, 2)
    rng = np.random.default_rng(4)
    x, bias = rng.standard_normal((9, 8)).astype(np.float32), rng.standard_normal(8)
    expected, _ = router.route(x, bias, 2, rate=0.1)
    monkeypatch.setattr(compiler, "default_backend", lambda: "llvmlite")
    monkeypatch.setattr(router, "compiled", lambda per_lane, k, gate, arch: made(gate, arch))
    found, report = router.route(x, bias, 2, rate=0.1)
    assert report.ok
    assert all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in vars(expected))
    with pytest.raises(compiler.CompileError, match=r"__nv_\w*exp\w* is of NVIDIA's libdevice.*loadsparse\[nvidia\]"):
        made("sigmoid", "sm_80")


def mathematics(x, whole, out, words):
    i = cuda.grid(1)
    a, b, c = x[i], x[(i + 1) % 64], x[(i + 5) % 64]
    out[0, i] = math.sqrt(abs(a))
    out[1, i] = math.floor(a)
    out[2, i] = math.ceil(a)
    out[3, i] = math.trunc(a) + 0.5
    out[4, i] = math.copysign(b, a)
    out[5, i] = cuda.fma(a, b, c)
    out[6, i] = a * c + b
    out[7, i] = a - b * b + c
    out[8, i] = min(a, b)
    out[9, i] = max(a, b)
    out[10, i] = a / b
    out[11, i] = math.fabs(a)
    n, m = whole[i], whole[(i + 3) % 64]
    words[0, i] = cuda.popc(n) + 100 * cuda.clz(n)
    words[1, i] = cuda.brev(n)
    words[2, i] = min(n, m)
    words[3, i] = max(n, m)
    words[4, i] = abs(n)
    words[5, i] = int(math.isnan(a)) + 2 * int(math.isinf(b)) + 4 * int(math.isfinite(c))
    words[6, i] = n // 7 + m % 5
    words[7, i] = n ^ (m >> 3)


@pytest.mark.parametrize("real", ["float32", "float64"])
def test_functions_of_libdevice_that_are_known_are_exact(real: str) -> None:
    rng = np.random.default_rng(8)
    x = (rng.standard_normal(64) * 10.0 ** rng.integers(-40, 38, 64)).astype(real)
    x[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, -2.5, 1e-42]
    whole = rng.integers(-(2**31), 2**31, 64).astype(np.int32)
    whole[:2] = 0, -1
    found = []
    for backend in ("nvidia", "llvmlite"):
        signature = f"void({real}[::1], int32[::1], {real}[:, ::1], int32[:, ::1])"
        ptx = compiler.numba(mathematics, signature, backend=backend)
        out, words = np.zeros((12, 64), real), np.zeros((8, 64), np.int32)
        arrays = [value for array in (x, whole, out, words) for value in described(array)]
        assert simulator.load(ptx)["mathematics"].launch(2, 32, *arrays).ok
        found.append((out.view(f"u{out.itemsize}"), words))
    (out, words), (again, others) = found
    same = (out == again) | (np.isnan(out.view(real)) & np.isnan(again.view(real)))  # NaNs have one payload or another
    assert same.all(), np.argwhere(~same)
    assert np.array_equal(words, others)


def described(array: np.ndarray) -> list[object]:
    """The parameters that Numba passes for an array: meminfo, parent, items, item size, data, shape, strides."""
    zero = np.uint64(0)
    return [
        zero,
        zero,
        np.int64(array.size),
        np.int64(array.itemsize),
        array,
        *map(np.int64, (*array.shape, *array.strides)),
    ]


def atomics(x, real, whole):
    i = cuda.grid(1)
    cuda.atomic.add(real, 0, 1.5)
    cuda.atomic.max(real, 1, x[i])
    cuda.atomic.min(real, 2, x[i])
    cuda.atomic.sub(real, 3, 0.25)
    cuda.atomic.add(whole, 0, int32(i))
    cuda.atomic.max(whole, 1, int32(i))
    cuda.atomic.cas(whole[2:], 0, int32(0), int32(7))
    cuda.atomic.exch(whole, 3, int32(5))


@pytest.mark.parametrize("real", ["float32", "float64"])
def test_atomics(real: str) -> None:
    x = np.random.default_rng(2).standard_normal(64).astype(real)
    found = []
    for backend in ("nvidia", "llvmlite"):
        ptx = compiler.numba(atomics, f"void({real}[::1], {real}[::1], int32[::1])", backend=backend)
        values, whole = np.zeros(4, real), np.zeros(4, np.int32)
        arrays = [value for array in (x, values, whole) for value in described(array)]
        simulator.load(ptx)["atomics"].launch(
            2, 32, *arrays
        )  # loops around cas begin with a plain load: a race, reported
        found.append((values, whole))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
    assert found[1][0].tolist() == [96.0, x.max(), x.min(), -16.0]


def test_an_operand_that_is_no_constant_is_an_error_and_not_the_end_of_the_process() -> None:
    def kernel(a, offset):
        intrinsics.store_global(a, offset, uint32(1))

    with pytest.raises(compiler.CompileError, match=r"st\.global\.u32 has to be a compile-time constant"):
        compiler.numba(kernel, "void(uint64, int32)", backend="llvmlite")


@pytest.mark.parametrize("arch", compiler.ARCHES)
def test_every_architecture_is_written_and_assembled(arch: str) -> None:
    def twice(x):
        x[cuda.grid(1)] *= float32(2)

    ptx = compiler.numba(twice, "void(float32[::1])", arch, backend="llvmlite", launch_bounds=(64, 2), registers=32)
    assert f".target {arch}" in ptx
    assert re.search(r"\.maxnreg 32\n\.maxntid 64\n\.minnctapersm 2\n\{", ptx)
    assert compiler.resources(ptx, arch)["registers"] <= 32


def test_a_uniform_branch_is_marked() -> None:
    def kernel(x, n):
        if intrinsics.uniform(uint32(n)) > uint32(3):
            x[0] = int64(1)

    assert "bra.uni" in compiler.numba(kernel, "void(int64[::1], uint32)", backend="llvmlite")
