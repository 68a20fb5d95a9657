"""A tree reduction in shared memory."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a):
    padded = np.pad(a, (0, -a.size % 128))
    return padded.reshape(-1, 128).sum(axis=1).astype(np.float32)


def inputs(rng, trial):
    """Whole numbers, whose float32 sums are exact in any order."""
    return {"a": rng.integers(-99, 99, (256, 1, 128, 300)[trial]).astype(np.float32)}


def grid(inputs):
    return -(-inputs["a"].size // 128)


PUZZLE = Puzzle(
    title="The sum of a block",
    goal="Half of the threads add the other half, again and again: log2(128) steps, a barrier after each.",
    text="Each block of 128 threads adds its 128 elements (the last block may have fewer) and writes one sum.  Add in a tree:\n"
    "64 threads add 64 pairs, then 32, 16, ... 1.  The data are whole numbers, so any order gives the same bits.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "float32[::1]", "a": "float32[::1]"}, grid=grid, block=128),
    lines=9,
    limits={"instructions": 1200},
    template="""
from numba import cuda, float32


def kernel(out, a):
    i, t = cuda.grid(1), cuda.threadIdx.x
    shared = cuda.shared.array(128, float32)
    # FILL ME IN
    ...
""",
    hints={
        "race": "Each step reads what the step before wrote: a barrier at the end of every step, for all threads.",
        "barrier": "The barrier belongs into the loop but not into the `if`: idle threads must reach it too.",
        "costly": "One thread that adds all 128 makes the others wait: halve the distance in each step instead.",
    },
)
