"""ldmatrix: eight lanes give eight rows, and every lane receives a fragment."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a):
    lane = np.arange(32)
    words = a.view(np.uint32)  # [16, 8]: two halves in a word
    quarters = [words[8 * down + lane // 4, 4 * right + lane % 4] for right in (0, 1) for down in (0, 1)]
    return np.stack(quarters, axis=1)


def inputs(rng, trial):
    return {"a": rng.standard_normal((16, 16)).astype(np.float16)}


PUZZLE = Puzzle(
    title="ldmatrix",
    goal="One instruction loads an A fragment; each lane names one row of eight halves, whoever receives it.",
    text="A 16 x 16 tile of float16 lies in shared memory, 32 bytes a row.  ldmatrix_x4 loads its four 8 x 8 quarters, in the\n"
    "order upper left, lower left, upper right, lower right: lanes 8q to 8q + 7 give the addresses of the 8 rows of\n"
    "quarter q.  Lane l then holds the words l % 4 of row l // 4 of each quarter.  Which address must lane l give?",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "uint32[:, ::1]", "a": "uint64"}, grid=1, block=32, shared=512),
    lines=3,
    template="""
from numba import cuda, uint32, uint64

from loadsparse.gpu.intrinsics import barrier, ldmatrix_x4, load_global_x4, shared_base, store_shared_x4


def kernel(out, a):
    lane = cuda.threadIdx.x
    base = shared_base()  # address of the tile, in bytes
    store_shared_x4(uint32(base + lane * 16), 0, load_global_x4(a + uint64(lane * 16), 0))  # the tile comes in
    barrier()
    # FILL ME IN
    address = ...
    upper_left, lower_left, upper_right, lower_right = ldmatrix_x4(uint32(address), 0)
    out[lane, 0] = upper_left
    out[lane, 1] = lower_left
    out[lane, 2] = upper_right
    out[lane, 3] = lower_right
""",
    hints={
        "wrong": "Lanes 0 to 15 give rows 0 to 15 of the left half, lanes 16 to 31 those of the right half, 16 bytes further.",
        "alignment": "Each row of a quarter is 16 bytes and starts at a multiple of 16.",
    },
)
