from functools import partial

from edit import edited

edit = partial(edited, "14_swizzle")

SECOND = "2 * step + lane // 16\n        place = row * 128 + (chunk ^ (row % 8)) * 16"

WRONG = [
    ("conflicts", "in both places", "ldmatrix_x4", edit(("(chunk ^ (row % 8))", "chunk"))),
    ("wrong", "The same formula", None, edit((SECOND, SECOND.replace("(chunk ^ (row % 8))", "chunk")))),
    ("conflicts", "in both places", None, edit(("row % 8", "row % 2"))),
]
