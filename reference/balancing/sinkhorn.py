"""Sinkhorn scaling: the balanced assignment softened by an entropy, solved inside the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing
from loadsparse.reference.balancing.protocol import State, zero_state

Floats = npt.NDArray[np.float64]


def logsumexp(x: Floats, axis: int) -> Floats:
    """log sum exp along an axis, kept as size 1; no overflow."""
    top = x.max(axis=axis, keepdims=True)
    return np.asarray(top + np.log(np.exp(x - top).sum(axis=axis, keepdims=True)), dtype=np.float64)


def scale(logits: npt.ArrayLike, tolerance: float = 1e-4, iterations: int = 1000) -> tuple[Floats, Floats, Floats]:
    """Plan x_ik = a_i exp(logits_ik) b_k with rows summing to 1/T and columns to 1/E: (plan [T, E], log a [T], log b
    [E]).

    Alternates the two scalings until every column sum is within tolerance / E of 1/E; RuntimeError if it never is.
    Source: S-BASE; Sinkhorn and Knopp.

    >>> scale([[0.0, 0.0], [0.0, 0.0]])[0].tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    x = np.asarray(logits, dtype=np.float64)
    tokens, experts = x.shape
    rows, columns = np.zeros((tokens, 1)), np.zeros((1, experts))
    for _ in range(iterations):
        rows = -np.log(tokens) - logsumexp(x + columns, axis=1)
        plan = np.exp(x + rows + columns)
        if np.abs(plan.sum(axis=0) * experts - 1).max() <= tolerance:
            return plan, rows[:, 0], columns[0]
        columns = -np.log(experts) - logsumexp(x + rows, axis=0)
    raise RuntimeError(f"Sinkhorn did not reach {tolerance} in {iterations} iterations: raise the temperature")


@dataclass(frozen=True)
class Sinkhorn:
    """Top-K of the scaled plan of exp(s / temperature); row factors do not matter, so it is a bias p = temperature
    log b.

    `assign` routes a batch by its own plan (training in S-BASE), which lets every token see the whole batch;
    `step` gives the bias for the next batch, which is causal. Loads of the plan are even, those of its top-K need not
    be.
    k is not needed: the plan is that of one expert per token.
    """

    temperature: float = 1.0
    tolerance: float = 1e-4
    iterations: int = 1000
    needs: ClassVar[Literal["loads", "scores"]] = "scores"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")

    def init(self, experts: int) -> State:
        """Bias 0 for every expert."""
        return zero_state(experts)

    def bias(self, scores: npt.ArrayLike) -> Floats:
        """temperature log b, centred, float64 [E]."""
        s = routing.checked_scores(scores, 1).astype(np.float64)
        columns = scale(s / self.temperature, self.tolerance, self.iterations)[2]
        return np.asarray(self.temperature * (columns - columns.mean()), dtype=np.float64)

    def step(self, state: State, scores: npt.ArrayLike) -> State:
        """The state after one batch of scores [T, E]."""
        return State(self.bias(scores), state.steps + 1)

    def assign(self, scores: npt.ArrayLike, k: int) -> npt.NDArray[np.int64]:
        """Choices int64 [T, K] of the batch by its own plan."""
        return routing.top_k(scores, k, self.bias(scores))
