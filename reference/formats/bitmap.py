"""One bit per element and the nonzero values packed: 2 d + 1/8 bytes per element at density d."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.formats.base import SparseFormat, first, from_bits, to_bits
from loadsparse.reference.formats.container import FormatError

GROUP = 64  # a group is 64 x 64 elements: 64 blocks of 8 x 8
_ALIGN = 8  # values of a group start at a multiple of 16 bytes


@dataclass(frozen=True, eq=False)
class Bitmap(SparseFormat):
    """M x K in groups of 64 x 64, row-major over groups; ragged edges are padded virtually to whole groups.

    A group is 4 strips of 16 rows, a strip 4 tiles of 16 x 16 along K, a tile 4 blocks of 8 x 8 in the order top left,
    bottom left, top right, bottom right: the order of the four A registers of m16n8k16.

    Fields
        shape    (M, K)
        dtype    "f16" or "bf16"
        bitmaps  uint64[64 * groups], one word per block; bit 8 r + c tells that element (r, c) of the block is an item
        offsets  int32[groups + 1], where each group starts in `values`, counted in units of 8 values (16 bytes)
        values   uint16[8 * offsets[-1]], the items' bit patterns in order of blocks and bits, each group padded with 0

    An item is any value whose bits are not +0. Layout after SpInfer (EuroSys 2025), section 4.

    >>> a = np.zeros((9, 1), np.float16)
    >>> a[1], a[8] = 1.5, -0.0
    >>> bitmap = Bitmap.encode(a)
    >>> bitmap.bitmaps[:3].tolist(), bitmap.values[:3].tolist(), bitmap.nbytes
    ([256, 1, 0], [15872, 32768, 0], 536)
    """

    arrays: ClassVar[dict[str, tuple[type[np.generic], ...]]] = {
        "bitmaps": (np.uint64,), "offsets": (np.int32,), "values": (np.uint16,),
    }  # fmt: skip

    bitmaps: NDArray[np.uint64]
    offsets: NDArray[np.int32]
    values: NDArray[np.uint16]

    @classmethod
    def encode(cls, dense: NDArray[Any], dtype: str = "f16") -> Self:
        bits = to_bits(dense, dtype)
        rows, columns = bits.shape
        down, across = _grid((rows, columns))
        padded = np.zeros((down * GROUP, across * GROUP), np.uint16)
        padded[:rows, :columns] = bits
        blocks = _to_blocks(padded)  # [groups, 64 blocks, 64 bits]
        present = blocks != 0
        counts = present.sum(axis=(1, 2))
        offsets = np.concatenate([[0], np.cumsum(-(-counts // _ALIGN))])
        if offsets[-1] >= 2**31:
            raise FormatError(f"{offsets[-1]} units of 8 values do not fit the int32 offsets; split the matrix")
        values = np.zeros(_ALIGN * int(offsets[-1]), np.uint16)
        values[_places(offsets, counts)] = blocks[present]
        bitmaps = np.packbits(present.ravel(), bitorder="little").view("<u8").astype(np.uint64)
        return cls((rows, columns), dtype, bitmaps, offsets.astype(np.int32), values)

    def decode(self) -> NDArray[Any]:
        present = self._present()
        blocks = np.zeros(present.shape, np.uint16)
        blocks[present] = self.values[_places(self.offsets, present.sum(axis=(1, 2)))]
        rows, columns = self.shape
        return from_bits(np.ascontiguousarray(_from_blocks(blocks, self.shape)[:rows, :columns]), self.dtype)

    def check_layout(self) -> None:
        self._check_fields()
        down, across = _grid(self.shape)
        self._check_size("bitmaps", GROUP * down * across, f"the shape {self.shape}")
        self._check_offsets("offsets", down * across + 1, GROUP * GROUP // _ALIGN)
        self._check_size("values", _ALIGN * int(self.offsets[-1]), "offsets[-1]")

    def validate(self) -> None:
        self.check_layout()
        down, across = _grid(self.shape)
        present = self._present()
        inside = np.zeros((down * GROUP, across * GROUP), np.bool_)
        inside[: self.shape[0], : self.shape[1]] = True
        if (at := first((present & ~_to_blocks(inside)).any(axis=2).ravel())) is not None:
            raise FormatError(f"Bitmap.bitmaps[{at}]: a bit is set outside the shape {self.shape}")
        counts = present.sum(axis=(1, 2))
        if (at := first(np.diff(self.offsets.astype(np.int64)) != -(-counts // _ALIGN))) is not None:
            raise FormatError(f"Bitmap.offsets[{at + 1}]: does not fit the {counts[at]} bits of group {at}")
        is_item = np.zeros(self.values.size, np.bool_)
        is_item[_places(self.offsets, counts)] = True
        if (at := first((self.values != 0) != is_item)) is not None:
            wrong = "+0 is not stored" if is_item[at] else f"a pad holds {self.values[at]}, must be 0"
            raise FormatError(f"Bitmap.values[{at}]: {wrong}")

    def _present(self) -> NDArray[np.bool_]:
        """bool[groups, 64 blocks, 64 bits]."""
        bits = np.unpackbits(self.bitmaps.astype("<u8").view(np.uint8), bitorder="little")
        return bits.astype(np.bool_).reshape(-1, GROUP, GROUP)


def entropy_floor(density: float) -> float:
    """Least mean bytes per 16-bit element when each is kept with probability d on its own: 2 d + H(d) / 8, H in bits.

    Raises ValueError outside [0, 1].

    >>> [round(entropy_floor(d), 3) for d in (0.3, 0.2, 0.1)]
    [0.71, 0.49, 0.259]
    """
    if not 0 <= density <= 1:
        raise ValueError(f"a density lies in [0, 1], not {density}")
    return 2 * density - sum(p * math.log2(p) for p in (density, 1 - density) if p) / 8


def _grid(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // GROUP), -(-shape[1] // GROUP)


def _to_blocks(padded: NDArray[Any]) -> NDArray[Any]:
    """[down * 64, across * 64] -> [groups, 64 blocks, 64 elements]."""
    down, across = padded.shape[0] // GROUP, padded.shape[1] // GROUP
    split = padded.reshape(down, 4, 2, 8, across, 4, 2, 8)  # group, strip, upper/lower, r; group, tile, left/right, c
    return split.transpose(0, 4, 1, 5, 6, 2, 3, 7).reshape(down * across, GROUP, GROUP)


def _from_blocks(blocks: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    down, across = _grid(shape)
    split = blocks.reshape(down, across, 4, 4, 2, 2, 8, 8)
    return split.transpose(0, 2, 5, 6, 1, 3, 4, 7).reshape(down * GROUP, across * GROUP)


def _places(offsets: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Index in `values` of every item, group after group."""
    begin = np.repeat(_ALIGN * offsets[:-1].astype(np.int64), counts)
    rank = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    places: NDArray[np.int64] = begin + rank
    return places
