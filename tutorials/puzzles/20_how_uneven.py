"""Loads, and the number that says how uneven they are."""

import numpy as np

from loadsparse.reference import routing
from loadsparse.tutorials.judge.puzzle import Puzzle


def oracle(choices, experts):
    return np.float64(routing.max_violation(routing.loads(choices, experts)))


def inputs(rng, trial):
    tokens, experts, k = ((8, 4, 2), (1, 5, 1), (50, 8, 3), (64, 16, 1))[trial]
    scores = rng.random((tokens, experts)) + rng.random(experts)
    return {"choices": routing.top_k(scores, k), "experts": experts}


def bound(inputs):
    """A quotient and a difference of exact numbers, each rounded once, relative to at most E + 1."""
    return 4 * np.finfo(np.float64).eps * (inputs["experts"] + 1)


PUZZLE = Puzzle(
    title="How uneven?",
    goal="MaxVio measures what balancing is for: the busiest expert, whom all others wait for.",
    text="choices[T, K] are the experts of every token.  Count the tokens of each of the `experts` experts (some may have none),\n"
    "and return MaxVio = (largest load - mean load) / mean load.",
    spec="how_uneven(np.array([[0, 1], [1, 2]]), 4)  ->  1.0        # loads 1 2 1 0, mean 1",
    oracle=oracle,
    inputs=inputs,
    bound=bound,
    lines=3,
    template="""
import numpy as np


def how_uneven(choices, experts):
    # FILL ME IN
    ...
""",
    hints={
        "wrong": "np.bincount(..., minlength=experts) counts experts without a token too; the mean is over all experts."
    },
)
