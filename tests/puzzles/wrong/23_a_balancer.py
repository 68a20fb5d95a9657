from functools import partial

from edit import edited

edit = partial(edited, "23_a_balancer")

WRONG = [
    ("wrong", "D(p) is", None, edit(("range(1, 1001)", "range(1, 2)"))),
    (
        "wrong",
        "D(p) is",
        None,
        edit(("np.sign(k * tokens / experts - loads)", "np.sign(loads - k * tokens / experts)")),
    ),
    ("wrong", "can be reached", None, edit(("0.1 / n**0.75", "0.2"))),
    ("wrong", "not finite", None, edit(("return bias", "return bias * np.nan"))),
    ("shape", "(128, 2)", None, edit(("return bias", "return choices * 1.0"))),
]
