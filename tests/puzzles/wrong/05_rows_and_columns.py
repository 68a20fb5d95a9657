from functools import partial

from edit import edited

edit = partial(edited, "05_rows_and_columns")

WRONG = [
    ("costly", "out[y, x]", None, edit(("x, y = cuda.grid(2)", "y, x = cuda.grid(2)"))),
    ("bounds", "guard", "out[y, x]", edit(("    if y < out.shape[0] and x < out.shape[1]:\n        out", "    out"))),
    ("wrong", "stored by thread 1 of block 0", "a[x] + b[y]", edit(("a[y] + b[x]", "a[x] + b[y]"))),
    ("unwritten", "never written", None, edit(("if y < out.shape[0] and", "if y == x and"))),
]
