"""The auction of BASE layers: tokens bid for places, one expert per token, equal loads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing


@dataclass(frozen=True)
class Auction:
    """Assigns T tokens to E experts, T / E each, within T epsilon of the best total score.

    Every expert sells T / E places. A token without a place bids for the cheapest place of its best expert as much
    more as it would lose by its second choice, plus epsilon; who held the place is free again. With integer scores and
    epsilon < 1 / T the result is optimal. It needs the whole batch, so in a causal model it sees the future.
    Source: BASE layers, arXiv 2103.16716; Bertsekas' auction.

    >>> Auction(epsilon=0.1).assign([[3.0, 0.0], [2.0, 0.0]]).tolist()
    [0, 1]
    """

    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be > 0, got {self.epsilon}")

    def assign(self, scores: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Expert of every token, int64 [T], for scores [T, E]; ValueError unless E divides T and scores are finite."""
        s = routing.checked_scores(scores, 1).astype(np.float64)
        tokens, experts = s.shape
        if tokens % experts:
            raise ValueError(
                f"the auction sells equal numbers of places: {experts} experts do not divide {tokens} tokens"
            )
        places = tokens // experts
        price = np.zeros((experts, places))
        holder = np.full((experts, places), -1)
        waiting = list(range(tokens))
        while waiting:
            token = waiting.pop()
            cheapest = price.argmin(axis=1)
            worth = s[token] - price[np.arange(experts), cheapest]
            best = int(worth.argmax())
            # second choice: another expert, or the next place of the same one
            rivals = (
                np.delete(worth, best).tolist() + (s[token, best] - np.delete(price[best], cheapest[best])).tolist()
            )
            place = cheapest[best]
            price[best, place] += worth[best] - (max(rivals) if rivals else worth[best]) + self.epsilon
            if holder[best, place] >= 0:
                waiting.append(int(holder[best, place]))
            holder[best, place] = token
        choice = np.empty(tokens, dtype=np.int64)
        choice[holder.ravel()] = np.repeat(np.arange(experts), places)
        return choice
