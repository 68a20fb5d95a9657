"""The work of a grouped product: cut into items, and their K into parts, so that no multiprocessor waits for another."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PANEL = 8  # columns of an mma: tokens of an expert are padded to whole panels
MOST_SPLITS = 64
BLOCKS = 8
"""Blocks for each place of a multiprocessor beyond which K is not split further: they even out by themselves."""


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


def schedule(costs: Iterable[float], slots: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """(slot of each item, work of every slot) when each item in turn goes to the slot that is free first.

    So a GPU hands out blocks. Costs in descending order end within 4/3 of the best schedule (Graham 1969).

    >>> [one.tolist() for one in schedule([3, 3, 2, 2, 2], 2)]
    [[0, 1, 0, 1, 0], [7.0, 5.0]]
    """
    busy = [(0.0, slot) for slot in range(slots)]
    taken = []
    for cost in costs:
        until, slot = busy[0]
        heapq.heapreplace(busy, (until + cost, slot))
        taken.append(slot)
    work = np.array([until for until, _ in sorted(busy, key=lambda one: one[1])])
    return np.array(taken, np.intp), work


def parts_of(splits: NDArray[np.integer], tiles: int) -> NDArray[np.int64]:
    """Blocks of items whose `tiles` steps along K are cut into splits[i] parts: (item, first step, the one after the last).

    >>> parts_of(np.array([1, 2]), 5).tolist()
    [[0, 0, 5], [1, 0, 2], [1, 2, 5]]
    """
    item = np.repeat(np.arange(len(splits)), splits)
    many = np.asarray(splits, np.int64)[item]
    part = np.arange(len(item)) - np.repeat(np.cumsum(splits) - splits, splits)
    return np.stack([item, part * tiles // many, (part + 1) * tiles // many], axis=1)


def choose_splits(
    owner: NDArray[np.integer],
    step: NDArray[np.float64],
    adding: NDArray[np.float64],
    tiles: int,
    slots: int,
    resident: int,
) -> NDArray[np.int64]:
    """Factor of K for every expert with which the busiest of `slots` multiprocessors has the least to do: int64[max owner + 1].

    Item i is of expert owner[i], takes step[i] for each of `tiles` steps along K and, where K is split, adding[i] for the
    partials of each part. Fewer blocks than `resident` on a multiprocessor leave latency in sight, so the end comes no sooner
    than that many of the largest. Tried are parts no longer than a share of the longest item, for all experts alike; and from
    each of these on, the expert whose block ends last is split further, until one such step for every expert has not helped
    (where many multiprocessors end last together, the first of them to end sooner changes nothing).
    """
    longest = np.zeros(int(owner.max()) + 1)
    np.maximum.at(longest, owner, step)
    present, most = longest > 0, min(tiles, MOST_SPLITS)

    def end(splits: NDArray[np.int64]) -> tuple[float, int]:
        """When all is done, and the expert of the block that ends last."""
        many = splits[owner]
        item, first, last = parts_of(many, tiles).T
        costs = (last - first) * step[item] + np.where(many > 1, adding, 0.0)[item]
        order = np.argsort(-costs, kind="stable")
        slot, work = schedule(costs[order].tolist(), slots)
        final = np.flatnonzero(slot == work.argmax())[-1]
        return max(float(work.max()), resident * float(costs.max())), int(owner[item[order[final]]])

    best, soonest = np.ones(len(longest), np.int64), math.inf
    for factor in range(1, most + 1):
        splits = np.where(present, np.ceil(longest / longest.max() * factor).astype(np.int64), 1)
        if factor > 1 and splits[owner].sum() > BLOCKS * slots * resident:
            break
        patience = int(present.sum())
        while patience:
            done, last = end(splits)
            if done < soonest:
                best, soonest, patience = splits.copy(), done, int(present.sum())
            else:
                patience -= 1
            if splits[last] == most or splits[owner].sum() >= BLOCKS * slots * resident:
                break
            splits[last] += 1
    return best


def imbalance(work: NDArray[np.float64]) -> float:
    """Busiest slot over the mean: 1 when no slot waits for another."""
    return float(work.max() / work.mean())
