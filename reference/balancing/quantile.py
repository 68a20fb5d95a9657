"""Quantile balancing: one exact sweep of coordinate descent on the dual of the balanced assignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing
from loadsparse.reference.balancing.protocol import State, zero_state


@dataclass(frozen=True)
class QuantileBalancing:
    """beta_j = (floor(L) + 1)-th largest of s_.j - alpha, where alpha_i = (K + 1)-th largest of s_i - beta; p = -beta.

    Both are exact minimisers of the dual with inequality multipliers, one after the other; there is no rate to tune.
    The batch is routed with the OLD bias and then gives the new one, so no token sees the future.
    k: experts per token, here or in `step`. sweeps: sweeps per batch. Bias float64, centred.
    Source: BIP (arXiv 2502.15451) and its quantile form (kexue.fm 11619).

    Coordinate descent on a function with kinks may stop short of the optimum; over many tokens it rarely does.

    >>> balancer = QuantileBalancing(k=1)
    >>> balancer.step(balancer.init(2), [[0.9, 0.1], [0.6, 0.2]]).bias.round(2).tolist()
    [-0.2, 0.2]
    """

    k: int | None = None
    sweeps: int = 1
    needs: ClassVar[Literal["loads", "scores"]] = "scores"

    def init(self, experts: int) -> State:
        """Bias 0 for every expert."""
        return zero_state(experts)

    def step(self, state: State, scores: npt.ArrayLike, k: int | None = None) -> State:
        """The state after one batch of scores [T, E]; ValueError where K is unknown or not below E."""
        chosen = self.k if k is None else k
        if chosen is None:
            raise ValueError(
                "quantile balancing needs k, the experts per token: QuantileBalancing(k=...) or step(..., k=...)"
            )
        s = routing.checked_scores(scores, chosen).astype(np.float64)
        tokens, experts = s.shape
        if chosen >= experts:
            raise ValueError(f"quantile balancing needs k < experts, got k = {chosen} of {experts}")
        rank = min(chosen * tokens // experts, tokens - 1)  # floor(L), counted from 0
        beta = -state.bias
        for _ in range(self.sweeps):
            alpha = -np.partition(beta - s, chosen, axis=1)[:, chosen]
            beta = -np.partition(alpha[:, None] - s, rank, axis=0)[rank]
        return State(beta.mean() - beta, state.steps + 1)
