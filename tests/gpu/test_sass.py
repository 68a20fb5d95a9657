"""SASS instructions and the PTX lines they came from, as the assembler's line table says."""

import re

import pytest

from loadsparse.gpu import compiler, sass

SOURCE = r"""
extern "C" __global__ void scale(float *x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = x[i] / 3.0f;
}
extern "C" __global__ void scale_2(float *x) {
    x[threadIdx.x] *= 2.0f;
}"""


@pytest.fixture(scope="module")
def ptx():
    return compiler.cuda(SOURCE)


def test_loads_and_stores_come_from_loads_and_stores(ptx):
    code, _ = compiler.cubin(ptx)
    lines = ptx.splitlines()
    for entry in ("scale", "scale_2"):
        machine = sass.listing(code, entry)
        assert machine[-1].text != "NOP"
        assert [m.offset for m in machine] == [16 * n for n in range(len(machine))]
        for start, wanted in (("LDG", "ld.global"), ("STG", "st.global"), ("EXIT", "ret")):
            places = [lines[m.line - 1] for m in machine if start in m.text and "@" not in m.text]
            assert places, start
            assert all(wanted in place for place in places), (start, places)


def test_a_division_becomes_several_instructions(ptx):
    code, _ = compiler.cubin(ptx)
    (line,) = [n for n, text in enumerate(ptx.splitlines(), 1) if "div.rn.f32" in text]
    assert len(sass.by_line(sass.listing(code, "scale"))[line]) > 3


def test_ptx_without_loc_is_mapped_too_and_line_information_changes_no_code(ptx):
    bare = "\n".join("" if re.match(r"\s*\.(loc|file)", line) else line for line in ptx.splitlines())
    told = [sass.listing(compiler.cubin(text)[0], "scale") for text in (ptx, bare)]
    assert told[0] == told[1]
    assert all(m.line is not None for m in told[1])


def test_a_name_that_begins_another_finds_its_own_section():
    part = '\t.section\t.text.{0},"ax"\n//## File "x", line {1}\n /*0000*/ MOV R{1}, RZ ;\n.L_x_{1}:\n'
    part += " /*0010*/ EXIT ;\n /*0020*/ NOP;\n"
    text = part.format("k_2", 1) + part.format("k", 2)
    machine = sass.parse(sass.section(text, "k"))
    assert [(m.offset, m.text, m.line, m.label) for m in machine] == [
        (0, "MOV R2, RZ", 2, ""),
        (16, "EXIT", 2, ".L_x_2"),
    ]


def test_sass_without_line_information_is_not_guessed():
    (one,) = sass.parse("  /*0000*/  MOV R1, c[0x0][0x28] ;")
    assert one.line is None
    assert sass.by_line([one]) == {}
