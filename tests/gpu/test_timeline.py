"""The timeline of a block's warps: steps, barrier waits and copies in flight, by hand."""

import numpy as np
from ptx_text import entry

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator import html, pictures
from loadsparse.gpu.simulator.timeline import Span, timeline

UNEVEN = (
    ".shared .align 16 .b8 s[256];\n"
    "mov.u32 %r1, %tid.x;\n"
    "setp.lt.u32 %p1, %r1, 32;\n"
    "@%p1 bra SHORT;\n"
    "add.u32 %r2, %r1, 1;\n"
    "add.u32 %r2, %r2, 1;\n"
    "add.u32 %r2, %r2, 1;\n"
    "SHORT: bar.sync 0;\n"
    "add.u32 %r3, %r1, 1;\n"
)


def of(body, *arguments, block=64, parameters=""):
    kernel = simulator.load(entry(body, parameters))["k"]
    return timeline(kernel, 1, block, *arguments)


def test_the_short_warp_waits_for_the_long_one():
    found = of(UNEVEN)
    short, long = found.tracks
    assert [len(track.issues) for track in found.tracks] == [6, 9]
    # instructions 0 to 2, then bar at step 3 (short) or 6 (long): it opens after step 6
    assert [i.step for i in short.issues] == [0, 1, 2, 3, 7, 8]
    assert [i.step for i in long.issues] == list(range(9))
    assert [(w.begin, w.end) for w in short.waits] == [(4, 7)]
    assert long.waits == []
    assert found.steps == 9
    assert found.whole


def test_a_barrier_in_a_loop_opens_once_a_round():
    body = "mov.u32 %r1, %tid.x;\nmov.u32 %r2, 0;\nL: bar.sync 1;\nadd.u32 %r2, %r2, 1;\nsetp.lt.u32 %p1, %r2, 3;\n@%p1 bra L;\n"
    found = of(body, block=96)
    assert [len(track.issues) for track in found.tracks] == [2 + 3 * 4 + 1] * 3
    assert all(track.waits == [] for track in found.tracks)


def test_copies_fly_from_their_issue_to_their_wait():
    body = (
        ".shared .align 16 .b8 s[2048];\nld.param.u64 %rd1, [p0];\nmov.u32 %r1, %tid.x;\nshl.b32 %r2, %r1, 4;\n"
        "cvt.u64.u32 %rd2, %r2;\nadd.u64 %rd3, %rd1, %rd2;\n"
        "cp.async.cg.shared.global [%r2], [%rd3], 16;\ncp.async.commit_group;\n"
        "cp.async.cg.shared.global [%r2+1024], [%rd3], 16;\ncp.async.commit_group;\n"
        "cp.async.wait_group 1;\nadd.u32 %r3, %r1, 1;\ncp.async.wait_group 0;\n"
    )
    found = of(body, np.zeros(256, np.uint32), block=32, parameters=".param .u64 p0")
    (track,) = found.tracks
    assert [(span.begin, span.end, span.size) for span in track.copies] == [(5, 9, 512), (7, 11, 512)]


def test_a_deadlock_is_drawn_to_the_end():
    body = "mov.u32 %r1, %tid.x;\nsetp.lt.u32 %p1, %r1, 32;\n@%p1 bra W;\nbar.sync 0;\nret;\nW: bar.sync 1;\n"
    found = of(body)
    assert [len(track.waits) for track in found.tracks] == [1, 1]


def test_the_picture_draws_every_span_and_says_what_it_is():
    found = of(UNEVEN)
    text = pictures.timeline(found, "k0", {2: "<b>"})
    assert text.count("class=wait") == 1
    assert "waits at the barrier in PTX line" in text
    assert "an order, not a time" in text
    assert "<b>" not in text
    report = simulator.load(entry(UNEVEN))["k"].launch(1, 64)
    assert "Modelled: 2 of 2 warps" in html.page([html.Panel(report, timeline=found)])


def test_copies_that_land_together_are_one_bar():
    spans = [Span(1, 9, 5, 16), Span(2, 9, 6, 16), Span(3, 11, 7, 16)]
    assert pictures._merged(spans) == [Span(1, 9, 5, 32), Span(3, 11, 7, 16)]
