from functools import partial

from edit import edited

edit = partial(edited, "06_through_shared_memory")

WRONG = [
    ("costly", "each thread reads its own place", None, edit(("shared[5 * i % 64]", "a[5 * i % 64]"))),
    ("race", "lines 7 and 8 race for the same shared memory", None, edit(("    cuda.syncthreads()\n", ""))),
    ("race", "cuda.syncthreads()", None, edit(("cuda.syncthreads()", "cuda.syncwarp()"))),
    ("uninitialized", "write before you read", None, edit(("    shared[i] = a[i]\n", ""))),
    ("name", "Did you mean `syncthreads`?", "syncthread()", edit(("syncthreads", "syncthread"))),
    ("wrong", "stored by thread 1 of block 0", "out[i] = shared[i]", edit(("5 * i % 64", "i"))),
    ("bounds", "shared memory: byte 640 of 256", "shared[5 * i]", edit(("5 * i % 64", "5 * i"))),
    ("constant", "shape of a shared array", "shared.array", edit(("array(64", "array(a.shape[0]"))),
    ("race", "cuda.syncthreads()", None, edit(("    cuda.sync", "    if i < 32:\n        cuda.sync"))),
    (
        "barrier",
        "out of the `if`",
        "cuda.syncthreads()",
        edit(("    cuda.sync", "    if i == 0:\n        cuda.syncthreads()\n    cuda.sync")),
    ),
]
