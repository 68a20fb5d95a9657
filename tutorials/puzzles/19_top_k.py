"""Routing begins: every token takes its K best experts."""

from loadsparse.reference import routing
from loadsparse.tutorials.judge.puzzle import Puzzle


def inputs(rng, trial):
    """Scores in steps of 1/8, so that there are ties."""
    tokens, experts, k = ((6, 5, 2), (1, 1, 1), (40, 8, 8), (33, 16, 3))[trial]
    return {"scores": rng.integers(0, 8, (tokens, experts)) / 8, "k": k}


PUZZLE = Puzzle(
    title="Top-K",
    goal="A token goes to its K best experts; ties need a rule, or two programs disagree.",
    text="scores[T, E] says how well each token likes each expert.  Return the K experts of highest score of every token, best\n"
    "first, as integers [T, K].  Where scores are equal, the expert with the lower number comes first.",
    spec="top_k(np.array([[0.3, 0.5, 0.5, 0.1]]), 2)  ->  [[1, 2]]",
    oracle=lambda scores, k: routing.top_k(scores, k),
    inputs=inputs,
    lines=2,
    template="""
import numpy as np


def top_k(scores, k):
    # FILL ME IN
    ...
""",
    hints={"wrong": "np.argsort has kind='stable': equal elements keep their order. Sort -scores, do not reverse."},
)
