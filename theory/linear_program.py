"""The balanced assignment as a linear program, solved by HiGHS: the slow second opinion on every dual value.

    max sum_ik s_ik x_ik   subject to   sum_k x_ik = K,   lower_k <= sum_i x_ik <= upper_k,   0 <= x <= 1.

With lower = upper = L = K T / E it is the program whose Lagrangian ALF-LB ascends and descends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse

from loadsparse.reference import routing

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Solution:
    """Optimum of the program: value OPT, x float64 [T, E], and prices float64 [E], optimal biases of the dual."""

    value: float
    x: npt.NDArray[np.float64]
    prices: npt.NDArray[np.float64]

    @property
    def fractional(self) -> float:
        """Largest distance of an x_ik from 0 or 1; 0 where the optimum found is integral (total unimodularity)."""
        return float(np.abs(self.x - np.rint(self.x)).max())


def constraints(tokens: int, experts: int) -> Array:
    """Incidence matrix [T + E, T E] of the complete bipartite graph tokens x experts (totally unimodular), sparse
    CSR."""
    rows = sparse.kron(sparse.identity(tokens), np.ones((1, experts)))
    columns = sparse.kron(np.ones((1, tokens)), sparse.identity(experts))
    return sparse.vstack([rows, columns]).tocsr()


def solve(
    scores: npt.ArrayLike, k: int, lower: npt.ArrayLike | None = None, upper: npt.ArrayLike | None = None
) -> Solution:
    """Solve the program with HiGHS. scores [T, E]; lower, upper: scalars or [E], default L = K T / E, fractions
    allowed.

    Prices are signed so that p is the bias to ADD: x is a top-K of s + p. Raises ValueError where no x is feasible.

    >>> solve([[3.0, 0.0], [2.0, 0.0]], 1).value
    3.0
    """
    s = routing.checked_scores(scores, k).astype(np.float64)
    tokens, experts = s.shape
    mean = k * tokens / experts
    low = np.broadcast_to(np.asarray(mean if lower is None else lower, dtype=np.float64), experts)
    high = np.broadcast_to(np.asarray(mean if upper is None else upper, dtype=np.float64), experts)
    matrix = constraints(tokens, experts)
    equal = bool((low == high).all())
    per_token, per_expert = matrix[:tokens], matrix[tokens:]
    if equal:
        system: dict[str, Any] = {"A_eq": matrix, "b_eq": np.concatenate([np.full(tokens, float(k)), high])}
    else:
        system = {"A_eq": per_token, "b_eq": np.full(tokens, float(k))}
        system |= {"A_ub": sparse.vstack([per_expert, -per_expert]), "b_ub": np.concatenate([high, -low])}
    found = optimize.linprog(-s.ravel(), bounds=(0, 1), method="highs-ds", **system)
    if found.status == 2:
        raise ValueError(
            f"no assignment of {tokens} tokens to {k} experts each keeps loads in {low.min()}..{high.max()}"
        )
    if found.status != 0:
        raise RuntimeError(f"HiGHS: {found.message}")
    # minimisation of -s: marginals are d(-OPT)/db, so the bias is minus the price of load
    if equal:
        prices = found.eqlin.marginals[tokens:]
    else:
        prices = found.ineqlin.marginals[:experts] - found.ineqlin.marginals[experts:]
    return Solution(-float(found.fun), found.x.reshape(tokens, experts), np.asarray(prices, dtype=np.float64))
