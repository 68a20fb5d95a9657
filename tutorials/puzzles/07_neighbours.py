"""A stencil: each element is read from global memory once and used three times."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a):
    padded = np.pad(a, 1)
    return (padded[:-2] + padded[1:-1] + padded[2:]).astype(np.int32)


def inputs(rng, trial):
    return {"a": rng.integers(-1000, 1000, (256, 1, 65, 200)[trial], dtype=np.int32)}


def grid(inputs):
    return -(-inputs["a"].size // 64)


PUZZLE = Puzzle(
    title="Neighbours",
    goal="A block reads its elements and a halo once; shared memory serves the rest.",
    text="Add every element and its two neighbours; beyond the ends there are zeros.  A block of 64 threads needs 66\n"
    "elements: two threads fetch one more.  Reading all three from global memory is right, but costs too many sectors.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "int32[::1]", "a": "int32[::1]"}, grid=grid, block=64),
    lines=8,
    limits={"sectors": 72},
    template="""
from numba import cuda, int32


def kernel(out, a):
    i, t = cuda.grid(1), cuda.threadIdx.x
    shared = cuda.shared.array(66, int32)  # element i belongs at shared[t + 1]
    # FILL ME IN
    ...
""",
    hints={
        "costly": "Let every thread load its own element into shared memory, and threads 0 and 63 the two beyond.",
        "wrong": "As in Python, a[-1] is the last element: the first thread needs a guard of its own.",
        "uninitialized": "Every place of `shared` that is read needs a value: 0 beyond the ends.",
    },
)
