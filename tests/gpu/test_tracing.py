"""A trace says what a warp did: registers by lane, banks, sectors, copies in flight, hazards at their step."""

# ruff: noqa: E501  (tables of PTX text)

import json

import numpy as np
import pytest
from ptx_text import HEAD, REGISTERS

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator import heat, l2, overlap, perfetto, tracing

START = "ld.param.u64 %rd0, [p0];\nmov.u32 %r1, %tid.x;\nshl.b32 %r2, %r1, 2;\nmul.wide.u32 %rd1, %r1, 4;\nadd.u64 %rd1, %rd0, %rd1;"


def entry(body):
    text = f"{HEAD}\n.visible .entry k(.param .u64 p0)\n{{\n{REGISTERS}.shared .align 16 .b8 s[4096];\n{START}\n{body}\nret;\n}}\n"
    return simulator.load(text)["k"], text


def trace(body, data=None, **options):
    kernel, _ = entry(body)
    options.setdefault("block", 32)
    return tracing.trace(
        kernel,
        options.pop("grid", 1),
        options.pop("block"),
        np.zeros(4096, np.uint32) if data is None else data,
        **options,
    )


def test_written_registers_lane_by_lane():
    steps = trace("add.u32 %r3, %r1, 5;\nsetp.lt.u32 %p1, %r1, 4;\n@%p1 mov.u32 %r3, 9;\nmov.f32 %f1, 0f3FC00000;")
    (tid,) = steps[1].changes
    assert (tid.register, tid.values) == ("%r1", tuple(range(32)))
    (added,) = next(step for step in steps if step.ptx.startswith("add.u32 %r3")).changes
    assert added.values == tuple(range(5, 37))
    assert all(added.lanes)
    guarded = next(step for step in steps if step.ptx.startswith("@%p1"))
    assert guarded.changes[0].lanes == tuple(lane < 4 for lane in range(32))
    assert guarded.changes[0].values == (9,) * 4 + tuple(range(9, 37))
    (real,) = next(step for step in steps if step.ptx.startswith("mov.f32")).changes
    assert real.text(7) == "1.5"
    assert steps.ended


def test_an_undefined_value_is_shown_as_such():
    (step,) = [s for s in trace("mov.u32 %r3, %r9;") if s.ptx.startswith("mov.u32 %r3")]
    assert set(step.changes[0].values) == {None}
    assert step.changes[0].text(0) == "undefined"


@pytest.mark.parametrize(
    ("stride", "banks", "wavefronts"), [(1, 32, 1), (2, 16, 2), (32, 1, 32), (0, 1, 1), (33, 32, 1)]
)
def test_banks_and_wavefronts_of_a_shared_store(stride, banks, wavefronts):
    body = f"mul.lo.u32 %r3, %r1, {4 * stride};\nst.shared.u32 [%r3], %r1;"
    kernel, _ = entry(body)
    step = next(s for s in trace(body) if s.ptx.startswith("st.shared"))
    (access,) = step.accesses
    assert len(set(access.banks())) == banks
    assert access.wavefronts == wavefronts
    report = kernel.launch(1, 32, np.zeros(4096, np.uint32), checks=simulator.Checks.none())
    assert report.metrics["l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum"] == wavefronts


def test_sectors_of_a_global_load():
    body = "mul.wide.u32 %rd2, %r1, 8;\nadd.u64 %rd2, %rd0, %rd2;\nld.global.u32 %r3, [%rd2];"
    (access,) = next(s for s in trace(body) if s.ptx.startswith("ld.global")).accesses
    assert access.sectors() == [lane // 4 for lane in range(32)]


def test_copies_in_flight_until_the_wait():
    body = "cp.async.ca.shared.global [%r2], [%rd1], 4;\ncp.async.commit_group;\ncp.async.wait_group 0;"
    steps = [s for s in trace(body) if s.ptx.startswith("cp.")]
    assert [(s.pending, s.pending_bytes) for s in steps] == [(32, 128), (32, 128), (0, 0)]
    assert {a.space for a in steps[0].accesses} == {"shared", "global"}


def test_a_hazard_appears_in_its_step():
    steps = trace("ld.global.u32 %r3, [%rd0+16384];\nmov.u32 %r4, 1;")
    assert [s.ptx.split()[0] for s in steps if s.hazards] == ["ld.global.u32"]
    assert "out of bounds" in next(s for s in steps if s.hazards).hazards[0]


def test_window_warp_and_block():
    body = "mov.u32 %r3, %ctaid.x;"
    every = trace(body, grid=3, block=96, warp=2, thread_block=1)
    assert every[1].changes[0].values == tuple(range(64, 96))
    assert next(s for s in every if s.ptx.startswith("mov.u32 %r3")).changes[0].values == (1,) * 32
    part = trace(body, grid=3, block=96, warp=2, thread_block=1, first=2, count=3)
    assert [s.number for s in part] == [2, 3, 4]
    assert not part.ended
    assert [str(s) for s in part] == [str(s) for s in every[2:5]]
    for wrong in ({"warp": 3}, {"thread_block": 3}, {"count": 0}, {"first": -1}):
        with pytest.raises(simulator.LaunchError):
            trace(body, grid=3, block=96, **wrong)


def test_json_and_notebook_forms():
    steps = trace("st.shared.u32 [%r2], %r1;")
    told = json.loads(steps.to_json())
    assert len(told["steps"]) == len(steps)
    assert told["steps"][1]["changes"][0]["values"] == list(range(32))
    page = steps._repr_html_()
    assert page.count("<pre") == len(steps)
    assert "type=range" in page


def test_every_lane_is_shown_where_lanes_differ():
    steps = trace("mov.u32 %r4, 7;\nshl.b32 %r3, %r1, 3;\nst.shared.u32 [%r3], %r1;", block=20)

    def shown(start):
        step = next(step for step in steps if step.ptx.startswith(start))
        return step.text(every_lane=True).splitlines()

    ids = shown("mov.u32 %r1")
    assert [line.split(": ", 1)[1].split() for line in ids[2:]] == [
        [hex(lane) if lane < 20 else "." for lane in range(first, first + 8)] for first in (0, 8, 16, 24)
    ]
    assert shown("mov.u32 %r4")[1].endswith("0x7 in 20 lanes")
    rows = [line.split(": ", 1)[1].split("bank") for line in shown("st.shared")[2:6]]
    assert [int(part) for part in rows[1][1:]] == [16, 18, 20, 22, 24, 26, 28, 30]
    assert [len(row) - 1 for row in rows] == [8, 8, 4, 0]
    page = steps._repr_html_()
    assert "lanes 16-23" in page
    assert "type=range" in page


def test_heat_maps_say_which_lane_hits_which_bank():
    body = "mul.lo.u32 %r3, %r1, 8;\nst.shared.u32 [%r3], %r1;\nbar.sync 0;\nld.global.u32 %r4, [%rd1];"
    kernel, text = entry(body)
    lines = [n for n, line in enumerate(text.splitlines(), 1) if line.startswith(("st.shared", "ld.global"))]
    maps = heat.heatmaps(kernel, 1, 64, np.zeros(64, np.uint32), lines=lines[::-1])
    assert [m.space for m in maps] == ["global", "shared"]
    expected = np.zeros((32, 32), int)
    expected[np.arange(32), np.arange(32) * 2 % 32] = 2  # both warps
    assert np.array_equal(maps[1].counts, expected)
    assert maps[1].executions == 2


class TestL2:
    """With room for everything DRAM reads are the distinct sectors; a cache of one line reads again."""

    BODY = "ld.global.u32 %r3, [%rd1];\nbar.sync 0;\nld.global.u32 %r4, [%rd1];\nst.global.u32 [%rd1], %r1;"

    def traffic(self, body, **options):
        kernel, _ = entry(body)
        return l2.traffic(kernel, 1, 64, np.zeros(4096, np.uint32), **options)

    def test_compulsory(self):
        found = self.traffic(self.BODY)
        assert (found.read_bytes, found.write_bytes) == (256, 256)
        assert (found.sectors, found.hits) == (24, 16)

    def test_capacity(self):
        found = self.traffic(self.BODY, capacity=128)
        # warp 0 and warp 1 read a line each; warp 1, which opens the barrier, finds its own again; warp 0 does not
        assert (found.read_bytes, found.hits) == (128 + 128 + 128, 4 + 4 + 4)
        assert found.write_bytes == 256

    def test_a_partial_write_reads_its_sector(self):
        found = self.traffic("setp.eq.u32 %p1, %r1, 0;\n@%p1 st.global.u32 [%rd1], %r1;")
        assert (found.read_bytes, found.write_bytes) == (32, 32)


PIPELINE = """
mov.b32 %r10, 0; mov.b32 %r11, 0; mov.b32 %r12, 0; mov.b32 %r13, 0;
mov.f32 %f1, 0f00000000; mov.f32 %f2, %f1; mov.f32 %f3, %f1; mov.f32 %f4, %f1;
cp.async.ca.shared.global [%r2], [%rd1], 4;
cp.async.commit_group;
cp.async.ca.shared.global [%r2+512], [%rd1], 4;
cp.async.commit_group;
MMA
cp.async.wait_group 1;
MMA
cp.async.wait_group 0;
MMA
MMA
""".replace(
    "MMA",
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r10,%r11,%r12,%r13}, {%r10,%r11}, {%f1,%f2,%f3,%f4};",
)


def test_copies_in_flight_at_each_mma():
    kernel, _ = entry(PIPELINE)
    found = overlap.overlap(kernel, 1, 64, np.zeros(4096, np.uint32))
    assert (found.mma, found.covered, found.groups) == (8, 4, 2)  # two warps
    assert found.bytes == 2 * (256 + 128)
    assert found.share == 0.5
    assert found.mean_bytes == 96


def test_trace_events_cover_every_instruction_and_copy():
    kernel, _ = entry(PIPELINE)
    told = perfetto.events(kernel, 1, 64, np.zeros(4096, np.uint32))
    issued = [e for e in told if e["ph"] == "X" and e["cat"] != "copy"]
    report = kernel.launch(1, 64, np.zeros(4096, np.uint32))
    assert len(issued) == report.instructions
    assert [e["ts"] for e in issued] == list(range(len(issued)))
    copies = [e for e in told if e.get("cat") == "copy"]
    assert len(copies) == 4
    for copy in copies:
        issue = next(e for e in issued if e["ts"] == copy["ts"])
        landed = next(e for e in issued if e["ts"] == copy["ts"] + copy["dur"] - 1)
        assert (issue["name"], landed["name"]) == ("cp.async.ca.shared.global", "cp.async.wait_group")
        assert issue["tid"] == landed["tid"] == copy["tid"] - perfetto.COPIES
    names = {e["args"]["name"] for e in told if e["ph"] == "M"}
    assert names == {"warp 0", "warp 1", "copies of warp 0", "copies of warp 1"}


def test_a_replay_leaves_module_variables_alone():
    body = "mov.u64 %rd5, counter;\nmov.u32 %r3, 7;\nst.global.u32 [%rd5], %r3;"
    text = f"{HEAD}.visible .global .u32 counter = 1;\n.visible .entry k(.param .u64 p0)\n{{\n{REGISTERS}{START}\n{body}\nret;\n}}\n"
    module = simulator.load(text)
    tracing.trace(module["k"], 1, 32, np.zeros(64, np.uint32))
    assert module.variables.data.view(np.uint32)[0] == 1


def test_a_store_of_whole_sectors_reads_nothing_from_dram():
    kernel, _ = entry("st.global.u32 [%rd1], %r1;")
    found = l2.traffic(kernel, 1, 64, np.zeros(4096, np.uint32))
    assert (found.read_bytes, found.write_bytes, found.hits) == (0, 256, 0)
