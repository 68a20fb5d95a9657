"""A working LSCD product: tiled-CSL in, Tensor Cores at work, dense out."""

import numpy as np

from loadsparse.reference.formats import TiledCSL
from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(items, offsets, b, tiles):
    a = TiledCSL((128, 64 * tiles), "f16", offsets, items).decode()
    return a.astype(np.float32) @ b.astype(np.float32)


def inputs(rng, trial):
    """Whole numbers: exact in every order of addition."""
    tiles, density = ((2, 0.2), (1, 0.05), (3, 0.4), (2, 0.8))[trial]
    a = rng.integers(-5, 6, (128, 64 * tiles)) * (rng.random((128, 64 * tiles)) < density)
    encoded = TiledCSL.encode(a.astype(np.float16))
    b = rng.integers(-5, 6, (64 * tiles, 8)).astype(np.float16)
    return {"items": encoded.items, "offsets": encoded.tile_offsets, "b": b, "tiles": tiles}


PUZZLE = Puzzle(
    title="Load as sparse, compute as dense",
    goal="The whole of Flash-LLM in one loop: decode a tile, multiply it by mma, go on to the next.",
    text="C[128, 8] = A[128, K] B[K, 8], A in tiled-CSL, K in tiles of 64.  Four warps own 32 rows each.  For every tile: clear\n"
    "the A tile, scatter its items (offsets[tile] to offsets[tile + 1], in vectors of 4), bring 64 rows of B (16 bytes\n"
    "each), then 4 steps of 16 columns: load_rows gives the fragments of two row tiles, load_panels that of B, mma adds.\n"
    "Row r of the A tile starts at byte 128 r; its 16-byte chunk c lies at place c xor (r mod 8).",
    oracle=oracle,
    inputs=inputs,
    spec="A = TiledCSL((128, 64 * tiles), 'f16', offsets, items).decode()\nout = A.astype(np.float32) @ b.astype(np.float32)",
    launch=Launch(
        {"out": "float32[:, ::1]", "items": "uint32[::1]", "offsets": "int32[::1]", "b": "uint64", "tiles": "int32"},
        grid=1,
        block=128,
        shared=16384 + 1024,
    ),
    lines=16,
    template="""
from numba import cuda, uint32, uint64

from loadsparse.gpu import intrinsics as ptx
from loadsparse.gpu.kernels.blocks import clear_shared, load_panels, load_rows

mma = ptx.mma_m16n8k16["f16"]


def kernel(out, items, offsets, b, tiles):
    t = cuda.threadIdx.x
    lane, warp = t % 32, t // 32
    a_tile = ptx.shared_base()
    b_tile = uint32(a_tile + 16384)
    acc = ptx.zeros(8)  # two row tiles x 4 results
    row = 32 * warp + lane % 16  # whose chunks this lane names for ldmatrix; the second row tile: 2048 bytes on
    for tile in range(tiles):
        # FILL ME IN: clear, scatter, bring B's row t (t < 64) from b + (64 * tile + t) * 16
        ...
        for step in range(4):
            # FILL ME IN: the byte of chunk 2 * step + lane // 16 in this row, and B's rows from 16 * step
            a_place = ...
            b_place = ...
            left = load_rows(uint32(a_tile + a_place), 0, 2, 2048)
            acc = mma(acc, left, load_panels(uint32(b_tile + b_place), 0, 1, 0))
        # FILL ME IN: before the tile is overwritten
        ...
    for i in range(2):  # where mma leaves its results
        for half in range(2):
            down, across = 32 * warp + 16 * i + 8 * half + lane // 4, lane % 4 * 2
            out[down, across] = acc[4 * i + 2 * half]
            out[down, across + 1] = acc[4 * i + 2 * half + 1]
""",
    hints={
        "race": "Three barriers a tile: after clearing, when A and B are complete, and after the products.",
        "wrong": "a_place = row * 128 + ((2 * step + lane // 16) ^ (row % 8)) * 16; b_place = (16 * step + lane % 16) * 16.",
    },
)
