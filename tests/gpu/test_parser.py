"""PTX text: what is understood, and how everything else is refused."""

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ptx_text import HEAD, entry

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator.coverage import coverage
from loadsparse.gpu.simulator.forms import problem
from loadsparse.gpu.simulator.opcodes import OPCODES
from loadsparse.gpu.simulator.parser import parse
from loadsparse.gpu.simulator.program import Address, Immediate, Pair, PtxError, Register, Special, Variable, Vector

DATA = Path(__file__).parent / "data"


def instructions(body, **options):
    return parse(entry(body, **options)).kernels["k"].instructions


def test_operands_of_every_kind():
    (first, *rest) = instructions(
        "mad.lo.s32 %r1, %r2, -7, 0x1F;\nld.global.v2.u32 {%r3, _}, [%rd1+-4];\nsetp.lt.s32 %p1|%p2, %r1, 0;\n"
        "mov.u32 %r4, %tid.y;\nmov.f32 %f1, 0f3F800000;\nmov.f64 %fd1, 0d3FF0000000000000;\nadd.f32 %f2, %f1, 1.5;\n"
        "st.shared.u32 [16], %r1;\n@!%p1 bra end;\nend:"
    )
    assert (first.name, first.modifiers, first.opcode) == ("mad", ("lo", "s32"), "mad.lo.s32")
    assert first.operands[2:] == (Immediate(-7), Immediate(31))
    load, compare, special, single, double, decimal, store, branch, final = rest
    assert load.operands[0] == Vector((Register("%r3", "b32", 2), None))
    assert load.operands[1] == Address(Register("%rd1", "b64", 3), -4)
    assert isinstance(compare.operands[0], Pair)
    assert special.operands[1] == Special("tid", "y")
    assert single.operands[1] == Immediate(0x3F800000, 32)
    assert double.operands[1] == Immediate(0x3FF0000000000000, 64)
    assert decimal.operands[2] == Immediate(0x3FF8000000000000, 64)
    assert store.operands[0] == Address(None, 16)
    assert branch.guard is not None
    assert branch.guard.negated
    assert branch.operands[0].target == len(rest)
    assert final.name == "ret"


def test_lines_columns_and_source_locations():
    text = (
        HEAD + ".visible .entry k()\n{\n\t.reg .b32 %r<3>;\n\t.loc 1 7 5\n\tmov.u32 \t%r1, 1;\n"
        "\t.loc 2 40 1, function_name $L__info_string0, inlined_at 1 9 2\n\tmov.u32 %r2, 2;\n\t.loc 1 0 0\n\tret;\n}\n"
        '\t.file 1 "/src/a.py"\n\t.file 2 "lib.h", 123, 456\n'
    )
    first, second, last = parse(text).kernels["k"].instructions
    assert (first.line, first.column) == (8, 2)
    assert (first.location.file, first.location.line, first.location.column) == ("/src/a.py", 7, 5)
    assert (second.location.file, second.location.line) == ("lib.h", 40)
    assert (second.location.inlined_at.file, second.location.inlined_at.line) == ("/src/a.py", 9)
    assert last.location is None


def test_code_inlined_into_inlined_code_has_the_line_of_the_kernel():
    """As NVRTC writes cooperative_groups: a helper, in a method, in the kernel."""
    nested = (
        "\t.loc 2 9 5, function_name L0, inlined_at 1 4 3\n\t.loc 3 87 13, function_name L1, inlined_at 2 9 5\n"
        "\tbar.sync 0;\n"
    )
    again = nested.replace("inlined_at 1 4 3", "inlined_at 1 6 3")
    circle = "\t.loc 3 1 1, function_name L0, inlined_at 3 1 1\n" * 1000 + "\tbar.sync 0;\n"
    text = (
        entry(nested + again + circle) + '\t.file 1 "/src/k.cu"\n\t.file 2 "/lib/cg.h"\n\t.file 3 "/lib/detail/cg.h"\n'
    )
    first, second, third, _ = parse(text).kernels["k"].instructions
    assert (first.location.line, first.location.own().file, first.location.own().line) == (87, "/src/k.cu", 4)
    assert second.location.own().line == 6
    assert third.location.own().line == 1


def test_scopes_of_inline_assembly_have_their_own_names():
    body = "{ .reg .pred q; L: setp.eq.u32 q, %r1, 0; @q bra L; }\n{ .reg .b64 q; mov.b64 q, 1; L: bra L; }"
    code = instructions(body)
    first, _, second, _, _ = code
    assert first.operands[0].type == "pred"
    assert second.operands[0].type == "b64"
    assert first.operands[0].index != second.operands[0].index
    assert (code[1].operands[0].target, code[3].operands[0].target) == (0, 3)


def test_module_variables_and_frames():
    head = (
        ".const .align 4 .b8 table[8] = {1, 2, 3, 255};\n.global .f32 x = 0f3F800000;\n.global .u64 p[2] = {generic(x), 5};\n"
        ".shared .align 4 .b8 s0[10];\n.extern .shared .align 16 .b8 dynamic[];\n.global .align 2 .b8 name[] = {72, 105, 0};\n"
    )
    program = parse(entry(".shared .f64 s1[2];\n.local .align 8 .b8 depot[24];\nmov.u64 %rd1, s0;", head=head))
    by_name = {v.name: v for v in program.globals}
    assert by_name["table"].data == bytes([1, 2, 3, 255, 0, 0, 0, 0])
    assert by_name["x"].data == bytes.fromhex("0000803f")
    assert int.from_bytes(by_name["p"].data[:8], "little") == (3 << 36) + by_name["x"].offset
    assert by_name["name"].size == 3
    assert by_name["dynamic"].dynamic
    local = {v.name: v for v in program.kernels["k"].variables}
    assert (local["s1"].offset, local["s1"].size) == (16, 16)
    assert local["depot"].size == 24


def test_directives_that_change_nothing_are_ignored_and_limits_are_kept():
    text = (
        '.version 99.1\n.target sm_90a, debug\n.address_size 64\n.pragma "nounroll";\n'
        ".visible .entry k(.param .u64 .ptr .global .align 4 k_0)\n.maxntid 128, 2, 1\n.minnctapersm 2\n.maxnreg 64\n"
        '{\n.pragma "nounroll";\nret;\n}\n.section .debug_str {\n$L__info_string0:\n.b8 95, 90\n}\n'
    )
    program = parse(text)
    assert (program.version, program.target) == ("99.1", "sm_90a")
    assert program.kernels["k"].max_threads == (128, 2, 1)


REFUSED = {
    "add.s32 %r1, ;": ("unexpected", 6),
    "frobnicate.b32 %r1, %r2;": ("unknown opcode 'frobnicate.b32'", 6),
    "add.wild.s32 %r1, %r2, %r3;": ("'add' has no modifier '.wild'", 6),
    "add.s32 %r1, %r2;": ("'add' takes 3 operands, found 2", 6),
    "add %r1, %r2, %r3;": ("'add' needs 1 type modifier", 6),
    "add.s32 %r1, %r2, %x3;": ("'%x3' is not declared", 6),
    "add.s32 %r1, %r2, %r99;": ("'%r99' is not declared", 6),
    "bra nowhere;": ("label 'nowhere' is not defined", 6),
    "isspacep.global %r1, %r2;": ("'isspacep.global' wants 1 bits in %r1", 6),
    "@%r1 bra end; end:": ("'%r1' is no predicate", 6),
    "mma.sync.aligned.m16n8k64.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f1};": ("not a Tensor Core shape", 6),
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.f16.f32 {%f1}, {%r1}, {%r2}, {%f1};": ("not a Tensor Core shape", 6),
    ".reg .b32 a; .reg .b32 a;": ("declared twice", 6),
    "L: L: ret;": ("label 'L' is defined twice", 6),
    "call missing, ();": ("'missing' is not declared", 6),
    "mov.u32 %r1, $;": ("not declared", 6),
    "mov.u32 %r1, 5 5;": ("unexpected '5'", 6),
    ".loc 1 x 3": ("is no .loc file line column", 6),
    "bra 5;": ("a branch goes to a label", 6),
    "mov.u32 %r1, #;": ("unexpected '#'", 6),
    # what NVIDIA's assembler refuses as well
    "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1, 106, %f3, %f4}, {%r1, %r2}, {%r3}, {%f1, %f2, %f3, %f4};": (
        "writes to what is no register",
        6,
    ),
    "elect %r1, %r2;": ("elect", 6),
    "shfl.idx.b32 %r1, %r2, 0, 31, -1;": ("shfl", 6),
    "add.u32 7, %r1, %r2;": ("writes to what is no register", 6),
    "setp.eq.u32 %p1|3, %r1, %r2;": ("", 6),
    "add.u32 %r1, %rd1, %r2;": ("wants 32 bits in %rd1, which is .b64", 6),
    "shr.b16 %r1, %r2, %r3;": ("wants 16 bits in %r1", 6),
    "setp.eq.s32 %r1, %r2, 0;": ("wants 1 bits in %r1", 6),
    "st.global.u64 [%rd1], %r1;": ("wants 64 bits in %r1", 6),
    "mul.wide.u64 %rd1, %rd2, %rd3;": (".wide products are of 16 or 32 bits", 6),
    "mul.u32 %r1, %r2, %r3;": ("integers need one of .lo, .hi, .wide", 6),
    "ld.global.u32.cv %r1, [%rd1];": ("has its type modifiers last", 6),
    "setp.hi.f32 %p1, %f1, %f2;": (".hi compares unsigned integers", 6),
    "setp.nan.u32 %p1, %r1, %r2;": (".nan compares floating-point numbers", 6),
    "slct.f32.u64 %f1, %f2, %f3, %rd1;": ("slct decides by .s32 or .f32", 6),
    "prmt.rc8.b32 %r1, %r2, %r3, %r4;": ("prmt has its type before its mode", 6),
    "barrier.red %r1, 0, %p1;": (".red needs one of .popc, .and, .or", 6),
    "mov.u32 %r1, " + "9" * 5000 + ";": ("has 5000 digits", 6),
    ".local .b8 big[2000000000];": ("takes 2000000000 bytes; at most", 6),
    ".shared .b8 s[-4][-4];": ("an array of -4 elements", 6),
    "mul.ftz.lo.s64 %rd1, %rd2, %rd3;": (".ftz is for floating-point numbers", 6),
    "add.rn.u32 %r1, %r2, %r3;": (".rn is for floating-point numbers", 6),
    "setp.lt.s32 %p1, %r1, %r2, %p2;": ("'setp.lt.s32' takes 3 operands, found 4", 6),
    "setp.lt.and.s32 %p1, %r1, %r2;": ("'setp.lt.and.s32' takes 4 operands, found 3", 6),
    "set.lt.u32.s32 %r1, %r1, %r2, %p1;": ("takes 3 operands, found 4", 6),
    "lop3.b32 %r1|%p1, %r1, %r2, %r3, 7, %p2;": ("'lop3.b32' takes 5 operands, found 6", 6),
    "lop3.or.b32 %r1|%p1, %r1, %r2, %r3, 7;": ("'lop3.or.b32' takes 6 operands, found 5", 6),
    "bar.sync 0, 32, 3;": ("'bar.sync' takes 1 or 2 operands, found 3", 6),
    "atom.global.inc.bf16x2 %r1, [%rd1], %r2;": (".inc does not combine .bf16x2", 6),
    "atom.global.min.noftz.f16 %h1, [%rd1], %h2;": (".min does not combine .f16 but in vectors", 6),
    "atom.global.exch.u32 %r1, [%rd1], %r2;": (".exch does not combine .u32", 6),
    "red.global.add.f16 [%rd1], %h2;": (".noftz goes with 16-bit floats", 6),
    "mul.sat.lo.s32 %r1, %r2, %r3;": ("of integer products only that of mad.hi saturates", 6),
    "mad.lo.sat.s32 %r1, %r2, %r3, %r4;": ("of integer products only that of mad.hi saturates", 6),
    "bar.sync 0, 33;": ("a barrier of 33 threads: the number is a multiple of 32", 6),
    "bar.red.popc.u32 %r1, 1, 8, %p1;": ("a barrier of 8 threads: the number is a multiple of 32", 6),
    "mov.u32 %r1, 18446744073709551616;": ("'18446744073709551616' has more than 64 bits", 6),
    "div.f32 %f1, %f2, %f3;": ("'div.f32' needs one of .rn, .rz, .rm, .rp, .approx, .full", 6),
    "sqrt.approx.f64 %rd1, %rd2;": ("needs one of .rn, .rz, .rm, .rp", 6),
    "sin.f32 %f1, %f2;": ("'sin.f32' needs .approx", 6),
    "fma.f64 %rd1, %rd2, %rd3, %rd4;": ("needs one of .rn, .rz, .rm, .rp", 6),
    "cvt.u32.f32 %r1, %f1;": ("'cvt.u32.f32' needs one of .rni, .rzi, .rmi, .rpi", 6),
    "cvt.f32.u32 %f1, %r1;": ("'cvt.f32.u32' needs one of .rn, .rz, .rm, .rp", 6),
    "cvt.f16.f32 %h1, %f1;": ("'cvt.f16.f32' needs one of .rn, .rz, .rm, .rp", 6),
    "setp.lt.b32 %p1, %r1, %r2;": ("bits are equal or not", 6),
    "ld.acquire.global.u32 %r1, [%rd1];": ("goes with one scope", 6),
    "st.gpu.global.u32 [%rd1], %r1;": ("goes with one scope", 6),
    "bar.sync -1;": ("barrier -1: a block has barriers 0 to 15", 6),
    "bar.red.popc.u32 %r1, 16, %p1;": ("barrier 16: a block has barriers 0 to 15", 6),
    "bar.arrive 0;": ("takes 2 operands, found 1", 6),
    "bar.red.popc.u32 %r1, 0;": ("takes 3 or 4 operands, found 2", 6),
    "bar.warp.sync %r1, %r2;": ("takes 1 operands, found 2", 6),
    "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2}, {%r1}, {%f1, %f2, %f3, %f4}, %r1, 0;": (
        "takes 4 operands, found 6",
        6,
    ),
    "wmma.mma.sync.aligned.row.row.m16n16k16.f32.f32 {%f1}, {%r1}, {%r2};": ("takes 4 operands, found 3", 6),
    "wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [%rd1], {%f1}, %r1, %r2;": ("takes 2 or 3 operands", 6),
    "mbarrier.init.shared.b64 [%r1];": ("'mbarrier.init.shared.b64' takes 2 operands, found 1", 6),
    "mbarrier.shared.init.b64 [%r1], 3;": ("has its operation first", 6),
    "mbarrier.test_wait.shared.b64 %p1, [%r1];": ("takes 3 operands, found 2", 6),
    "createpolicy.range.global.L2::evict_first.b64 %rd1, [%rd2];": ("takes 4 operands, found 2", 6),
    "cp.async.ca.shared.global [%r1], [%rd1], 4, %r2, %rd2;": ("operands, found 5", 6),
    "cp.async.ca.shared.global.L2::cache_hint [%r1], [%rd1], %rd2;": ("operands, found 2", 6),
}


@pytest.mark.parametrize("body", REFUSED)
def test_refused_with_line_and_column(body):
    message, line = REFUSED[body]
    with pytest.raises(PtxError) as caught:
        parse(entry(body))
    assert message in str(caught.value)
    assert caught.value.line in (line, line + 1, line + 2)
    assert caught.value.column > 0
    assert "\n" not in str(caught.value)


def test_truncated_text_and_recursive_entries_are_refused():
    with pytest.raises(PtxError, match="ends inside"):
        parse(HEAD + ".visible .entry k()\n{\nret;\n")
    with pytest.raises(PtxError, match="calls itself"):
        parse(HEAD + ".visible .entry f()\n{\ncall f, ();\nret;\n}\n")
    with pytest.raises(PtxError, match="shared variables of its own"):
        parse(HEAD + ".func f()\n{\n.shared .b32 x;\ncall f, ();\nret;\n}\n")
    with pytest.raises(PtxError, match="called but not defined"):
        simulator.load(entry("call mystery, ();", head=".extern .func mystery();"))


def test_the_head_of_a_module():
    assert set(simulator.load("\ufeff" + entry("").replace("\n", "\r\n"))) == {"k"}
    with pytest.raises(PtxError, match=r"starts with \.version"):
        simulator.load(" \n")
    with pytest.raises(PtxError, match="line 3, column 1: addresses have 64 bits"):
        simulator.load(entry("").replace(".address_size 64", ".address_size 32"))
    with pytest.raises(TypeError, match="PTX is text, not bytes"):
        simulator.load(entry("").encode())


def test_deep_nesting_is_refused():
    with pytest.raises(PtxError, match="nesting is too deep"):
        parse(entry("{" * 5000 + "}" * 5000))


def test_forms_without_execution_are_refused_at_load():
    with pytest.raises(PtxError, match="not a form that can be executed"):
        simulator.load(entry("cp.async.cg.shared.global [%r1], [%rd1], 8;"))
    with pytest.raises(PtxError, match="not a form that can be executed"):
        simulator.load(entry("cvt.rn.f16.f32 %h1, %f1, %f2;"))
    with pytest.raises(simulator.LaunchError, match="sm_61"):
        simulator.load(entry(""), arch="sm_61")


@pytest.mark.parametrize(
    ("body", "head", "message"),
    [
        (".local .b8 l[600000];\nst.local.u32 [l], 1;", "", "600000 bytes of local memory per thread; at most 524288"),
        ("", "\n".join(f".global .b8 g{n}[600000000];" for n in range(3)), "module variables take 1800000000 bytes"),
        ("wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r1}, [%rd1];", "", "1 registers do not hold a 16 x 16"),
    ],
)
def test_memory_that_no_gpu_has_is_refused_at_load(body, head, message):
    with pytest.raises(PtxError, match=message):
        simulator.load(entry(body, head=head))


@pytest.mark.parametrize(
    ("target", "arch", "mend"),
    [
        ("sm_90", "sm_80", "arch='sm_90'"),
        ("sm_89", "sm_86", "arch='sm_89'"),
        ("sm_90a", "sm_90", "arch='sm_90a'"),
        ("sm_100", "sm_90", "compile it for sm_90"),
    ],
)
def test_a_target_newer_than_the_architecture_is_refused(target, arch, mend):
    text = entry("").replace(".target sm_80", f".target {target}")
    with pytest.raises(PtxError, match=f"(?s){target}.*{arch}.*{mend}") as caught:
        simulator.load(text, arch=arch)
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("target", "arch"), [("sm_50", "sm_80"), ("sm_80", "sm_90a"), ("sm_90a", "sm_90a"), ("sm_80, debug", "sm_80")]
)
def test_a_target_that_runs_there_is_accepted(target, arch):
    assert simulator.load(entry("").replace(".target sm_80", f".target {target}"), arch=arch)


@pytest.mark.parametrize("path", sorted(DATA.glob("*.ptx")), ids=lambda path: path.stem)
def test_real_ptx_loads(path):
    module = simulator.load(path.read_text(encoding="utf-8"), arch="sm_90" if "sm_90" in path.stem else "sm_80")
    assert len(module) >= 1


def test_parsing_time_is_linear():
    """Four times the lines in at most eight times the CPU time of the same run."""
    lines = "mad.lo.s32 %r1, %r2, %r3, %r1;\nld.global.f32 %f1, [%rd1+8];\nfma.rn.f32 %f2, %f1, %f1, %f2;\n"
    short, long = entry(lines * 250), entry(lines * 1000)
    parse(short)
    assert min(_seconds(long) for _ in range(3)) <= 8 * min(_seconds(short) for _ in range(3))


def _seconds(text):
    start = time.process_time()
    parse(text)
    return time.process_time() - start


def refusal(function, text):
    """The message with which a text is refused, or nothing."""
    try:
        function(text)
    except (PtxError, simulator.LaunchError) as error:
        return str(error)
    return ""


def test_mutated_ptx_either_loads_or_is_refused_in_one_line():
    sources = [path.read_text(encoding="utf-8") for path in sorted(DATA.glob("*.ptx")) if path.stat().st_size < 8000]
    assert sources
    rng = random.Random(6)
    for _ in range(150):
        text = rng.choice(sources)
        for _ in range(rng.randrange(1, 4)):
            at, size = rng.randrange(len(text)), rng.randrange(1, 12)
            other = rng.randrange(len(text))
            piece = rng.choice(
                ["", text[other : other + size], chr(rng.randrange(32, 127)), "{", "}", ";", "%r1", "[" * 40]
            )
            text = text[:at] + piece + text[at + size :]
        assert "\n" not in refusal(simulator.load, text)


@given(st.text(alphabet='abr.%{}[];:,@!<>0123456789 \n_$-+"', max_size=60))
def test_arbitrary_bodies_never_break_the_parser(body):
    assert "\n" not in refusal(parse, entry(body))


def test_the_opcode_table_is_complete_and_checks_itself():
    wanted = (
        "add sub mul mad and or xor not shl shr bfe bfi min max setp selp mov cvt cvta ld st bar bra ret cp ldmatrix mma "
        "wmma shfl vote match atom red lop3 prmt call fma div sqrt rcp ex2 lg2 sin cos dp4a shf popc clz activemask redux"
    )
    assert set(wanted.split()) <= set(OPCODES)
    assert {row["opcode"] for row in coverage() if not row["engine"].startswith("refused")} == set(OPCODES)
    assert problem("add", ("s32",), 3) is None
    with pytest.raises(ValueError, match="unknown types"):
        type(OPCODES["add"])("x", (1,), 1, "alu", frozenset({"f12"}), (1,), frozenset(), ())
    with pytest.raises(ValueError, match="destinations"):
        type(OPCODES["add"])("x", (1,), 2, "alu", frozenset(), (0,), frozenset(), ())


def module_with(name):
    """A module that uses what a row of `coverage` names: an opcode, a special register, a directive or a function."""
    if name.startswith("%"):
        return entry(f"mov.u32 %r1, {name}{'' if name == '%current_graph_exec' else '3'};")
    if name.startswith("."):
        return entry("").replace(".visible .entry k()", f".visible .entry k() {name} 2, 1, 1")
    if name.startswith("call "):
        declared = f".extern .func {name[5:]} (.param .b64 a);"
        return entry(f"{{ .param .b64 a; st.param.b64 [a], 0; call {name[5:]}, (a); }}", head=declared)
    return entry(f"{name};")


def test_what_coverage_calls_refused_is_refused_with_its_reason():
    refused = [row for row in coverage() if row["engine"].startswith("refused")]
    assert {"tex", "wgmma", "setmaxnreg", "%pm", ".reqnctapercluster", "call malloc"} <= {r["opcode"] for r in refused}
    for row in refused:
        assert refusal(simulator.load, module_with(row["opcode"])).endswith(row["engine"].removeprefix("refused"))


def test_a_cluster_of_one_block_is_every_block():
    text = entry("").replace(".visible .entry k()", ".visible .entry k() .reqnctapercluster 1, 1, 1")
    assert simulator.load(text)["k"].launch(4, 32).ok


def test_lines_of_inline_assembly_are_that_of_its_statement():
    two = "\t.loc 1 {line} 9\n\tmov.u32 %r1, 0;\n\t.loc 1 {next} 9\n\tmov.u32 %r2, 0;\n"
    body = f"\t// begin inline asm\n{two}\t// end inline asm\n"
    source = HEAD + ".visible .entry k()\n{\n\t.reg .b32 %r<3>;\n\t.loc 1 3 1\n"
    source += body.format(line=7, next=8) + body.format(line=5, next=6) + '\t.loc 1 9 1\n\tret;\n}\n.file 1 "a.py"\n'
    lines = [i.location.line for i in simulator.load(source)["k"].kernel.instructions]
    assert lines == [7, 7, 5, 5, 9]


def test_variables_are_variables():
    (move, _) = instructions(".shared .b8 s[4];\nmov.u32 %r1, s;")
    assert isinstance(move.operands[1], Variable)
