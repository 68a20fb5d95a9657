"""The preference rule (statement D3): which tokens may leave which expert in one bias step.

If token i drops k and picks k' between p and p + Delta, then for EVERY such pair
    0 <= (s_ik + p_k) - (s_ik' + p_k') <= Delta_k' - Delta_k   and   Delta_k' > Delta_k.
Consequence for the sign and the proportional rule on fixed scores: in a step an overloaded expert never gains a token
and an underloaded one never loses one. It needs the same tokens re-routed, and a plain top-K (see `theory.limits` for
grouped ones).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing
from loadsparse.theory.lagrangian import membership

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Switches:
    """All pairs (dropped expert, picked expert) of all tokens of one step, one entry per pair."""

    token: npt.NDArray[np.int64]
    dropped: npt.NDArray[np.int64]
    picked: npt.NDArray[np.int64]
    margin: Array  # (s_ik + p_k) - (s_ik' + p_k'), before the step
    push: Array  # Delta_k' - Delta_k

    @property
    def obey(self) -> npt.NDArray[np.bool_]:
        """Per pair: 0 <= margin <= push and push > 0."""
        return np.asarray((self.margin >= 0) & (self.margin <= self.push) & (self.push > 0))


def switches(
    scores: npt.ArrayLike, bias: npt.ArrayLike, change: npt.ArrayLike, before: npt.ArrayLike, after: npt.ArrayLike
) -> Switches:
    """Both sides of D3 for the choices [T, K] before and after a step of the bias [E] by change [E]."""
    s, p, delta = np.asarray(scores), np.asarray(bias), np.asarray(change)
    x, y = membership(before, s.shape[1]), membership(after, s.shape[1])
    left, entered = x & ~y, y & ~x
    pairs = [
        (token, k, j)
        for token in np.flatnonzero(left.any(axis=1))
        for k in np.flatnonzero(left[token])
        for j in np.flatnonzero(entered[token])
    ]
    token, k, j = np.asarray(pairs, dtype=np.int64).reshape(-1, 3).T
    biased = routing.add_bias(s, p)
    return Switches(token, k, j, biased[token, k] - biased[token, j], delta[j] - delta[k])


def wrong_way(loads: npt.ArrayLike, next_loads: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Per expert: overloaded and gained tokens, or underloaded and lost some; all False says D3's consequence.

    >>> wrong_way([3, 1], [2, 2]).tolist()
    [False, False]
    """
    before, after = routing.checked_loads(loads), routing.checked_loads(next_loads)
    excess = before.size * before - before.sum()  # E (A - L), in integers
    return np.asarray(((excess > 0) & (after > before)) | ((excess < 0) & (after < before)))
