"""Machine code on disk: keyed by everything that decides it, written by rename, checked before use."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from loadsparse.gpu.simulator.engine import jit

_MAGIC = b"loadsparse code 1\n"
LIMIT_BYTES = 256 * 2**20
"""The directory is trimmed to half of this, oldest files first, when it grows beyond."""


def directory() -> Path | None:
    """The cache directory of this user; None switches the cache off (LOADSPARSE_CACHE= or an unwritable home)."""
    chosen = os.environ.get("LOADSPARSE_CACHE")
    if chosen == "":
        return None
    if chosen is not None:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "loadsparse" / "code" if base else None


def key(*parts: str) -> str:
    """Hash of `parts`, the compiler's version and the processor."""
    versions = (llvmlite.__version__, str(llvm.llvm_version_info), *jit.processor())
    digest = hashlib.sha256()
    for part in (*parts, *versions):
        digest.update(f"{len(part)}:".encode() + part.encode())
    return digest.hexdigest()


def load(name: str) -> bytes | None:
    """A stored image, or None if it is absent or damaged."""
    folder = directory()
    if folder is None:
        return None
    try:
        stored = (folder / name).read_bytes()
    except OSError:
        return None
    head = len(_MAGIC)
    image = stored[head + 32 :]
    if stored[:head] != _MAGIC or stored[head : head + 32] != hashlib.sha256(image).digest():
        return None
    return image


def save(name: str, image: bytes) -> None:
    """Stores an image; a full or read-only disk only costs time."""
    folder = directory()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(image).digest() + image)
            os.replace(temporary, folder / name)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        trim(folder)


def trim(folder: Path) -> None:
    """Removes the oldest files of a folder that holds more than LIMIT_BYTES, down to half of that."""
    with contextlib.suppress(OSError):  # another process may be trimming, too
        files = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in folder.iterdir() if p.is_file())
        total = sum(size for _, size, _ in files)
        if total <= LIMIT_BYTES:
            return
        for _, size, path in files:
            path.unlink(missing_ok=True)
            total -= size
            if total <= LIMIT_BYTES // 2:
                return


def compiled(kind: str, text: Callable[[], str], *parts: str, thorough: bool = True) -> bytes:
    """Object code for the IR that `text` gives; with `parts`, they and not the IR are the key."""
    source = "" if parts else text()
    name = f"{kind}-{key(*(parts or (source,)), str(thorough))}"
    image = load(name)
    if image is None:
        image = jit.compile_object(source or text(), thorough)
        save(name, image)
    return image
