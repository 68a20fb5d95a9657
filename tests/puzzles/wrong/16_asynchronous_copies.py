from functools import partial

from edit import edited

edit = partial(edited, "16_asynchronous_copies")

WRONG = [
    ("copy", "cp_async_wait(0)", "load_shared", edit(("        cp_async_wait(0)\n", ""))),
    ("race", "the barrier shows", None, edit(("        barrier()\n", ""))),
    (
        "race",
        "lines",
        None,
        edit(("        cp_async_wait(0)\n        barrier()\n", "        barrier()\n        cp_async_wait(0)\n")),
    ),
    ("bounds", "no tile after the last", "cp_async_16", edit(("if tile + 1 < tiles", "if tile < tiles"))),
    ("constant", "must be a constant", None, edit(("cp_async_wait(0)", "cp_async_wait(tile)"))),
]
