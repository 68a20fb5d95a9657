"""mma.sync, mma.sp, ldmatrix and wmma against an exact model in Python fractions and against dense index tables."""

import random
from fractions import Fraction

import numpy as np
import pytest
from ptx_text import run

RULES = {  # fraction bits kept, products per block (16-bit formats, tf32), least exponent (f32 out, f16 out)
    "sm_80": (24, 8, 4, -132, -20),
    "sm_89": (24, 8, 4, -132, -20),
    "sm_90": (25, 16, 8, -133, -21),
}
FIELDS = {"f16": (5, 10), "bf16": (8, 7), "tf32": (8, 10), "f32": (8, 23)}


def split(bits, kind):
    """(class, significand as a Fraction in [0, 2), exponent, sign)"""
    e, f = FIELDS[kind]
    if kind == "tf32":
        bits >>= 13
    sign = -1 if bits >> (e + f) & 1 else 1
    exponent, fraction = bits >> f & (1 << e) - 1, bits & (1 << f) - 1
    bias = (1 << (e - 1)) - 1
    if exponent == (1 << e) - 1:
        return ("nan" if fraction else "inf"), None, None, sign
    significand = Fraction(fraction, 1 << f) + (1 if exponent else 0)
    return "number", significand, max(exponent, 1) - bias, sign


def floor_exponent(x):
    e = x.numerator.bit_length() - x.denominator.bit_length()
    return e if Fraction(2) ** e <= x else e - 1


def block(a, b, c, kind, out, arch):
    """One hardware block, straight from the published description."""
    keep, _, _, least32, least16 = RULES[arch]
    terms, infinities, nan = [], set(), False
    for x, y in zip(a, b, strict=True):
        (cx, mx, ex, sx), (cy, my, ey, sy) = split(x, kind), split(y, kind)
        if "nan" in (cx, cy):
            nan = True
        elif "inf" in (cx, cy):
            if (cx == "number" and mx == 0) or (cy == "number" and my == 0):
                nan = True
            infinities.add(sx * sy)
        elif mx * my:
            terms.append((sx * sy * mx * my, ex + ey))
    cc, mc, ec, sc = split(c, out)
    if cc == "nan":
        nan = True
    elif cc == "inf":
        infinities.add(sc)
    elif mc:
        terms.append((sc * mc, ec))
    width = 16 if out == "f16" else 32
    if nan or len(infinities) == 2:
        return (1 << (width - 1)) - 1
    top_bits = 0x7C00 if out == "f16" else 0x7F800000
    if infinities:
        return top_bits | (1 << (width - 1) if -1 in infinities else 0)
    if not terms:
        return 0
    top = max(max(e for _, e in terms), least32 if out == "f32" else least16)
    unit = Fraction(2) ** (top - keep)
    total = 0
    for m, e in terms:
        value = m * Fraction(2) ** e / unit
        total += (abs(value).numerator // abs(value).denominator) * (1 if value > 0 else -1)
    if total == 0:
        return 0
    value = abs(total) * unit
    e, f = FIELDS[out]
    bias = (1 << (e - 1)) - 1
    exponent = max(floor_exponent(value), 1 - bias)
    units = value / Fraction(2) ** (exponent - f)
    low = units.numerator // units.denominator
    if out == "f16":
        rest = units - low
        low += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1)
    bits = low + ((exponent + bias - 1) << f)
    return min(bits, top_bits) | (1 << (width - 1) if total < 0 else 0)


def chain(a, b, c, kind, out, arch):
    step = RULES[arch][2 if kind == "tf32" else 1]
    for start in range(0, len(a), step):
        c = block(a[start : start + step], b[start : start + step], c, kind, out, arch)
    return c


def pattern(rng, kind):
    e, f = FIELDS[kind]
    choice = rng.random()
    bias = (1 << (e - 1)) - 1
    if choice < 0.1:
        bits = rng.choice([0, 1, 1 << f, ((1 << e) - 2) << f | (1 << f) - 1, bias << f])
    elif choice < 0.115:
        bits = rng.choice([((1 << e) - 1) << f, ((1 << e) - 1) << f | 1])
    elif choice < 0.9:
        bits = min(max(bias + rng.randrange(-f, 8), 0), (1 << e) - 2) << f | rng.getrandbits(f)
    else:
        bits = rng.getrandbits(e + f)
    bits |= rng.getrandbits(1) << (e + f)
    return bits << 13 | rng.getrandbits(13) if kind == "tf32" else bits


G = [lane >> 2 for lane in range(32)]
T = [lane & 3 for lane in range(32)]


def a_place(shape, kind, lane, i):
    """(row, column) of A's element i, as ptx.md tabulates it."""
    g, t = G[lane], T[lane]
    if kind == "tf32":
        return (g + 8 * (i & 1), t + 4 * (i >= 2)) if shape == "m16n8k8" else (g + 8 * i, t)
    if shape == "m16n8k16":
        return g + 8 * ((i >> 1) & 1), 2 * t + (i & 1) + 8 * (i >= 4)
    return g + 8 * (i >= 2), 2 * t + (i & 1)


def b_place(shape, kind, lane, i):
    g, t = G[lane], T[lane]
    if kind == "tf32":
        return t + 4 * i, g
    return 2 * t + (i & 1) + 8 * (i >= 2), g


def c_place(lane, i):
    return G[lane] + 8 * (i >= 2), 2 * T[lane] + (i & 1)


def registers(matrix, place, count, width):
    """uint32[32, n]: `count` elements per lane, little end first."""
    per = 32 // width
    out = np.zeros((32, count // per), np.uint32)
    for lane in range(32):
        for i in range(count):
            row, column = place(lane, i)
            out[lane, i // per] |= int(matrix[row][column]) << (i % per * width)
    return out


def unpack(words, place, count, width, shape):
    matrix = [[0] * shape[1] for _ in range(shape[0])]
    for lane in range(32):
        for i in range(count):
            row, column = place(lane, i)
            per = 32 // width
            matrix[row][column] = int(words[lane, i // per]) >> (i % per * width) & (1 << width) - 1
    return matrix


def names(first, count):
    return "{" + ", ".join(f"%r{first + i}" for i in range(count)) + "}"


def multiply(opcode, operands, d_registers, arch, extra=""):
    """Runs one mma: operands are uint32[32, n] register images."""
    body = ["mov.u32 %r50, %tid.x;"]
    places, first = [], 10
    for n, image in enumerate(operands):
        count = image.shape[1]
        for i in range(count):
            body.append(f"mad.wide.u32 %rd20, %r50, {4 * count}, %rd{n}; ld.global.u32 %r{first + i}, [%rd20+{4 * i}];")
        places.append(names(first, count))
        first += count
    d = names(40, d_registers)
    sources = ", ".join(places[:3]) + (f", %r{first - 1}" if len(places) > 3 else "") + extra
    body.append(f"{opcode} {d}, {sources};")
    for i in range(d_registers):
        body.append(f"mad.wide.u32 %rd20, %r50, {4 * d_registers}, %rd{len(operands)};")
        body.append(f"st.global.u32 [%rd20+{4 * i}], %r{40 + i};")
    out = np.zeros((32, d_registers), np.uint32)
    report = run("\n".join(body), *operands, out, arch=arch)
    assert report.ok, report
    assert report.metrics["smsp__inst_executed_pipe_tensor_op_hmma.sum"] == 1
    return out


DENSE = [
    (shape, kind, d, c)
    for shape in ("m16n8k8", "m16n8k16")
    for kind, d, c in (("f16", "f32", "f32"), ("f16", "f16", "f16"), ("bf16", "f32", "f32"))
]
DENSE += [("m16n8k8", "tf32", "f32", "f32"), ("m16n8k4", "tf32", "f32", "f32")]


@pytest.mark.parametrize("arch", RULES)
@pytest.mark.parametrize(("shape", "kind", "d_kind", "c_kind"), DENSE)
def test_mma_equals_the_published_model(arch, shape, kind, d_kind, c_kind):
    rng = random.Random(f"{arch}{shape}{kind}{d_kind}")
    k = int(shape.split("k")[1])
    width = 32 if kind == "tf32" else 16
    out = 16 if d_kind == "f16" else 32
    a = [[pattern(rng, kind) for _ in range(k)] for _ in range(16)]
    b = [[pattern(rng, kind) for _ in range(8)] for _ in range(k)]
    c = [[pattern(rng, c_kind) for _ in range(8)] for _ in range(16)]
    images = [
        registers(a, lambda lane, i: a_place(shape, kind, lane, i), 16 * k // 32, width),
        registers(b, lambda lane, i: b_place(shape, kind, lane, i), 8 * k // 32, width),
        registers(c, c_place, 4, out),
    ]
    opcode = f"mma.sync.aligned.{shape}.row.col.{d_kind}.{kind}.{kind}.{c_kind}"
    words = multiply(opcode, images, 4 * out // 32, arch)
    got = unpack(words, c_place, 4, out, (16, 8))
    for m in range(16):
        for n in range(8):
            expected = chain(a[m], [b[j][n] for j in range(k)], c[m][n], kind, d_kind, arch)
            assert got[m][n] == expected, (m, n, hex(got[m][n]), hex(expected))


def test_seventeen_terms_need_more_than_32_bits_on_hopper():
    a, b, c = [[0x3FFF] * 16] * 16, [[0x3FFF] * 8] * 16, [[0x3FFFFFFF] * 8] * 16
    images = [
        registers(a, lambda lane, i: a_place("m16n8k16", "f16", lane, i), 8, 16),
        registers(b, lambda lane, i: b_place("m16n8k16", "f16", lane, i), 4, 16),
        registers(c, c_place, 4, 32),
    ]
    words = multiply("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", images, 4, "sm_90")
    assert set(words.reshape(-1).tolist()) == {0x4283E001}


@pytest.mark.parametrize(("shape", "selector"), [("m16n8k32", 0), ("m16n8k32", 1), ("m16n8k16", 0), ("m16n8k16", 3)])
def test_sparse_mma_selects_two_of_four(shape, selector):
    rng = random.Random(f"{shape}{selector}")
    k = int(shape.split("k")[1])
    half = f"m16n8k{k // 2}"
    stored = [[pattern(rng, "f16") for _ in range(k // 2)] for _ in range(16)]
    b = [[pattern(rng, "f16") for _ in range(8)] for _ in range(k)]
    c = [[pattern(rng, "f32") for _ in range(8)] for _ in range(16)]
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    chosen = [[rng.choice(pairs) for _ in range(k // 4)] for _ in range(16)]
    suppliers = k // 16
    metadata = np.array([[rng.getrandbits(32)] for _ in range(32)], np.uint32)
    for g in range(8):
        for p in range(suppliers):
            word = 0
            for side, row in ((0, g), (1, g + 8)):
                for q in range(4):
                    first, second = chosen[row][4 * p + q]
                    word |= (first | second << 2) << (16 * side + 4 * q)
            metadata[4 * g + selector * suppliers + p, 0] = word

    def b_sparse(lane, i):
        return 2 * T[lane] + (i & 1) + 8 * (i >> 1), G[lane]

    images = [
        registers(stored, lambda lane, i: a_place(half, "f16", lane, i), 16 * k // 64, 16),
        registers(b, b_sparse, 8 * k // 32, 16),
        registers(c, c_place, 4, 32),
        metadata,
    ]
    opcode = f"mma.sp.sync.aligned.{shape}.row.col.f32.f16.f16.f32"
    got = unpack(multiply(opcode, images, 4, "sm_80", f", {selector:#x}"), c_place, 4, 32, (16, 8))
    for m in range(16):
        columns = [4 * chunk + place for chunk in range(k // 4) for place in chosen[m][chunk]]
        for n in range(8):
            expected = chain(stored[m], [b[j][n] for j in columns], c[m][n], "f16", "f32", "sm_80")
            assert got[m][n] == expected, (m, n)


@pytest.mark.parametrize(("a_kind", "b_kind"), [("s8", "s8"), ("u8", "s8"), ("s8", "u8")])
@pytest.mark.parametrize("shape", ["m8n8k16", "m16n8k16", "m16n8k32"])
def test_integer_mma(shape, a_kind, b_kind):
    rng = np.random.default_rng(3)
    rows, k = int(shape[1 : shape.index("n")]), int(shape.split("k")[1])
    a, b = rng.integers(0, 256, (rows, k)), rng.integers(0, 256, (k, 8))
    c = rng.integers(-(2**31), 2**31, (rows, 8))

    def a_int(lane, i):
        register, byte = divmod(i, 4)
        if rows == 8:
            return G[lane], 4 * T[lane] + byte
        return G[lane] + 8 * (register & 1), 4 * T[lane] + byte + 16 * (register >> 1)

    images = [
        registers(a, a_int, rows * k // 32, 8),
        registers(b, lambda lane, i: (4 * T[lane] + (i & 3) + 16 * (i >> 2), G[lane]), 8 * k // 32, 8),
        registers(c & 0xFFFFFFFF, c_place, rows * 8 // 32, 32),
    ]
    left = np.where((a_kind == "s8") & (a > 127), a - 256, a)
    right = np.where((b_kind == "s8") & (b > 127), b - 256, b)
    for suffix, finish in (
        ("", lambda x: x & 0xFFFFFFFF),
        (".satfinite", lambda x: np.clip(x, -(2**31), 2**31 - 1) & 0xFFFFFFFF),
    ):
        opcode = f"mma.sync.aligned.{shape}.row.col{suffix}.s32.{a_kind}.{b_kind}.s32"
        words = multiply(opcode, images, rows * 8 // 32, "sm_80")
        got = unpack(words, c_place, rows * 8 // 32, 32, (rows, 8))
        assert np.array_equal(np.array(got), finish(left @ right + c))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("order", ["m8n8.x{}{}.shared", "x{}.m8n8{}.shared"])
def test_ldmatrix(count, trans, order):
    data = np.random.default_rng(1).integers(0, 1 << 16, (32, 8)).astype(np.uint16)
    modifiers = order.format(count, trans)
    body = (
        ".shared .align 16 .b8 s[512];\nmov.u32 %r1, %tid.x;\nshl.b32 %r2, %r1, 4;\nmul.wide.u32 %rd10, %r1, 16;\n"
        "add.u64 %rd11, %rd0, %rd10;\nld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd11];\n"
        "st.shared.v4.u32 [%r2], {%r3, %r4, %r5, %r6};\nbar.sync 0;\n"
        f"ldmatrix.sync.aligned.{modifiers}.b16 {names(10, count)}, [%r2];\nadd.u64 %rd12, %rd1, %rd10;\n"
        + "".join(f"st.global.u32 [%rd12+{4 * i}], %r{10 + i};\n" for i in range(count))
    )
    out = np.zeros((32, 4), np.uint32)
    report = run(body, data, out)
    assert report.ok, report
    for j in range(count):
        matrix = data[8 * j : 8 * j + 8]
        matrix = matrix.T if trans else matrix
        for lane in range(32):
            row, column = lane >> 2, 2 * (lane & 3)
            assert out[lane, j] == int(matrix[row, column]) | int(matrix[row, column + 1]) << 16


@pytest.mark.parametrize(("rows", "columns"), [("row", "col"), ("col", "row")])
def test_wmma_multiplies(rows, columns):
    rng = np.random.default_rng(4)
    a, b = (rng.integers(-8, 8, (16, 16)).astype(np.float16) for _ in range(2))
    c = rng.integers(-8, 8, (16, 16)).astype(np.float32)
    left = np.ascontiguousarray(a if rows == "row" else a.T)
    right = np.ascontiguousarray(b if columns == "row" else b.T)
    fa, fb, fc, fd = names(0, 8), names(8, 8), names(16, 8), names(24, 8)
    body = (
        f"wmma.load.a.sync.aligned.{rows}.m16n16k16.global.f16 {fa}, [%rd0], 16;\nmov.u32 %r50, 16;\n"
        f"wmma.load.b.sync.aligned.{columns}.m16n16k16.global.f16 {fb}, [%rd1], %r50;\n"
        f"wmma.load.c.sync.aligned.row.m16n16k16.global.f32 {fc}, [%rd2];\n"
        f"wmma.mma.sync.aligned.{rows}.{columns}.m16n16k16.f32.f32 {fd}, {fa}, {fb}, {fc};\n"
        f"wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [%rd3], {fd}, 16;\n"
    )
    out = np.zeros((16, 16), np.float32)
    report = run(body, left, right, c, out)
    assert report.ok, report
    assert np.array_equal(out, a.astype(np.float32) @ b.astype(np.float32) + c)


def test_an_undefined_column_of_b_stays_in_its_column():
    body = (
        "mov.u32 %r50, %tid.x;\nshr.u32 %r51, %r50, 2;\nsetp.lt.u32 %p1, %r51, 5;\nmov.u32 %r10, 0; mov.u32 %r11, 0;\n"
        "@%p1 mov.u32 %r12, 0;\n"
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%r20,%r21,%r22,%r23}, {%r10,%r11}, {%r12}, {0,0,0,0};\n"
        "and.b32 %r52, %r50, 3;\nsetp.lt.u32 %p2, %r52, 2;\nmad.wide.u32 %rd10, %r50, 4, %rd0;\n"
        "@%p2 st.global.u32 [%rd10], %r20;\n"
    )
    assert run(body, np.zeros(32, np.uint32)).ok
    report = run(body + "st.global.u32 [%rd10], %r21;\n", np.zeros(32, np.uint32))
    assert [h.kind for h in report.hazards] == ["uninitialized"]
    assert report.hazards[0].thread == (2, 0, 0)
