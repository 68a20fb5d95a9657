from functools import partial

from edit import edited

edit = partial(edited, "22_the_dual")

WRONG = [
    ("wrong", "expected", None, edit((" - k * tokens / experts * bias.sum()", ""))),
    ("wrong", "L = k * T / E", None, edit(("k * tokens / experts", "tokens / experts"))),
    ("wrong", "K largest", None, edit(("[:, -k:]", "[:, :k]"))),
    ("wrong", "expected", None, edit(("    return best", "    best = np.float32(best)\n    return best"))),
    ("shape", "()", None, edit(("best.sum() -", "best.sum(axis=1) -"))),
]
