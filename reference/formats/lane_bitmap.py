"""A bitmap whose bits and values lie in the order in which a warp's lanes need them for mma fragments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.formats.base import SparseFormat, first, from_bits, to_bits
from loadsparse.reference.formats.container import FormatError

TILE = 64  # a tile is 64 x 64 elements: 4 strips of 16 rows
HEADER, BITMAP = 8, 512  # bytes before the values: where the strips start, one bit per element
UNIT = 16  # tiles start at multiples of this many bytes
SLACK = 4  # a decoder reads up to this many bytes beyond the last value


@dataclass(frozen=True, eq=False)
class LaneBitmap(SparseFormat):
    """M x K in tiles of 64 x 64, row-major over tiles; ragged edges are padded virtually to whole tiles.

    A strip is 16 rows x 64 columns: four A fragments of m16n8k16, in which each of the 32 lanes owns 8 elements. `bits`
    (8 or 4) is how many of them one lane takes from a *group*: a whole fragment, or its left or right half. A word
    carries the bits of 32 / bits lanes of a group; the values of a group follow word after word, lane after lane,
    element after element, so that one population count of a word gives a lane the place of its values.

    Fields
        shape    (M, K)
        dtype    "f16" or "bf16"
        bits     uint32[1], 8 or 4
        offsets  int32[tiles + 1], where each tile starts in `data`, counted in units of 16 bytes
        data     uint32[4 * offsets[-1]]; a tile is
                     uint16[4]      byte at which each strip's values start, from the first value of the tile
                     uint32[4, 32]  words of each strip: group * bits + lane % bits
                     uint16[]       values, strip after strip, group after group, then zeros: 4 bytes or more, up to a unit

    Element e of lane l (in fragment order: registers 0 to 3, low half first; group = e // bits) is bit
    8 (e % 4) + (bits / 4) (l // bits) + e % bits // 4 of its word. An item is any value whose bits are not +0.

    >>> a = np.zeros((9, 1), np.float16)
    >>> a[1], a[8] = 1.5, -0.0
    >>> packed = LaneBitmap.encode(a)
    >>> packed.nbytes, np.array_equal(packed.decode().view(np.uint16), a.view(np.uint16))
    (540, True)
    """

    arrays: ClassVar[dict[str, tuple[type[np.generic], ...]]] = {
        "bits": (np.uint32,), "offsets": (np.int32,), "data": (np.uint32,),
    }  # fmt: skip

    bits: NDArray[np.uint32]
    offsets: NDArray[np.int32]
    data: NDArray[np.uint32]

    @classmethod
    def encode(cls, dense: NDArray[Any], dtype: str = "f16", bits: int | None = None) -> Self:
        """Compress dense[M, K]. bits=None takes 8 where a fragment's values fit the 32 banks (density <= 0.22), else 4."""
        patterns = to_bits(dense, dtype)
        if bits is None:
            bits = 8 if np.count_nonzero(patterns) <= 0.22 * patterns.size else 4
        if bits not in (4, 8):
            raise FormatError(f"bits is 8 (values by fragment) or 4 (by half fragment), not {bits!r}")
        rows, columns = patterns.shape
        down, across = _grid((rows, columns))
        padded = np.zeros((down * TILE, across * TILE), np.uint16)
        padded[:rows, :columns] = patterns
        ordered = _fragments(padded).reshape(-1, 4096)[:, _order(bits)]
        present = ordered != 0
        per_strip = present.reshape(-1, 4, 1024).sum(axis=2)
        units = -(-(HEADER + BITMAP + 2 * per_strip.sum(axis=1) + SLACK) // UNIT)
        offsets = np.concatenate([[0], np.cumsum(units)])
        if offsets[-1] >= 2**31:
            raise FormatError(f"{offsets[-1]} units of 16 bytes do not fit the int32 offsets; split the matrix")
        halves = np.zeros(8 * int(offsets[-1]), np.uint16)
        begin = 8 * offsets[:-1].astype(np.int64)
        starts = 2 * (np.cumsum(per_strip, axis=1) - per_strip)
        halves[begin[:, None] + np.arange(4)] = starts
        words = _pack_words(present, bits)
        halves[begin[:, None] + HEADER // 2 + np.arange(BITMAP // 2)] = words.astype("<u4").view(np.uint16)
        halves[_places(begin, per_strip.sum(axis=1))] = ordered[present]
        return cls(
            (rows, columns), dtype, np.array([bits], np.uint32), offsets.astype(np.int32), halves.view(np.uint32)
        )

    def decode(self) -> NDArray[Any]:
        bits = int(self.bits[0])
        down, across = _grid(self.shape)
        halves = self.data.view(np.uint16)
        begin = 8 * self.offsets[:-1].astype(np.int64)
        present = _unpack_words(self._words(), bits)
        ordered = np.zeros(present.shape, np.uint16)
        ordered[present] = halves[_places(begin, present.sum(axis=1))]
        natural = np.empty_like(ordered)
        natural[:, _order(bits)] = ordered
        rows, columns = self.shape
        return from_bits(np.ascontiguousarray(_matrix(natural, down, across)[:rows, :columns]), self.dtype)

    def check_layout(self) -> None:
        self._check_fields()
        if self.bits.size != 1 or self.bits[0] not in (4, 8):
            raise FormatError(f"LaneBitmap.bits: {self.bits.tolist()[:4]} is neither [4] nor [8]")
        down, across = _grid(self.shape)
        smallest, largest = (-(-(HEADER + BITMAP + 2 * items + SLACK) // UNIT) for items in (0, TILE * TILE))
        self._check_offsets("offsets", down * across + 1, largest, smallest)
        self._check_size("data", 4 * int(self.offsets[-1]), "offsets[-1]")

    def validate(self) -> None:
        self.check_layout()
        down, across = _grid(self.shape)
        sizes = np.diff(self.offsets.astype(np.int64))
        present = _unpack_words(self._words(), int(self.bits[0]))
        counts = present.sum(axis=1)
        if (at := first(sizes != -(-(HEADER + BITMAP + 2 * counts + SLACK) // UNIT))) is not None:
            raise FormatError(f"LaneBitmap.offsets[{at + 1}]: does not fit the {counts[at]} bits of tile {at}")
        inside = np.zeros((down * TILE, across * TILE), np.bool_)
        inside[: self.shape[0], : self.shape[1]] = True
        kept = _fragments(inside).reshape(-1, 4096)[:, _order(int(self.bits[0]))]
        if (at := first((present & ~kept).any(axis=1))) is not None:
            raise FormatError(f"LaneBitmap.data: tile {at} has a bit set outside the shape {self.shape}")
        halves, begin = self.data.view(np.uint16), 8 * self.offsets[:-1].astype(np.int64)
        per_strip = present.reshape(-1, 4, 1024).sum(axis=2)
        starts = halves[begin[:, None] + np.arange(4)]
        if (at := first((starts != 2 * (np.cumsum(per_strip, axis=1) - per_strip)).any(axis=1))) is not None:
            raise FormatError(f"LaneBitmap.data: the strips of tile {at} do not start where its bits say")
        is_value, is_pad = np.zeros(halves.size, np.bool_), np.ones(halves.size, np.bool_)
        is_value[_places(begin, counts)] = True
        is_pad[begin[:, None] + np.arange((HEADER + BITMAP) // 2)] = False
        if (at := first(is_value & (halves == 0))) is not None:
            raise FormatError(f"LaneBitmap.data: the value at byte {2 * at} is +0, which is not stored")
        if (at := first(is_pad & ~is_value & (halves != 0))) is not None:
            raise FormatError(f"LaneBitmap.data: the pad at byte {2 * at} is {halves[at]}, must be 0")

    def _words(self) -> NDArray[np.uint32]:
        """uint32[tiles, 128]: the bitmaps."""
        begin = 4 * self.offsets[:-1].astype(np.int64)
        words: NDArray[np.uint32] = self.data[begin[:, None] + HEADER // 4 + np.arange(BITMAP // 4)]
        return words


def _grid(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // TILE), -(-shape[1] // TILE)


def _fragments(padded: NDArray[Any]) -> NDArray[Any]:
    """[down * 64, across * 64] -> [tiles, strip, fragment, register, lane, half]."""
    down, across = padded.shape[0] // TILE, padded.shape[1] // TILE
    # tile row, strip, upper/lower, g; tile column, fragment, left/right, t, half
    split = padded.reshape(down, 4, 2, 8, across, 4, 2, 4, 2)
    return split.transpose(0, 4, 1, 5, 6, 2, 3, 7, 8).reshape(down * across, 4, 4, 4, 32, 2)


def _matrix(natural: NDArray[Any], down: int, across: int) -> NDArray[Any]:
    """The inverse of `_fragments`."""
    split = natural.reshape(down, across, 4, 4, 2, 2, 8, 4, 2)
    return split.transpose(0, 2, 5, 6, 1, 3, 4, 7, 8).reshape(down * TILE, across * TILE)


def _order(bits: int) -> NDArray[np.intp]:
    """Positions in `_fragments` order of a tile's elements, in the order in which their values are stored."""
    place = np.arange(4096).reshape(4, 4, 8 // bits, bits // 2, 32 // bits, bits, 2)
    # strip, fragment, group, register, u, q, half -> strip, fragment, group, q, u, register, half
    return place.transpose(0, 1, 2, 5, 4, 3, 6).reshape(4096)


def _pack_words(present: NDArray[np.bool_], bits: int) -> NDArray[np.uint32]:
    """bool[tiles, 4096] in order of storage -> uint32[tiles, 128]."""
    split = present.reshape(-1, 32 // bits, bits // 4, 4)  # word, u, e // 4, e % 4
    flags = split.transpose(0, 3, 1, 2).reshape(-1, 4, 8)  # bit = 8 (e % 4) + (bits / 4) u + e // 4
    packed = np.packbits(flags, axis=2, bitorder="little").reshape(-1, 4)
    return np.ascontiguousarray(packed).view("<u4").astype(np.uint32).reshape(-1, 128)


def _unpack_words(words: NDArray[np.uint32], bits: int) -> NDArray[np.bool_]:
    """The inverse of `_pack_words`."""
    flags = np.unpackbits(words.astype("<u4").view(np.uint8).reshape(-1, 4, 1), axis=2, bitorder="little")
    split = flags.reshape(-1, 4, 32 // bits, bits // 4).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(split).astype(np.bool_).reshape(-1, 4096)


def _places(begin: NDArray[np.int64], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Index, in 16-bit units, of every value, tile after tile."""
    rank = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    places: NDArray[np.int64] = np.repeat(begin + (HEADER + BITMAP) // 2, counts) + rank
    return places
