from functools import partial

from edit import edited

edit = partial(edited, "08_block_sum")

WRONG = [
    ("collision", "element 0 of `out`", "out[0]", edit(("out[cuda.blockIdx.x]", "out[0]"))),
    ("race", "barrier at the end of every step", "shared[t + distance]", edit(("        cuda.syncthreads()\n", ""))),
    (
        "barrier",
        "but not into the `if`",
        "            cuda.syncthreads()",
        edit(("        cuda.syncthreads()\n        d", "            cuda.syncthreads()\n        d")),
    ),
    ("bounds", "of `a`", "a[i]", edit((" if i < a.shape[0] else float32(0)", ""))),
    ("wrong", "expected", None, edit(("distance > 0", "distance > 1"))),
    ("unwritten", "out[1]", None, edit(("if t == 0:", "if i == 0:"))),
    (
        "costly",
        "halve the distance",
        None,
        edit(
            (
                "distance = 64\n    while distance > 0:\n        if t < distance:\n",
                "distance = 1\n    while distance < 128:\n        if t == 0:\n",
            ),
            ("distance //= 2", "distance += 1"),
        ),
    ),
]
