"""What every sparse format shares: 16-bit patterns in and out, one error type, exact bytes, save and load."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.formats import container
from loadsparse.reference.formats.container import FormatError

DTYPES = ("f16", "bf16")


def to_bits(dense: NDArray[Any], dtype: str) -> NDArray[np.uint16]:
    """The bit patterns uint16[M, K] of a dense matrix: float16 for "f16", uint16 patterns for "bf16".

    Raises FormatError for another dtype, another rank, or an empty matrix.
    """
    if dtype not in DTYPES:
        raise FormatError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    wanted = np.float16 if dtype == "f16" else np.uint16
    dense = np.asarray(dense)
    if dense.dtype != wanted:
        raise FormatError(f"a {dtype} matrix is {np.dtype(wanted).name}[M, K], not {dense.dtype}; convert it first")
    if dense.ndim != 2 or 0 in dense.shape:
        raise FormatError(f"a matrix has the shape [M, K] with M, K >= 1, not {list(dense.shape)}")
    return np.ascontiguousarray(dense).view(np.uint16)


def from_bits(bits: NDArray[np.uint16], dtype: str) -> NDArray[Any]:
    """The inverse of `to_bits`: a float16 view for "f16", the patterns themselves for "bf16"."""
    return bits.view(np.float16) if dtype == "f16" else bits


@dataclass(frozen=True, eq=False)
class SparseFormat(ABC):
    """A compressed matrix of `shape` (M, K) whose elements are `dtype` ("f16" or "bf16").

    `arrays` names the fields that a kernel reads, with the types they may have; `nbytes` is their size and `save`
    writes them.
    """

    version: ClassVar[int] = 1
    arrays: ClassVar[dict[str, tuple[type[np.generic], ...]]] = {}

    shape: tuple[int, int]
    dtype: str

    @classmethod
    @abstractmethod
    def encode(cls, dense: NDArray[Any], dtype: str = "f16") -> Self:
        """Compress dense[M, K] (float16 for "f16", uint16 bit patterns for "bf16")."""

    @abstractmethod
    def decode(self) -> NDArray[Any]:
        """The dense matrix, equal to the encoded one in every bit."""

    @abstractmethod
    def check_layout(self) -> None:
        """Raise FormatError unless shape, dtype, and the types, sizes and offsets of the arrays fit one another.

        Reads no item, so that it costs little however large the matrix is.
        """

    @abstractmethod
    def validate(self) -> None:
        """Raise FormatError that names the field and the position of the first fault, of the layout or of any item."""

    @property
    def nbytes(self) -> int:
        """Exact size of the arrays in bytes (what must cross DRAM at least once)."""
        return sum(int(getattr(self, name).nbytes) for name in self.arrays)

    def save(self, path: str | Path) -> None:
        """Write a safetensors container (no pickle) beside `path`, then rename it."""
        metadata = {
            "format": type(self).__name__,
            "version": str(self.version),
            "shape": json.dumps(list(self.shape)),
            "dtype": self.dtype,
        }
        container.write(path, {name: getattr(self, name) for name in self.arrays}, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and validate what `save` wrote.

        Raises FormatError (a ValueError) for a truncated file, a pickle, another format or version, or a corrupt
        structure; no allocation exceeds the size of the file.
        """
        arrays, metadata = container.read(path)
        if metadata.get("format") != cls.__name__:
            raise FormatError(f"{path}: holds {metadata.get('format', 'no sparse format')}, not {cls.__name__}")
        if metadata.get("version") != str(cls.version):
            raise FormatError(
                f"{path}: {cls.__name__} version {metadata.get('version')}, this program reads {cls.version}"
            )
        if set(arrays) != set(cls.arrays):
            raise FormatError(f"{path}: holds the arrays {sorted(arrays)}, {cls.__name__} has {sorted(cls.arrays)}")
        try:
            shape = json.loads(metadata.get("shape", ""))
        except (ValueError, RecursionError):
            shape = None
        if not isinstance(shape, list) or len(shape) != 2 or not all(type(size) is int for size in shape):
            raise FormatError(f"{path}: shape {metadata.get('shape')!r:.80} is not [M, K]")
        loaded = cls(shape=(shape[0], shape[1]), dtype=metadata.get("dtype", ""), **arrays)
        try:
            loaded.validate()
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
        return loaded

    def _check_fields(self) -> None:
        """Shape, dtype and the rank and type of every array: the part of `check_layout` that is the same for all."""
        name = type(self).__name__
        if len(self.shape) != 2 or not all(isinstance(size, int) and 1 <= size < 2**31 for size in self.shape):
            raise FormatError(f"{name}.shape: {self.shape} is not (M, K) with 1 <= M, K < 2**31")
        if self.dtype not in DTYPES:
            raise FormatError(f"{name}.dtype: {self.dtype!r} is not one of {', '.join(DTYPES)}")
        for field, kinds in self.arrays.items():
            array = getattr(self, field)
            if not isinstance(array, np.ndarray) or array.dtype not in kinds or array.ndim != 1:
                found = f"{array.dtype}, rank {array.ndim}" if isinstance(array, np.ndarray) else type(array).__name__
                wanted = " or ".join(np.dtype(kind).name for kind in kinds)
                raise FormatError(f"{name}.{field}: wants {wanted}, rank 1, not {found}")
            if not array.flags.c_contiguous:
                raise FormatError(f"{name}.{field}: its elements do not lie one after the other; copy it")

    def _check_size(self, field: str, wanted: int, why: str) -> None:
        found = getattr(self, field).size
        if found != wanted:
            raise FormatError(f"{type(self).__name__}.{field}: {found} entries, {why} wants {wanted}")

    def _check_offsets(self, field: str, entries: int, most: int, least: int = 0) -> None:
        """An offsets array starts at 0, rises by `least` to `most`, and has `entries` entries."""
        name, offsets = type(self).__name__, getattr(self, field)
        self._check_size(field, entries, f"the shape {self.shape}")
        if offsets[0] != 0:
            raise FormatError(f"{name}.{field}[0]: {offsets[0]}, must be 0")
        steps = np.diff(offsets.astype(np.int64))
        wrong = np.flatnonzero((steps < least) | (steps > most))
        if wrong.size:
            at = int(wrong[0])
            raise FormatError(
                f"{name}.{field}[{at + 1}]: {offsets[at + 1]} after {offsets[at]}, must rise by {least} to {most}"
            )


def first(mask: NDArray[np.bool_]) -> int | None:
    """Index of the first true element, or None."""
    return int(np.argmax(mask)) if mask.any() else None
