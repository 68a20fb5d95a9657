from functools import partial

from edit import edited

edit = partial(edited, "13_ldmatrix")

WRONG = [
    ("wrong", "16 bytes further", None, edit(("lane % 16 * 32 + lane // 16 * 16", "lane * 16"))),
    ("wrong", "expected", None, edit(("lane % 16 * 32 + lane // 16 * 16", "lane // 2 * 32 + lane % 2 * 16"))),
    (
        "alignment",
        "multiple of 16",
        "ldmatrix_x4",
        edit(("lane % 16 * 32 + lane // 16 * 16", "lane % 16 * 32 + lane // 16 * 8")),
    ),
    ("bounds", "out of bounds", "ldmatrix_x4", edit(("lane % 16 * 32", "lane * 32"))),
]
