"""Counters against numbers computed by hand, and the report around them."""

# ruff: noqa: E501  (PTX text)

import json

import numpy as np
import pytest
from ptx_text import run

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator import hot
from loadsparse.gpu.simulator.interpreter.counters import row_wavefronts, sectors, wavefronts

HEAD = "mov.u32 %r1, %tid.x;\n"
GLOBAL = "l1tex__{}_pipe_lsu_mem_global_op_{}.sum"
WAVEFRONTS = "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_{}.sum"
CONFLICTS = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_{}.sum"


@pytest.mark.parametrize(
    ("stride", "vector", "expected"),
    [(4, "", 4), (8, "", 8), (16, "", 16), (32, "", 32), (64, "", 32), (16, ".v4", 16), (8, ".v2", 8), (0, "", 1)],
)
def test_sectors_of_global_loads(stride, vector, expected):
    registers = {"": "%r2", ".v2": "{%r2, %r3}", ".v4": "{%r2, %r3, %r4, %r5}"}[vector]
    report = run(HEAD + f"mad.wide.u32 %rd5, %r1, {stride}, %rd0;\nld.global{vector}.u32 {registers}, [%rd5];",
                 np.zeros(2048, np.uint8))  # fmt: skip
    assert report.ok, report
    assert report.metrics[GLOBAL.format("t_sectors", "ld")] == expected
    assert report.metrics[GLOBAL.format("t_requests", "ld")] == 1
    assert report.metrics["global_bytes_ld"] == 32 * {"": 4, ".v2": 8, ".v4": 16}[vector]


def test_guarded_off_and_illegal_lanes_do_not_count():
    body = HEAD + (
        "setp.lt.u32 %p1, %r1, 8;\nmad.wide.u32 %rd5, %r1, 4, %rd0;\n@%p1 st.global.u32 [%rd5], %r1;\n"
        "setp.gt.u32 %p2, %r1, 99;\n@%p2 st.global.u32 [%rd5], %r1;\nst.global.u32 [%rd5+64], %r1;"
    )
    report = run(body, np.zeros(32, np.uint32))
    assert report.metrics[GLOBAL.format("t_requests", "st")] == 2
    assert report.metrics[GLOBAL.format("t_sectors", "st")] == 1 + 2
    assert report.metrics["global_bytes_st"] == 32 + 16 * 4


@pytest.mark.parametrize(
    ("stride", "vector", "expected", "ideal"),
    [
        (4, "", 1, 1), (8, "", 2, 1), (16, "", 4, 1), (128, "", 32, 1), (0, "", 1, 1), (12, "", 1, 1), (132, "", 1, 1),
        (8, ".v2", 2, 2), (16, ".v2", 4, 2), (0, ".v2", 1, 1), (16, ".v4", 4, 4), (32, ".v4", 8, 4), (0, ".v4", 1, 1),
        (80, ".v4", 4, 4), (128, ".v4", 32, 4),
    ],
)  # fmt: skip
def test_wavefronts_of_shared_loads(stride, vector, expected, ideal):
    registers = {"": "%r2", ".v2": "{%r2, %r3}", ".v4": "{%r2, %r3, %r4, %r5}"}[vector]
    body = f".shared .align 16 .b8 s[8192];\nmul.lo.u32 %r9, %r1, {stride};\nld.shared{vector}.u32 {registers}, [%r9];"
    report = run(HEAD + body)
    assert report.metrics[WAVEFRONTS.format("ld")] == expected
    assert report.metrics[CONFLICTS.format("ld")] == expected - ideal
    assert report.metrics[WAVEFRONTS.format("st")] == 0


def test_ldmatrix_phases():
    body = ".shared .align 16 .b8 s[8192];\nmul.lo.u32 %r9, %r1, {};\nldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r2,%r3,%r4,%r5}}, [%r9];"
    for stride, expected in ((16, 4), (128, 32), (144, 4), (32, 8)):
        report = run(HEAD + body.format(stride))
        assert report.metrics["shared_wavefronts_ldmatrix"] == expected
        assert report.metrics[WAVEFRONTS.format("ld")] == expected


ENGINES = pytest.mark.parametrize("engine", ["interpreter", "llvm"])


@ENGINES
@pytest.mark.parametrize(
    ("address", "vector", "expected"),
    [
        # 8 bytes: two groups of 16 lanes.  Both read words 0 to 31 (lane % 16): the second group costs nothing
        ("and.b32 %r9, %r1, 15; shl.b32 %r9, %r9, 3;", ".v2", 1),
        # words 2 (lane // 2) and the next: 16 words for each group, and they differ
        ("shr.u32 %r9, %r1, 1; shl.b32 %r9, %r9, 3;", ".v2", 2),
        # 16 bytes: four groups of 8 lanes.  lane % 8: all four read words 0 to 31
        ("and.b32 %r9, %r1, 7; shl.b32 %r9, %r9, 4;", ".v4", 1),
        # lane // 16: groups 0 and 1 read words 0 to 3, groups 2 and 3 words 4 to 7
        ("shr.u32 %r9, %r1, 4; shl.b32 %r9, %r9, 4;", ".v4", 2),
        # groups 0 and 2 read words 0 to 3, groups 1 and 3 words 4 to 7: no neighbours agree
        ("shr.u32 %r9, %r1, 3; and.b32 %r9, %r9, 1; shl.b32 %r9, %r9, 4;", ".v4", 4),
        # lane 0 at word 0, lane 1 at word 32, ...: eight times the same four banks in every group
        ("shl.b32 %r9, %r1, 7;", ".v4", 32),
    ],
)
def test_neighbouring_groups_of_wide_accesses_merge(engine, address, vector, expected):
    registers = {".v2": "{%r2, %r3}", ".v4": "{%r2, %r3, %r4, %r5}"}[vector]
    body = HEAD + f".shared .align 16 .b8 s[8192];\n{address}\nld.shared{vector}.u32 {registers}, [%r9];"
    assert run(body, engine=engine).metrics[WAVEFRONTS.format("ld")] == expected


@ENGINES
@pytest.mark.parametrize(("stride", "sectors_of"), [(0, 1), (4, 4), (8, 8), (32, 32)])
def test_atomics_on_global_memory_are_one_request(engine, stride, sectors_of):
    """Neither loads nor stores; how often an address is hit changes nothing."""
    address = f"mad.wide.u32 %rd5, %r1, {stride}, %rd0;\n"
    body = (
        "red.global.add.u32 [%rd5], 1;\n"
        "atom.global.add.u32 %r2, [%rd5], 1;\nadd.u32 %r3, %r2, 1;\n"
        "atom.global.add.u32 %r4, [%rd5], 1;\n"  # its result is not read: a RED in machine code
        "atom.global.exch.b32 %r5, [%rd5], 1;\n"  # which this is not
    )
    report = run(HEAD + address + body, np.zeros(256, np.uint32), engine=engine)
    assert report.ok, report
    for way, count in (("ld", 0), ("st", 0), ("atom", 2), ("red", 2)):
        assert report.metrics[GLOBAL.format("t_requests", way)] == count
        assert report.metrics[GLOBAL.format("t_sectors", way)] == count * sectors_of
    bytes_of = [report.metrics[f"global_bytes_{way}"] for way in ("ld", "st", "atomics")]
    assert bytes_of == [0, 0, 4 * 128]


@ENGINES
@pytest.mark.parametrize(("stride", "expected"), [(0, 1), (4, 1), (8, 2), (128, 32)])
def test_atomics_on_shared_memory_are_wavefronts_like_loads(engine, stride, expected):
    body = (
        HEAD + f".shared .align 16 .b8 s[4096];\nmul.lo.u32 %r9, %r1, {stride};\nst.shared.u32 [%r9], 0;\nbar.sync 0;\n"
    )
    report = run(body + "atom.shared.add.u32 %r2, [%r9], 1;\nred.shared.add.u32 [%r9], 1;", engine=engine)
    for way, count in (("ld", 0), ("atom", 2 * expected)):
        assert report.metrics[WAVEFRONTS.format(way)] == count
        assert report.metrics[CONFLICTS.format(way)] == max(0, count - 2)


@ENGINES
def test_every_pipe_and_every_source_line(engine):
    """The mix adds up, and a source line has the counts of all PTX lines that came from it."""
    head = '.file 1 "k.cu"\n'
    body = (
        ".loc 1 3 1\nmov.u32 %r1, %tid.x;\nmad.wide.u32 %rd5, %r1, 4, %rd0;\n.loc 1 4 1\nld.global.f32 %f1, [%rd5];\n"
        "sqrt.approx.f32 %f2, %f1;\nadd.f32 %f3, %f1, %f2;\n.loc 1 5 1\nst.global.f32 [%rd5], %f3;\n"
    )
    report = run(body, np.ones(64, np.float32), block=64, head=head, engine=engine)
    pipes = {
        k.removeprefix("inst_executed_pipe_"): v
        for k, v in report.metrics.items()
        if k.startswith("inst_executed_pipe_")
    }
    assert pipes["xu"] == 2
    assert pipes["lsu"] == 2 * 3  # ld.param, ld, st
    assert pipes["fma"] == 2 * 2  # mad, add.f32
    assert sum(pipes.values()) == report.instructions
    lines = {row["source_line"]: row for row in hot.source(report.lines, 10)}
    assert {line: (row["executions"], row["cost"]) for line, row in lines.items()} == {
        3: (4, 4),
        4: (6, 6 + 2 * 3),
        5: (4, 4 + 2 * 3),
    }


@pytest.mark.parametrize("engine", ["llvm", "interpreter"])
@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize(
    ("offset", "lanes", "kind", "expected"),
    [
        ("mov.u32 %r9, 64;", 32, "u32", 4),  # the same word of all threads: 32 x 4 bytes side by side
        ("mul.lo.u32 %r9, %r1, 4;", 32, "u32", 32),  # every thread another word
        ("and.b32 %r9, %r1, 24; shr.u32 %r9, %r9, 1;", 32, "u32", 4),  # 8 threads share a word
        ("and.b32 %r9, %r1, 1; shl.b32 %r9, %r9, 2;", 32, "u32", 8),  # two words
        ("and.b32 %r9, %r1, 3;", 32, "u8", 4),  # four bytes of one word
        ("mov.u32 %r9, 16;", 20, "u32", 3),
        ("mov.u32 %r9, 16;", 32, "v4.u32", 16),
        ("and.b32 %r9, %r1, 4; shl.b32 %r9, %r9, 1;", 32, "u64", 16),  # two words each, of two pairs
    ],
)
def test_sectors_of_local_accesses(engine, generic, offset, lanes, kind, expected):
    value = {"u8": "%h1", "u32": "%r2", "u64": "%rd6", "v4.u32": "{%r2, %r2, %r2, %r2}"}[kind]
    loaded = {"v4.u32": "{%r3, %r4, %r5, %r6}"}.get(kind, value)
    space, address = ("", "%rd5") if generic else (".local", "%r9")
    body = f"""
    .local .align 16 .b8 l[256];
    setp.lt.u32 %p1, %r1, {lanes};
    {offset}
    mov.u32 %r2, 1; mov.u16 %h1, 1; mov.u64 %rd6, 1;
    cvt.u64.u32 %rd5, %r9; cvta.local.u64 %rd5, %rd5;
    @%p1 st{space}.{kind} [{address}], {value};
    @%p1 ld{space}.{kind} {loaded}, [{address}];"""
    metrics = run(HEAD + body, engine=engine).metrics
    for way in ("st", "ld"):
        assert metrics[f"l1tex__t_requests_pipe_lsu_mem_local_op_{way}.sum"] == 1
        assert metrics[f"l1tex__t_sectors_pipe_lsu_mem_local_op_{way}.sum"] == expected
        assert metrics[GLOBAL.format("t_requests", way)] == 0


def test_cp_async_is_counted_apart():
    body = (
        ".shared .align 16 .b8 s[1024];\nshl.b32 %r2, %r1, 4;\nmad.wide.u32 %rd5, %r1, 16, %rd0;\n"
        "cp.async.cg.shared.global [%r2], [%rd5], 16;\ncp.async.wait_all;"
    )
    report = run(HEAD + body, np.zeros(128, np.uint32))
    assert report.ok
    assert report.metrics["shared_wavefronts_cp_async"] == 4
    assert report.metrics[WAVEFRONTS.format("st")] == 0
    assert report.metrics["cp_async_bytes"] == 512
    assert report.metrics[GLOBAL.format("t_sectors", "ld")] == 16
    assert report.metrics[GLOBAL.format("t_requests", "ld")] == 1


def test_counting_rules_on_addresses():
    assert sectors(np.array([0, 28, 32, 60], np.uint64), 4) == 2
    assert sectors(np.array([28], np.uint64), 8) == 2
    assert wavefronts(np.arange(32), np.arange(32) * 2, 2) == (1, 1)
    assert wavefronts(np.array([0, 1]), np.array([0, 128]), 4) == (2, 1)
    assert wavefronts(np.arange(32), (np.arange(32) // 2) * 8, 8) == (2, 2)
    assert wavefronts(np.array([31]), np.array([64]), 8) == (1, 1)
    assert row_wavefronts(np.zeros(8, np.int64)) == (1, 1)


def test_instructions_threads_divergence_and_barriers():
    body = HEAD + (
        "setp.lt.u32 %p1, %r1, 5;\n@%p1 bra a;\nadd.f32 %f1, 0f00000000, 0f00000000;\na:\nbar.sync 0;\nbar.warp.sync -1;\n"
        "@%p1 fma.rn.f32 %f1, 0f00000000, 0f00000000, 0f00000000;\nadd.f64 %fd1, 0d0000000000000000, 0d0000000000000000;"
    )
    report = run(body, block=40)
    assert report.ok, report
    per_warp = [9, 9]
    assert report.instructions == sum(per_warp)
    assert report.thread_instructions == 9 * 40 - 5
    assert report.metrics["divergent_branches"] == 1
    assert report.metrics["barriers"] == 2
    assert report.metrics["inst_executed_pipe_fp64"] == 2
    assert report.metrics["inst_executed_pipe_branch"] == 4
    assert sum(v for k, v in report.metrics.items() if k.startswith("inst_executed_pipe_")) == report.instructions


def test_lines_add_up_to_the_metrics_and_survive_json():
    body = HEAD + "mad.wide.u32 %rd5, %r1, 8, %rd0;\nld.global.u32 %r2, [%rd5];\nst.global.u32 [%rd5], %r2;"
    report = run(body, np.zeros(64, np.uint32))
    assert sum(row["executions"] for row in report.lines) == report.instructions
    assert sum(row["threads"] for row in report.lines) == report.thread_instructions
    load = next(row for row in report.lines if row["ptx"].startswith("ld.global"))
    assert (load["sectors"], load["requests"], load["bytes"]) == (8, 1, 128)
    loaded = json.loads(report.to_json())
    assert loaded["ok"] is True
    assert loaded["metrics"] == report.metrics
    assert set(report.seconds) == {"translate", "execute"}
    assert "ok" in repr(report)


def test_html_page_is_self_contained(tmp_path):
    report = run(HEAD + "st.global.u32 [%rd0+4], %r1; // <b>", np.zeros(1, np.uint32))
    path = tmp_path / "report.html"
    report.to_html(path)
    text = path.read_text(encoding="utf-8")
    assert "out of bounds" in text
    assert "http://" not in text
    assert "https://" not in text
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_no_checks_reports_nothing_and_still_drops_illegal_accesses():
    target = np.zeros(4, np.uint32)
    body = HEAD + "mad.wide.u32 %rd5, %r1, 4, %rd0;\nst.global.u32 [%rd5], %r9;"
    report = run(body, target, checks=simulator.Checks.none())
    assert report.ok
