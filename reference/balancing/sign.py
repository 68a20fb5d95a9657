"""ALF-LB with the sign rule: auxiliary-loss-free load balancing as Wang et al. run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from loadsparse.reference.balancing.protocol import Schedule, State, check_rate, moved, rate_at, total_loads, zero_state


@dataclass(frozen=True)
class SignBias:
    """p_k <- p_k + u_n sign(L - A_k): each overloaded expert one notch down, each underloaded one up.

    One primal-dual iteration on the balanced assignment max sum s x with sum_k x_ik = K, sum_i x_ik = L:
    the exact primal step x(p) = topK(s + p), then one dual step against the signs of the subgradient A - L.
    rate: u, in the unit of the scores (0.001 for sigmoid scores). schedule, offset: u_n = u / (n + offset)^a, a = 0,
    1, 1/2.
    centred: subtract the mean afterwards, which changes no selection. Bias float64, counts integers (the sign is
    exact).
    Source: arXiv 2408.15664, Algorithm 1.

    >>> balancer = SignBias(rate=0.5)
    >>> balancer.step(balancer.init(3), [3, 2, 1]).bias.tolist()
    [-0.5, 0.0, 0.5]
    """

    rate: float = 1e-3
    schedule: Schedule = "constant"
    offset: float = 0.0
    centred: bool = False
    needs: ClassVar[Literal["loads", "scores"]] = "loads"

    def __post_init__(self) -> None:
        check_rate(self.rate, self.schedule, self.offset)

    def init(self, experts: int) -> State:
        """Bias 0 for every expert."""
        return zero_state(experts)

    def step(self, state: State, loads: npt.ArrayLike) -> State:
        """One step from the loads of one global batch, [E], or of its micro-batches, [M, E], summed first."""
        counts = total_loads(loads)
        direction = np.sign(counts.sum() - counts.size * counts).astype(np.float64)  # sign(L - A), in integers
        return moved(state, rate_at(self.rate, self.schedule, self.offset, state.steps) * direction, self.centred)
