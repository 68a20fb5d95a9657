"""Modules put together: declarations resolved, device functions in the place of their calls."""

from __future__ import annotations

import numpy as np
import pytest

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator.frontend import device_library
from loadsparse.gpu.simulator.frontend.inline import inline_calls
from loadsparse.gpu.simulator.frontend.linker import LinkError, link, merge
from loadsparse.gpu.simulator.frontend.text import statements
from loadsparse.gpu.simulator.parser import parse

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


def function(name: str, linkage: str = ".visible", body: str = "{ ret; }") -> str:
    return f"{linkage} .func {name} ()\n{body}\n"


def test_a_lone_module_is_not_touched() -> None:
    text = HEAD + "// hello\n" + function("f")
    assert link([text]) is text


def test_declarations_are_resolved_and_private_names_kept_apart() -> None:
    first = (
        HEAD
        + ".global .u32 table = 1;\n.extern .func g ();\n"
        + (".visible .entry k () { .reg .b32 %r<2>; ld.global.u32 %r1, [table]; call g, (); ret; }\n")
    )
    second = (
        HEAD + ".global .u32 table = 2;\n" + function("g", body="{ .reg .b32 %r<2>; ld.global.u32 %r1, [table]; ret; }")
    )
    program = parse(merge([first, second]))
    assert set(program.kernels) == {"k", "g"}
    tables = [v for v in program.globals if v.name.startswith("table")]
    assert sorted(int.from_bytes(v.data, "little") for v in tables) == [1, 2]
    (load, _, _), (other, _) = (program.kernels[n].instructions for n in ("k", "g"))
    assert load.operands[1].base.data == (1).to_bytes(4, "little")
    assert other.operands[1].base.data == (2).to_bytes(4, "little")


def test_weak_definitions_yield_and_strong_ones_clash() -> None:
    weak = HEAD + function("f", ".weak", "{ bar.sync 0; ret; }")
    strong = HEAD + function("f")
    assert len(parse(link([weak, weak])).kernels["f"].instructions) == 2
    with pytest.raises(LinkError, match="f is defined by two modules"):
        link([strong, strong])


def test_source_files_are_renumbered() -> None:
    module = HEAD + '.visible .func {name} () {{ .loc 1 {line} 2\n ret; }}\n.file 1 "{name}.py"\n'
    program = parse(link([module.format(name="a", line=3), module.format(name="b", line=4)]))
    places = {name: kernel.instructions[0].location for name, kernel in program.kernels.items()}
    assert (places["a"].file, places["a"].line) == ("a.py", 3)
    assert (places["b"].file, places["b"].line) == ("b.py", 4)


def test_the_device_library_parses_and_is_added_where_it_is_missing() -> None:
    for text in device_library.LIBRARY:
        parse(text)
    caller = HEAD + ".extern .func (.param .b64 r) malloc (.param .b64 n);\n.visible .entry k () { ret; }\n"
    assert {"malloc", "free", "k"} <= set(parse(link([caller])).kernels)


INDIRECT = (
    HEAD
    + """
.global .u64 table[2] = {twice, thrice};
.func (.param .b32 r) twice (.param .b32 x)
{ .reg .b32 %r<3>; ld.param.u32 %r1, [x]; add.u32 %r1, %r1, %r1; st.param.b32 [r], %r1; ret; }
.func (.param .b32 r) thrice (.param .b32 x)
{ .reg .b32 %r<3>; ld.param.u32 %r1, [x]; mul.lo.u32 %r1, %r1, 3; st.param.b32 [r], %r1; ret; }
.func wrong (.param .b64 x) { ret; }
.visible .entry k (.param .u64 out, .param .u32 which)
{
    .reg .b32 %r<4>; .reg .b64 %d<6>; .reg .pred %p<2>;
    ld.param.u64 %d1, [out];
    ld.param.u32 %r1, [which];
    mul.wide.u32 %d2, %r1, 8;
    mov.u64 %d3, table;
    add.u64 %d3, %d3, %d2;
    ld.global.u64 %d4, [%d3];
    setp.gt.u32 %p1, %r1, 1;
    @%p1 mov.u64 %d4, wrong;
    { .param .b32 a; .param .b32 b;
      st.param.b32 [a], 7;
      proto: .callprototype (.param .b32 _) _ (.param .b32 _);
      call (b), %d4, (a), proto;
      ld.param.b32 %r2, [b]; }
    st.global.u32 [%d1], %r2;
    ret;
}
"""
)


@pytest.mark.parametrize(("which", "expected"), [(0, 14), (1, 21)])
def test_indirect_calls_choose_among_functions(which: int, expected: int) -> None:
    out = np.zeros(1, np.uint32)
    report = simulator.load(link([INDIRECT]))["k"].launch(1, 1, out, np.uint32(which))
    assert report.ok, report.hazards
    assert out[0] == expected


def test_an_indirect_call_of_another_shape_is_a_trap() -> None:
    report = simulator.load(link([INDIRECT.replace("setp.gt.u32 %p1, %r1, 1", "setp.eq.u32 %p1, %r1, 1")]))["k"].launch(
        1, 1, np.zeros(1, np.uint32), np.uint32(1)
    )
    assert [hazard.kind for hazard in report.hazards] == ["trap"]


NESTED = (
    HEAD
    + """
.func (.param .b32 r) sign (.param .b32 x)
{ .reg .b32 %r<3>; .reg .pred %p<2>; ld.param.s32 %r1, [x]; setp.lt.s32 %p1, %r1, 0; @%p1 bra NEGATIVE;
  st.param.b32 [r], 1; ret;
NEGATIVE: st.param.b32 [r], -1; ret; }
.func (.param .b32 r) absolute (.param .b32 x)
{ .reg .b32 %r<5>; .param .b32 x_sign; ld.param.s32 %r1, [x];
  { .param .b32 x; st.param.b32 [x], %r1; call.uni (x_sign), sign, (x); ld.param.b32 %r2, [x_sign]; }
  mul.lo.s32 %r3, %r1, %r2; st.param.b32 [r], %r3; ret; }
.visible .entry k (.param .u64 out)
{
    .reg .b32 %r<5>; .reg .b64 %d<5>;
    mov.u32 %r1, %tid.x;
    sub.s32 %r2, 3, %r1;
    { .param .b32 a; .param .b32 b; st.param.b32 [a], %r2; call (b), absolute, (a); ld.param.b32 %r3, [b]; }
    { .param .b32 a; .param .b32 b; st.param.b32 [a], %r2; call (b), sign, (a); ld.param.b32 %r4, [b]; }
    mul.lo.s32 %r3, %r3, 10;
    add.s32 %r3, %r3, %r4;
    ld.param.u64 %d1, [out];
    mul.wide.u32 %d2, %r1, 4;
    add.u64 %d3, %d1, %d2;
    st.global.u32 [%d3], %r3;
    ret;
}
"""
)


def test_called_bodies_in_place_compute_the_same() -> None:
    placed = inline_calls(NESTED)
    assert "call" not in placed.partition(".entry")[2]
    expected = [10 * abs(d) + (1 if d >= 0 else -1) for d in (3, 2, 1, 0, -1, -2, -3, -4)]
    for text, engine in ((NESTED, "interpreter"), (placed, "interpreter"), (placed, "llvm")):
        out = np.zeros(8, np.int32)
        report = simulator.load(text)["k"].launch(1, 8, out, engine=engine)
        assert report.ok, report.hazards
        assert out.tolist() == expected
    plain = HEAD + function("f")
    assert inline_calls(plain) is plain


WIDTHS = (
    HEAD
    + """
.func (.param .b64 r) sum (.param .b32 x, .param .b8 y, .param .b16 z)
{ .reg .b64 %rd<6>; .reg .b16 %h<3>; ld.param.s32 %rd1, [x]; ld.param.s8 %h1, [y]; ld.param.u16 %rd2, [z];
  cvt.s64.s16 %rd3, %h1; add.s64 %rd4, %rd1, %rd2; add.s64 %rd5, %rd4, %rd3; st.param.b64 [r], %rd5; ret; }
.visible .entry k (.param .u64 out)
{ .reg .b64 %rd<4>; .reg .b32 %r<2>; .reg .b16 %h<2>;
  mov.b64 %rd1, 0x5fffffff0; mov.b32 %r1, 0xfe03; mov.b16 %h1, -2; ld.param.u64 %rd2, [out];
  { .param .b32 a; .param .b8 b; .param .b16 c; .param .b64 d;
    st.param.b32 [a], %rd1; st.param.b8 [b], %r1; st.param.b16 [c], %h1; call (d), sum, (a, b, c); ld.param.b64 %rd3, [d]; }
  st.global.u64 [%rd2], %rd3; ret; }
"""
)


@pytest.mark.parametrize("engine", ["interpreter", "llvm"])
def test_parameters_narrower_than_their_registers_are_cut_and_extended(engine: str) -> None:
    placed = inline_calls(WIDTHS)
    assert "call" not in placed.partition(".entry")[2]
    for text in (WIDTHS, placed) if engine == "interpreter" else (placed,):
        out = np.zeros(1, np.int64)
        assert simulator.load(text)["k"].launch(1, 1, out, engine=engine).ok
        assert out[0] == -16 + 3 + 65534


def test_structures_stay_in_parameter_memory() -> None:
    pair = (
        HEAD
        + """
    .func (.param .b32 r) second (.param .align 4 .b8 p[8])
    { .reg .b32 %r<2>; ld.param.b32 %r1, [p+4]; st.param.b32 [r], %r1; ret; }
    .visible .entry k (.param .u64 out)
    { .reg .b32 %r<2>; .reg .b64 %d<2>; ld.param.u64 %d1, [out];
      { .param .align 4 .b8 a[8]; .param .b32 b; st.param.b32 [a], 5; st.param.b32 [a+4], 6;
        call (b), second, (a); ld.param.b32 %r1, [b]; }
      st.global.u32 [%d1], %r1; ret; }
    """
    )
    out = np.zeros(1, np.int32)
    assert simulator.load(link([pair]))["k"].launch(1, 1, out).ok
    assert out[0] == 6


def test_recursion_and_shared_variables_are_left_alone() -> None:
    recursive = HEAD + ".func f () { call f, (); ret; }\n.visible .entry k () { call f, (); ret; }\n"
    assert inline_calls(recursive).partition(".entry")[2].count("call") == 1
    shared = HEAD + ".func f () { .shared .align 4 .b8 x[4]; ret; }\n.visible .entry k () { call f, (); ret; }\n"
    assert inline_calls(shared) is shared


def test_statements_keep_initialisers_and_drop_nothing() -> None:
    text = HEAD + '.global .align 4 .b8 x[3] = {1, 2, 3};\n.visible .func f () { { ret; } }\n.file 1 "a;{b}.py"\n'
    found = [(s.name, s.linkage) for s in statements(text)]
    assert found == [("", "")] * 3 + [("x", "static"), ("f", "visible"), ("", "")]
