"""The guard: threads beyond the data do nothing."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a):
    return a + a


def inputs(rng, trial):
    return {"a": rng.standard_normal((20, 1, 31, 32, 7)[trial]).astype(np.float32)}


PUZZLE = Puzzle(
    title="More threads than elements",
    goal="Threads come in blocks of a fixed size, data does not: guard every access.",
    text="There are 32 threads and at most 32 elements.  Double every element, and touch nothing else.",
    oracle=oracle,
    inputs=inputs,
    trials=5,
    launch=Launch({"out": "float32[::1]", "a": "float32[::1]"}, grid=1, block=32),
    lines=2,
    template="""
from numba import cuda


def kernel(out, a):
    i = cuda.threadIdx.x
    # FILL ME IN: the number of elements is a.shape[0]
    ...
""",
)
