"""Named arrays in one file, in the safetensors layout: u64 header length, JSON header, raw little-endian data.

The layout is public (https://github.com/huggingface/safetensors), so that other tools can open our files and we can
open their weights. Nothing in a file is executed, and every size is compared with the file before memory is taken.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAX_HEADER = 100_000_000  # bytes
_KINDS: dict[str, str] = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items() if name != "BF16"}


class FormatError(ValueError):
    """A matrix, a compressed structure or a file is not what it must be; the message is one line."""


def replace_file(path: str | Path, write_to: Callable[[BinaryIO], None]) -> None:
    """Write a temporary file beside `path`, then rename it: readers see the old file or the whole new one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            write_to(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write(path: str | Path, arrays: dict[str, NDArray[Any]], metadata: dict[str, str]) -> None:
    """Save arrays (integers, bool, f16, f32, f64) and string metadata. Raises FormatError for another dtype."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays.items():
        if array.dtype not in _NAMES:
            raise FormatError(f"array {name!r}: {array.dtype} cannot be stored")
        header[name] = {
            "dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [end, end + array.nbytes],
        }  # fmt: skip
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)

    def write_to(file: BinaryIO) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).data)

    replace_file(path, write_to)


def read(path: str | Path, only: str | None = None) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """All arrays (or the one named `only`) and the metadata; BF16 arrives as uint16 bit patterns.

    Raises FormatError, one line with the path, for anything that is not a whole and consistent container.
    """
    with open(path, "rb") as file:
        entries, metadata, start = read_header(file, path)
        arrays = {}
        for name, (kind, shape, begin, end) in entries.items():
            if only is None or name == only:
                file.seek(start + begin)
                arrays[name] = np.frombuffer(bytearray(file.read(end - begin)), np.dtype(_KINDS[kind])).reshape(shape)
    return arrays, metadata


Entry = tuple[str, tuple[int, ...], int, int]  # dtype name, shape, begin and end in bytes after the header


def read_header(file: BinaryIO, path: str | Path) -> tuple[dict[str, Entry], dict[str, str], int]:
    """The entries, the metadata and where the data starts; everything checked against the size of the file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(size - 8, MAX_HEADER):
        if prefix[:1] == b"\x80":
            raise FormatError(f"{path}: is a pickle, which is never read; save it as .safetensors")
        if prefix[:4] == b"PK\x03\x04":
            raise FormatError(f"{path}: is a zip archive (.npz or a torch pickle), not a safetensors file")
        raise FormatError(f"{path}: not a safetensors file, or truncated inside its header")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not a safetensors file (its header is not JSON)") from error
    if not isinstance(header, dict):
        raise FormatError(f"{path}: not a safetensors file (its header is not a JSON object)")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{path}: __metadata__ must map names to strings")
    entries = {name: _entry(path, name, value, size - 8 - length) for name, value in header.items()}
    spans = sorted((begin, end) for _, _, begin, end in entries.values())
    if any(later[0] < sooner[1] for sooner, later in itertools.pairwise(spans)):
        raise FormatError(f"{path}: two arrays overlap in the data")
    return entries, metadata, 8 + length


def _entry(path: str | Path, name: str, value: Any, data_bytes: int) -> Entry:
    def whole(numbers: Any) -> bool:
        return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)

    where = f"{path}: array {name!r:.80}"
    if not isinstance(value, dict) or not whole(value.get("shape")) or not whole(value.get("data_offsets")):
        raise FormatError(f"{where} has no valid shape and data_offsets")
    kind, shape, offsets = value.get("dtype"), tuple(value["shape"]), value["data_offsets"]
    if not isinstance(kind, str) or kind not in _KINDS:
        raise FormatError(f"{where} has the dtype {kind!r:.40}; known are {', '.join(_KINDS)}")
    if len(shape) > 32 or len(offsets) != 2 or not offsets[0] <= offsets[1]:
        raise FormatError(f"{where} has no valid shape and data_offsets")
    if offsets[1] > data_bytes:
        raise FormatError(f"{where} ends at byte {offsets[1]} of {data_bytes}: the file is truncated")
    wanted = math.prod(shape) * np.dtype(_KINDS[kind]).itemsize
    if wanted != offsets[1] - offsets[0]:
        raise FormatError(f"{where} has {offsets[1] - offsets[0]} bytes, its shape {list(shape)} wants {wanted}")
    return kind, shape, offsets[0], offsets[1]
