from functools import partial

from edit import edited

edit = partial(edited, "20_how_uneven")

WRONG = [
    ("wrong", "without a token too", None, edit((", minlength=experts", ""))),
    ("wrong", "expected", None, edit(("loads.max() / loads.mean() - 1", "loads.max() / loads.min() - 1"))),
    ("wrong", "expected", None, edit((" - 1", ""))),
    ("dtype", "asks for float64", None, edit(("loads.max() / loads.mean() - 1", "int(loads.max())"))),
    ("shape", "asks for ()", None, edit(("loads.max() /", "loads /"))),
]
