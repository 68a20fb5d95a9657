"""Planted bugs are found at the right line, and their clean twins stay silent.

A kernel marks the offending line with `// BUG`; a second line that takes part (of a race) with `// OTHER`.
"""

# ruff: noqa: E501  (tables of PTX text)

import numpy as np
import pytest
from ptx_text import HEAD, REGISTERS

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator.interpreter import machine

TID = "mov.u32 %r1, %tid.x; mul.wide.u32 %rd10, %r1, 4; add.u64 %rd11, %rd0, %rd10; shl.b32 %r2, %r1, 2;"
SHARED = ".shared .align 16 .b8 s[512];"


def module(body, arrays=1, arch="sm_80", head=""):
    parameters = ", ".join(f".param .u64 p{n}" for n in range(arrays))
    loads = "\n".join(f"ld.param.u64 %rd{n}, [p{n}];" for n in range(arrays))
    text = f"{HEAD}{head}\n.visible .entry k({parameters})\n{{\n{REGISTERS}{SHARED}\n{loads}\n{TID}\n{body}\nret;\n}}\n"
    return simulator.load(text, arch), text


def launch(body, *arrays, block=64, grid=1, **options):
    options.setdefault("engine", "interpreter")
    loaded, text = module(body, len(arrays))
    return loaded["k"].launch(grid, block, *arrays, **options), text


def marked(text, mark):
    return [number for number, line in enumerate(text.splitlines(), 1) if mark in line]


def zeros(n=64):
    return np.zeros(n, np.uint32)


BUGS = {
    # name: (kind, body, options)
    "load past the end": ("bounds", "ld.global.u32 %r3, [%rd11+4]; // BUG", {}),
    "store past the end": ("bounds", "st.global.u32 [%rd11+128], %r1; // BUG", {}),
    "store before the start": ("bounds", "st.global.u32 [%rd11+-4], %r1; // BUG", {}),
    "null pointer": ("bounds", "mov.u64 %rd12, 0;\nst.global.u32 [%rd12], %r1; // BUG", {}),
    "shared past the end": ("bounds", "st.shared.u32 [%r2+508], %r1; // BUG", {}),
    "negative shared offset": ("bounds", "sub.u32 %r3, %r2, 8;\nst.shared.u32 [%r3], %r1; // BUG", {}),
    "generic shared address in st.global": (
        "bounds", "cvt.u64.u32 %rd12, %r2;\ncvta.shared.u64 %rd12, %rd12;\nst.global.u32 [%rd12], %r1; // BUG", {},
    ),
    "global address in ld.shared": ("bounds", "ld.shared.u32 %r3, [%rd11]; // BUG", {}),
    "vector load half outside": (
        "bounds", "ld.global.v2.u32 {%r3, %r4}, [%rd0+252]; // BUG", {},
    ),
    "atomic past the end": ("bounds", "atom.global.add.u32 %r3, [%rd0+256], 1; // BUG", {}),
    "cp.async source past the end": (
        "bounds",
        "shl.b32 %r3, %r1, 2;\ncp.async.ca.shared.global [%r3], [%rd11+256], 4; // BUG\ncp.async.wait_all;", {},
    ),
    "local past the end": (
        "bounds", ".local .align 4 .b8 l[16];\nmov.u64 %rd12, l;\nst.local.u32 [%rd12+16], %r1; // BUG", {},
    ),
    "misaligned word": ("alignment", "add.u64 %rd12, %rd0, 2;\nld.global.u32 %r3, [%rd12]; // BUG", {}),
    "misaligned vector": ("alignment", "add.u64 %rd12, %rd0, 8;\nld.global.v4.u32 {%r3,%r4,%r5,%r6}, [%rd12]; // BUG", {}),
    "misaligned shared double": ("alignment", "mov.u32 %r3, 4;\nld.shared.u64 %rd12, [%r3]; // BUG", {}),
    "misaligned ldmatrix": (
        "alignment", "mov.u32 %r3, 8;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3]; // BUG", {},
    ),
    "misaligned cp.async": (
        "alignment", "mov.u32 %r3, 8;\ncp.async.cg.shared.global [%r3], [%rd0], 16; // BUG\ncp.async.wait_all;", {},
    ),
    "register never written": ("uninitialized", "st.global.u32 [%rd11], %r9; // BUG", {}),
    "copied, then stored": (
        "uninitialized", "mov.u32 %r3, %r9;\nadd.u32 %r3, %r3, 1;\nst.global.u32 [%rd11], %r3; // BUG", {},
    ),
    "undefined address": ("uninitialized", "add.u64 %rd12, %rd0, %rd13;\nld.global.u32 %r3, [%rd12]; // BUG", {}),
    "undefined guard": ("uninitialized", "@%p3 mov.u32 %r3, 1; // BUG", {}),
    "undefined branch": ("uninitialized", "@%p3 bra done; // BUG\ndone:", {}),
    "shared never written": (
        "uninitialized", "ld.shared.u32 %r3, [%r2];\nst.global.u32 [%rd11], %r3; // BUG", {},
    ),
    "half of a word written": (
        "uninitialized",
        "cvt.u16.u32 %h1, %r1;\nst.shared.u16 [%r2], %h1;\nld.shared.u32 %r3, [%r2];\nst.global.u32 [%rd11], %r3; // BUG",
        {},
    ),
    "local never written": (
        "uninitialized",
        ".local .align 4 .b8 l[16];\nmov.u64 %rd12, l;\nld.local.u32 %r3, [%rd12];\nst.global.u32 [%rd11], %r3; // BUG", {},
    ),
    "selp takes the undefined side": (
        "uninitialized",
        "setp.lt.u32 %p1, %r1, 3;\nselp.u32 %r3, %r9, %r1, %p1;\nst.global.u32 [%rd11], %r3; // BUG", {},
    ),
    "one lane of a branch skipped it": (
        "uninitialized",
        "setp.ne.u32 %p1, %r1, 5;\n@%p1 mov.u32 %r3, 7;\nst.global.u32 [%rd11], %r3; // BUG", {},
    ),
    "atomic operand": ("uninitialized", "red.global.add.u32 [%rd0], %r9; // BUG", {}),
    "missing barrier": (
        "race",
        "st.shared.u32 [%r2], %r1; // OTHER\nxor.b32 %r3, %r2, 128;\nld.shared.u32 %r4, [%r3]; // BUG", {},
    ),
    "second barrier missing": (
        "race",
        "st.shared.u32 [%r2], %r1;\nbar.sync 0;\nxor.b32 %r3, %r2, 4;\nld.shared.u32 %r4, [%r3]; // OTHER\n"
        "st.shared.u32 [%r2], %r4; // BUG",
        {},
    ),
    "two threads write one word": ("race", "mov.u32 %r3, 0;\nst.shared.u32 [%r3], %r1; // BUG // OTHER", {}),
    "lock step is no order": (
        "race",
        "st.shared.u32 [%r2], %r1; // OTHER\nxor.b32 %r3, %r2, 4;\nld.shared.u32 %r4, [%r3]; // BUG", {"block": 32},
    ),
    "shuffle is no order": (
        "race",
        "st.shared.u32 [%r2], %r1; // OTHER\nshfl.sync.bfly.b32 %r5, %r1, 1, 31, 0xffffffff;\nxor.b32 %r3, %r2, 4;\n"
        "ld.shared.u32 %r4, [%r3]; // BUG",
        {"block": 32},
    ),
    "barrier of another warp": (
        "race",
        "st.shared.u32 [%r2], %r1; // OTHER\nbar.warp.sync 0xffffffff;\nxor.b32 %r3, %r2, 128;\n"
        "ld.shared.u32 %r4, [%r3]; // BUG",
        {},
    ),
    "plain read of an atomic counter": (
        "race", "mov.u32 %r3, 0;\nred.shared.add.u32 [%r3], 1; // OTHER\nld.shared.u32 %r4, [%r3]; // BUG", {},
    ),
    "relaxed atomics do not publish": (
        "race",
        "setp.ne.u32 %p1, %r1, 0;\n@%p1 bra reader;\nst.shared.u32 [64], 5; // OTHER\natom.shared.exch.b32 %r3, [0], 1;\n"
        "bra.uni done;\nreader:\natom.shared.or.b32 %r3, [0], 0;\nld.shared.u32 %r4, [64]; // BUG\ndone:",
        {},
    ),
    "volatile read of a weak store": (
        "race", "mov.u32 %r3, 0;\nst.shared.u32 [%r2], 5; // OTHER\nld.volatile.shared.u32 %r4, [%r3]; // BUG", {},
    ),
    "weak read of a volatile store": (
        "race", "mov.u32 %r3, 0;\nst.volatile.shared.u32 [%r2], 5; // OTHER\nld.shared.u32 %r4, [%r3]; // BUG", {},
    ),
    "volatile flags do not publish": (
        "race",
        "setp.ne.u32 %p1, %r1, 0;\n@%p1 bra reader;\nst.shared.u32 [64], 5; // OTHER\nst.volatile.shared.u32 [0], 1;\n"
        "bra.uni done;\nreader:\nld.volatile.shared.u32 %r3, [0];\nld.shared.u32 %r4, [64]; // BUG\ndone:",
        {},
    ),
    "bar.arrive does not acquire": (
        "race",
        "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra producer;\nst.shared.u32 [%r2], %r1; // OTHER\nbar.sync 1, 64;\n"
        "bra.uni done;\nproducer:\nbar.arrive 1, 64;\nld.shared.u32 %r4, [%r2+128]; // BUG\ndone:",
        {},
    ),
    "reads that the writer's warp ordered hide no other": (
        "race",
        "setp.lt.u32 %p1, %r1, 32;\n@!%p1 bra writer;\nld.shared.u32 %r4, [0]; // OTHER\nbra.uni done;\nwriter:\n"
        "ld.shared.u32 %r5, [0];\nbar.warp.sync -1;\nsetp.eq.u32 %p2, %r1, 32;\n@%p2 st.shared.u32 [0], %r1; // BUG\ndone:",
        {},
    ),
    "two stores of one value": (
        "race",
        "setp.lt.u32 %p1, %r1, 32;\n@%p1 st.shared.u32 [0], 7; // OTHER\n@!%p1 st.shared.u32 [0], 7; // BUG", {},
    ),
    "cp.async waited but no barrier": (
        "race",
        "cp.async.ca.shared.global [%r2], [%rd11], 4; // OTHER\ncp.async.wait_all;\nxor.b32 %r3, %r2, 4;\n"
        "ld.shared.u32 %r4, [%r3]; // BUG",
        {},
    ),
    "read before the wait": (
        "pending",
        "cp.async.ca.shared.global [%r2], [%rd11], 4; // OTHER\ncp.async.commit_group;\nld.shared.u32 %r4, [%r2]; // BUG\n"
        "cp.async.wait_group 0;",
        {},
    ),
    "wait_group leaves one in flight": (
        "pending",
        "cp.async.ca.shared.global [%r2], [%rd11], 4;\ncp.async.commit_group;\n"
        "cp.async.ca.shared.global [%r2+256], [%rd11], 4; // OTHER\ncp.async.commit_group;\ncp.async.wait_group 1;\n"
        "ld.shared.u32 %r3, [%r2];\nld.shared.u32 %r4, [%r2+256]; // BUG\ncp.async.wait_group 0;",
        {},
    ),
    "overwrite a pending destination": (
        "pending",
        "cp.async.ca.shared.global [%r2], [%rd11], 4; // OTHER\nst.shared.u32 [%r2], %r1; // BUG\ncp.async.wait_all;", {},
    ),
    "write the source of a copy": (
        "pending",
        "cp.async.ca.shared.global [%r2], [%rd11], 4; // OTHER\nst.global.u32 [%rd11], %r1; // BUG\ncp.async.wait_all;", {},
    ),
    "never waited for": ("pending", "cp.async.ca.shared.global [%r2], [%rd11], 4; // BUG", {}),
    "committed but never waited for": (
        "pending", "cp.async.ca.shared.global [%r2], [%rd11], 4; // BUG\ncp.async.commit_group;", {},
    ),
    "barrier in one branch": (
        "convergence", "setp.lt.u32 %p1, %r1, 5;\n@!%p1 bra other;\nbar.sync 0; // BUG\nother:\nbar.sync 0;", {},
    ),
    "mma by half a warp": (
        "convergence",
        "setp.lt.u32 %p1, %r1, 16;\n@!%p1 bra other;\nmov.u32 %r3, 0;\n"
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3]; // BUG\nother:\nbar.sync 0;",
        {},
    ),
    "guarded barrier": ("convergence", "setp.lt.u32 %p1, %r1, 5;\n@%p1 bar.sync 0; // BUG", {}),
    "shuffle in a branch with a full mask": (
        "convergence",
        "setp.lt.u32 %p1, %r1, 5;\n@!%p1 bra other;\nshfl.sync.down.b32 %r3, %r1, 1, 31, 0xffffffff; // BUG\nother:\n"
        "bar.warp.sync 0xffffffff;",
        {"block": 32},
    ),
    "shuffle from an exited lane": (
        "convergence",
        "setp.gt.u32 %p1, %r1, 15;\n@%p1 ret;\nshfl.sync.down.b32 %r3, %r1, 1, 31, 0xffffffff; // BUG", {"block": 32},
    ),
    "lane outside its mask": ("convergence", "bar.warp.sync 0xffff; // BUG", {"block": 32}),
    "named barrier that nobody completes": (
        "deadlock", "setp.lt.u32 %p1, %r1, 32;\n@!%p1 bra done;\nbar.sync 1, 64; // BUG\ndone:", {},
    ),
    "different barriers": (
        "deadlock", "setp.lt.u32 %p1, %r1, 32;\n@!%p1 bra other;\nbar.sync 1; // BUG\nret;\nother:\nbar.sync 2;", {},
    ),
    "endless loop": ("budget", "again:\nadd.u32 %r3, %r1, 1;\nbra again; // BUG", {"budget": 10_000}),
    "waits for a flag that nobody sets": (
        "budget", "again:\nld.volatile.global.u32 %r3, [%rd0];\nsetp.eq.u32 %p1, %r3, 0;\n@%p1 bra again; // BUG",
        {"budget": 10_000},
    ),
    "trap": ("trap", "setp.eq.u32 %p1, %r1, 40;\n@%p1 trap; // BUG", {}),
    "barrier number out of range": ("trap", "add.u32 %r3, %r9, 16;\nmov.u32 %r3, 16;\nbar.sync %r3; // BUG", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_found_at_its_line(name):
    kind, body, options = BUGS[name]
    report, text = launch(body, zeros(), **options)
    found = [hazard for hazard in report.hazards if hazard.kind == kind]
    assert found, (name, report)
    if kind == "race":  # which of the two comes first depends on the order of the warps
        both = set(marked(text, "// BUG")) | set(marked(text, "// OTHER"))
        assert {line for hazard in found for line in (hazard.line, hazard.other_line)} == both, report
    else:
        assert {hazard.line for hazard in found} == set(marked(text, "// BUG")), report
    if kind == "pending" and marked(text, "// OTHER"):
        assert {hazard.other_line for hazard in found} == set(marked(text, "// OTHER")), report
    assert {hazard.kind for hazard in report.hazards} == {kind}, report
    assert not report.ok


@pytest.mark.parametrize(
    "name", [n for n, (kind, _, _) in BUGS.items() if kind in ("bounds", "alignment", "uninitialized")]
)
def test_each_check_has_its_switch(name):
    kind, body, _ = BUGS[name]
    report, _ = launch(body, zeros(), checks=simulator.Checks(**{kind: False}))
    assert report.ok, report


@pytest.mark.parametrize("engine", ["interpreter", "llvm"])
@pytest.mark.parametrize(
    "read",
    [
        "ld.global.u32 %r4, [%rd11+256];",
        "ld.shared.v2.u32 {%r4, %r5}, [%r2+4];",
        "atom.global.add.u32 %r4, [%rd0+256], 1;",
        "mov.u32 %r3, 8;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3];",
    ],
)
def test_what_a_dropped_access_gives_is_not_reported_again(read, engine):
    fill = "st.shared.u32 [%r2], %r1;\nst.shared.u32 [%r2+256], %r1;\nbar.sync 0;\n"
    report, text = launch(fill + read + " // BUG\nst.global.u32 [%rd11], %r4;", zeros(), engine=engine)
    assert {hazard.line for hazard in report.hazards} == set(marked(text, "// BUG")), report
    assert {hazard.kind for hazard in report.hazards} <= {"bounds", "alignment"}


def test_a_report_shows_the_bug_of_an_unrolled_line_once():
    unrolled = ".loc 1 5 1\n" + 12 * "st.global.u32 [%rd11+256], %r1;\n" + ".loc 1 6 1\nst.global.u32 [%rd11+512], %r1;"
    report, _ = launch(unrolled, zeros())
    assert len(report.hazards) == 13
    _, first, other, more = repr(report).splitlines()
    assert "file 1:5" in first
    assert "file 1:6" in other
    assert more.strip() == "and 11 more, see .hazards"


def test_races_switch_silences_races_and_pending_copies():
    for name in ("missing barrier", "read before the wait", "never waited for"):
        report, _ = launch(BUGS[name][1], zeros(), checks=simulator.Checks(races=False))
        assert report.ok, report


CLEAN = {
    "barrier orders": "st.shared.u32 [%r2], %r1;\nbar.sync 0;\nxor.b32 %r3, %r2, 128;\nld.shared.u32 %r4, [%r3];\n"
    "bar.sync 0;\nst.shared.u32 [%r2], %r4;",
    "warp barrier orders a warp": "st.shared.u32 [%r2], %r1;\nbar.warp.sync 0xffffffff;\nxor.b32 %r3, %r2, 4;\n"
    "ld.shared.u32 %r4, [%r3];\nbar.warp.sync 0xffffffff;\nst.shared.u32 [%r2], %r4;",
    "named barrier, producer and consumer": "setp.lt.u32 %p1, %r1, 32;\n@!%p1 bra consumer;\nst.shared.u32 [%r2], %r1;\n"
    "bar.arrive 1, 64;\nbra.uni done;\nconsumer:\nbar.sync 1, 64;\nld.shared.u32 %r4, [%r2+-128];\ndone:",
    "atomics do not race": "atom.shared.exch.b32 %r3, [0], 1;\nred.shared.add.u32 [0], 2;",
    "volatile accesses do not race": "st.volatile.shared.u32 [0], %r1;\nld.volatile.shared.u32 %r3, [0];",
    "relaxed accesses do not race with volatile ones": "st.relaxed.cta.shared.u32 [0], %r1;\n"
    "ld.volatile.shared.u32 %r3, [0];\nld.relaxed.cta.shared.u32 %r4, [0];\nst.volatile.shared.u32 [0], %r4;",
    "compare and swap from a volatile load": "atom.shared.exch.b32 %r3, [0], 0;\nbar.sync 0;\n"
    "ld.volatile.shared.u32 %r4, [0];\nagain:\nmov.u32 %r5, %r4;\nadd.u32 %r6, %r5, 3;\n"
    "atom.shared.cas.b32 %r4, [0], %r5, %r6;\nsetp.ne.u32 %p1, %r4, %r5;\n@%p1 bra again;",
    "fences around a volatile flag": "st.volatile.shared.u32 [0], 0;\nbar.sync 0;\nsetp.ne.u32 %p1, %r1, 0;\n"
    "@%p1 bra reader;\nst.shared.u32 [64], 5;\nmembar.cta;\nst.volatile.shared.u32 [0], 1;\nbra.uni done;\nreader:\n"
    "ld.volatile.shared.u32 %r3, [0];\nmembar.cta;\nsetp.eq.u32 %p2, %r3, 0;\n@%p2 bra reader;\n"
    "ld.shared.u32 %r4, [64];\ndone:",
    "same value by the lanes of one store": "setp.gt.u32 %p1, %r1, 31;\n@%p1 ret;\nst.shared.u32 [0], 7;",
    "same value by the warps of one store": "st.shared.u32 [0], 7;",
    "release and acquire": "setp.ne.u32 %p1, %r1, 0;\n@%p1 bra reader;\nst.shared.u32 [64], 5;\nst.shared.u32 [0], 0;\n"
    "atom.release.cta.shared.exch.b32 %r3, [4], 1;\nreader:\nbar.sync 0;\natom.acquire.cta.shared.or.b32 %r3, [4], 0;\n"
    "ld.shared.u32 %r4, [64];",
    "fences around relaxed atomics": "atom.shared.exch.b32 %r3, [0], 0;\nbar.sync 0;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra reader;\nst.shared.u32 [64], 5;\nmembar.cta;\n"
    "atom.shared.exch.b32 %r3, [0], 1;\nbra.uni done;\nreader:\natom.shared.or.b32 %r3, [0], 0;\nmembar.cta;\n"
    "and.b32 %r3, %r3, 1;\nsetp.eq.u32 %p2, %r3, 0;\n@%p2 bra reader;\nld.shared.u32 %r4, [64];\ndone:",
    "cp.async, wait, barrier": "cp.async.ca.shared.global [%r2], [%rd11], 4;\ncp.async.commit_group;\n"
    "cp.async.wait_group 0;\nbar.sync 0;\nxor.b32 %r3, %r2, 128;\nld.shared.u32 %r4, [%r3];\nst.global.u32 [%rd11], %r4;",
    "cp.async with nothing to read": "mov.u64 %rd12, 0;\nmov.u32 %r3, 0;\ncp.async.ca.shared.global [%r2], [%rd12], 4, %r3;\n"
    "cp.async.wait_all;\nld.shared.u32 %r4, [%r2];\nst.global.u32 [%rd11], %r4;",
    "double buffer": "cp.async.ca.shared.global [%r2], [%rd11], 4;\ncp.async.commit_group;\n"
    "cp.async.ca.shared.global [%r2+256], [%rd11], 4;\ncp.async.commit_group;\ncp.async.wait_group 1;\n"
    "ld.shared.u32 %r3, [%r2];\ncp.async.wait_group 0;\nld.shared.u32 %r4, [%r2+256];",
    "undefined, but never used": "mov.u32 %r3, %r9;\nst.shared.u32 [%r2], %r3;\nld.shared.u32 %r4, [%r2];\n"
    "selp.u32 %r5, %r1, %r4, %p1;",
    "xor clears": "xor.b32 %r3, %r9, %r9;\nst.global.u32 [%rd11], %r3;",
    "shuffle within the half that is there": "setp.gt.u32 %p1, %r1, 15;\n@%p1 ret;\n"
    "shfl.sync.bfly.b32 %r3, %r1, 1, 31, 0xffff;\nst.global.u32 [%rd11], %r3;",
    "guard false everywhere": "setp.gt.u32 %p1, %r1, 1000;\n@%p1 bar.sync 0;\n@%p1 trap;",
    "branches that meet": "setp.lt.u32 %p1, %r1, 5;\n@%p1 bra a;\nmov.u32 %r3, 1;\nbra.uni b;\na:\nmov.u32 %r3, 2;\nb:\n"
    "bar.sync 0;\nst.global.u32 [%rd11], %r3;",
    "warp that left does not hold up a barrier": "setp.gt.u32 %p1, %r1, 31;\n@%p1 ret;\nbar.sync 0;",
    "barrier without aligned in two branches": "setp.lt.u32 %p1, %r1, 5;\n@%p1 bra a;\nbarrier.sync 0;\nbra.uni b;\na:\n"
    "barrier.sync 0;\nb:",
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_clean_twin_stays_silent(name, monkeypatch):
    monkeypatch.setattr(machine, "QUANTUM", 200)  # who spins need not spin long
    if name == "undefined, but never used":
        body = "setp.lt.u32 %p1, %r1, 99;\n" + CLEAN[name]
    else:
        body = CLEAN[name]
    for cp_async in ("late", "eager"):
        block = 32 if "half" in name else 64
        report, _ = launch(body, zeros(), cp_async=cp_async, block=block)
        assert report.ok, report


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clean_twin_stays_silent_under_adversarial_schedules(name, seed):
    body = ("setp.lt.u32 %p1, %r1, 99;\n" if name == "undefined, but never used" else "") + CLEAN[name]
    report, _ = launch(body, zeros(), schedule="adversarial", seed=seed, block=32 if "half" in name else 64)
    assert report.ok, report


def test_a_hazard_names_array_index_and_size():
    report, _ = launch("st.global.u32 [%rd11], %r1;", zeros(60))
    (hazard,) = report.hazards
    assert "array 0: offset 240..244 of 240 bytes" in hazard.message
    assert hazard.thread == (60, 0, 0)
    assert hazard.block == (0, 0, 0)
    assert hazard.count == 4


def test_a_stray_access_is_found_against_its_own_array():
    body = "mov.u64 %rd13, 1048576;\nadd.u64 %rd12, %rd11, %rd13;\nst.global.u32 [%rd12], %r1;\nst.global.u32 [%rd1+-8], %r1;"
    report, _ = launch(body, zeros(), zeros())
    assert [h.message for h in report.hazards] == [
        "out of bounds: array 0: offset 1048576..1048580 of 256 bytes",
        "out of bounds: array 1: offset -8..-4 of 256 bytes",
    ]


def test_the_source_line_comes_from_loc():
    text = (
        f"{HEAD}.visible .entry k(.param .u64 p)\n{{\n{REGISTERS}.loc 1 17 3\nld.param.u64 %rd1, [p];\n.loc 1 19 5\n"
        'st.global.u32 [%rd1+400], 1;\nret;\n}\n.file 1 "kernel.py"\n'
    )
    report = simulator.load(text)["k"].launch(1, 1, zeros(), engine="interpreter")
    (hazard,) = report.hazards
    assert (hazard.file, hazard.source_line) == ("kernel.py", 19)
    assert "kernel.py:19" in str(hazard)


def test_uninitialized_output_buffers_are_reported_only_when_used():
    source, target = zeros(), zeros()
    report, _ = launch("ld.global.u32 %r3, [%rd11]; st.global.u32 [%rd11], %r1;", simulator.empty(target))
    assert report.ok
    body = "add.u64 %rd12, %rd1, %rd10;\nld.global.u32 %r3, [%rd11];\nst.global.u32 [%rd12], %r3;"
    report, _ = launch(body, simulator.empty(source), target)
    assert [h.kind for h in report.hazards] == ["uninitialized"]


def test_launch_goes_on_after_bounds_and_stops_after_trap():
    target = zeros()
    launch("st.global.u32 [%rd11+128], %r1;", target)
    assert target[32:].tolist() == list(range(32))
    target = zeros()
    report, _ = launch("st.global.u32 [%rd11], %r1;\ntrap;\nst.global.u32 [%rd11], 0;", target)
    assert report.stopped == "trap"
    assert target[:32].tolist() == list(range(32))


def test_lock_step_code_fails_visibly_under_some_adversarial_schedule():
    body = (
        "st.shared.u32 [%r2], %r1;\nsetp.lt.u32 %p1, %r1, 16;\n@!%p1 bra other;\nadd.u32 %r5, %r1, 100;\n"
        "st.shared.u32 [%r2], %r5;\nbra.uni join;\nother:\nmov.u32 %r5, 0;\njoin:\nxor.b32 %r3, %r2, 64;\n"
        "ld.shared.u32 %r4, [%r3];\nst.global.u32 [%rd11], %r4;"
    )
    seen = set()
    for seed in range(8):
        target = zeros(32)
        launch(body, target, block=32, schedule="adversarial", seed=seed)
        seen.add(target.tobytes())
    assert len(seen) > 1
