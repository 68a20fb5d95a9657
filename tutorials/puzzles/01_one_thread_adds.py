"""The smallest kernel: one thread, one sum."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a, b):
    return a + b


def inputs(rng, trial):
    return {name: rng.standard_normal(1).astype(np.float32) for name in ("a", "b")}


PUZZLE = Puzzle(
    title="One thread adds",
    goal="A kernel returns nothing: it writes into memory.",
    text="One thread runs `kernel` once.  Add the only element of `a` and the only element of `b`.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "float32[::1]", "a": "float32[::1]", "b": "float32[::1]"}, grid=1, block=1),
    lines=1,
    template="""
def kernel(out, a, b):
    # FILL ME IN
    ...
""",
    hints={"unwritten": "Assign to out[0]."},
)
