"""printf and assert: native code prints; it runs until an assertion fails, and leaves nothing behind."""

import re

import numpy as np
import pytest
from two_engines import both

from loadsparse.gpu import compiler, simulator
from loadsparse.gpu.simulator import printing

ASSERTS = r"""
#include <cassert>
extern "C" __global__ void k(int *x, const int *limit) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    x[i] += 1;
    assert(x[i] < *limit);
    x[i] += 10;
}"""
PRINTS = r"""
extern "C" __global__ void k(int *x, int who) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    x[i] += 1;
    if (i == who) x[i] += printf("%d of %s\n", x[i], "thread");
    atomicAdd(&x[0], 1);
}"""
CHECKS = [simulator.Checks(), simulator.Checks(races=False), simulator.Checks(races=False, uninitialized=False)]


def test_assertions_that_hold_run_natively():
    x = np.arange(256, dtype=np.int32)
    (found, _), report = both(ASSERTS, x, np.int32([300]), grid=4, block=64)
    np.testing.assert_array_equal(found, x + 11)
    assert report.engine == "llvm"
    assert report.ok


@pytest.mark.parametrize("limit", [1, 70, 200])
def test_an_assertion_that_fails_is_the_interpreters(limit):
    x = np.arange(256, dtype=np.int32)
    (found, _), report = both(ASSERTS, x, np.int32([limit]), grid=4, block=64, native=False)
    assert report.engine == "interpreter"
    [hazard] = report.hazards
    assert hazard.block[0] * 64 + hazard.thread[0] == limit - 1
    assert (found - x).max() <= 11  # nothing of the native run is left


@pytest.mark.parametrize("checks", CHECKS)
def test_what_is_printed_is_printed_once(checks):
    entry = simulator.load(compiler.cuda(PRINTS, "sm_80"), "sm_80")["k"]
    outcomes = []
    for engine in ("llvm", "interpreter"):
        x = np.arange(128, dtype=np.int32)
        outcomes.append((x, entry.launch(4, 32, x, 77, engine=engine, checks=checks)))
    (one, report), (two, other) = outcomes
    np.testing.assert_array_equal(one, two)
    assert report.printed == other.printed == "78 of thread\n"
    assert one[0] == 1 + 128


MANY = r"""
extern "C" __global__ void k(float *x, const char *name, int n) {
    __shared__ int seen[2];
    int i = blockIdx.x * blockDim.x + threadIdx.x, taken = 0;
    if (threadIdx.x < 2) seen[threadIdx.x] = 0;
    __syncthreads();
    for (int j = 0; j < i % 3; j++) taken += printf("%s %5.2f %lld|%c|%-4d|%%|%x\n", name, x[i], 1ll << i, 'a' + j, j, i);
    if (i % 4 == 0) printf("plain\n");
    if (i % 5 == 0) taken += printf("%*d %.*f %p\n", i, i * i, 2, 1.5 * i, nullptr);
    if (taken) atomicAdd(&seen[i % 2], taken);
    __syncthreads();
    x[i] = seen[0] * 1000 + seen[1];
}"""


def test_many_threads_print_in_order():
    x = np.arange(96, dtype=np.float32)
    (found, *_), report = both(MANY, x, np.frombuffer("café\0".encode(), np.uint8), 3, grid=3, block=32)
    assert report.engine == "llvm"
    assert "café  1.00 2|a|0   |%|1\n" in report.printed
    assert report.printed.count("plain") == 24
    assert (found[:32] == found[0]).all()


def test_what_nobody_prints_runs_natively():
    x = np.zeros(128, np.int32)
    (found, _), report = both(PRINTS, x, 1000, grid=4, block=32)
    assert report.engine == "llvm"
    assert found.sum() == 2 * 128


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("%.*d|%*d", (-1, 5, -4, 7), "5|7   "),  # a negative precision is none, a negative width aligns left
        ("%.*f", (-3, 0, *np.array([0.5]).view("<i4")), "0.500000"),
        ("%hhd %hhu %hd %hu", (0x1FF, 0x1FF, 0x18000, 0x1FFFF), "-1 255 -32768 65535"),
        ("%#o %#o %#x %#x %.X", (8, 0, 0, 10, 255), "010 0 0 0xa FF"),
        ("%05.2d|%.0d|%.3d|%-6.3x|%06x", (3, 0, -7, 10, 11), "   03||-007|00a   |00000b"),
        ("%+u % u %+x %+d % d %+05d", (3, 3, 3, 3, 3, 3), "3 3 3 +3  3 +0003"),
        ("%08.2f|%+f|%5.1f", (*np.array([-np.inf, np.inf, np.nan]).view("<i4"),), "    -inf|+inf|  nan"),
        (
            "%a|%A|%10a|%a",
            (*np.array([3.0, -0.1, 0.0, -np.inf]).view("<i4"),),
            "0x1.8p+1|-0X1.999999999999AP-4|    0x0p+0|-inf",
        ),
    ],
)
def test_conversions_of_printf_as_in_c(text, values, expected):
    memory = {0: text.encode() + b"\0", 4096: np.array(values, "<i4").tobytes()}
    found, taken = printing.render(lambda at, size: memory[at & ~4095][at & 4095 :][:size], 0, 4096)
    assert found == expected
    assert taken == len(re.findall(r"\*|[dfuxXoaA]", text))
