"""Threads that spin for ever are found in both engines; what goes on, however slowly, is not stopped."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadsparse.gpu import compiler, simulator
from loadsparse.gpu.simulator.interpreter import machine
from loadsparse.gpu.simulator.recurrence import Recurrence
from loadsparse.gpu.simulator.request import DEFAULT_BUDGET, DEFAULT_THREAD_BUDGET, INTERPRETED

HEAD = '#include <cuda_pipeline.h>\nextern "C" __global__ void k(volatile int *p) {\n'
ENDLESS = {
    "a flag that nobody sets": "while (p[0] == 0);",
    "nothing at all": "for (;;);",
    "a lock that nobody frees": "while (atomicCAS((int *)p, 1, 0) != 1);",
    "two that only talk to each other": "for (;;) { atomicCAS((int *)p, 0, 1); atomicCAS((int *)p, 1, 0); }",
    "a flag that is set and taken back": "for (;;) { int a = p[0]; p[0] = !a; __nanosleep(20); }",
    "asleep": "while (p[0] == 0) __nanosleep(100);",
    "a block that does not exist": (
        "__shared__ int s; s = 0; __syncthreads(); if (threadIdx.x == 0) { atomicAdd((int *)p, 1);"
        "while (p[0] < 3); } __syncthreads();"
    ),
    "a lane of a warp": "if (threadIdx.x == 3) while (p[0] == 0); __syncwarp();",
}
LONG = {
    "all that changes is in memory": ("do { p[threadIdx.x] = p[threadIdx.x] + 1; } while (p[threadIdx.x] < 70000);", 70000),
    "a wait by the clock": ("long long t = clock64(); while (clock64() - t < 400000); p[threadIdx.x] = 7;", 7),
    "copies on their way": (  # the 60th group lands, and until then nothing but the queue of copies changes
        """__shared__ volatile int s[4]; int *to = (int *)s + threadIdx.x, *from = (int *)p + 4 + threadIdx.x;
        s[threadIdx.x] = 0; p[4 + threadIdx.x] = 7; do { __pipeline_memcpy_async(to, from, 4); __pipeline_commit();
        __pipeline_wait_prior(60); __nanosleep(9); } while (s[threadIdx.x] == 0); p[threadIdx.x] = s[threadIdx.x];""", 7
    ),
    "sleeps, counted in memory": ("do { __nanosleep(9); p[threadIdx.x] = p[threadIdx.x] + 1; } while (p[threadIdx.x] < 99);", 99),
}  # fmt: skip


def launch(body, engine, threads=32, grid=2):
    memory = np.zeros(64, np.int32)
    source = HEAD + body + "\n}"
    report = simulator.load(compiler.cuda(source, "sm_80"))["k"].launch(grid, threads, memory, engine=engine)
    return memory, report


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_spinning_is_a_deadlock(monkeypatch, name):
    monkeypatch.setattr(machine, "QUANTUM", 100)  # who spins need not spin long
    found = [launch(ENDLESS[name], engine, 5)[1] for engine in ("llvm", "interpreter")]
    assert [report.stopped for report in found] == ["deadlock", "deadlock"]
    first, second = (report.hazards[-1] for report in found)
    assert "spin here for ever" in first.message
    assert str(first) == str(second)
    assert first.source_line == second.source_line == 3


@pytest.mark.parametrize("name", LONG)
def test_what_goes_on_is_not_stopped(monkeypatch, name):
    monkeypatch.setattr(machine, "QUANTUM", 100)
    body, last = LONG[name]
    for engine in ("llvm", "interpreter") if last < 1000 and "clock" not in name else ("llvm",):
        memory, report = launch(body, engine, 4, 1)
        assert (report.stopped, memory[:4].tolist()) == (None, [last] * 4)


@given(st.integers(0, 9), st.integers(1, 4), st.integers(1, 3), st.data())
def test_recurrence_is_found_and_never_invented(start, registers, times, data):
    """Registers with a period, memory with a multiple of it, after a beginning that differs from all."""
    period = registers * times
    rounds, endless = Recurrence(), data.draw(st.booleans())
    for number in range(400):
        at = number - start
        state = f"r{at % registers}" if at >= 0 else f"begin{number}"
        held = f"m{at % period}" if at >= 0 and endless else f"m{number}"
        if rounds.found(state.encode, held.encode):
            assert endless
            assert at >= period
            return
    assert not endless


def test_default_budgets():
    entry = simulator.load(compiler.cuda(HEAD + "p[0] = 1;}", "sm_80"))["k"]
    one, many = entry.request(1, 1), entry.request(1000, 1024)
    assert (one.limit(), many.limit()) == (DEFAULT_THREAD_BUDGET, DEFAULT_BUDGET)
    assert one.limit(interpreted=True) == DEFAULT_THREAD_BUDGET // INTERPRETED
    assert replace(many, budget=7).limit(interpreted=True) == 7
