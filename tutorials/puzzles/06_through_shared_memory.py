"""Shared memory and the barrier."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a):
    return a[::-1].copy()


def inputs(rng, trial):
    return {"a": rng.standard_normal(64).astype(np.float32)}


PUZZLE = Puzzle(
    title="Through shared memory",
    goal="What one thread writes, another may read only behind a barrier.",
    text="Reverse 64 elements, but read each from global memory in the thread of its own place: put it into shared memory,\n"
    "and take the one you need from there.  Two warps do this, in any order.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "float32[::1]", "a": "float32[::1]"}, grid=1, block=64),
    lines=3,
    template="""
from numba import cuda, float32


def kernel(out, a):
    i = cuda.threadIdx.x
    shared = cuda.shared.array(64, float32)
    # FILL ME IN
    ...
""",
)
