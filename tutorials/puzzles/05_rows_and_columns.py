"""Two dimensions, and which of them neighbouring threads should walk along."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a, b):
    return a[:, None] + b[None, :]


def inputs(rng, trial):
    n = (64, 33, 1, 50)[trial]
    return {name: rng.standard_normal(n).astype(np.float32) for name in ("a", "b")}


def grid(inputs):
    n = inputs["a"].size
    return -(-n // 16), -(-n // 16)


PUZZLE = Puzzle(
    title="Rows and columns",
    goal="Neighbouring threads touch neighbouring elements: 32-byte sectors are what memory moves.",
    text="Add every element of `a` to every element of `b`.  cuda.grid(2) gives a thread its x and its y.  Threads of one\n"
    "warp differ in x: which dimension of `out` should x walk along, so that a warp writes whole sectors of 32 bytes?",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "float32[:, ::1]", "a": "float32[::1]", "b": "float32[::1]"}, grid=grid, block=(16, 16)),
    lines=2,
    limits={"sectors": 1024},
    template="""
from numba import cuda


def kernel(out, a, b):
    x, y = cuda.grid(2)
    # FILL ME IN
    ...
""",
    hints={"costly": "The last index of a row-major array should be x: out[y, x]."},
)
