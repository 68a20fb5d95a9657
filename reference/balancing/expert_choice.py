"""Expert choice: every expert takes its best tokens, balanced by construction and not causal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing


@dataclass(frozen=True)
class ExpertChoice:
    """Expert k takes the C = K T / E tokens of largest s_.k (ties: lower token first).

    Loads are equal; how many experts a token gets is not. Whether a token is taken depends on tokens that come after
    it: the routing leaks the future, about K log2((1 - R) / R) bits per token and layer with R = K / E, while a bias
    made of past batches leaks nothing. Source: expert choice routing; leak as in arXiv 2408.15664.

    >>> ExpertChoice().assign([[0.9, 0.1], [0.8, 0.7]], 1).tolist()
    [[True, False], [False, True]]
    """

    def assign(self, scores: npt.ArrayLike, k: int) -> npt.NDArray[np.bool_]:
        """taken bool [T, E] for scores [T, E]; ValueError where K T / E is not an integer."""
        s = routing.checked_scores(scores, k)
        tokens, experts = s.shape
        if k * tokens % experts:
            raise ValueError(
                f"expert choice needs k * tokens / experts to be an integer, got {k} * {tokens} / {experts}"
            )
        order = routing.descending(s, 0)[: k * tokens // experts]
        taken = np.zeros((tokens, experts), dtype=bool)
        np.put_along_axis(taken, order, True, axis=0)
        return taken


def leaked_bits(k: int, experts: int) -> float:
    """K log2((1 - R) / R), R = K / E: lower bound on the bits per token and layer that expert choice leaks (for R <
    1/2).

    >>> round(leaked_bits(2, 16), 2)
    5.61
    """
    if not 1 <= k < experts:
        raise ValueError(f"need 1 <= k < experts, got k = {k}, experts = {experts}")
    share = k / experts
    return float(k * np.log2((1 - share) / share))
