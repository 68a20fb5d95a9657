"""The work of a grouped product cut into items, in the order in which the multiprocessors take them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PANEL = 8  # columns of an mma: tokens of an expert are padded to whole panels


@dataclass(frozen=True)
class Item:
    """Rows top, top+1, ... of one expert times `columns` of its tokens, from its token `first` on."""

    expert: int
    top: int
    first: int
    columns: int


def divide(counts: Sequence[int], m: int, rows: int, columns: int) -> list[Item]:
    """Items of at most rows x columns that cover every expert's product [m, counts[e]], expert after expert.

    >>> [(item.expert, item.first, item.columns) for item in divide([3, 0, 20], 128, 128, 16)]
    [(0, 0, 3), (2, 0, 16), (2, 16, 4)]
    """
    return [
        Item(expert, top, first, min(columns, count - first))
        for expert, count in enumerate(counts)
        for first in range(0, count, columns)
        for top in range(0, m, rows)
    ]


def panels(item: Item) -> int:
    """Panels of 8 columns that an item touches."""
    return -(-item.columns // PANEL)


def share(costs: Iterable[float], slots: int) -> NDArray[np.float64]:
    """Work of every slot when each item in turn goes to the slot that is free first: float64[slots].

    So a GPU hands out blocks. Costs in descending order end within 4/3 of the best schedule (Graham 1969).

    >>> share([3, 3, 2, 2, 2], 2).tolist()
    [7.0, 5.0]
    """
    busy = [(0.0, slot) for slot in range(slots)]
    for cost in costs:
        until, slot = busy[0]
        heapq.heapreplace(busy, (until + cost, slot))
    return np.array([until for until, _ in sorted(busy, key=lambda one: one[1])])


def imbalance(work: NDArray[np.float64]) -> float:
    """Busiest slot over the mean: 1 when no slot waits for another."""
    return float(work.max() / work.mean())
