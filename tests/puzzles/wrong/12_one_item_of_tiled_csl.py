from functools import partial

from edit import edited

edit = partial(edited, "12_one_item_of_tiled_csl")

WRONG = [
    ("wrong", "xor undoes itself", None, edit((" ^ ((row & 7) << 3)", ""))),
    (
        "wrong",
        "expected",
        None,
        edit(("items[i] & 0xFFFF", "items[i] >> 16"), ("location = items[i] >> 16", "location = items[i] & 0xFFFF")),
    ),
    ("bounds", "of `items`", None, edit(("    if i < items.shape[0]:\n", "    if i >= 0:\n"))),
    ("unwritten", "never written", None, edit(("        out[i, 2] = items[i] & 0xFFFF\n", ""))),
]
