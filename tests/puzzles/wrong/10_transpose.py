from functools import partial

from edit import edited

edit = partial(edited, "10_transpose")

WRONG = [
    ("conflicts", "array((32, 33)", "tile", edit(("(32, 33)", "(32, 32)"))),
    ("race", "syncthreads", None, edit(("    cuda.syncthreads()\n", ""))),
    (
        "costly",
        "write out[column + y, row + x]",
        None,
        edit(
            (
                "    if column + y < out.shape[0] and row + x < out.shape[1]:\n        out[column + y, row + x] = tile[x, y]",
                "    if row + y < a.shape[0] and column + x < a.shape[1]:\n        out[column + x, row + y] = tile[y, x]",
            )
        ),
    ),
    (
        "bounds",
        "Both sides need a guard",
        None,
        edit(("    if row + y < a.shape[0] and column + x < a.shape[1]:\n    ", "")),
    ),
    ("wrong", "expected", None, edit(("= tile[x, y]", "= tile[y, x]"))),
]
