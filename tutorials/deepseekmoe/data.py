"""The text: the Python standard library's own source, which is on every machine that can run this."""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
}  # not the library, or not installed everywhere
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Corpus:
    """training and validation text, one byte a token; files (name, bytes) in order; sha256 of all of it."""

    training: Bytes
    validation: Bytes
    files: tuple[tuple[str, int], ...]
    sha256: str

    def batch(self, seed: int, step: int, sequences: int, length: int) -> Bytes:
        """uint8 [sequences, length + 1] at random places: the same for every arm, whatever ran before."""
        rng = np.random.default_rng([seed, step])
        starts = rng.integers(0, self.training.size - length, sequences)
        return self.training[starts[:, None] + np.arange(length + 1)]

    def windows(self, count: int, length: int) -> Bytes:
        """uint8 [count, length + 1], evenly spaced over the validation text: the same for every run."""
        starts = np.linspace(0, self.validation.size - length - 1, count).astype(np.int64)
        return self.validation[starts[:, None] + np.arange(length + 1)]


def read(root: Path) -> Corpus:
    """Every .py file below `root` in order of its path; a file belongs to validation by the hash of its name.

    Each file ends with one zero byte. ValueError where there is too little to train on.
    """
    paths = sorted(p for p in root.rglob("*.py") if not LEFT_OUT & set(p.relative_to(root).parts))
    parts: dict[bool, list[bytes]] = {False: [], True: []}
    listed, digest = [], hashlib.sha256()
    for path in paths:
        name, content = path.relative_to(root).as_posix(), path.read_bytes()
        listed.append((name, len(content)))
        digest.update(name.encode() + b"\0" + content + b"\0")
        held_out = hashlib.sha256(name.encode()).digest()[0] < 256 * VALIDATION_SHARE
        parts[held_out].append(content + b"\0")
    training, validation = (np.frombuffer(b"".join(parts[held_out]), dtype=np.uint8) for held_out in (False, True))
    if min(training.size, validation.size) < 10_000:
        raise ValueError(
            f"{root} holds {training.size} + {validation.size} bytes of Python source: too little to train on"
        )
    return Corpus(training, validation, tuple(listed), digest.hexdigest())


@lru_cache(maxsize=1)
def standard_library() -> Corpus:
    """The source of the Python that runs this."""
    return read(Path(sysconfig.get_path("stdlib")))
