"""Comparisons over the matrices of known models, written row by row, so that a killed sweep goes on where it stopped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import comparison
from loadsparse.gpu.comparison import Progress, Row
from loadsparse.gpu.perfmodel import models
from loadsparse.gpu.verify.errors import InputError
from loadsparse.reference import weights

MODELS = {
    "opt": ("opt-30b", "opt-66b", "opt-175b"),
    "llama": ("llama-2-7b", "llama-2-13b", "llama-2-70b", "llama-3-8b", "llama-3-70b"),
}
NAMES = (*MODELS, "smollm2")
"""Sweeps by name."""

START = b'{"sweep": "'  # of every row
LOCKED = 2**30  # the byte that Windows locks: beyond every row, so that others may read them


@dataclass(frozen=True)
class Matrix:
    """A weight matrix [m, k] of a model: its values where they are real, else None."""

    label: str
    m: int
    k: int
    values: NDArray[np.float16] | None = None


def matrices(name: str) -> list[Matrix]:
    """The matrices of a sweep.  Raises InputError.

    "opt" and "llama": the four matmuls of a decoder layer (QKV, output, up, with the gate where there is one, down) of
    several models; "smollm2": real dequantised 4-bit weights, the packaged sample or, once fetched, all of them.

    >>> [(one.label, one.m, one.k) for one in matrices("opt")][4:6]
    [('opt-66b qkv', 27648, 9216), ('opt-66b out', 9216, 9216)]
    """
    if name == "smollm2":
        path = weights.cached("smollm2")
        real = weights.sample() if path is None else weights.load(path)
        return [Matrix(f"smollm2 {label}", len(values), values.shape[1], values) for label, values in real.items()]
    if name not in MODELS:
        raise InputError(f"unknown sweep {name!r}: known are {', '.join(NAMES)}")
    found = []
    for model in map(models.get, MODELS[name]):
        shapes = model.attention_matmuls(1) + model.mlp_matmuls(1)
        for part, (m, k) in zip(("qkv", "out", "up", "down"), shapes, strict=True):
            found.append(Matrix(f"{model.name} {part}", m, k))
    return found


def sweep(
    name: str,
    out: str | os.PathLike[str],
    columns: Sequence[int] = (16,),
    sparsity: float = 0.8,
    gpu: str = "a100-80gb",
    kernels: Sequence[str] | None = None,
    *,
    exact: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Row]:
    """`comparison.compare` on every matrix of a sweep and every N of `columns`; all rows, in order, as `out` holds them.

    out: a JSONL file that grows by one row at a time. Where it exists its rows are kept and not computed again; a row cut
    short by a kill is dropped and computed. Raises InputError for a file with other content, and while another process
    writes it.
    """
    chosen = list(comparison.DEFAULT if kernels is None else kernels)
    for n in columns:
        comparison.compare((1, n, 1), sparsity, gpu, [])
        comparison.check_names(chosen, n)
    settings = {"sweep": name, "gpu": gpu, "asked_sparsity": sparsity, "exact": exact, "seed": seed}
    tasks = [(matrix, n, kernel) for matrix in matrices(name) for n in columns for kernel in chosen]
    path = Path(out)
    with path.open("a+b") as file:
        _lock(file, path)
        done = dict(_kept(file, path, settings))
        wanted = {(matrix.label, n, kernel) for matrix, n, kernel in tasks}
        if other := next((key for key in done if key not in wanted), None):
            raise InputError(
                f"{path} holds {other[2]} on {other[0]}, N = {other[1]}, which this sweep does not ask for"
            )
        for number, (matrix, n, kernel) in enumerate(tasks):
            if progress is not None:
                progress(f"{kernel} on {matrix.label}", number, len(tasks))
            if (matrix.label, n, kernel) in done:
                continue
            (row,) = comparison.compare(
                (matrix.m, n, matrix.k), sparsity, gpu, [kernel], weights=matrix.values, exact=exact, seed=seed
            )
            row = {**settings, "matrix": matrix.label, **row}
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            done[matrix.label, n, kernel] = row
    return [done[matrix.label, n, kernel] for matrix, n, kernel in tasks]


def _lock(file: BinaryIO, path: Path) -> None:
    """Hold the file until it is closed or its process ends.  Raises InputError where another process holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(LOCKED)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(f"{path}: another sweep is writing it; wait for its end or give another --out") from None


def _kept(file: BinaryIO, path: Path, settings: dict[str, Any]) -> Iterator[tuple[tuple[str, int, str], Row]]:
    """The whole rows of a file, by (matrix, N, kernel); what follows the last line end is cut off."""
    file.seek(0)
    text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            key = row["matrix"], row["shape"][1], row["kernel"]
            same = all(row[name] == value for name, value in settings.items())
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise InputError(f"{path}, line {number}: no row of a sweep; give another --out") from None
        if not same:
            raise InputError(f"{path}, line {number}: of another sweep or other settings; give another --out")
        yield key, row
    if not whole and not _may_be_row(text):
        raise InputError(f"{path}: no file of a sweep; give another --out")
    file.truncate(len(whole))


def _may_be_row(text: bytes) -> bool:
    """Whether a file without a line end is empty or the start of a first row."""
    return text.startswith(START) or START.startswith(text)
