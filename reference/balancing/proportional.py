"""ALF-LB with the proportional rule: the plain subgradient step of the dual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from loadsparse.reference.balancing.protocol import Schedule, State, check_rate, moved, rate_at, total_loads, zero_state


@dataclass(frozen=True)
class ProportionalBias:
    """p_k <- p_k + eta_n e_k, e = missing load of expert k, a subgradient step of the dual D(p).

    The unit of e decides what a rate means, and papers leave it open; here it is a field:
    "violation": e = (L - A) / L, share of the balanced load (default, needs nothing but the loads);
    "fraction": e = (L - A) / T, share of the batch, the unit of the theory (stable only for eta < 2 / lambda_max),
    needs k; "counts": e = L - A, tokens. The same step has rate(fraction) = T rate(counts) = (E / K) rate(violation).
    schedule, offset: eta_n = rate / (n + offset)^a; rate = 1 / mu with "1/n" and "fraction" is the step of
    logarithmic regret.
    Source: arXiv 2408.15664, table of update rules (u e_i, unit not stated).

    >>> balancer = ProportionalBias(rate=0.5)
    >>> balancer.step(balancer.init(3), [3, 2, 1]).bias.tolist()
    [-0.25, 0.0, 0.25]
    """

    rate: float = 0.01
    schedule: Schedule = "constant"
    offset: float = 0.0
    unit: Literal["violation", "fraction", "counts"] = "violation"
    k: int | None = None
    centred: bool = False
    needs: ClassVar[Literal["loads", "scores"]] = "loads"

    def __post_init__(self) -> None:
        check_rate(self.rate, self.schedule, self.offset)
        if self.unit not in ("violation", "fraction", "counts"):
            raise ValueError(f"unit must be 'violation', 'fraction' or 'counts', got {self.unit!r}")
        if self.unit == "fraction" and self.k is None:
            raise ValueError(
                "unit='fraction' needs k, the experts per token: loads alone do not tell the number of tokens"
            )

    def init(self, experts: int) -> State:
        """Bias 0 for every expert."""
        return zero_state(experts)

    def step(self, state: State, loads: npt.ArrayLike) -> State:
        """One step from the loads of one global batch, [E], or of its micro-batches, [M, E], summed first."""
        counts = total_loads(loads)
        missing = (counts.sum() - counts.size * counts) / counts.size  # L - A; integer numerator
        if self.unit == "violation":
            missing = missing * counts.size / counts.sum()
        elif self.k is not None and self.unit == "fraction":
            missing = missing * self.k / counts.sum()
        rate = rate_at(self.rate, self.schedule, self.offset, state.steps)
        return moved(state, np.asarray(rate * missing, dtype=np.float64), self.centred)
