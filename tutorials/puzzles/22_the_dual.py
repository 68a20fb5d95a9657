"""The function that every balancer descends, whether it knows or not."""

import numpy as np

from loadsparse.theory import lagrangian
from loadsparse.tutorials.judge.puzzle import Puzzle


def oracle(scores, k, bias):
    return np.float64(lagrangian.dual(scores, k, bias))


def inputs(rng, trial):
    tokens, experts, k = ((5, 4, 2), (1, 3, 1), (30, 8, 3), (64, 8, 1))[trial]
    scale = (1.0, 1e-9, 100.0, 1.0)[trial]
    return {"scores": scale * rng.random((tokens, experts)), "k": k, "bias": scale * rng.standard_normal(experts)}


def bound(inputs):
    """Rounding of n additions of terms of size |s| + |p|: n eps times their sum."""
    scores, k, bias = inputs["scores"], inputs["k"], inputs["bias"]
    terms = scores.shape[0] * k + bias.size + 2
    size = k * scores.shape[0] * (np.abs(scores).max() + np.abs(bias).max()) * 2
    return terms * np.finfo(np.float64).eps * size


PUZZLE = Puzzle(
    title="The dual",
    goal="D(p) is an upper bound on what any balanced assignment can reach; the load minus the mean is its slope.",
    text="For a bias p the dual of the balanced assignment problem is D(p) = sum over tokens of the K largest s + p, minus L\n"
    "times the sum of p, where L = K T / E is the balanced load.  Return D(p).",
    spec="dual(np.array([[3.0, 0.0], [2.0, 0.0]]), 1, np.array([0.0, 2.0]))  ->  3.0",
    oracle=oracle,
    inputs=inputs,
    bound=bound,
    lines=3,
    template="""
import numpy as np


def dual(scores, k, bias):
    # FILL ME IN
    ...
""",
    hints={"wrong": "np.sort(scores + bias, axis=1)[:, -k:] holds the K largest of each token; L = k * T / E."},
)
