"""Tiled-CSL: the layout against a scalar re-statement, the store order against its bound, refusals by field."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.reference.formats import FormatError, TiledCSL, bank_order


def random_matrix(rows: int, columns: int, density: float, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((rows, columns)).astype(np.float16)
    dense[rng.random((rows, columns)) >= density] = 0
    return dense


@pytest.mark.parametrize("reorder", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 1.0])
def test_layout(density: float, reorder: bool) -> None:
    dense = random_matrix(200, 130, density)
    encoded = TiledCSL.encode(dense, reorder=reorder)
    encoded.validate()
    bits = dense.view(np.uint16)
    for tile in range(2 * 3):
        begin, end = encoded.tile_offsets[tile], encoded.tile_offsets[tile + 1]
        found = [(int(item) & 0xFFFF, int(item) >> 16) for item in encoded.items[4 * begin : 4 * end]]
        wanted = {}
        for row in range(tile // 3 * 128, min(200, tile // 3 * 128 + 128)):
            for column in range(tile % 3 * 64, min(130, tile % 3 * 64 + 64)):
                if bits[row, column]:
                    wanted[row % 128 * 64 + (column % 64 ^ ((row % 8) << 3))] = int(bits[row, column])
        assert {place: value for value, place in found if value} == wanted
        pads = [place for value, place in found if value == 0]
        assert len(pads) == -len(wanted) % 4
        assert len(set(pads) | set(wanted)) == len(found)
    assert encoded.nbytes == 4 * encoded.items.size + 4 * 7


def naive_cost(encoded: TiledCSL) -> tuple[list[int], list[int], list[int]]:
    """Stores, bound and wavefronts tile by tile, with sets."""
    stores, bounds, achieved = [], [], []
    for begin, end in itertools.pairwise(encoded.tile_offsets.tolist()):
        places = (encoded.items[4 * begin : 4 * end] >> 16).reshape(-1, 4)
        count = total = 0
        for group in range(0, len(places), 32):
            for v in range(4):
                words = {int(place) // 2 for place in places[group : group + 32, v]}
                total += max(np.bincount([word % 32 for word in words]))
                count += 1
        words = {int(place) // 2 for place in places.ravel()}
        stores.append(count)
        bounds.append(max([count, *np.bincount([word % 32 for word in words]).tolist()]))
        achieved.append(int(total))
    return stores, bounds, achieved


@pytest.mark.parametrize("reorder", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.4, 1.0])
def test_store_wavefronts_are_counted_right(density: float, reorder: bool) -> None:
    encoded = TiledCSL.encode(random_matrix(256, 100, density), reorder=reorder)
    cost = encoded.store_wavefronts()
    assert (cost.stores.tolist(), cost.bound.tolist(), cost.achieved.tolist()) == naive_cost(encoded)


@pytest.mark.claim(
    id="tiledcsl-size",
    source="arXiv 2309.10285, section 4",
    phrase="Tiled-CSL takes 1/1.66, 1/2.5, 1/5 of the dense bytes at 70, 80, 90% sparsity",
    assumption="2048 x 2048, independent zeros; no gain at 50% and below",
    function="loadsparse.reference.formats.TiledCSL.nbytes",
    status="counted",
)
@pytest.mark.parametrize(("sparsity", "compression"), [(0.5, 1.0), (0.7, 1.66), (0.8, 2.5), (0.9, 5.0)])
def test_compression(sparsity: float, compression: float) -> None:
    dense = random_matrix(1024, 1024, 1 - sparsity)
    ratio = dense.nbytes / TiledCSL.encode(dense).nbytes
    assert abs(ratio / compression - 1) < 0.01


@pytest.mark.claim(
    id="tiledcsl-conflicts",
    source="ours",
    phrase="scattering a tile costs at most 1.01, 1.10, 1.23 wavefronts a store at 70, 80, 90% sparsity, within 0.4% "
    "of the bound max(stores, words in the busiest bank)",
    assumption="independent zeros, whole tiles; any tile gets the fewest wavefronts that Gale-Ryser allows",
    function="loadsparse.reference.formats.bank_order.locations",
    status="counted",
)
@pytest.mark.parametrize(("density", "bar"), [(0.3, 1.01), (0.2, 1.10), (0.1, 1.23)])
def test_degree_reaches_the_bars(density: float, bar: float) -> None:
    """Random 128 x 64 tiles at 70, 80, 90% sparsity; the plain order takes about 3.2 wavefronts a store."""
    dense = random_matrix(1280, 1280, density)
    cost = TiledCSL.encode(dense).store_wavefronts()
    assert cost.degree <= bar
    assert cost.gap <= 0.004 * cost.bound.sum()
    assert TiledCSL.encode(dense, reorder=False).store_wavefronts().degree > 3


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0, 1), banks=st.integers(1, 32), rows=st.integers(1, 128))
def test_skewed_tiles_reach_the_bound_or_the_optimum(seed: int, density: float, banks: int, rows: int) -> None:
    """Items in 1..32 banks and 1..128 rows: every order that beats ours would break Gale-Ryser for all splits."""
    rng = np.random.default_rng(seed)
    grid = np.zeros((128, 32, 2), bool)
    grid[:rows, rng.permutation(32)[:banks]] = rng.random((rows, banks, 2)) < density
    present = bank_order.add_pads(grid.reshape(1, -1))
    assert present.sum() % 4 == 0
    assert (present >= grid.reshape(1, -1)).all()
    order = bank_order.locations(present)
    assert np.array_equal(np.sort(order), np.flatnonzero(present))
    cost = bank_order.store_cost(order, np.array([0, len(order) // 4], np.int32))
    assert cost.achieved[0] >= cost.bound[0]
    if cost.gap:
        assert not _any_split_fits(present.reshape(128, 32, 2), int(cost.achieved[0]) - 1)


def _any_split_fits(grid: Any, wavefronts: int) -> bool:
    """Could any division of `wavefronts` over the stores work? Full stores share some cuts, tail stores the rest.

    Within stores of one size the flattest division is the easiest (majorisation), so only the total that the full
    stores get is searched.
    """
    items = int(grid.sum())
    full, tail = divmod(items // 4, 32)
    sums = [*grid.any(axis=2).sum(axis=0).tolist(), *grid.all(axis=2).sum(axis=0).tolist()]
    for to_full in range(4 * full, wavefronts + 1):
        to_tail = wavefronts - to_full
        if to_tail < (4 if tail else 0) or (to_full and not full) or (to_tail and not tail):
            continue
        rooms = [*_even(32, 4 * full, to_full), *_even(tail, 4, to_tail)]
        rooms.sort(reverse=True)
        if all(sum(rooms[:k]) <= sum(min(k, s) for s in sums) for k in range(1, len(rooms) + 1)):
            return True
    return False


def _even(size: int, stores: int, wavefronts: int) -> list[int]:
    rooms = []
    for store in range(stores):
        cuts = wavefronts // stores + (store < wavefronts % stores)
        rooms += [size // cuts + (i < size % cuts) for i in range(cuts)]
    return rooms


@pytest.mark.parametrize("seed", range(30))
def test_small_tiles_against_brute_force(seed: int) -> None:
    """8 items in 2 vectors (4 stores of 2): the best of all 8!/(2!^4) = 2520 assignments."""
    rng = np.random.default_rng(seed)
    places = rng.choice(128, 8, replace=False) if seed % 2 else rng.choice(64, 8, replace=False) * 64 % 8192
    present = np.zeros((1, 8192), bool)
    present[0, places] = True
    order = bank_order.locations(present)
    cost = bank_order.store_cost(order, np.array([0, 2], np.int32)).achieved[0]

    def best(left: frozenset[int]) -> int:
        if not left:
            return 0
        one = min(left)
        return min(
            (1 if one // 2 % 32 != other // 2 % 32 or one // 2 == other // 2 else 2) + best(left - {one, other})
            for other in left - {one}
        )

    assert cost == best(frozenset(int(p) for p in places))


def test_pads_never_raise_the_bound() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        present = rng.random((1, 8192)) < rng.choice([0.001, 0.02, 0.5, 0.97, 0.9995])
        padded = bank_order.add_pads(present)
        words = present.reshape(128, 32, 2).any(axis=2).sum(axis=0).max()
        after = padded.reshape(128, 32, 2).any(axis=2).sum(axis=0).max()
        assert max(words, 4 * -(-int(padded.sum()) // 128)) >= after


CORRUPTIONS: list[tuple[str, Any, str]] = [
    ("shape", (200, 0), "shape"),
    ("shape", (200, 64), "tile_offsets"),
    ("shape", (129, 130), r"items\[\d+\]: element"),
    ("shape", (199, 130), r"items\[\d+\]: element \(199, "),
    ("shape", (200, 129), r"items\[\d+\]: element \(\d+, 129\)"),
    ("dtype", "f32", "dtype"),
    ("tile_offsets", lambda x: x.astype(np.int64), "tile_offsets"),
    ("tile_offsets", lambda x: x[:-1], "tile_offsets: 6 entries"),
    ("tile_offsets", lambda x: x + 1, r"tile_offsets\[0\]"),
    ("tile_offsets", lambda x: np.where(np.arange(7) == 2, 0, x).astype(np.int32), r"tile_offsets\[2\]"),
    ("tile_offsets", lambda x: np.where(np.arange(7) == 2, 9999, x).astype(np.int32), r"tile_offsets\[2\]"),
    ("items", lambda x: x[:-4], "items: "),
    ("items", lambda x: x.reshape(-1, 4), "items: wants"),
    ("items", lambda x: np.where(np.arange(x.size) == 5, 9000 << 16 | 7, x).astype(np.uint32), r"items\[5\]: location"),
    ("items", lambda x: np.where(np.arange(x.size) == 5, 8192 << 16 | 7, x).astype(np.uint32), r"items\[5\]: location"),
    ("items", lambda x: np.where(np.arange(x.size) == 9, x[3], x).astype(np.uint32), r"items\[9\]: location"),
    ("items", lambda x: x & np.uint32(0xFFFF0000), "items: tile 0"),
]


@pytest.mark.parametrize(("field", "change", "message"), CORRUPTIONS)
def test_validate_names_field_and_position(field: str, change: Any, message: str) -> None:
    encoded = TiledCSL.encode(random_matrix(200, 130, 0.3))
    value = change(getattr(encoded, field)) if callable(change) else change
    with pytest.raises(FormatError, match=message):
        dataclasses.replace(encoded, **{field: value}).validate()


def test_three_pads_fill_a_vector_and_four_are_refused() -> None:
    encoded = TiledCSL.encode(np.ones((1, 1), np.float16))
    assert np.count_nonzero((encoded.items & 0xFFFF) == 0) == 3
    with pytest.raises(FormatError, match="tile 0 holds 4 items of value 0"):
        dataclasses.replace(encoded, items=encoded.items & np.uint32(0xFFFF0000)).validate()


def test_bound_is_not_always_reachable() -> None:
    """Two banks of 9 words, 132 items, so 4 stores of 32 lanes and 4 of one lane: bound 9.

    Of the W wavefronts 4 belong to the one-lane stores, so each of the two banks leaves 9 - (W - 4) words for 4 lanes:
    W = 11 is the least.
    """
    grid = np.zeros((128, 32, 2), bool)
    grid[:9, :2, 0] = True
    grid[:4, 2:30, 0] = True
    grid[:1, 30:, 0] = True
    order = bank_order.locations(grid.reshape(1, -1))
    cost = bank_order.store_cost(order, np.array([0, 33], np.int32))
    assert (cost.stores[0], cost.bound[0], cost.achieved[0], cost.gap) == (8, 9, 11, 2)
    assert (cost.degree, cost.bound_degree) == (11 / 8, 9 / 8)
    assert str(cost) == "1.375 wavefronts a store, bound 1.125, 2 wavefronts above it"
