"""mma: which lane holds which element of the result."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a, b):
    return a.astype(np.float32) @ b.astype(np.float32)


def inputs(rng, trial):
    """Small whole numbers: exact in every order of addition."""
    return {name: rng.integers(-9, 9, shape).astype(np.float16) for name, shape in (("a", (16, 16)), ("b", (16, 8)))}


PUZZLE = Puzzle(
    title="One mma by hand",
    goal="A warp multiplies 16 x 16 by 16 x 8; each lane ends with four results in two rows.",
    text="mma.sync.m16n8k16 multiplies A[16, 16] by B[16, 8] for a whole warp.  The fragments are loaded for you.  Lane l\n"
    "receives four results c0 to c3: c0 and c1 belong to row l // 4, columns 2 (l mod 4) and the next; c2 and c3 lie 8\n"
    "rows below.  Multiply, and store all 16 x 8 elements.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "float32[:, ::1]", "a": "uint64", "b": "uint64"}, grid=1, block=32, shared=768),
    lines=7,
    template="""
from numba import cuda, uint32, uint64

from loadsparse.gpu import intrinsics as ptx

mma = ptx.mma_m16n8k16["f16"]  # mma(accumulators, a, b): a tuple of 4 float32; 4 words of A and 2 of B


def kernel(out, a, b):
    lane = cuda.threadIdx.x
    base = ptx.shared_base()  # A in 512 bytes, B in the next 256
    ptx.store_shared_x4(uint32(base + lane * 16), 0, ptx.load_global_x4(a + uint64(lane * 16), 0))
    if lane < 16:
        ptx.store_shared_x4(uint32(base + 512 + lane * 16), 0, ptx.load_global_x4(b + uint64(lane * 16), 0))
    ptx.barrier()
    left = ptx.ldmatrix_x4(uint32(base + lane % 16 * 32 + lane // 16 * 16), 0)
    right = ptx.ldmatrix_x2_trans(uint32(base + 512 + lane % 16 * 16), 0)
    zeros = ptx.zeros(4)
    # FILL ME IN
    ...
""",
    hints={
        "wrong": "c0, c1 at [l // 4, 2 (l % 4)] and the column after; c2, c3 at row l // 4 + 8.",
        "unwritten": "Four elements for each of 32 lanes are the 128 of the result.",
    },
)
