from functools import partial

from edit import edited

edit = partial(edited, "07_neighbours")

WRONG = [
    ("wrong", "a[-1] is the last element", None, edit((" if i > 0 else 0", ""))),
    ("race", "race", None, edit(("    cuda.syncthreads()\n", ""))),
    ("bounds", "of `a`", "a[i + 1]", edit((" if i + 1 < n else 0", ""))),
    (
        "uninitialized",
        "never written is stored to element 0 of `out`",
        "out[i]",
        edit(("    if t == 0:\n        shared[0] = a[i - 1] if i > 0 else 0\n", "")),
    ),
    (
        "costly",
        "load its own element",
        None,
        "from numba import cuda\n\n\ndef kernel(out, a):\n    i = cuda.grid(1)\n    if i < a.shape[0]:\n"
        "        total = a[i]\n        if i > 0:\n            total += a[i - 1]\n"
        "        if i + 1 < a.shape[0]:\n            total += a[i + 1]\n        out[i] = total\n",
    ),
]
