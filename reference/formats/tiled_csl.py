"""Tiled-CSL, the format of Flash-LLM (arXiv 2309.10285, section 4.1), with a bank-conflict-free item order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.formats import bank_order
from loadsparse.reference.formats.base import SparseFormat, first, from_bits, to_bits
from loadsparse.reference.formats.container import FormatError

TILE_M, TILE_K = 128, 64
TILE = TILE_M * TILE_K
_BATCH = 512  # tiles encoded at once: bounds the temporary memory


@dataclass(frozen=True, eq=False)
class TiledCSL(SparseFormat):
    """M x K in tiles of 128 x 64, row-major over tiles; ragged edges are padded virtually to whole tiles.

    Fields
        shape         (M, K)
        dtype         "f16" or "bf16"
        tile_offsets  int32[tiles + 1], where each tile starts in `items`, counted in vectors of 4 items (16 bytes)
        items         uint32[4 * tile_offsets[-1]]: low 16 bits the value, high 16 bits its location in the tile

    location = row * 64 + (column XOR ((row mod 8) << 3)), the place of the element in a shared-memory tile whose
    16-byte chunks are swizzled for ldmatrix. An item is any value whose bits are not +0. Each tile is padded to whole
    vectors by at most 3 items of value +0 at distinct empty locations, so that no store hits the same place twice.
    The order of the items inside a tile is that of `bank_order`: few shared-memory wavefronts when scattered.

    >>> a = np.array([[0, 1.5], [-0.0, 0]], np.float16)
    >>> csl = TiledCSL.encode(a)
    >>> csl.tile_offsets.tolist(), csl.nbytes
    ([0, 1], 24)
    >>> np.array_equal(csl.decode().view(np.uint16), a.view(np.uint16))
    True
    """

    arrays: ClassVar[dict[str, tuple[type[np.generic], ...]]] = {"tile_offsets": (np.int32,), "items": (np.uint32,)}

    tile_offsets: NDArray[np.int32]
    items: NDArray[np.uint32]

    @classmethod
    def encode(cls, dense: NDArray[Any], dtype: str = "f16", reorder: bool = True) -> Self:
        """Compress dense[M, K]; `reorder=False` leaves the items in order of location (for comparison only)."""
        bits = to_bits(dense, dtype)
        counts, items = [np.zeros(1, np.int64)], []
        for tiles in _tile_batches(bits):
            present = bank_order.add_pads(tiles != 0)
            counts.append(present.sum(axis=1) // 4)
            order = bank_order.locations(present) if reorder else bank_order.plain(present)
            tile_of = np.repeat(np.arange(len(tiles)), counts[-1] * 4)
            items.append(order.astype(np.uint32) << 16 | tiles[tile_of, order])
        offsets = np.cumsum(np.concatenate(counts))
        if offsets[-1] >= 2**31:
            raise FormatError(f"{offsets[-1]} vectors of 4 items do not fit the int32 tile_offsets; split the matrix")
        rows, columns = bits.shape
        return cls((rows, columns), dtype, offsets.astype(np.int32), np.concatenate(items))

    def decode(self) -> NDArray[Any]:
        rows, columns = self.shape
        down, across = _tile_grid(self.shape)
        tiles = np.zeros((down * across, TILE), np.uint16)
        kept = (self.items & 0xFFFF) != 0
        tiles[self._tile_of_item()[kept], (self.items >> 16)[kept]] = (self.items & 0xFFFF)[kept]
        unswizzled = tiles[:, _SWIZZLE].reshape(down, across, TILE_M, TILE_K).swapaxes(1, 2)
        bits = unswizzled.reshape(down * TILE_M, across * TILE_K)[:rows, :columns]
        return from_bits(np.ascontiguousarray(bits), self.dtype)

    def check_layout(self) -> None:
        self._check_fields()
        down, across = _tile_grid(self.shape)
        self._check_offsets("tile_offsets", down * across + 1, TILE // 4)
        self._check_size("items", 4 * int(self.tile_offsets[-1]), "tile_offsets[-1]")

    def validate(self) -> None:
        self.check_layout()
        across = _tile_grid(self.shape)[1]
        tile, location = self._tile_of_item(), (self.items >> 16).astype(np.int64)
        if (at := first(location >= TILE)) is not None:
            raise FormatError(f"TiledCSL.items[{at}]: location {location[at]} in tile {tile[at]} of {TILE} places")
        row = tile // across * TILE_M + location // TILE_K
        column = tile % across * TILE_K + _SWIZZLE[location] % TILE_K
        pad = (self.items & 0xFFFF) == 0
        if (at := first(~pad & ((row >= self.shape[0]) | (column >= self.shape[1])))) is not None:
            raise FormatError(f"TiledCSL.items[{at}]: element ({row[at]}, {column[at]}) outside the shape {self.shape}")
        pads = np.bincount(tile[pad], minlength=1)
        if (at := first(pads > 3)) is not None:
            raise FormatError(f"TiledCSL.items: tile {at} holds {pads[at]} items of value 0, at most 3 pad a tile")
        place = tile * TILE + location
        taken = np.zeros(TILE * (self.tile_offsets.size - 1), np.bool_)
        taken[place] = True
        if np.count_nonzero(taken) != place.size:
            at = int(np.setdiff1d(np.arange(place.size), np.unique(place, return_index=True)[1])[0])
            raise FormatError(f"TiledCSL.items[{at}]: location {location[at]} of tile {tile[at]} is already taken")

    def store_wavefronts(self) -> bank_order.StoreCost:
        """Shared-memory wavefronts that scattering each tile costs, beside the number of stores and the bound.

        Measured from the stored order, whoever packed it: lane L of a warp holds vector 32 j + L of the tile and the
        warp stores item v of its vectors in one instruction; the wavefronts of a store are the most distinct 32-bit
        words in any of the 32 banks.
        """
        return bank_order.store_cost(self.items >> 16, self.tile_offsets)

    def _tile_of_item(self) -> NDArray[np.int64]:
        begin = self.tile_offsets.astype(np.int64)
        return np.repeat(np.arange(begin.size - 1), (begin[1:] - begin[:-1]) * 4)


def _swizzle() -> NDArray[np.int64]:
    """int64[8192]: element row * 64 + column -> location; XOR inside a row, so it is its own inverse."""
    row, column = np.divmod(np.arange(TILE), TILE_K)
    location: NDArray[np.int64] = row * TILE_K + (column ^ (row % 8 << 3))
    return location


_SWIZZLE = _swizzle()


def _tile_grid(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // TILE_M), -(-shape[1] // TILE_K)


def _tile_batches(bits: NDArray[np.uint16]) -> Iterator[NDArray[np.uint16]]:
    """Yield uint16[tiles, 8192], tiles row-major, elements at their swizzled location, +0 outside the matrix."""
    down, across = _tile_grid((bits.shape[0], bits.shape[1]))
    for i in range(down):
        for j in range(0, across, _BATCH):
            width = min(_BATCH, across - j)
            block = bits[i * TILE_M : (i + 1) * TILE_M, j * TILE_K : (j + width) * TILE_K]
            padded = np.zeros((TILE_M, width * TILE_K), np.uint16)
            padded[: block.shape[0], : block.shape[1]] = block
            yield padded.reshape(TILE_M, width, TILE_K).swapaxes(0, 1).reshape(width, TILE)[:, _SWIZZLE]
