"""The word in which a nonzero weight travels."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(items):
    value, location = items & 0xFFFF, items >> 16
    row = location // 64
    column = (location % 64) ^ ((row % 8) << 3)
    return np.stack([row, column, value], axis=1).astype(np.uint32)


def inputs(rng, trial):
    size = (128, 1, 100, 40)[trial]
    location = rng.permutation(128 * 64)[:size].astype(np.uint32)
    value = rng.standard_normal(size).astype(np.float16).view(np.uint16)
    return {"items": location << np.uint32(16) | value}


def grid(inputs):
    return -(-inputs["items"].size // 32)


PUZZLE = Puzzle(
    title="One item of tiled-CSL",
    goal="Value and place of a weight share a word; the place is already swizzled for shared memory.",
    text="Flash-LLM sends each nonzero weight as one word: the float16 in the low half, its location in a tile of 128 x 64 in\n"
    "the high half.  Columns are swizzled: location = row * 64 + (column xor ((row mod 8) << 3)).  Take the words apart\n"
    "into row, column and the bits of the value.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "uint32[:, ::1]", "items": "uint32[::1]"}, grid=grid, block=32),
    lines=6,
    template="""
from numba import cuda


def kernel(out, items):
    i = cuda.grid(1)
    # FILL ME IN: out[i, 0] is the row, out[i, 1] the column, out[i, 2] the value's bits
    ...
""",
    hints={
        "wrong": "In out[i, 0] the row: 64 places each. In out[i, 1] the column: xor undoes itself, so "
        "(location % 64) ^ ((row % 8) << 3). In out[i, 2] the value: only the low 16 bits."
    },
)
