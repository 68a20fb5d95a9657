"""Matrix multiplications in both engines: the same bits, counts and hazards, whatever the operands hold."""

import numpy as np
import pytest
from ptx_text import run
from test_engine_mma import operands as elements

RNG = np.random.default_rng
LANE = np.arange(32)
G, T = LANE >> 2, LANE & 3
WORD = {"u32": ("%r", np.uint32), "u64": ("%rd", np.uint64)}


def in_both(opcode, images, results, *, arch="sm_80", suffix="", block=32, skip=None):
    """A warp-level multiplication per case, of register images [cases, 32, n], in both engines.

    `images` are those of the operands in order; `results` is (registers of D, word).  `skip` (a list of (operand, index,
    lane) per case) names registers that stay unwritten.  Returns the report.
    """
    cases, total = len(images[0]), sum(image.shape[2] for image in images)
    unwritten = np.zeros((cases, total), np.uint32)
    for case, registers in enumerate(skip or []):
        for operand, index, lane in registers:
            unwritten[case, sum(image.shape[2] for image in images[:operand]) + index] |= np.uint32(1 << lane)
    body = ["mov.u32 %r50, %tid.x; mov.u32 %r51, %ctaid.x; mad.lo.u32 %r53, %r51, 32, %r50; shl.b32 %r54, 1, %r50;"]
    body.append(f"mad.wide.u32 %rd51, %r51, {4 * total}, %rd{len(images)};")
    names, first = [], 0
    for n, image in enumerate(images):
        word = f"u{8 * image.itemsize}"
        size, prefix, count = image.itemsize, WORD[word][0], image.shape[2]
        body.append(f"mad.wide.u32 %rd50, %r53, {size * count}, %rd{n};")
        for i in range(count):
            body.append(f"ld.global.u32 %r52, [%rd51+{4 * (first + i)}]; and.b32 %r52, %r52, %r54;")
            body.append(
                f"setp.eq.u32 %p1, %r52, 0; @%p1 ld.global.{word} {prefix}{10 + first + i}, [%rd50+{size * i}];"
            )
        held = [f"{prefix}{10 + first + i}" for i in range(count)]
        names.append("{" + ", ".join(held) + "}" if n < 3 else held[0])
        first += count
    count, word = results
    prefix, dtype = WORD[word]
    d = [f"{prefix}{10 + first + i}" for i in range(count)]
    body.append(f"{opcode} {{{', '.join(d)}}}, {', '.join(names)}{suffix};")
    out = np.zeros((cases, 32, count), dtype)
    body.append(f"mad.wide.u32 %rd50, %r53, {out.itemsize * count}, %rd{len(images) + 1};")
    body += [f"st.global.{word} [%rd50+{out.itemsize * i}], {d[i]};" for i in range(count)]
    found = []
    for engine in ("llvm", "interpreter"):
        result = out.copy()
        options = {"arch": arch, "block": block, "grid": cases, "engine": engine}
        found.append((result, run("\n".join(body), *images, unwritten, result, **options)))
    (one, report), (two, other) = found
    np.testing.assert_array_equal(one, two)
    assert report.metrics == other.metrics
    assert sorted(map(str, report.hazards)) == sorted(map(str, other.hazards))
    return report


def stacked(cases):
    """Images of each case -> images [cases, 32, n]."""
    return [np.stack(image) for image in zip(*cases, strict=True)]


def pairs(matrix, places, along):
    """One register of two neighbours for every (row, column)."""
    down, right = along
    columns = [matrix[r, c].astype(np.uint32) | matrix[r + down, c + right].astype(np.uint32) << 16 for r, c in places]
    return np.stack(columns, axis=1)


def accumulators(c, kind):
    if kind == "f32":
        return np.stack([c[G + 8 * (i // 2), 2 * T + i % 2] for i in range(4)], axis=1).astype(np.uint32)
    return pairs(c, [(G + 8 * i, 2 * T) for i in range(2)], (0, 1))


def sparse_images(kind, depth, out, seed):
    """A [16, depth / 2], B [depth, 8], C of every style of `test_engine_mma`; metadata of all patterns, illegal ones too."""
    a, _, c = elements(kind, depth // 2, out, seed)
    _, b, _ = elements(kind, depth, out, seed)
    metadata = RNG(seed).integers(0, 2**32, (32, 1), dtype=np.uint64).astype(np.uint32)
    left = pairs(a, [(G + 8 * (i % 2), 2 * T + 8 * (i // 2)) for i in range(depth // 8)], (0, 1))
    right = pairs(b, [(2 * T + 8 * i, G) for i in range(depth // 8)], (1, 0))
    return left, right, accumulators(c, out), metadata


SPARSE = [
    ("f16", 32, "f32", "sm_80"), ("f16", 16, "f32", "sm_90"), ("bf16", 32, "f32", "sm_90"),
    ("bf16", 16, "f32", "sm_80"), ("f16", 32, "f16", "sm_90"), ("f16", 16, "f16", "sm_80"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "depth", "out", "arch"), SPARSE)
def test_sparse_products(kind, depth, out, arch):
    opcode = f"mma.sp.sync.aligned.m16n8k{depth}.row.col.{out}.{kind}.{kind}.{out}"
    images = stacked(sparse_images(kind, depth, out, seed) for seed in range(10))
    for selector in {0, 64 // depth - 1, sum(map(ord, kind)) % (64 // depth)}:
        report = in_both(opcode, images, (4 if out == "f32" else 2, "u32"), arch=arch, suffix=f", {selector}")
        assert report.ok


def test_what_is_undefined_in_a_sparse_product():
    opcode = "mma.sp::ordered_metadata.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
    images = stacked([sparse_images("f16", 16, "f32", 1)] * 7)
    skip = [[(0, 1, 9)], [(1, 0, 6)], [(2, 3, 31)], [(3, 0, 6)], [(0, 0, 3), (3, 0, 30)], [(3, 0, 5)], []]
    report = in_both(opcode, images, (4, "u32"), suffix=", 2", skip=skip)
    assert not report.ok
    # lane 4g + 2 supplies what selector 2 selects, and no other
    assert in_both(opcode, [i[5:] for i in images], (4, "u32"), suffix=", 2", skip=skip[5:]).ok


def test_lanes_that_do_not_exist_hold_zeros_of_all_operands():
    opcode = "mma.sp.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32"
    images = [image[:, :21] for image in stacked([sparse_images("f16", 32, "f32", 1)])]
    images = [np.concatenate([i, np.zeros((1, 11, i.shape[2]), i.dtype)], axis=1) for i in images]
    report = in_both(opcode, images, (4, "u32"), suffix=", 1", block=21)
    assert [hazard.kind for hazard in report.hazards] == ["convergence"]


def byte_images(seed):
    """A [16, 32] and B [32, 8] of bytes, C [16, 8] of f32: of every style, all codes of a byte among them."""
    rng = RNG(seed)
    a, b = (rng.integers(0, 2**32, (32, n), dtype=np.uint64).astype(np.uint32) for n in (4, 2))
    if seed % 3 == 1:  # no NaN, no infinity
        a, b = a & 0x7B7B7B7B, b & 0xFBFBFBFB
    if seed % 3 == 2:
        a, b = a & 0x87878787, np.where(rng.random(b.shape) < 0.5, 0, b).astype(np.uint32) & 0x8F8F8F8F
    c = (rng.standard_normal((32, 4)) * 2.0 ** rng.integers(-40, 20, (32, 4))).astype(np.float32)
    if seed % 4 == 3:
        c = (rng.standard_normal((32, 4)) * 2.0**-130).astype(np.float32)
    odd = rng.choice(np.array([0, 1 << 31, 0x7F800000, 0x7FC00001], np.uint32), c.shape)
    return a, b, np.where(rng.random(c.shape) < 0.2, odd, c.view(np.uint32))


@pytest.mark.parametrize("arch", ["sm_89", "sm_90"])
@pytest.mark.parametrize(("a_kind", "b_kind"), [("e4m3", "e4m3"), ("e5m2", "e4m3"), ("e4m3", "e5m2"), ("e5m2", "e5m2")])
def test_products_of_eight_bit_floats(a_kind, b_kind, arch):
    opcode = f"mma.sync.aligned.m16n8k32.row.col.f32.{a_kind}.{b_kind}.f32"
    assert in_both(opcode, stacked(byte_images(seed) for seed in range(12)), (4, "u32"), arch=arch).ok


def doubles(count, rng, style):
    values = rng.standard_normal((32, count)) * 2.0 ** rng.integers(-60, 60, (32, count))
    if style == 1:
        values *= 2.0**-1020
    bits = values.view(np.uint64)
    odd = rng.choice(np.uint64([0, 1, 1 << 63, 0x7FF0000000000000, 0xFFF0000000000000, 0x7FF0000000000001]), bits.shape)
    return np.where(rng.random(bits.shape) < (0.1 if style == 2 else 0), odd, bits)


F64 = [(f"mma.sync.aligned.m{m}n8k{k}.row.col.f64.f64.f64.f64", m, k) for m, k in ((8, 4), (16, 4), (16, 8), (16, 16))]
F64 += [
    (f"wmma.mma.sync.aligned.{order}.m8n8k4{rn}.f64.f64.f64.f64", 8, 4)
    for order, rn in (("row.col", ""), ("col.row", ".rn"))
]


@pytest.mark.parametrize(("opcode", "m", "k"), F64)
def test_products_of_doubles(opcode, m, k):
    rng = RNG(m + k)
    images = stacked([doubles(count, rng, style % 3) for count in (m * k // 32, k // 4, m // 4)] for style in range(9))
    assert not in_both(opcode, images, (m // 4, "u64"), skip=[[(operand, 0, 7)] for operand in range(3)]).ok


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_wmma_of_tf32(arch):
    opcode = "wmma.mma.sync.aligned.row.col.m16n16k8.f32.tf32.tf32.f32"
    rng = RNG(3)

    def draw(count, style):
        if style == 0:
            return rng.integers(0, 2**32, (32, count), dtype=np.uint64).astype(np.uint32)
        values = rng.standard_normal((32, count)) * 2.0 ** rng.integers(-9, 9, (32, count))
        return np.where(rng.random(values.shape) < 0.2 * style, 0, values).astype(np.float32).view(np.uint32)

    images = stacked([draw(count, style % 4) for count in (4, 4, 8)] for style in range(8))
    skip = [[(operand, 1, 20)] for operand in range(3)]
    assert not in_both(opcode, images, (8, "u32"), arch=arch, skip=skip).ok


@pytest.mark.parametrize(("shape", "kind", "size", "rows", "columns"),
                         [("m16n16k8", "tf32", 4, 16, 8), ("m8n8k4", "f64", 8, 8, 4)])  # fmt: skip
@pytest.mark.parametrize("order", ["row", "col"])
def test_wmma_moves(shape, kind, size, rows, columns, order):
    """A fragment of A, and of D, from memory and back, in both engines; the last row is out of bounds."""
    held = "%r" if size == 4 else "%rd"
    count, wide = rows * columns // 32, rows * rows // 32
    d_kind = "f32" if size == 4 else "f64"
    a = "{" + ", ".join(f"{held}{10 + i}" for i in range(count)) + "}"
    d = "{" + ", ".join(f"{held}{20 + i}" for i in range(wide)) + "}"
    word = "u32" if size == 4 else "u64"
    body = [
        f"wmma.load.a.sync.aligned.{order}.{shape}.global.{kind} {a}, [%rd0], 20;",
        f"wmma.load.c.sync.aligned.{order}.{shape}.global.{d_kind} {d}, [%rd1];",
        f"wmma.store.d.sync.aligned.{order}.{shape}.global.{d_kind} [%rd2], {d}, 17;",
        f"mov.u32 %r50, %tid.x; mad.wide.u32 %rd50, %r50, {size * count}, %rd3;",
        *(f"st.global.{word} [%rd50+{size * i}], {held}{10 + i};" for i in range(count)),
    ]
    rng, dtype, lines = RNG(1), np.uint32 if size == 4 else np.uint64, rows if order == "row" else columns
    source, addend = (rng.integers(0, 2**31, n).astype(dtype) for n in (20 * lines - 9, rows * rows))
    outcomes = []
    for engine in ("llvm", "interpreter"):
        stored, image = np.zeros(17 * rows - 12, dtype), np.zeros((32, count), dtype)
        report = run("\n".join(body), source, addend, stored, image, engine=engine)
        outcomes.append((stored, image, report))
    (one, first, report), (two, second, other) = outcomes
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(first, second)
    assert report.metrics == other.metrics
    assert sorted(map(str, report.hazards)) == sorted(map(str, other.hazards))
    assert {hazard.kind for hazard in report.hazards} >= {"bounds"}


@pytest.mark.parametrize("block", [32, 27])
def test_a_transposition_of_half_defined_registers(block):
    """Lane 5 never loads its register; the halves of lane 9 come from one that is loaded, and from none."""
    body = """
        .reg .b16 %low, %none; mov.u32 %r1, %tid.x; mad.wide.u32 %rd10, %r1, 4, %rd0; setp.ne.u32 %p1, %r1, 5;
        @%p1 ld.global.u32 %r2, [%rd10]; setp.ne.u32 %p2, %r1, 9; mov.b32 {%low, %h1}, %r2;
        @%p2 bra ALL; mov.b32 %r2, {%low, %none}; ALL: movmatrix.sync.aligned.m8n8.trans.b16 %r3, %r2;
        mad.wide.u32 %rd10, %r1, 4, %rd1; st.global.u32 [%rd10], %r3;"""
    words = RNG(1).integers(0, 2**32, 32, dtype=np.uint64).astype(np.uint32)
    outcomes = []
    for engine in ("llvm", "interpreter"):
        out = np.zeros(32, np.uint32)
        outcomes.append((out, run(body, words, out, block=block, engine=engine)))
    (one, report), (two, other) = outcomes
    np.testing.assert_array_equal(one, two)
    assert sorted(map(str, report.hazards)) == sorted(map(str, other.hazards))
    undefined = next(hazard for hazard in report.hazards if hazard.kind == "uninitialized")
    if block == 32:
        elements = words.view(np.uint16).reshape(8, 8).copy()
        transposed = np.ascontiguousarray(elements.T).view(np.uint32).ravel()
        lanes = {
            (row * 8 + column) // 2 for row, column in ((2, 1), (3, 1), (3, 2))
        }  # elements of lanes 5 and 9, moved
        assert undefined.count == len(lanes)
        others = [lane for lane in range(32) if lane not in lanes]
        np.testing.assert_array_equal(one[others], transposed[others])
