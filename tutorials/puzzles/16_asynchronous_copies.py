"""cp.async: commit, wait, and only then a barrier."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle


def oracle(a, tiles):
    return a.reshape(-1, 256)[:, ::-1].sum(axis=0, dtype=np.uint32)


def inputs(rng, trial):
    tiles = (4, 1, 2, 7)[trial]
    return {"a": rng.integers(0, 2**20, 256 * tiles, dtype=np.uint32), "tiles": tiles}


PUZZLE = Puzzle(
    title="Copies in flight",
    goal="cp.async goes on while the kernel computes: a second buffer, a commit, and a wait for what is needed now.",
    text="Add up tiles of 256 words, each read backwards from shared memory.  Tile t is copied by cp_async_16 (64 threads, 16\n"
    "bytes each) into one of two buffers while tile t - 1 is added.  cp_async_commit() closes a group of copies;\n"
    "cp_async_wait(0) waits for all groups of this thread, and tells the other threads nothing.",
    oracle=oracle,
    inputs=inputs,
    launch=Launch({"out": "uint32[::1]", "a": "uint64", "tiles": "int32"}, grid=1, block=64, shared=2048),
    lines=6,
    template="""
from numba import cuda, uint32, uint64

from loadsparse.gpu.intrinsics import barrier, cp_async_16, cp_async_commit, cp_async_wait, load_shared, shared_base


def kernel(out, a, tiles):
    t = cuda.threadIdx.x
    base = shared_base()  # buffer 0; buffer 1 lies 1024 bytes further
    s0, s1, s2, s3 = uint32(0), uint32(0), uint32(0), uint32(0)
    cp_async_16(uint32(base + t * 16), 0, a + uint64(t * 16), 0, uint32(16))  # tile 0
    cp_async_commit()
    for tile in range(tiles):
        now = base + tile % 2 * 1024
        # FILL ME IN: wait for this tile, let everybody see it, send for the next one into the other buffer
        ...
        s0 += load_shared(uint32(now + (255 - t) * 4), 0)  # elements t, t + 64, t + 128, t + 192 of the answer
        s1 += load_shared(uint32(now + (191 - t) * 4), 0)
        s2 += load_shared(uint32(now + (127 - t) * 4), 0)
        s3 += load_shared(uint32(now + (63 - t) * 4), 0)
    out[t] = s0
    out[t + 64] = s1
    out[t + 128] = s2
    out[t + 192] = s3
""",
    hints={
        "copy": "cp_async_wait(0) at the top of the loop; it waits for committed groups only. "
        "The next tile goes to the other buffer.",
        "race": "Wait, then barrier(): the barrier shows everybody's copies, and that the other buffer has been read.",
        "bounds": "There is no tile after the last one: send for the next only if tile + 1 < tiles.",
    },
)
