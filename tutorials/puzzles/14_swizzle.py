"""A swizzle: where a 16-byte chunk lies depends on its row, so that neither rows nor columns conflict."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a):
    lane = np.arange(32)
    words = a.view(np.uint32)  # [16, 32]
    fragments = [
        words[8 * down + lane // 4, 8 * step + 4 * right + lane % 4]
        for step in range(4)
        for right in (0, 1)
        for down in (0, 1)
    ]
    return np.stack(fragments, axis=1)


def inputs(rng, trial):
    return {"a": rng.standard_normal((16, 64)).astype(np.float16)}


PUZZLE = Puzzle(
    title="Swizzle",
    goal="xor with the row spreads a column of 16-byte chunks over all banks, and costs no memory.",
    text="A tile of 16 x 64 halves has rows of 128 bytes: 8 chunks of 16.  A row fills all 32 banks, so the eight rows that\n"
    "ldmatrix reads at one chunk all lie in the same four banks.  Padding would break the alignment of wide copies; a\n"
    "swizzle does not: put chunk c of row r at place (c xor (r mod 8)).  Use it both where the tile comes in and where\n"
    "ldmatrix reads.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "uint32[:, ::1]", "a": "uint64"}, grid=1, block=32, shared=2048),
    lines=3,
    limits={"conflicts": 0},
    template="""
from numba import cuda, uint32, uint64

from loadsparse.gpu.intrinsics import barrier, ldmatrix_x4, load_global_x4, shared_base, store_shared_x4


def kernel(out, a):
    lane = cuda.threadIdx.x
    base = shared_base()
    for i in range(4):  # each lane brings 4 of the 128 chunks
        row, chunk = (32 * i + lane) // 8, lane % 8
        # FILL ME IN: bytes from the beginning of the tile
        place = ...
        store_shared_x4(uint32(base + place), 0, load_global_x4(a + uint64(row * 128 + chunk * 16), 0))
    barrier()
    for step in range(4):  # the 16 columns 16 * step ...
        row, chunk = lane % 16, 2 * step + lane // 16
        # FILL ME IN
        place = ...
        w0, w1, w2, w3 = ldmatrix_x4(uint32(base + place), 0)
        out[lane, 4 * step] = w0
        out[lane, 4 * step + 1] = w1
        out[lane, 4 * step + 2] = w2
        out[lane, 4 * step + 3] = w3
""",
    hints={
        "conflicts": "row * 128 + (chunk ^ (row % 8)) * 16, in both places.",
        "wrong": "The same formula in both places: what was swizzled on the way in is found by the same swizzle.",
    },
)
