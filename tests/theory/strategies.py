"""Hypothesis strategies for routing problems: integer score matrices with ties, duplicates, skew, correlation,
extreme ranges.

Integer scores make every statement checkable in exact arithmetic; `real_scores` gives the same shapes as float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

KINDS = ("free", "ties", "duplicates", "skew", "correlated", "extreme", "constant")


@dataclass(frozen=True)
class Problem:
    """scores int64 [T, E], experts per token K, and the kind of matrix it is."""

    scores: npt.NDArray[np.int64]
    k: int
    kind: str

    @property
    def tokens(self) -> int:
        return self.scores.shape[0]

    @property
    def experts(self) -> int:
        return self.scores.shape[1]


def matrix(rng: np.random.Generator, kind: str, tokens: int, experts: int) -> npt.NDArray[np.int64]:
    shape = (tokens, experts)
    if kind == "ties":
        return rng.integers(0, 3, shape)
    if kind == "duplicates":
        return rng.integers(0, 1000, shape)[rng.integers(0, max(1, tokens // 3), tokens)]
    if kind == "skew":
        return rng.integers(0, 1000, shape) + np.sort(rng.integers(0, 4000, experts))
    if kind == "correlated":
        return rng.integers(0, 3000, (tokens, 1)) * rng.integers(0, 3, experts) + rng.integers(0, 50, shape)
    if kind == "extreme":
        return rng.integers(-(2**40), 2**40, shape) >> rng.integers(0, 40, shape)
    if kind == "constant":
        return np.broadcast_to(rng.integers(0, 100, experts), shape).copy()
    return rng.integers(0, 1000, shape)


@st.composite
def problems(
    draw: st.DrawFn, max_tokens: int = 24, max_experts: int = 8, whole: bool = False, kinds: tuple[str, ...] = KINDS
) -> Problem:
    """T in 1..max_tokens, E in 2..max_experts, 1 <= K < E; whole=True makes L = K T / E an integer (T a multiple of
    E)."""
    experts = draw(st.integers(2, max_experts))
    k = draw(st.integers(1, experts - 1))
    if whole:
        tokens = experts * draw(st.integers(1, max(1, max_tokens // experts)))
    else:
        tokens = draw(st.integers(1, max_tokens))
    kind = draw(st.sampled_from(kinds))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return Problem(np.asarray(matrix(rng, kind, tokens, experts), dtype=np.int64), k, kind)


def integer_vectors(size: int, largest: int) -> st.SearchStrategy[npt.NDArray[np.int64]]:
    """int64 [size] with entries in -largest..largest, small and large ones alike."""
    entry = st.one_of(st.integers(-3, 3), st.integers(-largest, largest))
    return st.lists(entry, min_size=size, max_size=size).map(lambda v: np.asarray(v, dtype=np.int64))


@st.composite
def biased_problems(draw: st.DrawFn, **options: Any) -> tuple[Problem, npt.NDArray[np.int64]]:
    """A problem and an integer bias [E] on the scale of its scores."""
    problem = draw(problems(**options))
    scale = int(problem.scores.max() - problem.scores.min()) + 1
    return problem, draw(integer_vectors(problem.experts, scale))


@st.composite
def real_scores(draw: st.DrawFn, **options: Any) -> tuple[npt.NDArray[np.float64], int]:
    """(scores float64 [T, E] in [0, 1], K), generic up to rounding."""
    problem = draw(problems(**options))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.random(problem.scores.shape), problem.k
