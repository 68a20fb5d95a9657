from functools import partial

from edit import edited

edit = partial(edited, "19_top_k")

WRONG = [
    (
        "wrong",
        "stable",
        None,
        edit(('np.argsort(-scores, axis=1, kind="stable")[:, :k]', "np.argsort(scores, axis=1)[:, ::-1][:, :k]")),
    ),
    ("wrong", "do not reverse", None, edit(("-scores", "scores"))),
    ("shape", "(6, 5)", None, edit(("[:, :k]", ""))),
    ("shape", "asks for (6, 2)", None, edit((", axis=1", ", axis=0"), ("[:, :k]", "[:k]"))),
    ("dtype", "float64, the puzzle asks for integers", None, edit(("[:, :k]", "[:, :k] + 0.0"))),
    ("nothing", "End the function with `return`", None, edit(("return ", ""))),
    ("name", "Did you mean `scores`?", "return", edit(("-scores", "-score"))),
    ("crash", "out of bounds", "return", edit(("axis=1", "axis=2"))),
    ("overwritten", "`scores`", None, edit(("    return", "    scores *= -1\n    return"), ("-scores", "scores"))),
]
