"""The heart of load-as-sparse: a compressed tile becomes a dense one in shared memory."""

import numpy as np

from loadsparse.reference.formats import TiledCSL
from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(items, count):
    location = items >> 16
    row, column = location // 64, (location % 64) ^ ((location // 64 % 8) << 3)
    tile = np.zeros((128, 64), np.uint16)
    tile[row, column] = items & 0xFFFF
    return tile


def inputs(rng, trial):
    density = (0.2, 0.01, 0.5, 0.9)[trial]
    dense = np.where(rng.random((128, 64)) < density, rng.standard_normal((128, 64)), 0)
    items = TiledCSL.encode(dense.astype(np.float16)).items
    return {"items": items, "count": items.size}


PUZZLE = Puzzle(
    title="Decode a tile",
    goal="Clear, barrier, scatter, barrier: compressed weights become a dense tile beside the Tensor Cores.",
    text="`items` holds the nonzeros of one 128 x 64 tile in tiled-CSL.  128 threads clear the tile in shared memory, scatter\n"
    "the items (store_shared_half(address, 0, item) stores the low half of a word), and write the tile out.  A location\n"
    "counts halves and is swizzled already: nothing is to be computed but 2 * location.  The last part is there.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "uint16[:, ::1]", "items": "uint32[::1]", "count": "int32"}, grid=1, block=128, shared=16384),
    lines=7,
    template="""
from numba import cuda, uint32

from loadsparse.gpu.intrinsics import barrier, load_shared_half, shared_base, store_shared_half
from loadsparse.gpu.kernels.blocks import clear_shared  # (address, how many 16-byte stores, bytes between them)


def kernel(out, items, count):
    t = cuda.threadIdx.x
    base = shared_base()
    clear_shared(uint32(base + t * 16), 8, 2048)  # 128 threads x 8 stores x 16 bytes
    # FILL ME IN
    ...
    for row in range(128):
        if t < 64:
            place = row * 64 + (t ^ ((row & 7) << 3))
            out[row, t] = load_shared_half(uint32(base + 2 * place), 0)
""",
    hints={
        "race": "One barrier between clearing and scattering, one between scattering and reading.",
        "wrong": "A loop over the items t, t + 128, t + 256, ... of each thread; the location is item >> 16.",
        "alignment": "A location counts halves: the address is base + 2 * location.",
    },
)
