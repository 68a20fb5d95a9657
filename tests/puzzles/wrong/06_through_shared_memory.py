from functools import partial

from edit import edited

edit = partial(edited, "06_through_shared_memory")

WRONG = [
    ("race", "lines 7 and 8 race for the same shared memory", None, edit(("    cuda.syncthreads()\n", ""))),
    ("race", "cuda.syncthreads()", None, edit(("cuda.syncthreads()", "cuda.syncwarp()"))),
    ("uninitialized", "write before you read", None, edit(("    shared[i] = a[i]\n", ""))),
    ("name", "Did you mean `syncthreads`?", "syncthread()", edit(("syncthreads", "syncthread"))),
    ("wrong", "stored by thread 0 of block 0", "out[i] = shared[i]", edit(("63 - i", "i"))),
    ("bounds", "out of bounds", "shared[64 - i]", edit(("63 - i", "64 - i"))),
    ("constant", "shape of a shared array", "shared.array", edit(("array(64", "array(a.shape[0]"))),
    ("race", "cuda.syncthreads()", None, edit(("    cuda.sync", "    if i < 32:\n        cuda.sync"))),
    (
        "barrier",
        "out of the `if`",
        "cuda.syncthreads()",
        edit(("    cuda.sync", "    if i == 0:\n        cuda.syncthreads()\n    cuda.sync")),
    ),
]
