"""Every form of the table of opcodes: what `coverage` says of it, and the registers that both engines write."""

import random

import numpy as np
import pytest
from ptx_forms import forms
from ptx_text import apply, entry, run

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator.coverage import coverage
from loadsparse.gpu.simulator.engine.ir import Unsupported
from loadsparse.gpu.simulator.engine.translate import Translation
from loadsparse.gpu.simulator.layout import layout
from loadsparse.gpu.simulator.request import Checks

REGISTERS = {"%h": ("u16", np.uint16), "%r": ("u32", np.uint32), "%rd": ("u64", np.uint64)}
ELSEWHERE = {
    *("ld", "ldu", "st", "atom", "red", "cp", "mbarrier", "ldmatrix", "stmatrix", "prefetch", "prefetchu", "bar"),
    *("barrier", "ret", "exit", "trap", "brkpt", "nanosleep", "membar", "fence", "pmevent", "mma", "wmma", "elect"),
    *("addc", "subc", "madc"),
}
"""What needs memory, ends a thread, or is tested in a file of its own."""
HALVES = (0, 1, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x8000, 0x8001, 0xBC00, 0xFC00, 0xFFFF, 0x7F80,
          0x0080)  # fmt: skip
WORDS = (0, 1, 31, 32, 33, 0x7FFFFF, 0x800000, 0x3F800000, 0x3F7FFFFF, 0x7F7FFFFF, 0x7F800000, 0x7FC00001, 0x80000000,
         0x80000001, 0xBF800000, 0xFFFFFFFF, 0x387FFFFF, 0x33000001, 0x477FF000, 0x4B000001)  # fmt: skip


def patterns(dtype, shape, seed):
    """Bits of all kinds: edges of the formats, small integers, anything."""
    rng = np.random.default_rng(seed)
    bits = np.dtype(dtype).itemsize * 8
    anything = rng.integers(0, 2**64 - 1, shape, dtype=np.uint64, endpoint=True)
    with np.errstate(invalid="ignore"):
        doubles = np.array(WORDS, np.uint32).view(np.float32).astype(np.float64).view(np.uint64)
    edge = rng.choice({16: np.array(HALVES, np.uint64), 32: np.array(WORDS, np.uint64), 64: doubles}[bits], shape)
    if bits == 32:
        twice = patterns(np.uint16, shape, seed + 1).astype(np.uint64) * np.uint64(65537)
        edge = np.where(rng.random(shape) < 0.3, twice, edge)
    small = rng.integers(0, 70, shape).astype(np.uint64)
    chosen = np.where(rng.random(shape) < 0.4, edge, np.where(rng.random(shape) < 0.3, small, anything))
    return (chosen & np.uint64(2**bits - 1)).astype(dtype)


def in_both(instructions, seed, arch="sm_90"):
    """Results [instruction, thread] of register instructions in both engines, which must agree also in hazards."""
    threads, body = 128, ["mov.u32 %r40, %tid.x; mov.u32 %r41, %ctaid.x; mad.lo.u32 %r40, %r41, 32, %r40;"]
    arrays = []
    for name, (kind, dtype) in REGISTERS.items():
        arrays.append(patterns(dtype, (8, threads), seed))
        body.append(f"mad.wide.u32 %rd40, %r40, {arrays[-1].itemsize}, %rd{len(arrays) - 1 + 30};")
        body += [f"ld.global.{kind} {name}{2 + i}, [%rd40+{i * arrays[-1].itemsize * threads}];" for i in range(6)]
    body += [f"setp.lt.s32 %p{i}, %r{i}, %r{i + 1};" for i in (2, 3, 4)]
    body.append("mad.wide.u32 %rd40, %r40, 8, %rd33;")
    for n, text in enumerate(instructions):
        target = text.split()[1].split("|")[0].rstrip(",")
        body.append("mov.u64 %rd1, 0; mov.u32 %r1, 0; mov.u16 %h1, 0; setp.ne.u32 %p1, %r1, 0; " + text)
        if target.startswith("%rd"):
            body.append(f"st.global.u64 [%rd40+{8 * threads * n}], %rd1;")
            continue
        if target.startswith("%h"):
            body.append("cvt.u32.u16 %r1, %h1;")
        body.append("selp.u32 %r42, 1, 0, %p1; mov.b64 %rd41, {%r1, %r42};")
        body.append(f"st.global.u64 [%rd40+{8 * threads * n}], %rd41;")
    moves = "".join(f"mov.u64 %rd{30 + i}, %rd{i};\n" for i in range(4))
    found = []
    for engine in ("llvm", "interpreter"):
        out = np.zeros((len(instructions), threads), np.uint64)
        report = run(moves + "\n".join(body), *arrays, out, grid=threads // 32, arch=arch, engine=engine)
        found.append((out, report))
    (one, first), (two, second) = found
    for text, a, b in zip(instructions, one, two, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=text)
    assert first.metrics == second.metrics
    assert sorted(map(str, first.hazards)) == sorted(map(str, second.hazards))


def sample(number, seed, keep):
    """So many instructions of the forms that `keep` accepts, at least one of every opcode."""
    rng, by_name = random.Random(seed), {}
    for name, modifiers, text in forms():
        if keep(name):
            by_name.setdefault(name, []).append((modifiers, text))
    chosen = [(name, *rng.choice(found)) for name, found in by_name.items()]
    while len(chosen) < number:
        name = rng.choice(list(by_name))
        chosen.append((name, *rng.choice(by_name[name])))
    return chosen


def is_left(modifiers, row):
    """What the table says of a form: True if only the interpreter executes it."""
    engine = row["engine"]
    if engine == "interpreter":
        return True
    left = engine.partition("interpreter: ")[2].rstrip(")").split()
    return any(set(modifiers) >= set(form.split(".")) for form in left)


def test_the_table_says_which_engine_executes_a_form():
    rows = {row["opcode"]: row for row in coverage()}
    wrong = []
    for name, modifiers, text in sample(150, 1, lambda name: True):
        before = "add.cc.u32 %r1, %r2, %r3; " if name.startswith(("addc", "subc", "madc")) else ""
        source = entry(before + text, ".param .u64 p0").replace(".target sm_80", ".target sm_90")
        module = simulator.load(source, "sm_90")
        kernel = module["k"].kernel
        try:
            Translation(kernel, layout(module.program, kernel), Checks(), "sm_90").full_text()
            refused = False
        except Unsupported:
            refused = True
        if refused != is_left(modifiers, rows[name]):
            wrong.append(text)
    assert not wrong


def test_register_instructions_agree():
    rows = {row["opcode"]: row for row in coverage()}
    chosen = [
        text
        for name, modifiers, text in sample(90, 2, lambda name: name not in ELSEWHERE)
        if not is_left(modifiers, rows[name])
    ]
    for start in range(0, len(chosen), 40):
        in_both(chosen[start : start + 40], start)


@pytest.mark.parametrize("engine", ["interpreter", "llvm"])
def test_a_product_that_overflows_beside_an_infinity(engine):
    """Fused: 1e300 x 1e300 is finite until it is added to -infinity."""
    huge, infinity = int(np.float64(1e300).view(np.uint64)), int(np.float64(-np.inf).view(np.uint64))
    found = apply("fma.rn.f64 {d}, {a}, {b}, {c};", [[huge, huge, infinity]] * 32, (64, 64, 64), 64, engine=engine)
    assert set(found) == {infinity}
