from functools import partial

from edit import edited

edit = partial(edited, "04_many_blocks")

WRONG = [
    (
        "collision",
        "blocks never wait for blocks",
        "out[i",
        edit(("a[i] - b[i]", "a[i] - b[i]\n        if i + 1 < n:\n            out[i + 1] = b[i]")),
    ),
    ("unwritten", "round up", None, edit(("-(-n // 128)", "max(n // 128, 1)"))),
    ("bounds", "guard the access", "out[i]", edit(("    if i < n:\n        out", "    out"))),
    ("wrong", "expected", None, edit(("a[i] - b[i]", "b[i] - a[i]"))),
    ("unwritten", "out[128]", None, edit(("if i < n", "if i < 128 and i < n"))),
    ("launch", "at most 1024", None, edit(("return -(-n // 128), 128", "return 1, n"))),
    ("launch", "which is no (grid, block)", None, edit(("return -(-n // 128), 128", "return -(-n // 128)"))),
    ("placeholder", "still here", "return ...", edit(("return -(-n // 128), 128", "return ..."))),
    ("missing", "no function 'launch'", None, edit(("def launch", "def lunch"))),
]
