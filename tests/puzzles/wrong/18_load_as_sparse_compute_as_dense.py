from functools import partial

from edit import edited

edit = partial(edited, "18_load_as_sparse_compute_as_dense")

WRONG = [
    ("race", "Three barriers", None, edit(("        ptx.barrier()\n    for i in range(2)", "    for i in range(2)"))),
    ("wrong", "a_place", None, edit((" ^ (row % 8)", ""))),
    ("wrong", "expected", None, edit(("ptx.store_shared_half(uint32(a_tile + 2 * (item >> 16)), 0, item)", "pass"))),
    ("race", "after clearing", None, edit(("8, 2048)\n        ptx.barrier()\n", "8, 2048)\n"))),
    ("wrong", "expected", None, edit(("(64 * tile + t) * 16", "t * 16"))),
]
