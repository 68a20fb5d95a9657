"""A matrix product through shared tiles."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a, b):
    return a @ b


def inputs(rng, trial):
    """Small whole numbers: their products add up exactly in float32, in any order."""
    m, n, k = ((32, 32, 32), (1, 1, 1), (17, 20, 33), (16, 33, 5))[trial]
    return {
        "a": rng.integers(-9, 9, (m, k)).astype(np.float32),
        "b": rng.integers(-9, 9, (k, n)).astype(np.float32),
    }


def grid(inputs):
    return -(-inputs["b"].shape[1] // 16), -(-inputs["a"].shape[0] // 16)


PUZZLE = Puzzle(
    title="A tiled matrix product",
    goal="Every element that is loaded once serves 16 threads: tiles cut the traffic by their width.",
    text="Multiply matrices.  A block makes 16 x 16 elements of the result and walks along k in tiles of 16: it brings one\n"
    "tile of `a` and one of `b` into shared memory, every thread adds 16 products, and the next tiles take their place.\n"
    "Sizes need not be multiples of 16: zeros fill the rest.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch(
        {"out": "float32[:, ::1]", "a": "float32[:, ::1]", "b": "float32[:, ::1]"}, grid=grid, block=(16, 16)
    ),
    lines=12,
    limits={"sectors": 640},
    template="""
from numba import cuda, float32


def kernel(out, a, b):
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    column, row = cuda.grid(2)
    left = cuda.shared.array((16, 16), float32)
    right = cuda.shared.array((16, 16), float32)
    total = float32(0)
    # FILL ME IN
    ...
""",
    hints={
        "race": "Two barriers a tile: one before the products (the tile is there), one after them (it may be replaced).",
        "barrier": "All 256 threads must reach each barrier, also those outside of the matrix: guard loads and stores only.",
        "costly": "Each thread loads one element of either tile; the 16 products read shared memory only.",
    },
)
