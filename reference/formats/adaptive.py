"""Every tile in the form that suits its density: empty, gap codes, a bitmap, or dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.formats import delta
from loadsparse.reference.formats.base import SparseFormat, first, from_bits, to_bits
from loadsparse.reference.formats.container import FormatError
from loadsparse.reference.formats.lane_bitmap import LaneBitmap

TILE, UNIT = 64, 16  # rows and columns of a tile; tiles start at multiples of 16 bytes
BITMAP, EMPTY, DENSE = 0, 1, 16  # kinds beside the widths of `delta`
KINDS = {BITMAP: "bitmap", EMPTY: "empty", **{width: f"delta{width}" for width in delta.WIDTHS}, DENSE: "dense"}
"""First halfword of a tile -> the name of its form."""
DENSE_START = 16  # byte at which the elements of a dense tile start
FEWEST = 740
"""From this many items on a bitmap lies within 1.10 of the entropy floor, and is the decode with the fewest wavefronts."""


@dataclass(frozen=True, eq=False)
class Adaptive(SparseFormat):
    """M x K in tiles of 64 x 64, row-major over tiles; ragged edges are padded virtually to whole tiles.

    The first halfword of a tile is its kind, a key of `KINDS`:

        bitmap   a tile of `LaneBitmap` (whose first halfword is 0)
        delta    gap codes of 5, 6 or 8 bits, see `delta.pack`
        dense    16 bytes: the kind and zeros; then all elements
        empty    16 bytes: the kind and zeros

    Positions of delta and dense tiles: (half of 32 columns, pair of strips, fragment of 16 columns in the half, strip of 16
    rows in the pair, lane, element), so that a lane's 8 elements of a fragment of m16n8k16 are 16 consecutive bytes.

    Fields
        shape    (M, K)
        dtype    "f16" or "bf16"
        bits     uint32[1], 8 or 4: of the bitmap tiles, see `LaneBitmap`
        offsets  int32[tiles + 1], where each tile starts in `data`, counted in units of 16 bytes
        data     uint32[4 * offsets[-1]]

    A tile without items is empty; with 740 or more it is a bitmap, or dense where that is smaller; otherwise the smallest
    form is taken (of equal ones the first in the order bitmap, delta, dense). The bitmap tiles have 8 bits a lane where at
    most 0.22 of their elements are items, else 4.

    >>> a = np.zeros((64, 128), np.float16)
    >>> a[3, 100] = 1.5
    >>> packed = Adaptive.encode(a)
    >>> packed.names(), packed.nbytes, np.array_equal(packed.decode(), a)
    (['empty', 'delta5'], 64, True)
    """

    arrays: ClassVar[dict[str, tuple[type[np.generic], ...]]] = {
        "bits": (np.uint32,), "offsets": (np.int32,), "data": (np.uint32,),
    }  # fmt: skip

    bits: NDArray[np.uint32]
    offsets: NDArray[np.int32]
    data: NDArray[np.uint32]

    @classmethod
    def encode(cls, dense: NDArray[Any], dtype: str = "f16", kind: int | None = None) -> Self:
        """Compress dense[M, K].  kind: the form of every tile, instead of the best."""
        patterns = to_bits(dense, dtype)
        rows, columns = patterns.shape
        tiles = _tiles(patterns)
        items, bits = np.count_nonzero(tiles, axis=1), 8
        if kind is None:
            forms = {other: _pack(tiles, other, bits) for other in (BITMAP, *delta.WIDTHS, DENSE)}
            kinds = _choose(items, {other: units for other, (units, _) in forms.items()})
            forms[EMPTY] = _pack(tiles, EMPTY, bits)
        elif kind not in KINDS or (kind == EMPTY and tiles.any()):
            raise FormatError(
                f"kind is one of {', '.join(map(str, KINDS))}, and 1 (empty) only for zeros, not {kind!r}"
            )
        else:
            forms, kinds = {kind: _pack(tiles, kind, bits)}, np.full(len(tiles), kind)
        if _crowded(items[kinds == BITMAP]):
            bits = 4
            forms[BITMAP] = _pack(tiles, BITMAP, bits)
        sizes = np.stack([forms[other][0] if other in forms else np.zeros(len(tiles), np.int64) for other in KINDS])
        units = np.choose([list(KINDS).index(int(one)) for one in kinds], sizes)
        offsets = np.concatenate([[0], np.cumsum(units)])
        if offsets[-1] >= 2**31:
            raise FormatError(f"{offsets[-1]} units of 16 bytes do not fit the int32 offsets; split the matrix")
        halves = np.empty(8 * int(offsets[-1]), np.uint16)
        for other, (own, packed) in forms.items():
            begin = np.cumsum(own) - own
            for tile in np.flatnonzero(kinds == other):
                halves[8 * offsets[tile] : 8 * offsets[tile + 1]] = packed[8 * begin[tile] : 8 * (begin + own)[tile]]
        own_bits = np.array([bits], np.uint32)
        return cls((rows, columns), dtype, own_bits, offsets.astype(np.int32), halves.view(np.uint32))

    def decode(self) -> NDArray[Any]:
        tiles = np.stack([_unpack(self._tile(tile), int(self.bits[0])) for tile in range(len(self.offsets) - 1)])
        rows, columns = self.shape
        return from_bits(np.ascontiguousarray(_matrix(tiles, self.shape)[:rows, :columns]), self.dtype)

    def check_layout(self) -> None:
        self._check_fields()
        if self.bits.size != 1 or self.bits[0] not in (4, 8):
            raise FormatError(f"Adaptive.bits: {self.bits.tolist()[:4]} is neither [4] nor [8]")
        bits, (down, across) = int(self.bits[0]), _grid(self.shape)
        full = np.ones((1, TILE * TILE), np.uint16)
        largest = max(int(_pack(full, kind, bits)[0][0]) for kind in KINDS if kind != EMPTY)
        self._check_offsets("offsets", down * across + 1, largest, least=1)
        self._check_size("data", 4 * int(self.offsets[-1]), "offsets[-1]")

    def validate(self) -> None:
        self.check_layout()
        bits = int(self.bits[0])
        inside = np.zeros(self.shape, np.uint16)
        inside[...] = 1
        for tile, kept in enumerate(_tiles(inside)):
            packed = self._tile(tile)
            if int(packed[0]) not in KINDS:
                raise FormatError(
                    f"Adaptive.data: tile {tile} has the kind {packed[0]}, must be one of {sorted(KINDS)}"
                )
            try:
                elements = _unpack(packed, bits)
            except FormatError as error:
                raise FormatError(f"Adaptive.data: tile {tile} ({KINDS[int(packed[0])]}): {error}") from None
            if (elements[kept == 0] != 0).any():
                raise FormatError(f"Adaptive.data: tile {tile} has an item outside the shape {self.shape}")
            again = _pack(elements[None], int(packed[0]), bits)[1]  # one way to write a tile: nothing hides in pads
            at = first(again != packed) if again.size == packed.size else 0
            if at is not None:
                where = f"differs at byte {2 * at}" if again.size == packed.size else f"has {2 * packed.size} bytes"
                raise FormatError(f"Adaptive.data: tile {tile} ({KINDS[int(packed[0])]}) {where} from its one encoding")

    def kinds(self) -> NDArray[np.uint16]:
        """uint16[tiles], the kind of each tile."""
        kinds: NDArray[np.uint16] = self.data.view(np.uint16)[8 * self.offsets[:-1].astype(np.int64)]
        return kinds

    def names(self) -> list[str]:
        """The kind of each tile in words."""
        return [KINDS[int(kind)] for kind in self.kinds()]

    def rounds(self) -> int:
        """Most octets of any half of a delta tile, in rounds of 32 lanes, at least 1."""
        begin = 8 * self.offsets[:-1].astype(np.int64)
        octets = self.data.view(np.uint16)[begin[:, None] + [1, 2]][np.isin(self.kinds(), delta.WIDTHS)]
        return max(1, -(-int(octets.max(initial=0)) // 32))

    def _tile(self, tile: int) -> NDArray[np.uint16]:
        return self.data.view(np.uint16)[8 * int(self.offsets[tile]) : 8 * int(self.offsets[tile + 1])]


def _choose(items: NDArray[np.int64], units: dict[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The kind of each tile from its number of items and its size in every form."""
    forms = np.array(list(units))
    sizes = np.stack(list(units.values()))
    sizes[np.isin(forms, delta.WIDTHS)[:, None] & (items >= FEWEST)] = np.iinfo(np.int64).max
    return np.where(items == 0, EMPTY, forms[np.argmin(sizes, axis=0)])


def _crowded(items: NDArray[np.int64]) -> bool:
    """Whether the values of a fragment in these tiles would not fit the 32 banks."""
    return int(items.sum()) > 0.22 * TILE * TILE * len(items)


def _pack(tiles: NDArray[np.uint16], kind: int, bits: int) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Units of 16 bytes of each tile in this form, and their bytes one after the other."""
    if kind in delta.WIDTHS:
        return delta.pack(tiles, kind)
    if kind == BITMAP:
        stacked = LaneBitmap.encode(_matrix(tiles, (TILE * len(tiles), TILE)), "bf16", bits)
        units = stacked.offsets[1:].astype(np.int64) - stacked.offsets[:-1]
        return units, stacked.data.view(np.uint16)
    size = DENSE_START // 2 + (TILE * TILE if kind == DENSE else 0)
    halves = np.zeros((len(tiles), size), np.uint16)
    halves[:, 0] = kind
    if kind == DENSE:
        halves[:, DENSE_START // 2 :] = tiles
    return np.full(len(tiles), size // 8, np.int64), halves.ravel()


def _unpack(packed: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """The elements uint16[4096] of one tile.  Raises FormatError."""
    kind = int(packed[0])
    if kind in delta.WIDTHS:
        return delta.unpack(packed, kind)
    if kind == BITMAP:
        offsets = np.array([0, packed.size // 8], np.int32)
        bitmap = LaneBitmap((TILE, TILE), "bf16", np.array([bits], np.uint32), offsets, packed.copy().view(np.uint32))
        bitmap.validate()
        found: NDArray[np.uint16] = _tiles(bitmap.decode())[0]
        return found
    size = DENSE_START // 2 + (TILE * TILE if kind == DENSE else 0)
    if packed.size != size:
        raise FormatError(f"its size is {2 * packed.size} bytes, must be {2 * size}")
    elements: NDArray[np.uint16] = packed[DENSE_START // 2 :] if kind == DENSE else np.zeros(TILE * TILE, np.uint16)
    return elements


def _grid(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // TILE), -(-shape[1] // TILE)


_SPLIT = (2, 2, 2, 8), (2, 2, 2, 4, 2)  # strip pair, strip, upper/lower, g; half, fragment, left/right, t, low/high
_AXES = (
    0,
    5,
    6,
    1,
    7,
    2,
    4,
    9,
    8,
    3,
    10,
)  # tile row, tile column; half, pair, fragment, strip; g, t; register; low/high


def _tiles(matrix: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """[M, K] -> [tiles, 4096] in the order of positions, zeros outside."""
    down, across = _grid((matrix.shape[0], matrix.shape[1]))
    padded = np.zeros((down * TILE, across * TILE), np.uint16)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    split = padded.reshape(down, *_SPLIT[0], across, *_SPLIT[1])
    return np.ascontiguousarray(split.transpose(_AXES).reshape(down * across, TILE * TILE))


def _matrix(tiles: NDArray[np.uint16], shape: tuple[int, int]) -> NDArray[np.uint16]:
    """The inverse of `_tiles`, padded to whole tiles."""
    down, across = _grid(shape)
    sizes = (down, *_SPLIT[0], across, *_SPLIT[1])
    split = tiles.reshape([sizes[axis] for axis in _AXES])
    matrix: NDArray[np.uint16] = split.transpose(np.argsort(_AXES)).reshape(down * TILE, across * TILE)
    return matrix
