"""Compressed sparse rows: the format of Sputnik (arXiv 2006.10901), cuSPARSE, and the rest that SparTA's 2:4 leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.formats.base import SparseFormat, first, from_bits, to_bits
from loadsparse.reference.formats.container import FormatError


@dataclass(frozen=True, eq=False)
class CSR(SparseFormat):
    """The items (bits not +0) of each row in ascending order of their columns.

    Fields
        shape         (M, K)
        dtype         "f16" or "bf16"
        row_pointers  int32[M + 1], where each row starts in the two arrays below
        columns       int32[nnz] (cuSPARSE, any K) or uint16[nnz] (Sputnik's half kernels, K <= 65536)
        values        uint16[nnz], bit patterns

    >>> a = np.array([[0, 1.5], [-0.0, 0]], np.float16)
    >>> csr = CSR.encode(a)
    >>> csr.row_pointers.tolist(), csr.columns.tolist(), csr.values.tolist(), csr.nbytes
    ([0, 1, 2], [1, 0], [15872, 32768], 24)
    """

    arrays: ClassVar[dict[str, tuple[type[np.generic], ...]]] = {
        "row_pointers": (np.int32,), "columns": (np.int32, np.uint16), "values": (np.uint16,),
    }  # fmt: skip

    row_pointers: NDArray[np.int32]
    columns: NDArray[np.int32] | NDArray[np.uint16]
    values: NDArray[np.uint16]

    @classmethod
    def encode(cls, dense: NDArray[Any], dtype: str = "f16", index_dtype: type[np.generic] = np.int32) -> Self:
        bits = to_bits(dense, dtype)
        rows, columns = bits.shape
        if index_dtype not in cls.arrays["columns"] or (index_dtype is np.uint16 and columns > 2**16):
            name = index_dtype.__name__
            raise FormatError(f"columns are int32, or uint16 up to K = 65536, not {name} at K = {columns}")
        row, column = np.nonzero(bits)
        if len(row) >= 2**31:
            raise FormatError(f"{len(row)} items do not fit the int32 row_pointers; split the matrix")
        pointers = np.searchsorted(row, np.arange(rows + 1)).astype(np.int32)
        return cls((rows, columns), dtype, pointers, column.astype(index_dtype), bits[row, column])

    def decode(self) -> NDArray[Any]:
        """Raises FormatError where the dense matrix does not fit into memory (rows may be almost empty)."""
        try:
            bits = np.zeros(self.shape, np.uint16)
        except (MemoryError, ValueError) as error:
            raise FormatError(f"CSR.shape: a dense matrix of {self.shape} does not fit into memory") from error
        bits[self._rows(), self.columns] = self.values
        return from_bits(bits, self.dtype)

    def check_layout(self) -> None:
        self._check_fields()
        self._check_offsets("row_pointers", self.shape[0] + 1, self.shape[1])
        items = int(self.row_pointers[-1])
        self._check_size("columns", items, "row_pointers[-1]")
        self._check_size("values", items, "row_pointers[-1]")

    def validate(self) -> None:
        self.check_layout()
        row, column = self._rows(), self.columns.astype(np.int64)
        if (at := first((column < 0) | (column >= self.shape[1]))) is not None:
            raise FormatError(f"CSR.columns[{at}]: {column[at]} outside row {row[at]} of {self.shape[1]} columns")
        if (at := first((row[1:] == row[:-1]) & (column[1:] <= column[:-1]))) is not None:
            raise FormatError(f"CSR.columns[{at + 1}]: {column[at + 1]} after {column[at]} in row {row[at]}, must rise")
        if (at := first(self.values == 0)) is not None:
            raise FormatError(f"CSR.values[{at}]: +0 is not stored")

    def _rows(self) -> NDArray[np.int64]:
        begin = self.row_pointers.astype(np.int64)
        return np.repeat(np.arange(self.shape[0]), begin[1:] - begin[:-1])
