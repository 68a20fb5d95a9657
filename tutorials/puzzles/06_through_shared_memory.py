"""Shared memory and the barrier."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a):
    return a[5 * np.arange(64) % 64]


def inputs(rng, trial):
    return {"a": rng.standard_normal(64).astype(np.float32)}


PUZZLE = Puzzle(
    title="Through shared memory",
    goal="What one thread writes, another may read only behind a barrier.",
    text="Mix 64 elements: place i receives element 5 i mod 64.  Read each from global memory in the thread of its own place,\n"
    "put it into shared memory, and take the one you need from there: a warp that picks its elements out of global\n"
    "memory fetches every sector of them.  Two warps do this, in any order.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "float32[::1]", "a": "float32[::1]"}, grid=1, block=64),
    lines=3,
    limits={"sectors": 16},
    template="""
from numba import cuda, float32


def kernel(out, a):
    i = cuda.threadIdx.x
    shared = cuda.shared.array(64, float32)
    # FILL ME IN
    ...
""",
    hints={"costly": "Read `a` once, as a[i]: each thread reads its own place; the mixing is done in shared memory."},
)
