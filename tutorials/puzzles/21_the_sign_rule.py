"""Auxiliary-loss-free balancing, the whole of it."""

import numpy as np

from loadsparse.tutorials.judge.puzzle import Puzzle


def oracle(bias, loads, rate):
    excess = loads.size * loads - loads.sum()  # whole numbers: the comparison is exact
    return np.where(excess > 0, bias - rate, np.where(excess < 0, bias + rate, bias))


def inputs(rng, trial):
    experts = (4, 2, 8, 16)[trial]
    loads = rng.integers(0, 6, experts)
    loads[0] = 0
    loads[-1] += (-loads.sum()) % experts  # a whole mean load, which some expert may have
    return {"bias": np.round(rng.standard_normal(experts), 3), "loads": loads, "rate": (0.001, 0.01, 0.5, 0.125)[trial]}


PUZZLE = Puzzle(
    title="The sign rule",
    goal="A fixed step down for busy experts, up for idle ones: a subgradient step on a dual, without a loss.",
    text="One step of auxiliary-loss-free balancing (arXiv 2408.15664): an expert with more than the mean load loses `rate` of its\n"
    "bias, one with less gains it, and one with exactly the mean load keeps its bias.  Return the new bias [E].",
    spec="sign_step(np.zeros(3), np.array([4, 2, 0]), 0.5)  ->  [-0.5, 0.0, 0.5]",
    oracle=oracle,
    inputs=inputs,
    lines=1,
    template="""
import numpy as np


def sign_step(bias, loads, rate):
    # FILL ME IN
    ...
""",
    hints={"wrong": "np.sign is -1, 0 or 1: of the mean load minus the load, not the other way round."},
)
