"""A tile of tiled-CSL being unpacked into shared memory, one store of a warp after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.formats.tiled_csl import TILE_K, TILE_M, TiledCSL
from loadsparse.tutorials.views.film import Film

CELL, ROWS, LANES = 12.0, 16, 32


def tile_unpacked(weights: NDArray[Any], tile: int = 0) -> Film:
    """The first 16 rows of a tile of float16 weights [M, K] (pruned); a frame is one store instruction of a warp.

    Raises ValueError for a tile that the matrix does not have.
    """
    encoded = TiledCSL.encode(weights)
    if not 0 <= tile < encoded.tile_offsets.size - 1:
        raise ValueError(f"the matrix has tiles 0 to {encoded.tile_offsets.size - 2}, not {tile}")
    begin, end = (4 * int(offset) for offset in encoded.tile_offsets[tile : tile + 2])
    items = encoded.items[begin:end]
    vectors = items.reshape(-1, 4)
    stores = [vectors[j : j + LANES, v] for j in range(0, len(vectors), LANES) for v in range(4)]
    when: dict[tuple[int, int], int] = {}
    captions = ["Before the first store: the tile was filled with zeros."]
    for frame, store in enumerate(stores, start=1):
        places = (store >> 16).astype(int)
        rows, columns = places // TILE_K, places % TILE_K ^ (places // TILE_K % 8 << 3)
        words = places // 2
        waves = max(len(set(words[words % 32 == bank].tolist())) for bank in range(32))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            when[row, column] = frame
        inside = int((rows < ROWS).sum())
        captions.append(
            f"Store {frame} of {len(stores)}: {store.size} lanes write a 16-bit value each, {inside} of them into these "
            f"rows; {waves} wavefront{'s' if waves > 1 else ''}."
        )
    alt = (
        f"The first {ROWS} of {TILE_M} rows and the {TILE_K} columns of a tile as a grid. At each step the places that a "
        "store has just written are outlined; places written earlier carry a dot."
    )
    film = Film("Unpacking a tile", alt, CELL * TILE_K + 2, CELL * ROWS + 2, captions)
    last = len(captions)
    for row, column in np.ndindex(ROWS, TILE_K):
        at = when.get((row, column))
        film.box(1 + CELL * column, 1 + CELL * row, CELL, CELL, () if at is None else [at])
        if at is not None:
            film.dot(1 + CELL * (column + 0.5), 1 + CELL * (row + 0.5), 2, at=range(at, last))
    return film
