"""In which order to keep a tile's items, so that scattering them into shared memory wastes no wavefront.

Lane L of a warp loads one vector of 4 items and stores item v in the same instruction as the other 31 lanes, so a full
group of 32 vectors makes 4 stores of 32 items, and a last group of r vectors 4 stores of r items: the stores and their
sizes are given, we choose which item goes where. A store takes as many wavefronts as there are distinct 32-bit words
in its busiest bank; the two halves of one word share a wavefront. A tile therefore needs at least
    W >= max(number of stores, most distinct words in any bank)            (the bound)

Cut each store into as many wavefronts as it needs, W altogether, each with room for T_w items and at most one word of
every bank. Bank b has c_b words, of which p_b have both halves. Let row b of a 0/1 matrix of 64 x W stand for the first
half that bank b puts into a wavefront, row 32 + b for the second. Row sums c_b and p_b, column sums T_w: such a matrix
exists exactly if the Gale-Ryser condition holds, and serving every column from the fullest remaining rows finds it
(a lone second half counts as a first one, so pairs split where that helps). Flat column sums are easiest to satisfy,
so a store that needs several wavefronts shares its items evenly among them. W grows from the bound until it fits.

Source of the condition: H. J. Ryser, Combinatorial properties of matrices of zeros and ones, Canad. J. Math. 9 (1957).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROWS, BANKS, HALVES = 128, 32, 2  # a tile in shared memory: 128 rows of 32 words of two halves
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class StoreCost:
    """Per tile, int64[tiles]: store instructions, the bound max(stores, words in the busiest bank), wavefronts taken.

    `degree` is all wavefronts over all stores (1.0 = no conflict), `bound_degree` the least possible by the bound and
    `gap` the number of wavefronts above the bound.
    """

    stores: Ints
    bound: Ints
    achieved: Ints

    @property
    def degree(self) -> float:
        return float(self.achieved.sum() / max(1, self.stores.sum()))

    @property
    def bound_degree(self) -> float:
        return float(self.bound.sum() / max(1, self.stores.sum()))

    @property
    def gap(self) -> int:
        return int((self.achieved - self.bound).sum())

    def __str__(self) -> str:
        return f"{self.degree:.3f} wavefronts a store, bound {self.bound_degree:.3f}, {self.gap} wavefronts above it"


def add_pads(present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill present[tiles, 8192] up to a multiple of 4 a tile.

    Each pad takes the lowest empty location of the bank that has fewest words (then the lowest bank), full banks apart:
    that never raises the bound.
    """
    present = present.copy()
    for _ in range(3):
        short = np.flatnonzero(present.sum(axis=1) % 4)
        grid = present[short].reshape(len(short), ROWS, BANKS, HALVES)
        words = grid.any(axis=3).sum(axis=1)
        full = grid.all(axis=(1, 3))
        bank = np.argmin(np.where(full, np.iinfo(np.int64).max, words), axis=1)
        column = grid[np.arange(len(short)), :, bank, :].reshape(len(short), ROWS * HALVES)
        row, half = np.divmod(np.argmin(column, axis=1), HALVES)
        present[short, (row * BANKS + bank) * HALVES + half] = True
    return present


def plain(present: NDArray[np.bool_]) -> Ints:
    """The locations of all items, tile after tile, lowest first."""
    return np.nonzero(present)[1]


def locations(present: NDArray[np.bool_]) -> Ints:
    """The locations of all items of present[tiles, 8192] (whole vectors), in the order to keep them."""
    tiles = len(present)
    grid = present.reshape(tiles, ROWS, BANKS, HALVES)
    pairs = grid.all(axis=3).sum(axis=1)  # p_b [tiles, 32]
    words = grid.any(axis=3).sum(axis=1)  # c_b
    counts = pairs + words  # items per bank
    items = counts.sum(axis=1)
    take = _schedule(words, pairs, items)  # [tiles, W, 32], 0, 1 or 2 items

    # A bank is a deque, pairs in front (last row first), single halves behind (first row first): a 2 pops the front
    # twice, a 1 the back once.
    tile, row, bank, half = np.nonzero(grid)
    single = ~(grid[tile, row, bank, 0] & grid[tile, row, bank, 1])
    deque = np.lexsort((half, np.where(single, row, -row), single, bank, tile))
    location = ((row * BANKS + bank) * HALVES + half)[deque]
    start = (np.cumsum(counts) - counts.ravel()).reshape(tiles, 1, BANKS)
    front = start + 2 * (np.cumsum(take == 2, axis=1) - (take == 2))
    back = start + counts[:, None, :] - np.cumsum(take == 1, axis=1)
    at = np.where(take == 2, front, back)
    taken = np.repeat(at.ravel(), take.ravel())
    second = np.flatnonzero(np.diff(taken, prepend=-1) == 0)  # the two items of a 2 follow each other
    taken[second] += 1

    # Served in order of stores; store s = 4 j + v, lane L is item v of vector 32 j + L.
    begin = np.repeat(np.cumsum(items) - items, items)
    served = np.arange(items.sum()) - begin
    order = np.empty(len(served), np.int64)
    order[begin + _slot(served, np.repeat(items, items))] = location[taken]
    return order


def _slot(served: Ints, items: Ints) -> Ints:
    """Where the `served`-th item of a tile of `items` goes: stores in order, lanes in order inside a store."""
    full = items // 128 * 128
    tail = (items - full) // 4
    in_tail = served >= full
    size = np.where(in_tail, tail, 32)
    store, lane = np.divmod(served - np.where(in_tail, full, 0), np.maximum(size, 1))
    group = np.where(in_tail, full // 128, store // 4)
    slot: Ints = (group * 32 + lane) * 4 + store % 4
    return slot


def _schedule(words: Ints, pairs: Ints, items: Ints) -> NDArray[np.int8]:
    """How many items each wavefront takes of each bank: int8[tiles, W, 32]; wavefronts follow their stores."""
    rows = np.concatenate([words, pairs], axis=1)  # [tiles, 64]
    room = _rooms(rows, np.maximum(_stores(items), words.max(axis=1)), items)  # [tiles, W]
    order = np.argsort(-rows, axis=1, kind="stable")
    left = np.take_along_axis(rows, order, axis=1)  # falls along axis 1, and stays so
    back = np.argsort(order, axis=1)
    take = np.zeros((*room.shape, BANKS), np.int8)
    for w in range(room.shape[1]):
        size = room[:, w, None]
        least = np.take_along_axis(left, np.maximum(size - 1, 0), axis=1)
        more, same = left > least, left == least
        rest = size - more.sum(axis=1, keepdims=True)
        # Among equal rows the last ones are served: then `left` needs no sorting again.
        last = same & (np.cumsum(same, axis=1) > same.sum(axis=1, keepdims=True) - rest)
        served = (more | last) & (size > 0)
        left -= served
        by_row = np.take_along_axis(served, back, axis=1)
        take[:, w] = by_row[:, :BANKS].astype(np.int8) + by_row[:, BANKS:]
    return take


def _stores(items: Ints) -> Ints:
    return 4 * -(-items // 128)


def _rooms(rows: Ints, wavefronts: Ints, items: Ints) -> Ints:
    """T_w[tiles, W], 0 behind a tile's last wavefront, with the fewest wavefronts that Gale-Ryser allows."""
    conjugate = (rows[:, :, None] > np.arange(ROWS)).sum(axis=1)
    supply = np.cumsum(conjugate, axis=1)  # most that any w wavefronts can take; all of it from w = 128 on
    wavefronts, rooms = wavefronts.copy(), {}
    todo = np.arange(len(rows))
    while todo.size:
        fits = []
        for tile in todo:
            room = rooms[tile] = split_stores(int(items[tile]), int(wavefronts[tile]))
            demand = np.cumsum(np.sort(room)[::-1])[:ROWS]
            fits.append(bool((demand <= supply[tile, : len(demand)]).all()))
        todo = todo[~np.array(fits)]
        wavefronts[todo] += 1
    padded = np.zeros((len(rows), int(wavefronts.max(initial=0))), np.int64)
    for tile, room in rooms.items():
        padded[tile, : len(room)] = room
    return padded


def split_stores(items: int, wavefronts: int) -> Ints:
    """Room of each wavefront when the stores of `items` items get `wavefronts` in all, as evenly as possible.

    Extra wavefronts go one by one to the store with most items per wavefront (the first of equals).
    """
    full, tail = divmod(items // 4, 32)
    sizes = np.array([32] * (4 * full) + [tail] * (4 * (tail > 0)), np.int64)
    cuts = np.ones(len(sizes), np.int64)
    for _ in range(wavefronts - len(sizes)):
        cuts[np.argmax(sizes / cuts)] += 1
    room = [size // cut + (np.arange(cut) < size % cut) for size, cut in zip(sizes, cuts, strict=True)]
    return np.concatenate([*room, np.zeros(0, np.int64)])


def store_cost(location: NDArray[np.integer], tile_offsets: NDArray[np.int32]) -> StoreCost:
    """Count stores, bound and wavefronts of items kept in this order (see `TiledCSL.store_wavefronts`)."""
    begin = tile_offsets.astype(np.int64)
    vectors: Ints = begin[1:] - begin[:-1]
    stores = _stores(vectors * 4)
    tile = np.repeat(np.arange(len(vectors)), vectors * 4)
    inside = np.arange(len(location)) - np.repeat(begin[:-1] * 4, vectors * 4)
    store = np.repeat(np.cumsum(stores) - stores, vectors * 4) + inside // 128 * 4 + inside % 4
    word = location.astype(np.int64) // HALVES
    achieved = np.zeros(len(vectors), np.int64)
    np.add.at(achieved, np.repeat(np.arange(len(vectors)), stores), _busiest(store, word, int(stores.sum())))
    bound = np.maximum(stores, _busiest(tile, word, len(vectors)))
    return StoreCost(stores, bound, achieved)


def _busiest(group: Ints, word: Ints, groups: int) -> Ints:
    """Most distinct words in any bank, per group: int64[groups]."""
    distinct = np.unique(group * 2**16 + word)
    bank = (distinct >> 16) * BANKS + distinct % BANKS
    words: Ints = np.bincount(bank, minlength=groups * BANKS).reshape(groups, BANKS).max(axis=1)
    return words
