from functools import partial

from edit import edited

edit = partial(edited, "15_one_mma")

WRONG = [
    (
        "wrong",
        "row l // 4 + 8",
        None,
        edit(("row, column = lane // 4, lane % 4 * 2", "row, column = lane % 8, lane // 8 * 2")),
    ),
    ("wrong", "stored by thread 0", "= c1", edit(("c0, c1, c2, c3 = mma", "c0, c2, c1, c3 = mma"))),
    ("unwritten", "Four elements", None, edit(("    out[row + 8, column] = c2\n", ""))),
    ("bounds", "of `out`", None, edit(("row + 8, column + 1", "row + 16, column + 1"))),
    ("type", "knows no", "mma(", edit(("mma(zeros, left, right)", "mma(zeros, right, right)"))),
]
