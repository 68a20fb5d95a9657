"""Shuffles: lanes of a warp read each other's registers."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a):
    return a.reshape(-1, 32).sum(axis=1).astype(np.float32)


def inputs(rng, trial):
    return {"a": rng.integers(-99, 99, 32 * (4, 1, 2, 8)[trial]).astype(np.float32)}


def grid(inputs):
    return inputs["a"].size // 32


PUZZLE = Puzzle(
    title="The sum of a warp",
    goal="The 32 lanes of a warp exchange registers without memory and without a barrier.",
    text="Each block is one warp and adds its 32 elements without shared memory.\n"
    "cuda.shfl_xor_sync(0xFFFFFFFF, value, d) gives a lane the value of lane (lane xor d); all lanes must call it.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "float32[::1]", "a": "float32[::1]"}, grid=grid, block=32),
    lines=5,
    limits={"wavefronts": 0, "instructions": 256},
    template="""
from numba import cuda


def kernel(out, a):
    i, lane = cuda.grid(1), cuda.threadIdx.x
    value = a[i]
    # FILL ME IN
    ...
""",
    hints={
        "conflicts": "No shared memory is needed: a shuffle reads the register of another lane.",
        "costly": "Five steps are enough: d = 16, 8, 4, 2, 1.",
        "barrier": "A shuffle is for all lanes: do not put it into an `if`.",
    },
)
