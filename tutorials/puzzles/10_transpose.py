"""Bank conflicts: a tile of shared memory, written by rows and read by columns."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a):
    return a.T.copy()


def inputs(rng, trial):
    shape = ((32, 64), (1, 1), (33, 20), (40, 70))[trial]
    return {"a": rng.standard_normal(shape).astype(np.float32)}


def grid(inputs):
    rows, columns = inputs["a"].shape
    return -(-columns // 32), -(-rows // 32)


PUZZLE = Puzzle(
    title="Transpose without conflicts",
    goal="Shared memory has 32 banks; 32 lanes in one bank take 32 turns. One element of padding cures it.",
    text="Transpose `a` tile by tile: a block reads a tile of 32 x 32 by rows, and writes it by rows of the result, so that\n"
    "global memory sees whole sectors both times.  The turn happens in shared memory, where a column of a 32-wide tile\n"
    "lies in a single bank.  Make it free of conflicts.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "float32[:, ::1]", "a": "float32[:, ::1]"}, grid=grid, block=(32, 32)),
    lines=8,
    limits={"conflicts": 0, "sectors": 512},
    template="""
from numba import cuda, float32


def kernel(out, a):
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    row, column = cuda.blockIdx.y * 32, cuda.blockIdx.x * 32  # of the tile's first element in `a`
    # FILL ME IN: a shared tile, and what goes in and out
    ...
""",
    hints={
        "conflicts": "Rows of 33 elements move each row to the next bank: cuda.shared.array((32, 33), float32).",
        "costly": "Both sides need x along the last index: read a[row + y, column + x], write out[column + y, row + x].",
        "bounds": "Both sides need a guard: rows and columns of `out` are columns and rows of `a`.",
    },
)
