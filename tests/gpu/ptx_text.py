"""Small PTX kernels as text, shared by the simulator's tests."""

import numpy as np

from loadsparse.gpu import simulator

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
REGISTERS = (
    ".reg .pred %p<20>; .reg .b16 %h<40>; .reg .b32 %r<60>; .reg .b64 %rd<60>; .reg .f32 %f<60>; .reg .f64 %fd<20>;\n"
)
STORAGE = {1: "u32", 16: "u16", 32: "u32", 64: "u64"}
DTYPE = {1: np.uint32, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def entry(body, parameters="", head="", name="k"):
    """A module with one entry; `parameters` is the text between the parentheses."""
    return f"{HEAD}{head}\n.visible .entry {name}({parameters})\n{{\n{REGISTERS}{body}\nret;\n}}\n"


def run(body, *arguments, block=32, grid=1, head="", arch="sm_80", **options):
    """Runs a body whose parameters p0, p1, ... are 64-bit pointers (already in %rd0, %rd1, ...) or 32-bit integers."""
    kinds = [".u32" if isinstance(a, int) else ".u64" for a in arguments]
    parameters = ", ".join(f".param {kind} p{n}" for n, kind in enumerate(kinds))
    loads = "".join(
        f"ld.param{kind} {'%r5' if kind == '.u32' else '%rd'}{n}, [p{n}];\n" for n, kind in enumerate(kinds)
    )
    text = entry(loads + body, parameters, head)
    options.setdefault("engine", "interpreter")
    return simulator.load(text, arch)["k"].launch(grid, block, *arguments, **options)


def line_of(body, needle, arguments):
    """PTX line of a piece of a body given to `run` with so many arguments (registers are declared on one line)."""
    before = entry("", "").index("ret;")
    del before
    text = entry("\n" * arguments + body, "")
    return text[: text.index(needle)].count("\n") + 1


def apply(instruction, inputs, widths, out_width, arch="sm_80", **options):
    """Executes `instruction` (with {d}, {a}, {b}, {c}, {e} for registers) on columns of bit patterns, one per thread.

    `inputs` is a list of rows of Python integers; returns the list of results.
    """
    count = len(inputs)
    names = "abce"
    prefix = {1: "%p", 16: "%h", 32: "%r", 64: "%rd"}
    body = ["mov.u32 %r40, %tid.x;", "mov.u32 %r41, %ctaid.x;", "mov.u32 %r42, %ntid.x;"]
    body.append("mad.lo.u32 %r40, %r41, %r42, %r40;")
    registers = {}
    arrays = []
    for n, width in enumerate(widths):
        arrays.append(np.array([row[n] for row in inputs], dtype=DTYPE[width]))
        register = f"{prefix[width]}{10 + n}"
        registers[names[n]] = register
        body.append(f"mul.wide.u32 %rd40, %r40, {arrays[-1].itemsize}; add.u64 %rd40, %rd40, %rd{n};")
        if width == 1:
            body.append(f"ld.global.u32 %r43, [%rd40]; setp.ne.u32 {register}, %r43, 0;")
        else:
            body.append(f"ld.global.{STORAGE[width]} {register}, [%rd40];")
    out = np.zeros(count, DTYPE[out_width])
    registers["d"] = f"{prefix[out_width]}9"
    body.append(instruction.format(**registers))
    body.append(f"mul.wide.u32 %rd40, %r40, {out.itemsize}; add.u64 %rd40, %rd40, %rd{len(widths)};")
    if out_width == 1:
        body.append("selp.u32 %r43, 1, 0, %p9; st.global.u32 [%rd40], %r43;")
    else:
        body.append(f"st.global.{STORAGE[out_width]} [%rd40], {registers['d']};")
    assert count % 32 == 0, "give a multiple of 32 rows"
    report = run("\n".join(body), *arrays, out, grid=count // 32, arch=arch, **options)
    assert report.ok, report
    return [int(x) for x in out]
