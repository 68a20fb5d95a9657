from functools import partial

from edit import edited

edit = partial(edited, "21_the_sign_rule")

WRONG = [
    ("wrong", "not the other way round", None, edit(("loads.mean() - loads", "loads - loads.mean()"))),
    ("wrong", "expected", None, edit(("np.sign(loads.mean() - loads)", "np.where(loads > loads.mean(), -1, 1)"))),
    ("wrong", "expected", None, edit(("np.sign(loads.mean() - loads)", "(loads.mean() - loads)"))),
    ("crash", "Cannot cast", "bias +=", edit(("return bias +", "bias = loads\n    bias +="))),
]
