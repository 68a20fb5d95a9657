"""A balancer of one's own, judged by a certificate: weak duality leaves no room for excuses."""

import numpy as np

from loadsparse.reference import routing
from loadsparse.theory import lagrangian
from loadsparse.tutorials.judge.puzzle import Puzzle

GAP, UNEVEN = 1e-3, 0.2


def oracle(scores, k):
    """Optimal prices; any bias that `accepts` accepts is right."""
    from loadsparse.theory import linear_program  # brings SciPy, which listing the puzzles does not need

    return linear_program.solve(scores, k).prices


def accepts(inputs, answer):
    from loadsparse.theory import linear_program

    scores, k = inputs["scores"], inputs["k"]
    if not np.isfinite(answer).all():
        return "the bias is not finite"
    best, reached = linear_program.solve(scores, k).value, float(lagrangian.dual(scores, k, answer))
    if reached > best * (1 + GAP):
        return f"D(p) is {reached:.6g}, but {best:.6g} can be reached; at most {GAP:.1%} more is allowed"
    uneven = routing.max_violation(routing.loads(routing.top_k(scores, k, answer), scores.shape[1]))
    return None if uneven <= UNEVEN else f"MaxVio is {uneven:.3f}, more than {UNEVEN}"


def inputs(rng, trial):
    """Scores of which all tokens like some experts better."""
    tokens, experts, k = ((128, 8, 2), (96, 4, 1), (200, 8, 1), (160, 16, 4))[trial]
    return {"scores": rng.random((tokens, experts)) + 0.5 * rng.random(experts), "k": k}


PUZZLE = Puzzle(
    title="A balancer",
    goal="Everything together: a loop of top-K, loads and steps that shrink, stopped by a certificate of optimality.",
    text="Find a bias p [E] for these scores such that the K best of s + p load all experts nearly evenly (MaxVio at most 0.2) and\n"
    "D(p) is within 0.1 % of the best value that a balanced assignment can have.  Any method is right: the sign rule with\n"
    "a rate that shrinks needs a few hundred steps.",
    spec="uneven = max_violation(loads(top_k(scores, k, p), E)) <= 0.2\nclose = D(p) <= 1.001 * optimum",
    oracle=oracle,
    accepts=accepts,
    inputs=inputs,
    lines=8,
    template="""
import numpy as np


def balancer(scores, k):
    bias = np.zeros(scores.shape[1])
    # FILL ME IN
    ...
    return bias
""",
    hints={
        "wrong": "In step n: choose, count, and add rate / sqrt(n) times the sign of (mean load - load); or a rate that is "
        "proportional to (mean load - load).",
    },
)
