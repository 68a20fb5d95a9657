"""Comparisons over the matrices of known models, written row by row, so that a killed sweep goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    short by a kill is dropped and computed. Raises InputError for a file with other content.
    """
    chosen = list(comparison.DEFAULT if kernels is None else kernels)
    for n in columns:
        comparison.compare((1, n, 1), sparsity, gpu, [])
        comparison.check_names(chosen, n)
    settings = {"sweep": name, "gpu": gpu, "asked_sparsity": sparsity, "exact": exact, "seed": seed}
    tasks = [(matrix, n, kernel) for matrix in matrices(name) for n in columns for kernel in chosen]
    path = Path(out)
    done = dict(_kept(path, settings))
    wanted = {(matrix.label, n, kernel) for matrix, n, kernel in tasks}
    if other := next((key for key in done if key not in wanted), None):
        raise InputError(f"{path} holds {other[2]} on {other[0]}, N = {other[1]}, which this sweep does not ask for")
    with path.open("ab") as file:
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


def _kept(path: Path, settings: dict[str, Any]) -> Iterator[tuple[tuple[str, int, str], Row]]:
    """The whole rows of a file, by (matrix, N, kernel); what follows the last line end is cut off."""
    if not path.exists():
        return
    text = path.read_bytes()
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
    if len(whole) < len(text):
        with path.open("rb+") as file:
            file.truncate(len(whole))


def _may_be_row(text: bytes) -> bool:
    """Whether a file without a line end is empty or the start of a first row."""
    return text.startswith(START) or START.startswith(text)
