"""Where the theory stops (statement D10): routing that is not a top-K of s + p on fixed scores.

Group-limited selection picks groups by the sum of their best biased scores first. It does not maximise sum (s + p) x
over a fixed set, so D is not its dual and D1 to D3 need not hold; the functions here count how often D3 fails. Scores
that move between steps break the same statements: they compare the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing
from loadsparse.theory import lagrangian, preference


@dataclass(frozen=True)
class Broken:
    """switching: tokens that changed experts; broken: those with a pair that violates D3; rises: steps where the
    selected sum of s + p minus L sum p, the would-be dual, rose although the overshoot condition D2 (a) holds."""

    switching: int
    broken: int
    rises: int


def grouped_sign_rule(
    scores: npt.ArrayLike, k: int, u: float, steps: int, groups: int, top_groups: int, group_best: int = 2
) -> Broken:
    """Run the sign rule under group-limited selection on scores [T, E] and count violations of D3 and D2."""
    s = np.asarray(scores)
    p = np.zeros(s.shape[1])

    def select(bias: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return routing.top_k(s, k, bias, groups=groups, top_groups=top_groups, group_best=group_best)

    switching = broken = rises = 0
    chosen = select(p)
    for _ in range(steps):
        loads = routing.loads(chosen, s.shape[1])
        change = lagrangian.sign_change(loads, u)
        after = select(p + change)
        found = preference.switches(s, p, change, chosen, after)
        slack = 1e-12  # rounding of sums near 1
        wrong = (found.margin < -slack) | (found.margin > found.push + slack) | (found.push <= 0)
        switching += np.unique(found.token).size
        broken += np.unique(found.token[wrong]).size
        next_loads = routing.loads(after, s.shape[1])
        overshoot = float((next_loads - loads.mean()) @ change)
        rise = lagrangian.lagrangian(s, after, p + change) - lagrangian.lagrangian(s, chosen, p)
        rises += bool(overshoot <= 0 and rise > 1e-9)
        p, chosen = p + change, after
    return Broken(switching, broken, rises)


def moving_scores(scores: npt.ArrayLike, later: npt.ArrayLike, k: int, u: float) -> npt.NDArray[np.bool_]:
    """One sign step while the scores move from [T, E] to [T, E]: per expert, whether D3's consequence fails."""
    first, second = np.asarray(scores), np.asarray(later)
    before = routing.loads(routing.top_k(first, k), first.shape[1])
    after = routing.loads(routing.top_k(second, k, lagrangian.sign_change(before, u)), first.shape[1])
    return preference.wrong_way(before, after)
