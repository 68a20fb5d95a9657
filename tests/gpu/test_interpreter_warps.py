"""Warp and block instructions against lane-by-lane Python, divergence, scheduling, and the observer."""

# ruff: noqa: E501  (PTX text)

import random
from pathlib import Path

import numpy as np
import pytest
from ptx_text import HEAD, REGISTERS, entry, run

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator.interpreter import machine

STORE = "\nmov.u32 %r50, %tid.x;\nmad.wide.u32 %rd20, %r50, 4, %rd0;\nst.global.u32 [%rd20], {0};\n"


def out(n=32):
    return np.zeros(n, np.uint32)


def lanes(body, register="%r9", block=32, **options):
    target = out(block)
    report = run(
        "mov.u32 %r1, %tid.x;\nmov.u32 %r2, %laneid;\n" + body + STORE.format(register), target, block=block, **options
    )
    assert report.ok, report
    return target.tolist()


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize(("amount", "width"), [(1, 32), (3, 8), (17, 32), (5, 16), (0, 4), (31, 32)])
def test_shfl(mode, amount, width):
    clamp = 0 if mode == "up" else 31
    c = (32 - width) << 8 | clamp
    values = lanes(
        f"mul.lo.u32 %r3, %r1, 7;\nshfl.sync.{mode}.b32 %r8|%p1, %r3, {amount}, {c}, -1;\nselp.u32 %r4, 1000, 0, %p1;\nadd.u32 %r9, %r8, %r4;"
    )
    for lane, value in enumerate(values):
        first = lane // width * width
        source = {"up": lane - amount, "down": lane + amount, "bfly": lane ^ amount, "idx": first + amount % width}[
            mode
        ]
        if mode == "bfly":
            valid = source < first + width
        else:
            valid = first <= source < first + width
        assert value == 7 * (source if valid else lane) + 1000 * valid, lane


def test_votes_and_matches():
    odd = "and.b32 %r3, %r1, 1;\nsetp.eq.u32 %p1, %r3, 1;\n"
    assert set(lanes(odd + "vote.sync.ballot.b32 %r9, %p1, -1;")) == {0xAAAAAAAA}
    assert set(lanes(odd + "vote.sync.any.pred %p2, !%p1, -1;\nselp.u32 %r9, 1, 0, %p2;")) == {1}
    assert set(lanes(odd + "vote.sync.all.pred %p2, %p1, -1;\nselp.u32 %r9, 1, 0, %p2;")) == {0}
    assert set(lanes("setp.lt.u32 %p1, %r1, 99;\nvote.sync.uni.pred %p2, %p1, -1;\nselp.u32 %r9, 1, 0, %p2;")) == {1}
    groups = lanes("and.b32 %r3, %r1, 3;\nmatch.any.sync.b32 %r9, %r3, -1;")
    assert groups == [0x11111111 << (lane & 3) for lane in range(32)]
    assert set(lanes("mov.u64 %rd5, 4;\nmatch.all.sync.b64 %r8|%p1, %rd5, -1;\nselp.u32 %r9, %r8, 0, %p1;")) == {
        0xFFFFFFFF
    }
    assert set(lanes("match.all.sync.b32 %r8|%p1, %r1, -1;\nselp.u32 %r9, 1, %r8, %p1;")) == {0}


@pytest.mark.parametrize("operation", ["add", "min", "max", "and", "or", "xor"])
@pytest.mark.parametrize("kind", ["u32", "s32"])
def test_redux(operation, kind):
    numbers = [(lane * 2654435761 + 12345) & 0xFFFFFFFF for lane in range(32)]
    signed = [n - (n >> 31 << 32) if kind == "s32" else n for n in numbers]
    expected = signed[0]
    for n in signed[1:]:
        expected = {
            "add": expected + n,
            "min": min(expected, n),
            "max": max(expected, n),
            "and": expected & n,
            "or": expected | n,
            "xor": expected ^ n,
        }[operation]
    name = kind if operation in ("add", "min", "max") else "b32"
    got = lanes(f"mad.lo.u32 %r3, %r1, 2654435761, 12345;\nredux.sync.{operation}.{name} %r9, %r3, -1;")
    assert set(got) == {expected & 0xFFFFFFFF}


def test_partial_masks_meet_by_mask():
    body = "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra low;\nshfl.sync.idx.b32 %r9, %r1, 31, 31, 0xffff0000;\nbra.uni done;\nlow:\nshfl.sync.idx.b32 %r9, %r1, 3, 31, 0x0000ffff;\ndone:"
    assert lanes(body) == [3] * 16 + [31] * 16
    same_place = "setp.lt.u32 %p1, %r1, 16;\nselp.b32 %r3, 0xffff, 0xffff0000, %p1;\nselp.b32 %r4, 5, 20, %p1;\nshfl.sync.idx.b32 %r9, %r1, %r4, 31, %r3;"
    assert lanes(same_place) == [5] * 16 + [20] * 16


def test_elect_activemask_and_lane_masks():
    assert lanes("elect.sync %r3|%p1, 0xffffffff;\nselp.u32 %r9, 1, 0, %p1;") == [1] + [0] * 31
    body = "mov.u32 %r9, 0;\nsetp.lt.u32 %p1, %r1, 4;\n@!%p1 bra done;\nactivemask.b32 %r9;\ndone:"
    assert lanes(body) == [15] * 4 + [0] * 28
    assert lanes("mov.u32 %r9, %lanemask_lt;") == [(1 << lane) - 1 for lane in range(32)]
    assert lanes("mov.u32 %r9, %lanemask_ge;") == [0xFFFFFFFF & ~((1 << lane) - 1) for lane in range(32)]


@pytest.mark.parametrize("engine", ["interpreter", "llvm"])
def test_a_block_is_a_cluster_of_its_own(engine):
    body = "".join(
        f"mov.u32 %r8, %{name}; mad.lo.u32 %r9, %r9, 10, %r8;\n"
        for name in ("clusterid.x", "nclusterid.x", "cluster_ctaid.y", "cluster_nctaid.z", "cluster_ctarank",
                     "cluster_nctarank", "reserved_smem_offset_begin")
    )  # fmt: skip
    out = np.zeros(3, np.uint32)
    report = run(
        f"mov.u32 %r9, 0;\n{body}mov.u32 %r7, %ctaid.x; mad.wide.u32 %rd1, %r7, 4, %rd0; st.global.u32 [%rd1], %r9;",
        out, block=1, grid=3, engine=engine,
    )  # fmt: skip
    assert report.ok, report
    assert out.tolist() == [301010, 1301010, 2301010]


def test_block_reductions_at_a_barrier():
    body = "setp.lt.u32 %p1, %r1, 10;\nbar.red.popc.u32 %r9, 0, %p1;"
    assert set(lanes(body, block=96)) == {10}
    assert set(
        lanes("setp.lt.u32 %p1, %r1, 10;\nbar.red.or.pred %p2, 0, %p1;\nselp.u32 %r9, 1, 0, %p2;", block=64)
    ) == {1}
    assert set(
        lanes(
            "setp.lt.u32 %p1, %r1, 10;\nbarrier.cta.red.and.aligned.pred %p2, 0, !%p1;\nselp.u32 %r9, 1, 0, %p2;",
            block=64,
        )
    ) == {0}


def test_nested_divergence_and_loops():
    body = (
        "mov.u32 %r9, 0;\nmov.u32 %r3, 0;\nloop:\nadd.u32 %r9, %r9, %r3;\nadd.u32 %r3, %r3, 1;\nand.b32 %r4, %r3, 1;\n"
        "setp.eq.u32 %p2, %r4, 0;\n@%p2 bra even;\nadd.u32 %r9, %r9, 100;\neven:\nsetp.le.u32 %p1, %r3, %r1;\n@%p1 bra loop;"
    )
    expected = []
    for lane in range(32):
        total = 0
        for i in range(lane + 1):
            total += i + (100 if (i + 1) % 2 else 0)
        expected.append(total)
    assert lanes(body) == expected
    for seed in range(4):
        assert lanes(body, schedule="adversarial", seed=seed) == expected


def test_spin_lock_inside_a_warp_makes_progress(monkeypatch):
    monkeypatch.setattr(machine, "QUANTUM", 30)
    body = (
        "spin:\natom.global.cas.b32 %r3, [%rd1], 0, 1;\nsetp.ne.u32 %p1, %r3, 0;\n@%p1 bra spin;\n"
        "ld.volatile.global.u32 %r4, [%rd1+4];\nadd.u32 %r4, %r4, 1;\nst.volatile.global.u32 [%rd1+4], %r4;\nmembar.gl;\natom.global.exch.b32 %r3, [%rd1], 0;"
    )
    target, lock = out(), out(2)
    report = run("mov.u32 %r9, 0;\n" + body + STORE.format("%r9"), target, lock, block=32, grid=2)
    assert report.ok, report
    assert lock.tolist() == [0, 64]


def test_grid_barrier_by_spinning_makes_progress(monkeypatch):
    monkeypatch.setattr(machine, "QUANTUM", 30)
    body = (
        "mov.u32 %r1, %tid.x;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra done;\nred.global.add.u32 [%rd0], 1;\n"
        "wait:\nld.acquire.gpu.global.u32 %r3, [%rd0];\nsetp.lt.u32 %p2, %r3, 5;\n@%p2 bra wait;\ndone:"
    )
    counter = out(1)
    report = run(body, counter, grid=5, block=32)
    assert report.ok, report
    assert counter[0] == 5


def test_three_dimensional_grids():
    target = np.zeros((2, 3, 4, 5, 2, 3), np.uint32)
    special = [f"%{name}.{axis}" for name in ("ctaid", "nctaid", "tid", "ntid") for axis in "xyz"]
    body = "".join(f"mov.u32 %r{n}, {name};\n" for n, name in enumerate(special))
    body += (  # (((cz * gy + cy) * gx + cx) * bz + tz) * by + ty) * bx + tx
        "mad.lo.u32 %r20, %r2, %r4, %r1;\nmad.lo.u32 %r20, %r20, %r3, %r0;\nmad.lo.u32 %r20, %r20, %r11, %r8;\n"
        "mad.lo.u32 %r20, %r20, %r10, %r7;\nmad.lo.u32 %r20, %r20, %r9, %r6;\nmad.wide.u32 %rd20, %r20, 4, %rd0;\nred.global.add.u32 [%rd20], 1;"
    )
    report = run(body, target, grid=(4, 3, 2), block=(3, 2, 5))
    assert report.ok, report
    assert (target == 1).all()
    assert report.instructions == 24 * 1 * (len(body.splitlines()) + 2)


def test_calls_with_structures_and_nested_functions():
    text = (
        HEAD
        + f"""
.func (.param .b32 r) inner(.param .b32 x) {{ {REGISTERS} ld.param.u32 %r1, [x]; mul.lo.u32 %r1, %r1, 3; st.param.b32 [r], %r1; ret; }}
.func (.param .align 8 .b8 r[16]) outer(.param .align 8 .b8 s[8], .param .b64 p)
{{ {REGISTERS} .local .align 4 .b8 l[8]; .param .b32 a; .param .b32 b;
  ld.param.u32 %r1, [s]; ld.param.u32 %r2, [s+4]; st.param.b32 [a], %r1; call.uni (b), inner, (a); ld.param.b32 %r3, [b];
  mov.u64 %rd1, l; st.local.u32 [%rd1], %r3; ld.param.u64 %rd2, [p]; ld.u32 %r4, [%rd2]; add.u32 %r4, %r4, %r2; st.u32 [%rd2], %r4;
  ld.local.u32 %r5, [%rd1]; st.param.v2.u32 [r], {{%r5, %r2}}; st.param.u32 [r+8], 9; ret; }}
.visible .entry k(.param .u64 o)
{{ {REGISTERS} .local .align 4 .b8 depot[16]; .param .align 8 .b8 s[8]; .param .b64 p; .param .align 8 .b8 q[16];
  mov.u32 %r1, %tid.x; mov.u64 %rd5, depot; cvta.local.u64 %rd6, %rd5; st.local.u32 [%rd5+4], 50; add.u64 %rd6, %rd6, 4;
  and.b32 %r9, %r1, 1; setp.eq.u32 %p1, %r9, 0; @%p1 bra skip;
  st.param.v2.b32 [s], {{%r1, 7}}; st.param.b64 [p], %rd6; call.uni (q), outer, (s, p); ld.param.v2.u32 {{%r2, %r3}}, [q]; ld.param.u32 %r4, [q+8];
  ld.local.u32 %r5, [%rd5+4]; add.u32 %r2, %r2, %r3; add.u32 %r2, %r2, %r4; add.u32 %r2, %r2, %r5; bra.uni join;
skip: mov.u32 %r2, 0;
join: ld.param.u64 %rd1, [o]; mad.wide.u32 %rd1, %r1, 4, %rd1; st.global.u32 [%rd1], %r2; ret; }}
"""
    )
    target = out()
    report = simulator.load(text)["k"].launch(1, 32, target, engine="interpreter")
    assert report.ok, report
    assert target.tolist() == [0 if t % 2 == 0 else 3 * t + 7 + 9 + 57 for t in range(32)]


def test_printf_and_assert():
    head = (
        ".extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b);\n.extern .func __assertfail (.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);\n"
        f".global .align 1 .b8 text[32] = {{{', '.join(str(b) for b in b'lane %d: %5.2f %s %%' + bytes([10]))}}};\n.global .align 1 .b8 word[4] = {{111, 107, 0}};\n"
    )
    body = (
        ".local .align 8 .b8 l[24]; mov.u64 %rd5, l; cvta.local.u64 %rd6, %rd5; mov.u32 %r1, %tid.x; st.local.u32 [%rd5], %r1;\n"
        "st.local.f64 [%rd5+8], 0d3FF8000000000000; mov.u64 %rd7, word; cvta.global.u64 %rd7, %rd7; st.local.u64 [%rd5+16], %rd7;\n"
        "{ .param .b64 a; .param .b64 b; .param .b32 r; mov.u64 %rd8, text; cvta.global.u64 %rd8, %rd8; st.param.b64 [a], %rd8; st.param.b64 [b], %rd6;\n"
        "call.uni (r), vprintf, (a, b); ld.param.b32 %r2, [r]; }"
    )
    report = simulator.load(entry(body, head=head))["k"].launch(1, 3, engine="interpreter")
    assert report.ok, report
    assert report.printed == "lane 0:  1.50 ok %\nlane 1:  1.50 ok %\nlane 2:  1.50 ok %\n"
    failing = (
        "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 2; @%p1 bra done;\n{ .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;\n"
        "mov.u64 %rd8, word; cvta.global.u64 %rd8, %rd8; st.param.b64 [a], %rd8; st.param.b64 [b], %rd8; st.param.b32 [c], 12; st.param.b64 [d], %rd8; st.param.b64 [e], 1;\n"
        "call.uni __assertfail, (a, b, c, d, e); }\ndone:"
    )
    report = simulator.load(entry(failing, head=head))["k"].launch(1, 4, engine="interpreter")
    assert report.stopped == "trap"
    assert report.hazards[0].thread == (2, 0, 0)
    assert report.hazards[0].message == "assertion 'ok' failed in ok (ok:12)"


def test_indexed_branches():
    body = "ts: .branchtargets a, b, c;\nrem.u32 %r3, %r1, 3;\nbrx.idx %r3, ts;\na: mov.u32 %r9, 10; bra.uni e;\nb: mov.u32 %r9, 20; bra.uni e;\nc: mov.u32 %r9, 30;\ne:"
    assert lanes(body) == [10 * (t % 3 + 1) for t in range(32)]


ATOMICS = {
    "add": lambda old, b, bits: (old + b) % 2**bits, "min": lambda old, b, bits: min(old, b), "max": lambda old, b, bits: max(old, b),
    "and": lambda old, b, bits: old & b, "or": lambda old, b, bits: old | b, "xor": lambda old, b, bits: old ^ b,
    "exch": lambda old, b, bits: b, "inc": lambda old, b, bits: 0 if old >= b else old + 1,
    "dec": lambda old, b, bits: b if old == 0 or old > b else old - 1,
}  # fmt: skip


@pytest.mark.parametrize("space", ["global", "shared", "generic"])
@pytest.mark.parametrize("operation", ATOMICS)
def test_atomics_are_applied_lane_by_lane(space, operation):
    kind = "u32" if operation in ("add", "min", "max", "inc", "dec") else "b32"
    start = 0x1234
    place = {"global": "%rd1", "shared": "%rd6", "generic": "%rd7"}[space]
    dot = "" if space == "generic" else f".{space}"
    body = (
        ".shared .align 8 .b8 s[8]; mov.u64 %rd6, s; cvta.shared.u64 %rd7, %rd6; st.shared.u32 [s], 0x1234; bar.sync 0;\n"
        f"mad.lo.u32 %r3, %r1, 0x9E3779B1, 77; shr.u32 %r3, %r3, 18; atom{dot}.{operation}.{kind} %r9, [{place}], %r3;\nbar.sync 0; ld{dot}.u32 %r8, [{place}];"
    )
    target, cell, final = out(), np.array([start], np.uint32), out()
    store = STORE.format("%r9") + "mad.wide.u32 %rd21, %r50, 4, %rd2;\nst.global.u32 [%rd21], %r8;\n"
    report = run("mov.u32 %r1, %tid.x;\n" + body + store, target, cell, final)
    assert report.ok, report
    value = start
    for lane in range(32):
        assert target[lane] == value
        value = ATOMICS[operation](value, ((lane * 0x9E3779B1 + 77) & 0xFFFFFFFF) >> 18, 32)
    assert set(final.tolist()) == {value}


def test_compare_and_swap_and_wide_atomics():
    cell = np.array([5, 0], np.uint64)
    body = "mov.u32 %r1, %tid.x; cvt.u64.u32 %rd5, %r1; atom.global.cas.b64 %rd6, [%rd0], %rd5, 99; atom.global.add.u64 %rd7, [%rd0+8], %rd5; atom.global.max.s64 %rd8, [%rd0+8], -1;"
    assert run(body, cell).ok
    assert cell.tolist() == [99, sum(range(32))]


@pytest.mark.parametrize(("space", "flushes"), [("global", True), ("shared", False)])
def test_float_atomics_flush_subnormals_in_global_memory_only(space, flushes):
    cell = np.array([1], np.uint32)
    if space == "global":
        body = "atom.global.add.f32 %f1, [%rd0], 0f00000003;"
    else:
        body = ".shared .b32 s; st.shared.u32 [s], 1; atom.shared.add.f32 %f1, [s], 0f00000003; ld.shared.u32 %r1, [s]; st.global.u32 [%rd0], %r1;"
    assert run(body, cell, block=1).ok
    assert cell[0] == (0 if flushes else 4)


def test_packed_and_double_atomics():
    pair, double = np.array([1.0, 2.0], np.float16), np.zeros(1)
    body = "mov.b32 %r1, 0x3C003800; atom.global.add.noftz.f16x2 %r2, [%rd0], %r1; red.global.add.f64 [%rd1], 0d3FE0000000000000;"
    assert run(body, pair, double).ok
    assert pair.tolist() == [1 + 0.5 * 32, 2 + 32]
    assert double[0] == 16


@pytest.mark.parametrize("space", ["global", "shared", "local", "generic"])
@pytest.mark.parametrize(
    ("vector", "kind"),
    [("", "u8"), ("", "s8"), ("", "s16"), ("", "f64"), (".v2", "u16"), (".v4", "u8"), (".v4", "f32"), (".v2", "u64")],
)
def test_loads_and_stores_of_every_width(space, vector, kind):
    count = int(vector[2:] or 1)
    size = int(kind[1:]) // 8
    rng = np.random.default_rng(5)
    data = rng.integers(0, 256, 32 * 16).astype(np.uint8)
    prefix = {"u8": "%h", "s8": "%h", "u16": "%h", "s16": "%h", "f32": "%f", "f64": "%fd", "u64": "%rd3"}[kind]
    registers = [f"{prefix}{i + 1}" for i in range(count)]
    group = "{" + ", ".join(registers) + "}" if vector else registers[0]
    memory = {
        "global": ("%rd1", "global."), "generic": ("%rd7", ""), "shared": ("%r4", "shared."), "local": ("%rd9", "local."),
    }[space]  # fmt: skip
    body = (
        ".shared .align 16 .b8 s[512]; .local .align 16 .b8 l[16]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd5, %r1, 16; add.u64 %rd0, %rd0, %rd5; add.u64 %rd1, %rd1, %rd5;\n"
        "shl.b32 %r4, %r1, 4; cvt.u64.u32 %rd7, %r4; cvta.shared.u64 %rd7, %rd7; mov.u64 %rd9, l;\n"
        f"ld.global{vector}.{kind} {group}, [%rd0]; st.{memory[1]}{vector[1:] + '.' if vector else ''}{kind} [{memory[0]}], {group};\n"
        f"ld.{memory[1]}{vector[1:] + '.' if vector else ''}{kind} {group}, [{memory[0]}]; st.global{vector}.{kind} [%rd1], {group};"
    )
    target = np.zeros_like(data)
    report = run(body, data, target)
    assert report.ok, report
    kept = np.arange(512) % 16 < size * count
    assert np.array_equal(target[kept], data[kept])
    assert not target[~kept].any()


def test_sign_extension_and_truncation():
    data = np.array([0x80], np.uint8)
    target = np.zeros(3, np.uint64)
    body = "ld.global.s8 %h1, [%rd0]; cvt.u64.u16 %rd5, %h1; st.global.u64 [%rd1], %rd5; ld.global.s8 %r1, [%rd0]; cvt.u64.u32 %rd5, %r1; st.global.u64 [%rd1+8], %rd5; mov.u64 %rd6, 0x123456789; st.global.u32 [%rd1+16], %rd6;"
    assert run(body, data, target, block=1).ok
    assert target.tolist() == [0xFF80, 0xFFFFFF80, 0x23456789]


def test_constants_and_dynamic_shared_memory():
    head = ".const .align 4 .u32 table[4] = {5, 6, 7, 8};\n.extern .shared .align 16 .b8 dynamic[];\n"
    body = (
        ".shared .align 4 .b8 fixed[20]; mov.u32 %r1, %tid.x; and.b32 %r2, %r1, 3; mul.wide.u32 %rd5, %r2, 4; mov.u64 %rd6, table; add.u64 %rd6, %rd6, %rd5; ld.const.u32 %r3, [%rd6];\n"
        "mov.u32 %r4, dynamic; mad.lo.u32 %r5, %r1, 4, %r4; st.shared.u32 [%r5], %r3; ld.shared.u32 %r6, [%r5]; mov.u32 %r7, %dynamic_smem_size; mad.lo.u32 %r9, %r4, 1000, %r6; add.u32 %r9, %r9, %r7;"
    )
    target = out()
    assert run(body + STORE.format("%r9"), target, head=head, shared_bytes=128).ok
    assert target.tolist() == [32 * 1000 + 128 + 5 + t % 4 for t in range(32)]
    report = run(body + STORE.format("%r9"), target, head=head, shared_bytes=64)
    assert {h.kind for h in report.hazards} == {"bounds"}


def test_cp_async_lands_at_the_wait_or_at_once():
    body = "shl.b32 %r2, %r1, 4; .shared .align 16 .b8 s[512]; st.shared.u32 [%r2], 9; mul.wide.u32 %rd5, %r1, 16; add.u64 %rd5, %rd5, %rd1; cp.async.cg.shared.global [%r2], [%rd5], 16, 8; cp.async.commit_group; ld.shared.u32 %r9, [%r2];\n cp.async.wait_group 0; ld.shared.u32 %r8, [%r2+8]; add.u32 %r9, %r9, %r8;"
    source = np.arange(128, dtype=np.uint32) + 100
    for mode, expected in (("late", [9] * 32), ("eager", [100 + 4 * t for t in range(32)])):
        target = out()
        report = run("mov.u32 %r1, %tid.x;\n" + body + STORE.format("%r9"), target, source, cp_async=mode)
        assert {h.kind for h in report.hazards} == {"pending"}
        assert target.tolist() == expected


def test_the_observer_sees_every_warp_instruction():
    events = []
    report = run(
        "mov.u32 %r1, %tid.x;\nadd.u32 %r2, %r1, 5;\nsetp.lt.u32 %p1, %r1, 4;\n@%p1 bra end;\nmov.u32 %r2, 0;\nend:",
        block=32,
        observer=events.append,
    )
    assert len(events) == report.instructions
    assert [e.instruction.name for e in events] == ["mov", "add", "setp", "bra", "mov", "ret"]
    add = events[1]
    row = add.instruction.operands[0].index
    assert add.before[row].tolist() == [0] * 32
    assert add.after[row].tolist() == [t + 5 for t in range(32)]
    assert events[4].active.sum() == 28


def test_random_schedules_change_nothing_for_a_correct_reduction():
    body = (
        ".shared .align 4 .b8 s[256]; shl.b32 %r2, %r1, 2; mul.lo.u32 %r3, %r1, %r1; st.shared.u32 [%r2], %r3; mov.u32 %r4, 32;\n"
        "loop: bar.sync 0; setp.ge.u32 %p1, %r1, %r4; @%p1 bra next; mad.lo.u32 %r5, %r4, 4, %r2; ld.shared.u32 %r6, [%r5]; ld.shared.u32 %r7, [%r2]; add.u32 %r7, %r7, %r6; st.shared.u32 [%r2], %r7;\n"
        "next: shr.u32 %r4, %r4, 1; setp.ne.u32 %p2, %r4, 0; @%p2 bra loop; bar.sync 0; ld.shared.u32 %r9, [s];"
    )
    expected = {sum(t * t for t in range(64))}
    assert set(lanes(body, block=64)) == expected
    rng = random.Random(1)
    for _ in range(4):
        assert set(lanes(body, block=64, schedule="adversarial", seed=rng.randrange(1000))) == expected


MBARRIER = (
    ".shared .align 8 .b64 bar; .shared .align 4 .b8 s[256]; setp.ne.u32 %p1, %r1, 0; @%p1 bra ready; mbarrier.init.shared.b64 [bar], 64;\n"
    "ready: bar.sync 0; shl.b32 %r3, %r1, 2; mov.u32 %r4, s; add.u32 %r4, %r4, %r3; st.shared.u32 [%r4], %r1;\n"
    "{arrive}\nwait: {wait}\n@!%p2 bra wait;\nxor.b32 %r5, %r3, 128; mov.u32 %r4, s; add.u32 %r5, %r5, %r4; ld.shared.u32 %r9, [%r5];"
)


@pytest.mark.parametrize("wait", ["test_wait", "try_wait"])
@pytest.mark.parametrize("schedule", ["default", "adversarial"])
def test_mbarrier_orders_and_waits(monkeypatch, wait, schedule):
    monkeypatch.setattr(machine, "QUANTUM", 30)
    body = MBARRIER.format(
        arrive="mbarrier.arrive.shared.b64 %rd5, [bar];", wait=f"mbarrier.{wait}.shared.b64 %p2, [bar], %rd5;"
    )
    assert lanes(body, block=64, schedule=schedule, seed=3) == [t ^ 32 for t in range(64)]
    parity = MBARRIER.format(
        arrive="mbarrier.arrive.shared.b64 _, [bar];", wait=f"mbarrier.{wait}.parity.shared.b64 %p2, [bar], 0;"
    )
    assert lanes(parity, block=64, schedule=schedule, seed=3) == [t ^ 32 for t in range(64)]


def test_mbarrier_misuse_is_reported():
    unordered = MBARRIER.format(arrive="", wait="setp.eq.u32 %p2, 0, 0;")
    report = run("mov.u32 %r1, %tid.x;\n" + unordered, block=64)
    assert {h.kind for h in report.hazards} == {"race"}
    too_many = "mov.u32 %r1, %tid.x; .shared .align 8 .b64 bar; mbarrier.init.shared.b64 [bar], 3; mbarrier.arrive.shared.b64 %rd5, [bar], 4;"
    report = run(too_many, block=1)
    assert report.stopped == "trap"
    pending = ".shared .align 8 .b64 bar; mbarrier.init.shared.b64 [bar], 3; mbarrier.arrive.shared.b64 %rd5, [bar]; mbarrier.arrive_drop.shared.b64 %rd6, [bar]; mbarrier.pending_count.b64 %r3, %rd6; st.global.u32 [%rd0], %r3;"
    target = out(1)
    assert run(pending, target, block=1).ok
    assert target[0] == 2


def test_cooperative_groups_grid_barrier(monkeypatch):
    monkeypatch.setattr(machine, "QUANTUM", 200)
    text = (Path(__file__).parent / "data" / "nvrtc_cooperative_sm_80.ptx").read_text(encoding="utf-8")
    target = np.zeros(96, np.int32)
    report = simulator.load(text)["g"].launch(3, 32, target, engine="interpreter")
    # what precedes the barrier is ordered; behind it thread 0 changes a[0] while all others read it
    store = max(n for n, line in enumerate(text.splitlines(), 1) if "st.global.u32 	[%rd3], %r41" in line)
    load = max(n for n, line in enumerate(text.splitlines(), 1) if "ld.global.u32 	%r40, [%rd1]" in line)
    assert {frozenset((h.line, h.other_line)) for h in report.hazards} == {frozenset((store, load))}, report
    assert set(target.tolist()) <= {
        2,
        3,
    }  # every thread saw a[0] after the barrier: 1 at first, 2 once its thread went on
