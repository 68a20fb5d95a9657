"""Bugs that only another legal schedule shows are reported; code that is right stays silent under every seed."""

# ruff: noqa: E501  (tables of PTX text)

import numpy as np
import pytest
from ptx_text import HEAD, REGISTERS

from loadsparse.gpu import compiler, profiling, simulator
from loadsparse.gpu.launch import Step
from loadsparse.gpu.simulator.explore import explore, explore_launch, same_bytes, schedules

START = "ld.param.u64 %rd0, [p0]; mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2; mul.wide.u32 %rd1, %r1, 4; add.u64 %rd1, %rd0, %rd1;"


def entry(body):
    text = f"{HEAD}\n.visible .entry k(.param .u64 p0)\n{{\n{REGISTERS}.shared .align 16 .b8 s[512];\n{START}\n{body}\nret;\n}}\n"
    return simulator.load(text)["k"]


# Lanes 0 to 15 take a side road between storing and reading what the other half stored.
LOCK_STEP = """
st.shared.u32 [%r2], %r1;
setp.lt.u32 %p1, %r1, 16;
@%p1 bra low;
bra next;
low:
mov.u32 %r3, 0;
next:
{sync}
xor.b32 %r4, %r2, 64;
ld.shared.u32 %r5, [%r4];
st.global.u32 [%rd1], %r5;
"""


# The last step of a reduction as it was written before Volta: volatile accesses do not race, and order nothing.
WARP_SYNCHRONOUS = """
st.shared.u32 [%r2], %r1;
bar.warp.sync 0xffffffff;
ld.volatile.shared.u32 %r3, [%r2];
xor.b32 %r4, %r2, 64;
ld.volatile.shared.u32 %r5, [%r4];
add.u32 %r3, %r3, %r5;
{sync}
st.volatile.shared.u32 [%r2], %r3;
{sync}
xor.b32 %r4, %r2, 32;
ld.volatile.shared.u32 %r5, [%r4];
add.u32 %r3, %r3, %r5;
st.global.u32 [%rd1], %r3;
"""


def test_volatile_accesses_do_not_replace_a_barrier():
    data = np.zeros(32, np.uint32)
    broken, mended = (entry(WARP_SYNCHRONOUS.format(sync=sync)) for sync in ("", "bar.warp.sync 0xffffffff;"))
    assert broken.launch(1, 32, data.copy()).ok
    for seed in range(2):
        assert not explore_launch(broken, 1, 32, data, count=6, seed=seed).ok
        assert explore_launch(mended, 1, 32, data, count=6, seed=seed).ok


def test_lock_step_code_depends_on_the_schedule():
    broken = LOCK_STEP.format(sync="")
    data = np.zeros(32, np.uint32)
    found = explore_launch(entry(broken), 1, 32, data, count=8, checks=simulator.Checks.none())
    assert not found.ok
    assert any("argument 0 depends on the schedule" in d.message for d in found.differences)
    assert not data.any(), "the caller's arrays are not changed"
    mended = LOCK_STEP.format(sync="bar.warp.sync 0xffffffff;")
    assert explore_launch(entry(mended), 1, 32, data, count=8).ok


def test_a_copy_that_is_not_waited_for_shows_by_its_timing():
    body = """
    cp.async.ca.shared.global [%r2], [%rd1], 4;
    cp.async.commit_group;
    {wait}
    ld.shared.u32 %r5, [%r2];
    add.u32 %r5, %r5, 1;
    st.global.u32 [%rd1], %r5;
    {late}"""
    data = np.arange(7, 39, dtype=np.uint32)
    quiet = simulator.Checks.none()
    broken = body.format(wait="", late="cp.async.wait_all;")
    found = explore_launch(entry(broken), 1, 32, data, count=2, checks=quiet)
    assert [d.schedule.cp_async for d in found.differences] == ["eager"]
    assert explore_launch(entry(body.format(wait="cp.async.wait_all;", late="")), 1, 32, data, count=4).ok


def test_an_order_of_atomics_is_a_result_that_depends_on_the_schedule():
    ticket = "atom.global.add.u32 %r3, [%rd0], 1; mul.wide.u32 %rd2, %r3, 4; add.u64 %rd2, %rd0, %rd2; st.global.u32 [%rd2+4], %r1;"
    data = np.zeros(129, np.uint32)
    found = explore_launch(entry(ticket), 1, 128, data, count=6)
    assert not found.ok
    assert "elements differ" in found.differences[0].message
    total = "red.global.add.u32 [%rd0], %r1;"
    assert explore_launch(entry(total), 1, 128, data, count=6).ok


# One thread of each warp reads a counter and writes it back, one more: both atomic, so no race, but not in one step.
LOST_UPDATE = """
and.b32 %r3, %r1, 31;
setp.ne.u32 %p1, %r3, 0;
@%p1 bra done;
{update}
done:
"""
IN_TWO_STEPS = "atom.global.add.u32 %r4, [%rd0], 0; add.u32 %r4, %r4, 1; atom.global.exch.b32 %r5, [%rd0], %r4;"


@pytest.mark.parametrize(("grid", "block"), [(1, 128), (4, 32), (4, 1)])
def test_warps_and_blocks_are_interrupted_between_atomic_accesses(grid, block):
    data = np.zeros(1, np.uint32)
    two_steps = entry(LOST_UPDATE.format(update=IN_TWO_STEPS))
    assert two_steps.launch(grid, block, data.copy()).ok
    assert not explore_launch(two_steps, grid, block, data, count=8).ok
    one_step = entry(LOST_UPDATE.format(update="red.global.add.u32 [%rd0], 1;"))
    assert explore_launch(one_step, grid, block, data, count=8).ok


def test_a_warp_that_spins_soon_gives_way_in_an_adversarial_order():
    source = """extern "C" __global__ void k(volatile int* turn, int* o) {
      for (int b = 0; b < 4; ++b) {
        while (*turn != 4 * b + blockIdx.x) {}
        __threadfence();
        *o = *o + b * blockIdx.x;
        __threadfence();
        *turn = *turn + 1;
      }
    }"""
    turn, o = np.zeros(1, np.int32), np.zeros(1, np.int32)
    report = simulator.load(compiler.cuda(source))["k"].launch(4, 1, turn, o, schedule="adversarial")
    assert report.ok, report
    assert (turn[0], o[0]) == (16, 36)
    assert report.instructions < 20_000


def test_a_hazard_that_the_default_order_hides_is_reported_once_per_place():
    # warp 1 reads a flag that warp 0 may not have set yet, and only then reads out of bounds
    body = """
    setp.lt.u32 %p1, %r1, 32;
    @%p1 bra writer;
    ld.global.relaxed.gpu.u32 %r3, [%rd0];
    setp.ne.u32 %p2, %r3, 0;
    @%p2 bra done;
    ld.global.u32 %r4, [%rd0+65536];
    bra done;
    writer:
    atom.global.exch.b32 %r5, [%rd0], 1;
    done:
    """
    data = np.zeros(64, np.uint32)
    assert entry(body).launch(1, 64, data.copy()).ok
    found = explore_launch(entry(body), 1, 64, data, count=12)
    hidden = [d for d in found.differences if "bounds" in d.message]
    assert len(hidden) == 1
    assert "default order hides" in hidden[0].message


def test_padding_of_structures_is_the_same_for_every_schedule():
    held = np.frombuffer(b"\xab" * 24 * 8, np.dtype([("a", "i1"), ("b", "f8"), ("c", "i2")], align=True)).reshape(2, 4)
    copy = same_bytes(held)
    assert copy.tobytes() == held.tobytes()
    assert copy.shape == held.shape
    copy["a"] = 1
    assert same_bytes(np.zeros((0, 3), held.dtype)).shape == (0, 3)


def test_seeds_repeat_and_count_is_checked():
    assert list(schedules(6, seed=3)) == list(schedules(6, seed=3))
    assert len({str(s) for s in schedules(8)}) == 8
    with pytest.raises(ValueError, match="at least 2"):
        explore(lambda schedule: ({}, []), 1)


def test_a_schedule_that_never_ends_is_reported():
    source = r"""
    extern "C" __global__ void k(const int *zero, int *out) {
        __shared__ int s[32];
        volatile int *v = s + threadIdx.x;
        *v = 1;
        unsigned to = (unsigned)__cvta_generic_to_shared(s + threadIdx.x);
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(to), "l"(zero + threadIdx.x) : "memory");
        asm volatile("cp.async.commit_group;" ::: "memory");
        while (*v == 0) {}
        asm volatile("cp.async.wait_all;" ::: "memory");
        out[threadIdx.x] = *v;
    }"""
    step = Step(compiler.cuda(source), "k", (1, 1, 1), (32, 1, 1), 0, ("zero", "out"))
    job = profiling.Job("k", "sm_80", (step,), {name: np.zeros(32, np.int32) for name in ("zero", "out")})
    found = profiling.profile(job, explored=2).exploration
    assert [d.schedule.cp_async for d in found.differences if "budget" in d.message] == ["eager"]
