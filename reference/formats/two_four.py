"""2:4 structured sparsity in the layout of mma.sp.m16n8k32: at most 2 of 4 neighbouring elements of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.formats.base import SparseFormat, first, from_bits, to_bits
from loadsparse.reference.formats.container import FormatError

TILE_M, TILE_K = 16, 32
_NIBBLES = (0b0100, 0b1000, 0b1001, 0b1100, 0b1101, 0b1110)  # second index in the high two bits, above the first


@dataclass(frozen=True, eq=False)
class TwoFour(SparseFormat):
    """M x K in tiles of 16 x 32, padded virtually to whole tiles (M' x K'); a chunk is 4 neighbours in a row.

    Fields
        shape     (M, K)
        dtype     "f16" or "bf16"
        values    uint16[M' * K' / 2], row-major [M', K' / 2]: the two kept elements of every chunk, in order of columns
        metadata  uint32[M' * K' / 32], 16 words per tile, tiles row-major: word 2 g + p is what lane 4 g + p supplies
                  to mma.sp with selector 0: bits 15..0 for row g, bits 31..16 for row g + 8, four nibbles for the
                  chunks 4 p .. 4 p + 3; low two bits of a nibble the first kept position, high two bits the second

    A chunk with fewer than two items (bits not +0) keeps its lowest free positions with value +0.

    >>> a = np.array([[0, 0, 1.5, -0.0]], np.float16)
    >>> two_four = TwoFour.encode(a)
    >>> two_four.values[:2].tolist(), bin(two_four.metadata[0] & 15)
    ([15872, 32768], '0b1110')
    """

    arrays: ClassVar[dict[str, tuple[type[np.generic], ...]]] = {"values": (np.uint16,), "metadata": (np.uint32,)}

    values: NDArray[np.uint16]
    metadata: NDArray[np.uint32]

    @classmethod
    def encode(cls, dense: NDArray[Any], dtype: str = "f16") -> Self:
        """Raises FormatError that names the first chunk with more than two items."""
        bits = to_bits(dense, dtype)
        chunks = _chunks(bits)
        present = chunks != 0
        counts = present.sum(axis=2)
        if (counts > 2).any():
            row, chunk = (int(i) for i in np.argwhere(counts > 2)[0])
            raise FormatError(
                f"not 2:4: row {row}, columns {4 * chunk}..{4 * chunk + 3} hold {counts[row, chunk]} items"
            )
        # Items first, then the lowest free positions; both sorted by column.
        position = np.sort(np.argsort(~present, axis=2, kind="stable")[:, :, :2], axis=2)
        values = np.take_along_axis(chunks, position, axis=2)
        nibble = (position[:, :, 0] | position[:, :, 1] << 2).astype(np.uint32)
        return cls((bits.shape[0], bits.shape[1]), dtype, values.ravel(), _pack(nibble))

    def decode(self) -> NDArray[Any]:
        nibble = self._nibbles()
        chunks = np.zeros((*nibble.shape, 4), np.uint16)
        position = np.stack([nibble & 3, nibble >> 2], axis=2).astype(np.int64)
        np.put_along_axis(chunks, position, self.values.reshape(*nibble.shape, 2), axis=2)
        rows, columns = self.shape
        bits = chunks.reshape(nibble.shape[0], -1)[:rows, :columns]
        return from_bits(np.ascontiguousarray(bits), self.dtype)

    def check_layout(self) -> None:
        self._check_fields()
        rows, columns = _padded(self.shape)
        self._check_size("values", rows * columns // 2, f"the shape {self.shape}")
        self._check_size("metadata", rows * columns // 32, f"the shape {self.shape}")

    def validate(self) -> None:
        self.check_layout()
        rows, columns = _padded(self.shape)
        nibble = self._nibbles()
        wrong = np.argwhere(~np.isin(nibble, _NIBBLES))
        if wrong.size:
            row, chunk = (int(i) for i in wrong[0])
            tile = row // TILE_M * (columns // TILE_K) + chunk // 8
            word = 16 * tile + row % 8 * 2 + chunk % 8 // 4
            raise FormatError(
                f"TwoFour.metadata[{word}]: nibble {nibble[row, chunk]:04b} of row {row}, columns {4 * chunk}.."
                f"{4 * chunk + 3} is not two rising positions"
            )
        column = 4 * np.arange(columns // 4)[:, None] + np.stack([nibble & 3, nibble >> 2], axis=2)
        outside = (column >= self.shape[1]) | (np.arange(rows)[:, None, None] >= self.shape[0])
        if (at := first((outside & (self.values.reshape(outside.shape) != 0)).ravel())) is not None:
            raise FormatError(f"TwoFour.values[{at}]: {self.values[at]} outside the shape {self.shape}, must be 0")

    @staticmethod
    def split(dense: NDArray[Any], dtype: str = "f16") -> tuple[NDArray[Any], NDArray[Any]]:
        """Two matrices with disjoint items that together hold every item: a 2:4 part and the rest (SparTA, OSDI 2022).

        Each chunk gives its first two items to the 2:4 part. At density d of independent items the rest has the density
        (4 d^3 (1 - d) + 2 d^4) / 4.
        """
        bits = to_bits(dense, dtype)
        present = _chunks(bits) != 0
        kept = (present & (np.cumsum(present, axis=2) <= 2)).reshape(len(present), -1)
        kept = kept[: bits.shape[0], : bits.shape[1]]
        zero = np.uint16(0)
        return from_bits(np.where(kept, bits, zero), dtype), from_bits(np.where(kept, zero, bits), dtype)

    def _nibbles(self) -> NDArray[np.uint32]:
        """uint32[M', K' / 4]: the nibble of every chunk (the inverse of `_pack`)."""
        rows, columns = _padded(self.shape)
        words = self.metadata.reshape(rows // TILE_M, columns // TILE_K, 8, 1, 2, 1)
        shift = 16 * np.arange(2).reshape(2, 1, 1) + 4 * np.arange(4)  # [row half, p, chunk]
        nibbles = words >> shift.astype(np.uint32) & np.uint32(15)  # [down, across, g, half, p, chunk]
        return nibbles.transpose(0, 3, 2, 1, 4, 5).reshape(rows, columns // 4)


def _padded(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // TILE_M) * TILE_M, -(-shape[1] // TILE_K) * TILE_K


def _chunks(bits: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """uint16[M', K' / 4, 4], +0 outside the matrix."""
    padded = np.zeros(_padded((bits.shape[0], bits.shape[1])), np.uint16)
    padded[: bits.shape[0], : bits.shape[1]] = bits
    return padded.reshape(len(padded), -1, 4)


def _pack(nibble: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """uint32[M', K' / 4] nibbles -> metadata words, tile after tile."""
    rows, chunks = nibble.shape
    split = nibble.reshape(rows // TILE_M, 2, 8, chunks // 8, 2, 4)  # down, row half, g, across, p, chunk
    shift = (16 * np.arange(2).reshape(2, 1, 1, 1, 1) + 4 * np.arange(4)).astype(np.uint32)
    words = np.bitwise_or.reduce(np.bitwise_or.reduce(split << shift, axis=5), axis=1)  # [down, g, across, p]
    metadata: NDArray[np.uint32] = words.transpose(0, 2, 1, 3).ravel()
    return metadata
