"""The launch: how many blocks cover the data."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a, b, n):
    return a - b


def inputs(rng, trial):
    n = (1000, 1, 128, 257, int(rng.integers(1025, 1500)))[trial]
    return {"a": rng.standard_normal(n).astype(np.float32), "b": rng.standard_normal(n).astype(np.float32), "n": n}


PUZZLE = Puzzle(
    title="Many blocks",
    goal="Blocks times threads must cover the data: round up, and guard.",
    text="A block has at most 1024 threads, but there may be more elements.  Choose how many blocks of how many threads to\n"
    "launch, and let each thread subtract one element.  Its place in the whole grid is cuda.grid(1).",
    oracle=oracle,
    inputs=inputs,
    trials=5,
    launch=Launch({"out": "float32[::1]", "a": "float32[::1]", "b": "float32[::1]", "n": "int32"}, grid=None),
    lines=3,
    template="""
from numba import cuda


def launch(n):
    # FILL ME IN: (blocks, threads in each)
    return ...


def kernel(out, a, b, n):
    i = cuda.grid(1)
    # FILL ME IN
    ...
""",
    hints={"unwritten": "Divide n by the threads of a block and round up: -(-n // 128) blocks of 128."},
)
