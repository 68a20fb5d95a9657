"""Many threads, one element each: threadIdx."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a):
    return a * np.float32(0.1)


def inputs(rng, trial):
    return {"a": rng.standard_normal(32).astype(np.float32) * np.float32(100)}


PUZZLE = Puzzle(
    title="One thread each",
    goal="The same code runs in every thread; threadIdx tells them apart.",
    text="32 threads run the same code.  Thread i multiplies element i by 0.1.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "float32[::1]", "a": "float32[::1]"}, grid=1, block=32),
    lines=1,
    template="""
from numba import cuda, float32


def kernel(out, a):
    i = cuda.threadIdx.x
    # FILL ME IN
    ...
""",
    hints={"float64": "In Numba 0.1 is a float64, and so is all that it touches: write float32(0.1)."},
)
