"""mma and wmma on integers of 4 bits and on single bits, against sums in plain Python integers."""

import numpy as np
import pytest
from ptx_text import run

from loadsparse.gpu import compiler, simulator

RNG = np.random.default_rng(5)


def numbers(kind, shape):
    low, high = {"s4": (-8, 8), "u4": (0, 16), "b1": (0, 2)}[kind]
    return RNG.integers(low, high, shape)


def packed(values, bits):
    """Rows of numbers of so many bits as 32-bit words, the first in the lowest bits."""
    parts = (values & (1 << bits) - 1).astype(np.uint64).reshape(*values.shape[:-1], -1, 32 // bits)
    words = (parts << (np.arange(32 // bits, dtype=np.uint64) * np.uint64(bits))).sum(axis=-1)
    return np.ascontiguousarray(words, np.uint32)


def products(a, b, c, how):
    """c + the sum over k of a b, or the number of k where both bits are 1 or where they differ."""
    m, n = c.shape
    total = [[int(c[i, j]) for j in range(n)] for i in range(m)]
    for i in range(m):
        for j in range(n):
            for x, y in zip(a[i].tolist(), b[:, j].tolist(), strict=True):
                total[i][j] += (x != y) if how == "xor" else x * y
    return np.array(total)


MMA = [
    ("m8n8k32", "s4", "s4", ""), ("m16n8k32", "u4", "s4", ""), ("m16n8k64", "s4", "u4", ".satfinite"),
    ("m16n8k64", "u4", "u4", ""),
    ("m8n8k128", "b1", "b1", ".xor.popc"), ("m16n8k128", "b1", "b1", ".and.popc"), ("m16n8k256", "b1", "b1", ".xor.popc"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "a_kind", "b_kind", "extra"), MMA)
def test_mma(shape, a_kind, b_kind, extra):
    m, k = int(shape[1 : shape.index("n")]), int(shape[shape.index("k") + 1 :])
    bits = int(a_kind[1])
    a, b, c = numbers(a_kind, (m, k)), numbers(b_kind, (k, 8)), RNG.integers(-(2**31), 2**31 - 9999, (m, 8))
    c[0, 0] = 2**31 - 1
    # PTX ISA, fragments of mma.m16n8k64 and its like: word w of lane 4 g + t holds row g + 8 (w % 2) of A, words of the
    # row 4 (w / 2) + t; of B column g, word 4 w + t; of C rows g and g + 8, columns 2 t and 2 t + 1
    rows, columns = packed(a, bits), packed(b.T, bits)
    lanes = [(lane // 4, lane % 4) for lane in range(32)]
    tall, deep = m // 8, k * bits // 128
    a_words = [[rows[g + 8 * (w % tall), 4 * (w // tall) + t] for w in range(tall * deep)] for g, t in lanes]
    b_words = [[columns[g, 4 * w + t] for w in range(deep)] for g, t in lanes]
    c_words = [[c[g + 8 * (i // 2), 2 * t + i % 2] & 0xFFFFFFFF for i in range(2 * tall)] for g, t in lanes]
    data = np.concatenate([np.array(x, np.uint32) for x in (a_words, b_words, c_words)], axis=1)
    count = data.shape[1]
    sizes = (tall * deep, deep, 2 * tall)
    names, first = [], 10
    for size in sizes:
        names.append("{" + ", ".join(f"%r{first + n}" for n in range(size)) + "}")
        first += size
    target = "{" + ", ".join(f"%r{first + n}" for n in range(2 * tall)) + "}"
    loads = "".join(f"ld.global.u32 %r{10 + n}, [%rd0+{4 * n}];" for n in range(count))
    stores = "".join(f"st.global.u32 [%rd1+{4 * n}], %r{first + n};" for n in range(2 * tall))
    types = f"{extra if 'sat' in extra else ''}.s32.{a_kind}.{b_kind}.s32{extra if 'popc' in extra else ''}"
    body = (
        f"mov.u32 %r1, %tid.x; mul.wide.u32 %rd9, %r1, {4 * count}; add.u64 %rd0, %rd0, %rd9;\n"
        f"mul.wide.u32 %rd9, %r1, {8 * tall}; add.u64 %rd1, %rd1, %rd9;\n{loads}\n"
        f"mma.sync.aligned.{shape}.row.col{types} {target}, {', '.join(names)};\n{stores}"
    )
    out = np.zeros((32, 2 * tall), np.uint32)
    assert run(body, data, out).ok
    total = products(a, b, c, extra[1:4])
    total = np.clip(total, -(2**31), 2**31 - 1) if "sat" in extra else total
    for lane, (g, t) in enumerate(lanes):
        for i in range(2 * tall):
            assert out[lane, i] == total[g + 8 * (i // 2), 2 * t + i % 2] & 0xFFFFFFFF


@pytest.mark.parametrize(("kind", "how"), [("s4", ""), ("u4", ""), ("b1", "XOR"), ("b1", "AND")])
def test_wmma_of_cuda(kind, how):
    k = 128 if kind == "b1" else 32
    multiply = f"bmma_sync(c, a, b, c, e::bmmaBitOp{how})" if how else "mma_sync(c, a, b, c)"
    source = f"""#include <mma.h>
    using namespace nvcuda; namespace e = wmma::experimental;
    extern "C" __global__ void k(const unsigned *x, const unsigned *y, int *o) {{
        wmma::fragment<wmma::matrix_a, 8, 8, {k}, e::precision::{kind}, wmma::row_major> a;
        wmma::fragment<wmma::matrix_b, 8, 8, {k}, e::precision::{kind}, wmma::col_major> b;
        wmma::fragment<wmma::accumulator, 8, 8, {k}, int> c;
        wmma::fill_fragment(c, 3);
        wmma::load_matrix_sync(a, x, {2 * k});
        wmma::load_matrix_sync(b, y, {k});
        wmma::{multiply};
        wmma::store_matrix_sync(o, c, 8, wmma::mem_row_major);
    }}"""
    a, b = numbers(kind, (8, 2 * k)), numbers(kind, (k, 8))
    out = np.zeros((8, 8), np.int32)
    bits = int(kind[1])
    report = simulator.load(compiler.cuda(source, "sm_80"), "sm_80")["k"].launch(
        1, 32, packed(a, bits), packed(b.T, bits), out
    )
    assert report.ok, report.hazards
    np.testing.assert_array_equal(out, products(a[:, :k], b, np.full((8, 8), 3), how.lower()))
