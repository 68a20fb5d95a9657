"""Integer, bit and comparison opcodes against oracles in plain Python integers."""

import random

import pytest
from ptx_text import apply

EDGES = {
    16: [0, 1, 2, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0xFFFE, 0x00FF, 0x5555],
    32: [0, 1, 2, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFF, 0x10000],
    64: [0, 1, 2, 63, 64, 65, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64 - 2, 2**32 - 1, 2**32],
    1: [0, 1],
}


def rows(widths, count=96, seed=1):
    rng = random.Random(seed)
    return [
        [rng.choice(EDGES[w]) if rng.random() < 0.5 else rng.getrandbits(w) >> rng.randrange(w) for w in widths]
        for _ in range(count)
    ]


def s(x, w):
    return x - (1 << w) if x >> (w - 1) else x


def clamp(x, low, high):
    return min(max(x, low), high)


def trunc_div(a, b, w, signed):
    if b == 0:
        return -1
    if not signed:
        return a // b
    q = abs(s(a, w)) // abs(s(b, w))
    return -q if (s(a, w) < 0) != (s(b, w) < 0) else q


def trunc_rem(a, b, w, signed):
    if b == 0:
        return a
    if not signed:
        return a % b
    r = abs(s(a, w)) % abs(s(b, w))
    return -r if s(a, w) < 0 else r


def prmt(a, b, c):
    data = [(b << 32 | a) >> 8 * i & 255 for i in range(8)]
    out = 0
    for i in range(4):
        pick = c >> 4 * i & 15
        byte = data[pick & 7]
        if pick & 8:
            byte = 255 if byte & 128 else 0
        out |= byte << 8 * i
    return out


def bfe(a, pos, length, w, signed):
    pos, length = pos & 255, length & 255
    if length == 0:
        return 0
    bits = [(a >> i & 1) if i < w else 0 for i in range(pos, pos + length)]
    if signed:
        fill = a >> min(pos + length - 1, w - 1) & 1
        bits = [(a >> i & 1) if i < w else fill for i in range(pos, pos + length)]
        bits += [fill] * (w - len(bits))
    return sum(bit << i for i, bit in enumerate(bits[:w]))


def bfi(a, b, pos, length, w):
    pos, length = pos & 255, length & 255
    out = b
    for i in range(length):
        if pos + i < w:
            out = out & ~(1 << (pos + i)) | ((a >> i & 1) << (pos + i) if i < w else 0)
    return out


CASES = {}
for w in (16, 32, 64):
    for kind in ("u", "s"):
        t, signed = f"{kind}{w}", kind == "s"
        v = (lambda x, w=w: s(x, w)) if signed else (lambda x: x)
        CASES |= {
            f"add.{t} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b: a + b),
            f"sub.{t} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b: a - b),
            f"mul.lo.{t} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b: a * b),
            f"mul.hi.{t} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b, v=v, w=w: v(a) * v(b) >> w),
            f"mad.lo.{t} {{d}}, {{a}}, {{b}}, {{c}};": ([w, w, w], w, lambda a, b, c: a * b + c),
            f"mad.hi.{t} {{d}}, {{a}}, {{b}}, {{c}};": ([w] * 3, w, lambda a, b, c, v=v, w=w: (v(a) * v(b) >> w) + c),
            f"div.{t} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b, w=w, g=signed: trunc_div(a, b, w, g)),
            f"rem.{t} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b, w=w, g=signed: trunc_rem(a, b, w, g)),
            f"min.{t} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b, v=v: min(v(a), v(b))),
            f"max.{t} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b, v=v: max(v(a), v(b))),
            f"sad.{t} {{d}}, {{a}}, {{b}}, {{c}};": ([w, w, w], w, lambda a, b, c, v=v: c + abs(v(a) - v(b))),
            f"shr.{t} {{d}}, {{a}}, {{b}};": ([w, 32], w, lambda a, b, v=v, w=w: v(a) >> min(b, w)),
            f"setp.lt.{t} {{d}}, {{a}}, {{b}};": ([w, w], 1, lambda a, b, v=v: v(a) < v(b)),
            f"setp.ge.{t} {{d}}, {{a}}, {{b}};": ([w, w], 1, lambda a, b, v=v: v(a) >= v(b)),
        }
        if w < 64:
            CASES |= {
                f"mul.wide.{t} {{d}}, {{a}}, {{b}};": ([w, w], 2 * w, lambda a, b, v=v: v(a) * v(b)),
                f"mad.wide.{t} {{d}}, {{a}}, {{b}}, {{c}};": (
                    [w, w, 2 * w],
                    2 * w,
                    lambda a, b, c, v=v: v(a) * v(b) + c,
                ),
            }
        if w > 16:
            CASES |= {
                f"bfe.{t} {{d}}, {{a}}, {{b}}, {{c}};": ([w, 32, 32], w, lambda a, b, c, w=w, g=signed: bfe(a, b, c, w, g)),
                f"bfind.{t} {{d}}, {{a}};": (
                    [w], 32, lambda a, w=w, g=signed: (a if not g or s(a, w) >= 0 else ~a & (1 << w) - 1).bit_length() - 1
                ),
            }  # fmt: skip
    CASES |= {
        f"abs.s{w} {{d}}, {{a}};": ([w], w, lambda a, w=w: abs(s(a, w))),
        f"neg.s{w} {{d}}, {{a}};": ([w], w, lambda a: -a),
        f"and.b{w} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b: a & b),
        f"or.b{w} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b: a | b),
        f"xor.b{w} {{d}}, {{a}}, {{b}};": ([w, w], w, lambda a, b: a ^ b),
        f"not.b{w} {{d}}, {{a}};": ([w], w, lambda a: ~a),
        f"cnot.b{w} {{d}}, {{a}};": ([w], w, lambda a: a == 0),
        f"shl.b{w} {{d}}, {{a}}, {{b}};": ([w, 32], w, lambda a, b, w=w: a << b if b < w else 0),
        f"setp.eq.b{w} {{d}}, {{a}}, {{b}};": ([w, w], 1, lambda a, b: a == b),
        f"setp.hi.u{w} {{d}}, {{a}}, {{b}};": ([w, w], 1, lambda a, b: a > b),
        f"selp.b{w} {{d}}, {{a}}, {{b}}, {{c}};": ([w, w, 1], w, lambda a, b, c: a if c else b),
        f"slct.u{w}.s32 {{d}}, {{a}}, {{b}}, {{c}};": ([w, w, 32], w, lambda a, b, c: a if s(c, 32) >= 0 else b),
    }
for w in (32, 64):
    CASES |= {
        f"popc.b{w} {{d}}, {{a}};": ([w], 32, lambda a: bin(a).count("1")),
        f"clz.b{w} {{d}}, {{a}};": ([w], 32, lambda a, w=w: w - a.bit_length()),
        f"brev.b{w} {{d}}, {{a}};": ([w], w, lambda a, w=w: int(f"{a:0{w}b}"[::-1], 2)),
        f"bfi.b{w} {{d}}, {{a}}, {{b}}, {{c}}, {{e}};": ([w, w, 32, 32], w, lambda a, b, c, e, w=w: bfi(a, b, c, e, w)),
    }
CASES |= {
    "add.sat.s32 {d}, {a}, {b};": ([32, 32], 32, lambda a, b: clamp(s(a, 32) + s(b, 32), -(2**31), 2**31 - 1)),
    "sub.sat.s32 {d}, {a}, {b};": ([32, 32], 32, lambda a, b: clamp(s(a, 32) - s(b, 32), -(2**31), 2**31 - 1)),
    "mul24.lo.s32 {d}, {a}, {b};": ([32, 32], 32, lambda a, b: s(a & 0xFFFFFF, 24) * s(b & 0xFFFFFF, 24)),
    "mul24.hi.u32 {d}, {a}, {b};": ([32, 32], 32, lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF) >> 16),
    "prmt.b32 {d}, {a}, {b}, {c};": ([32] * 3, 32, prmt),
    "prmt.b32.f4e {d}, {a}, {b}, {c};": ([32] * 3, 32, lambda a, b, c: (b << 32 | a) >> 8 * (c & 3)),
    "prmt.b32.rc16 {d}, {a}, {b}, {c};": ([32] * 3, 32, lambda a, b, c: (a >> 16 * (c & 1) & 0xFFFF) * 0x10001),
    "prmt.b32.rc8 {d}, {a}, {b}, {c};": ([32] * 3, 32, lambda a, b, c: (a >> 8 * (c & 3) & 255) * 0x1010101),
    "shf.l.wrap.b32 {d}, {a}, {b}, {c};": ([32] * 3, 32, lambda a, b, c: (b << 32 | a) << (c & 31) >> 32),
    "shf.r.wrap.b32 {d}, {a}, {b}, {c};": ([32] * 3, 32, lambda a, b, c: (b << 32 | a) >> (c & 31)),
    "shf.l.clamp.b32 {d}, {a}, {b}, {c};": ([32] * 3, 32, lambda a, b, c: (b << 32 | a) << min(c, 32) >> 32),
    "shf.r.clamp.b32 {d}, {a}, {b}, {c};": ([32] * 3, 32, lambda a, b, c: (b << 32 | a) >> min(c, 32)),
    "lop3.b32 {d}, {a}, {b}, {c}, 0x96;": ([32] * 3, 32, lambda a, b, c: a ^ b ^ c),
    "lop3.b32 {d}, {a}, {b}, {c}, 0xE8;": ([32] * 3, 32, lambda a, b, c: a & b | b & c | a & c),
    "lop3.b32 {d}, {a}, {b}, {c}, 0x2A;": ([32] * 3, 32, lambda a, b, c: ~(a & b) & c),
    "dp4a.u32.u32 {d}, {a}, {b}, {c};": (
        [32] * 3, 32, lambda a, b, c: c + sum((a >> 8 * i & 255) * (b >> 8 * i & 255) for i in range(4))
    ),
    "dp4a.s32.u32 {d}, {a}, {b}, {c};": (
        [32] * 3, 32, lambda a, b, c: c + sum(s(a >> 8 * i & 255, 8) * (b >> 8 * i & 255) for i in range(4))
    ),
    "dp2a.hi.s32.s32 {d}, {a}, {b}, {c};": (
        [32] * 3, 32, lambda a, b, c: c + sum(s(a >> 16 * i & 65535, 16) * s(b >> 16 + 8 * i & 255, 8) for i in range(2))
    ),
    "bmsk.clamp.b32 {d}, {a}, {b};": ([32, 32], 32, lambda a, b: (2 ** min(b, 32) - 1) << min(a, 32)),
    "szext.wrap.s32 {d}, {a}, {b};": (
        [32, 32], 32, lambda a, b: s(a & 2 ** (b & 31) - 1, b & 31) if b & 31 else 0
    ),
    "set.gt.u32.s32 {d}, {a}, {b};": ([32, 32], 32, lambda a, b: -1 if s(a, 32) > s(b, 32) else 0),
    "set.le.f32.u32 {d}, {a}, {b};": ([32, 32], 32, lambda a, b: 0x3F800000 if a <= b else 0),
    "setp.lt.and.u32 {d}, {a}, {b}, {c};": ([32, 32, 1], 1, lambda a, b, c: a < b and c),
    "setp.lt.xor.u32 {d}, {a}, {b}, !{c};": ([32, 32, 1], 1, lambda a, b, c: (a < b) != (not c)),
    "{{ .reg .pred q; setp.lt.or.u32 q|{d}, {a}, {b}, {c}; }}": ([32, 32, 1], 1, lambda a, b, c: a >= b or c),
    "lop3.or.b32 _|{d}, {a}, {b}, 0x80000001, 0x80, {c};": (
        [32, 32, 1], 1, lambda a, b, c: a & b & 0x80000001 != 0 or c
    ),
    "lop3.and.b32 _|{d}, {a}, {b}, 0x80000001, 0x80, !{c};": (
        [32, 32, 1], 1, lambda a, b, c: a & b & 0x80000001 != 0 and not c
    ),
    "{{ .reg .pred q; lop3.or.b32 {d}|q, {a}, {b}, {c}, 0x96, 1; }}": ([32] * 3, 32, lambda a, b, c: a ^ b ^ c),
    "and.pred {d}, {a}, {b};": ([1, 1], 1, lambda a, b: a and b),
    "not.pred {d}, {a};": ([1], 1, lambda a: not a),
    "mov.b64 {d}, {{{a}, {b}}};": ([32, 32], 64, lambda a, b: b << 32 | a),
    "{{ .reg .b32 t; mov.b64 {{t, {d}}}, {a}; }}": ([64], 32, lambda a: a >> 32),
    "{{ .reg .u32 t; add.cc.u32 t, {a}, {b}; addc.u32 {d}, {a}, {b}; }}": (
        [32, 32], 32, lambda a, b: a + b + (a + b >> 32)
    ),
    "{{ .reg .u32 t; sub.cc.u32 t, {a}, {b}; subc.u32 {d}, {a}, {b}; }}": ([32, 32], 32, lambda a, b: a - b - (a < b)),
    # the flag is the carry of a + ~b + 1, as NVIDIA's 128-bit division reads it
    "{{ .reg .u32 t; sub.cc.u32 t, {a}, {b}; addc.u32 {d}, 0, 0; }}": ([32, 32], 32, lambda a, b: a >= b),
    "{{ .reg .u32 t; add.cc.u32 t, {a}, {b}; subc.u32 {d}, {a}, {b}; }}": (
        [32, 32],
        32,
        lambda a, b: a - b - (a + b < 1 << 32),
    ),
    "{{ .reg .u32 t; mad.lo.cc.u32 t, {a}, {b}, {c}; madc.hi.u32 {d}, {a}, {b}, {c}; }}": (
        [32] * 3, 32, lambda a, b, c: (a * b >> 32) + c + ((a * b & 0xFFFFFFFF) + c >> 32)
    ),
}  # fmt: skip
for source in ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"):
    for target in ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"):
        for sat in ("", ".sat"):
            w, x = int(source[1:]), int(target[1:])

            def convert(a, source=source, target=target, sat=sat, w=w, x=x):
                value = a & (1 << w) - 1
                value = s(value, w) if source[0] == "s" else value
                if sat:
                    low, high = (-(1 << x - 1), (1 << x - 1) - 1) if target[0] == "s" else (0, (1 << x) - 1)
                    value = clamp(value, low, high)
                value &= (1 << x) - 1
                return s(value, x) if target[0] == "s" else value

            CASES[f"cvt{sat}.{target}.{source} {{d}}, {{a}};"] = ([max(16, w)], max(16, x), convert)


@pytest.mark.parametrize("text", CASES)
def test_integer_opcode_equals_python_integers(text):
    widths, out_width, oracle = CASES[text]
    inputs = rows(widths)
    expected = [int(oracle(*row)) & ((1 << out_width) - 1) for row in inputs]
    got = apply(text, inputs, widths, out_width)
    wrong = [(row, hex(g), hex(e)) for row, g, e in zip(inputs, got, expected, strict=True) if g != e]
    assert not wrong, wrong[:3]


def test_fns_finds_the_nth_set_bit():
    inputs = [[0b10110, base, n & 0xFFFFFFFF] for base in (0, 1, 2, 4, 5, 31) for n in (0, 1, 2, -1, -2, 3)][:32]
    expected = []
    for word, base, n in inputs:
        n = s(n, 32)
        bits = [i for i in range(32) if word >> i & 1]
        if n == 0:
            found = [base] if base in bits else []
        elif n > 0:
            found = [b for b in bits if b >= base][n - 1 : n]
        else:
            found = [b for b in reversed(bits) if b <= base][-n - 1 : -n]
        expected.append(found[0] if found else 0xFFFFFFFF)
    assert apply("fns.b32 {d}, {a}, {b}, {c};", inputs, [32, 32, 32], 32) == expected
