"""Every form of the table of opcodes: what `coverage` says of it, and the registers that both engines write."""

import random

import numpy as np
import pytest
from ptx_forms import forms
from ptx_text import run

REGISTERS = {"%h": ("u16", np.uint16), "%r": ("u32", np.uint32), "%rd": ("u64", np.uint64)}
ELSEWHERE = frozenset(
    "ld ldu st atom red cp mbarrier ldmatrix stmatrix prefetch prefetchu bar barrier ret exit trap brkpt nanosleep "
    "membar fence pmevent mma wmma elect addc subc madc".split()
)
"""What needs memory, ends a thread, or is tested in a file of its own."""
HALVES = (0, 1, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x8000, 0x8001, 0xBC00, 0xFC00, 0xFFFF, 0x7F80, 0x0080)
WORDS = (0, 1, 31, 32, 33, 0x7FFFFF, 0x800000, 0x3F800000, 0x3F7FFFFF, 0x7F7FFFFF, 0x7F800000, 0x7FC00001, 0x80000000,
         0x80000001, 0xBF800000, 0xFFFFFFFF, 0x387FFFFF, 0x33000001, 0x477FF000, 0x4B000001)  # fmt: skip


def patterns(dtype, shape, seed):
    """Bits of all kinds: edges of the formats, small integers, anything."""
    rng = np.random.default_rng(seed)
    bits = np.dtype(dtype).itemsize * 8
    anything = rng.integers(0, 2**63, shape, dtype=np.uint64) << np.uint64(1) | rng.integers(0, 2, shape, dtype=np.uint64)
    edges = {16: HALVES, 32: WORDS}.get(bits) or tuple(np.array(WORDS, np.uint32).view(np.float32).astype(np.float64).view(np.uint64).tolist())
    edge = rng.choice(np.array(edges, np.uint64), shape)
    if bits == 32:
        edge = np.where(rng.random(shape) < 0.3, patterns(np.uint16, shape, seed + 1).astype(np.uint64) * np.uint64(65537), edge)
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
