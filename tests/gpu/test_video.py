"""Video instructions, and the SIMD intrinsics of CUDA C++, against models in plain Python and NumPy."""

# ruff: noqa: E501  (a table of instructions and their models)

import numpy as np
import pytest
from ptx_text import entry, run

from loadsparse.gpu import compiler, simulator
from loadsparse.gpu.simulator.program import PtxError

RNG = np.random.default_rng(11)
WORDS = RNG.integers(0, 2**32, (3, 64), np.uint32)
WORDS[:, :8] = [[0, 0xFFFFFFFF, 0x80808080, 0x7F7F7F7F, 0x80008000, 0x7FFF7FFF, 0x00FF00FF, 1]] * 3
WORDS[1, :8] = np.roll(WORDS[0, :8], 3)


def launched(instruction):
    """%r4 of 64 threads whose %r1, %r2, %r3 are the words."""
    out = np.zeros(64, np.uint32)
    body = (
        "mov.u32 %r9, %tid.x; mul.wide.u32 %rd9, %r9, 4; add.u64 %rd0, %rd0, %rd9; add.u64 %rd1, %rd1, %rd9;\n"
        "ld.global.u32 %r1, [%rd0]; ld.global.u32 %r2, [%rd0+256]; ld.global.u32 %r3, [%rd0+512];\n"
        f"{instruction}\nst.global.u32 [%rd1], %r4;"
    )
    assert run(body, WORDS, out, block=64).ok
    return out.tolist()


def number(bits, width, is_signed):
    bits &= 2**width - 1
    return bits - 2**width if is_signed and bits >> (width - 1) else bits


def clamped(value, width, is_signed):
    low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if is_signed else (0, 2**width - 1)
    return min(max(value, low), high)


SUM, DIFFERENCE = (lambda a, b: a + b), (lambda a, b: a - b)
MODELS = {
    "vadd.s32.u32.s32.sat %r4, %r1.b1, %r2.h0;": lambda a, b, c: clamped(number(a >> 8, 8, False) + number(b, 16, True), 32, True),
    "vadd.u32.s32.s32.sat %r4, %r1, %r2;": lambda a, b, c: clamped(number(a, 32, True) + number(b, 32, True), 32, False),
    "vsub.s32.s32.s32.add %r4, %r1.h1, %r2.b3, %r3;": lambda a, b, c: number(a >> 16, 16, True) - number(b >> 24, 8, True) + c,
    "vabsdiff.u32.u32.u32 %r4.h1, %r1.b0, %r2.b2, %r3;": lambda a, b, c: abs((a & 255) - (b >> 16 & 255)) << 16 | c & 0xFFFF,
    "vmin.s32.s32.u32.sat %r4.b2, %r1, %r2.h1, %r3;": lambda a, b, c: (clamped(min(number(a, 32, True), b >> 16), 8, True) & 255) << 16 | c & 0xFF00FFFF,
    "vmax.u32.u32.u32.min %r4, %r1.b3, %r2.b0, %r3;": lambda a, b, c: min(max(a >> 24, b & 255), c),
    "vshl.u32.u32.u32.clamp %r4, %r1.b0, %r2.b1;": lambda a, b, c: (a & 255) << min(b >> 8 & 255, 32),
    "vshr.s32.s32.u32.wrap %r4, %r1, %r2.b1;": lambda a, b, c: number(a, 32, True) >> (b >> 8 & 31),
    "vmad.s32.s32.s32.shr7 %r4, %r1.h0, %r2.h1, %r3;": lambda a, b, c: (number(a, 16, True) * number(b >> 16, 16, True) + number(c, 32, True)) >> 7,
    "vmad.u32.u32.u32.po.sat %r4, %r1, %r2.b0, %r3;": lambda a, b, c: clamped(a * (b & 255) + c + 1, 32, False),
    "vset.s32.u32.lt %r4, %r1.b0, %r2.b0;": lambda a, b, c: int(number(a, 8, True) < (b & 255)),
    "vset.u32.u32.ge.add %r4, %r1.h0, %r2.h1, %r3;": lambda a, b, c: int((a & 0xFFFF) >= b >> 16) + c,
    "vadd4.s32.s32.s32.sat %r4, %r1, %r2, %r3;": lambda a, b, c: fields(4, a, b, lambda x, y: clamped(x + y, 8, True), True),
    "vsub2.u32.u32.u32 %r4, %r1, %r2, %r3;": lambda a, b, c: fields(2, a, b, DIFFERENCE, False),
    "vsub2.s32.u32.u32.add %r4, %r1, %r2, %r3;": lambda a, b, c: (a & 0xFFFF) - (b & 0xFFFF) + (a >> 16) - (b >> 16) + c,
    "vmax4.s32.s32.s32 %r4.b20, %r1, %r2, %r3;": lambda a, b, c: fields(4, a, b, max, True) & 0x00FF00FF | c & 0xFF00FF00,
    "vadd2.u32.u32.u32 %r4, %r1.h31, %r2.h02, %r3;": lambda a, b, c: (b >> 16) + (a & 0xFFFF) << 16 | (a >> 16) + (b & 0xFFFF) & 0xFFFF,
    "vset4.u32.u32.lt %r4, %r1, %r2, %r3;": lambda a, b, c: fields(4, a, b, lambda x, y: int(x < y), False),
    "vabsdiff4.s32.s32.u32.add %r4, %r1, %r2, %r3;": lambda a, b, c: c + sum(abs(number(a >> s, 8, True) - (b >> s & 255)) for s in (0, 8, 16, 24)),
}  # fmt: skip


def fields(count, a, b, combine, is_signed):
    """A word whose fields are those of a and b, combined."""
    width = 32 // count
    parts = (combine(number(a >> s, width, is_signed), number(b >> s, width, is_signed)) for s in range(0, 32, width))
    return sum((part & 2**width - 1) << n * width for n, part in enumerate(parts))


@pytest.mark.parametrize("instruction", MODELS)
def test_video_instruction(instruction):
    expected = [MODELS[instruction](*map(int, words)) & 0xFFFFFFFF for words in WORDS.T]
    assert launched(instruction) == expected


REFUSED = {
    "vadd.s32.s32.s32 %r4, %r1.h2, %r2;": "selector '.h2'",
    "vadd2.s32.s32.s32 %r4.b1, %r1, %r2, %r3;": "selector '.b1'",
    "vadd.s32.s32.s32 %r4, %r1, %r2, %r3;": "third source",
    "vshl.u32.u32.u32 %r4, %r1, %r2;": "exactly one of .clamp, .wrap",
    "add.u32 %r4, %r1.b0, %r2;": "'%r1.b0' is not declared",
    "tex.2d.v4.f32.s32 {%f1,%f2,%f3,%f4}, [%rd1, {%r1,%r2}];": "'tex.2d.v4.f32.s32': textures and surfaces",
    "suld.b.2d.b32.trap %r1, [%rd1, {%r2,%r3}];": "'suld.b.2d.b32.trap': textures and surfaces",
    "setmaxnreg.inc.sync.aligned.u32 232;": "'setmaxnreg.inc.sync.aligned.u32'",
    "cp.async.bulk.tensor.2d.shared::cluster.global [%r1], [%rd1, {%r2,%r3}], [%r4];": "no modifier '.bulk'",
}


@pytest.mark.parametrize("instruction", REFUSED)
def test_refused_by_name(instruction):
    with pytest.raises(PtxError, match="line ") as caught:
        simulator.load(entry(instruction, ""))
    assert REFUSED[instruction] in str(caught.value)


BINARY = {
    "add": SUM, "sub": DIFFERENCE, "maxs": max, "maxu": max, "mins": min, "minu": min,
    "addss": lambda x, y, w: clamped(x + y, w, True), "addus": lambda x, y, w: clamped(x + y, w, False),
    "subss": lambda x, y, w: clamped(x - y, w, True), "subus": lambda x, y, w: clamped(x - y, w, False),
    "absdiffs": lambda x, y: abs(x - y), "absdiffu": lambda x, y: abs(x - y), "haddu": lambda x, y: (x + y) >> 1,
    "avgu": lambda x, y: (x + y + 1) >> 1, "cmpeq": lambda x, y: -(x == y), "cmpgts": lambda x, y: -(x > y),
    "cmpleu": lambda x, y: -(x <= y), "setltu": lambda x, y: int(x < y), "setges": lambda x, y: int(x >= y),
    "setne": lambda x, y: int(x != y),
}  # fmt: skip
TOTAL = {"sads": lambda x, y: abs(x - y), "sadu": lambda x, y: abs(x - y)}
THREE = {
    "viaddmax_s32": (1, lambda x, y, z: max(number(x + y, 32, True), z), True),
    "viaddmin_u32": (1, lambda x, y, z: min(x + y & 0xFFFFFFFF, z), False),
    "viaddmax_s16x2_relu": (2, lambda x, y, z: max(number(x + y, 16, True), z, 0), True),
    "vimax3_u16x2": (2, max, False),
    "vimin3_s32_relu": (1, lambda x, y, z: max(min(x, y, z), 0), True),
}


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_simd_intrinsics(arch):
    calls = {f"__v{name}{n}(a, b)": (n, name) for name in BINARY | TOTAL for n in (2, 4)}
    calls |= {f"__{name}(a, b, c)": (None, name) for name in THREE}
    lines = "".join(f"o[64 * {i} + threadIdx.x] = {call};\n" for i, call in enumerate(calls))
    source = f"""extern "C" __global__ void k(const unsigned *w, unsigned *o) {{
        unsigned a = w[threadIdx.x], b = w[64 + threadIdx.x], c = w[128 + threadIdx.x];\n{lines}}}"""
    out = np.zeros((len(calls), 64), np.uint32)
    assert simulator.load(compiler.cuda(source, arch), arch)["k"].launch(1, 64, WORDS, out).ok
    for row, (call, (n, name)) in zip(out, calls.items(), strict=True):
        for got, words in zip(row.tolist(), WORDS.T, strict=True):
            a, b, c = map(int, words)
            if n is None:
                count, model, is_signed = THREE[name]
                width = 32 // count
                shifts = range(0, 32, width)
                parts = [model(*(number(v >> s, width, is_signed) for v in (a, b, c))) for s in shifts]
                expected = sum((part & 2**width - 1) << s for part, s in zip(parts, shifts, strict=True))
            elif name in TOTAL:
                width, is_signed = 32 // n, name.endswith("s")
                expected = sum(
                    abs(number(a >> s, width, is_signed) - number(b >> s, width, is_signed))
                    for s in range(0, 32, width)
                )
            else:
                model, width = BINARY[name], 32 // n
                extra = (width,) if name.endswith(("ss", "us")) else ()
                expected = fields(
                    n,
                    a,
                    b,
                    lambda x, y, m=model, e=extra: m(x, y, *e),
                    name.endswith("s") and not name.endswith("us"),
                )
            assert got == expected, call
