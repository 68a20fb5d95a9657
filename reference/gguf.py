"""Read matrices from a GGUF file (the container of llama.cpp): F32, F16, BF16 and the block types Q4_0, Q4_1, Q8_0.

Layout, from the public specification (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version,
number of tensors, number of metadata pairs; the pairs; per tensor its name, dimensions (innermost first), type and
offset; padding to the alignment; data. A block holds 32 consecutive weights of a row, q in low nibbles first:
    Q4_0: f16 d, 16 bytes;         weight = d * (q - 8)
    Q4_1: f16 d, f16 m, 16 bytes;  weight = d * q + m
    Q8_0: f16 d, 32 int8;          weight = d * q
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
_KINDS = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34),
          30: ("BF16", 1, 2)}  # fmt: skip
KINDS = frozenset(name for name, _, _ in _KINDS.values())
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9


class GgufError(ValueError):
    """A file that is not a whole GGUF file, or a tensor of a type that is not read; the message is one line."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: shape as in NumPy (outermost first), type name, first byte and size in bytes."""

    shape: tuple[int, ...]
    kind: str
    begin: int
    size: int


def dequantise(blocks: NDArray[np.uint8], kind: str) -> NDArray[np.float32]:
    """float32[rows, columns] of uint8[rows, bytes]; computed as d * q + m with one rounding per operation.

    Raises GgufError for a type that is not in the table above, or rows that are not whole blocks.

    >>> one = np.array([[0, 0x3C, 0, 0x38] + [0x10] * 16], np.uint8)  # d = 1, m = 0.5, q = 0 then 1
    >>> dequantise(one, "Q4_1")[0, [0, 15, 16, 31]].tolist()
    [0.5, 0.5, 1.5, 1.5]
    """
    width = {name: size for name, _, size in _KINDS.values()}.get(kind)
    if width is None:
        raise GgufError(f"tensors of type {kind} are not read; known are {', '.join(k[0] for k in _KINDS.values())}")
    rows, row_bytes = blocks.shape
    if row_bytes % width:
        raise GgufError(f"a row of {row_bytes} bytes is not whole blocks of {width} bytes ({kind})")
    blocks = np.ascontiguousarray(blocks)
    if kind == "F32":
        return blocks.view("<f4").astype(np.float32)
    if kind == "F16":
        return blocks.view("<f2").astype(np.float32)
    if kind == "BF16":
        return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)
    blocks = blocks.reshape(-1, width)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a corrupt scale may be infinite or NaN
        if kind == "Q8_0":
            weights = scale * blocks[:, 2:].view(np.int8)
        else:
            q = np.concatenate([blocks[:, -16:] & 15, blocks[:, -16:] >> 4], axis=1).astype(np.float32)
            low = blocks[:, 2:4].copy().view("<f2").astype(np.float32) if kind == "Q4_1" else -8 * scale
            weights = scale * q + low
    return weights.astype(np.float32).reshape(rows, -1)


def index(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, every size checked against the file; nothing is loaded yet."""
    with _opened(path) as reader:
        return reader.tensors()


def metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a file: integers, floats, booleans, strings, and lists of them, by key.

    Raises GgufError for a file whose header is not whole; its strings hold at most as many bytes as the file.
    """
    with _opened(path) as reader:
        return reader.pairs()[0]


def read(path: str | Path, tensor: Tensor) -> NDArray[np.uint8]:
    """The raw bytes of a tensor, uint8[rows, bytes] with one row per index of all but the innermost dimension."""
    with open(path, "rb") as file:
        file.seek(tensor.begin)
        data = np.frombuffer(file.read(tensor.size), np.uint8)
    if data.size != tensor.size:
        raise GgufError(f"{path}: truncated inside a tensor")
    return data.reshape(math.prod(tensor.shape[:-1]), -1)


@contextmanager
def _opened(path: str | Path) -> Iterator[_Reader]:
    with open(path, "rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise GgufError(f"{path}: the file is empty") from error
        with data:
            yield _Reader(data, str(path))


class _Reader:
    def __init__(self, data: mmap.mmap, path: str) -> None:
        self.data, self.path, self.at = data, path, 0

    def scalar(self, code: str) -> Any:
        width = struct.calcsize(code)
        self.need(width)
        (value,) = struct.unpack_from(code, self.data, self.at)
        self.at += width
        return value

    def need(self, count: int) -> None:
        if count > len(self.data) - self.at:
            raise GgufError(f"{self.path}: truncated inside the header, at byte {self.at}")

    def text(self) -> str:
        length = self.scalar("<Q")
        self.need(length)
        self.at += length
        try:
            return self.data[self.at - length : self.at].decode()
        except UnicodeDecodeError as error:
            raise GgufError(f"{self.path}: a text at byte {self.at - length} is not UTF-8") from error

    def value(self, kind: int) -> Any:
        """One metadata value."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            inner, count = self.scalar("<I"), self.scalar("<Q")
            if inner not in _SCALARS and inner != _STRING:
                raise GgufError(f"{self.path}: metadata array of type {inner} at byte {self.at}")
            self.need(count * (8 if inner == _STRING else struct.calcsize(_SCALARS[inner])))
            if inner == _STRING:
                return [self.text() for _ in range(count)]
            begin, code = self.at, np.dtype(_SCALARS[inner])
            self.at += count * code.itemsize
            return np.frombuffer(self.data[begin : self.at], code).tolist()
        if kind not in _SCALARS:
            raise GgufError(f"{self.path}: metadata of unknown type {kind} at byte {self.at}")
        found = self.scalar(_SCALARS[kind])
        return bool(found) if kind == _BOOL else found

    def pairs(self) -> tuple[dict[str, Any], int]:
        """(the metadata, the number of tensors that follow)."""
        if self.data[:4] != b"GGUF":
            raise GgufError(f"{self.path}: not a GGUF file")
        self.at = 4
        version, tensors, pairs = self.scalar("<I"), self.scalar("<Q"), self.scalar("<Q")
        if version not in (2, 3):
            raise GgufError(f"{self.path}: GGUF version {version}; 2 and 3 are read")
        found = {}
        for _ in range(pairs):
            key = self.text()
            found[key] = self.value(self.scalar("<I"))
        return found, tensors

    def tensors(self) -> dict[str, Tensor]:
        """Where each tensor lies."""
        metadata, count = self.pairs()
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            alignment = 32
        found: dict[str, Tensor] = {}
        for _ in range(count):
            name, rank = self.text(), self.scalar("<I")
            if not 1 <= rank <= 4:
                raise GgufError(f"{self.path}: tensor {name!r:.80} has {rank} dimensions")
            shape = tuple(self.scalar("<Q") for _ in range(rank))[::-1]
            code, offset = self.scalar("<I"), self.scalar("<Q")
            kind, per_block, width = _KINDS.get(code, (f"number {code}", 1, 0))
            if 0 in shape or shape[-1] % per_block:
                raise GgufError(f"{self.path}: tensor {name!r:.80} of shape {list(shape)} is not whole {kind} blocks")
            found[name] = Tensor(shape, kind, offset, math.prod(shape) // per_block * width)
        start = -(-self.at // alignment) * alignment
        for name, tensor in found.items():
            if start + tensor.begin + tensor.size > len(self.data):
                raise GgufError(f"{self.path}: truncated, tensor {name!r:.80} ends behind the file")
        return {name: Tensor(t.shape, t.kind, start + t.begin, t.size) for name, t in found.items()}
