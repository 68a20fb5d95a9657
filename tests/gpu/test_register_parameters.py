"""Functions whose parameters and results are registers."""

import numpy as np
import pytest
from ptx_text import HEAD

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator.program import PtxError

PTX = """
.func (.reg .b32 d) scaled (.reg .b32 x, .reg .u16 by)
{
    .reg .b32 %r<2>;
    cvt.u32.u16 %r1, by;
    mul.lo.u32 d, x, %r1;
    ret;
}
.func (.param .b32 d) mixed (.reg .b64 x, .param .b32 y)
{
    .reg .b32 %r<4>;
    cvt.u32.u64 %r1, x;
    ld.param.b32 %r2, [y];
    add.u32 %r3, %r1, %r2;
    st.param.b32 [d], %r3;
    ret;
}
.visible .entry k(.param .u64 p)
{
    .reg .b32 %r<6>; .reg .b16 %h<2>; .reg .b64 %rd<5>; .param .b32 y; .param .b32 z;
    mov.u32 %r1, %tid.x; mov.u16 %h1, 3;
    call (%r2), scaled, (%r1, %h1);
    call (%r3), scaled, (%r2, 7);
    st.param.b32 [y], 100; mov.u64 %rd2, 11;
    call (z), mixed, (%rd2, y);
    ld.param.b32 %r4, [z]; add.u32 %r3, %r3, %r4;
    ld.param.u64 %rd1, [p]; mul.wide.u32 %rd3, %r1, 4; add.u64 %rd1, %rd1, %rd3;
    st.global.u32 [%rd1], %r3;
    ret;
}
"""


def test_values_go_in_and_come_back():
    out = np.zeros(32, np.uint32)
    assert simulator.load(HEAD + PTX)["k"].launch(1, 32, out).ok
    np.testing.assert_array_equal(out, 21 * np.arange(32) + 111)


def test_an_undefined_argument_stays_undefined():
    text = HEAD + PTX.replace("mov.u32 %r1, %tid.x; mov.u16 %h1, 3;", "mov.u32 %r1, %tid.x;")
    report = simulator.load(text)["k"].launch(1, 32, np.zeros(32, np.uint32))
    assert [(hazard.kind, hazard.count) for hazard in report.hazards] == [
        ("uninitialized", 31)
    ]  # 0 times anything is 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (".visible .entry k(.reg .b32 x) { ret; }", "one number of a .func"),
        (".func f(.reg .v2 .b32 x) { ret; } .visible .entry k() { ret; }", "one number of a .func"),
        (".func f(.reg .b32 x) { ret; } .visible .entry k() { call f; ret; }", "takes 1 arguments, 0 given"),
    ],
)
def test_refused(text, reason):
    with pytest.raises(PtxError, match=reason):
        simulator.load(HEAD + text)["k"]
