"""Checkpoints: named arrays in one .npz file, complete or absent whenever the process is killed. No pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


def save(path: Path, arrays: Arrays) -> None:
    """Write beside the place, reach the disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def load(path: Path) -> Arrays | None:
    """The arrays, or None where there is no file; ValueError for a file that is not a checkpoint."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise ValueError(f"{path} is not a checkpoint ({error}): remove it to start this run anew") from None


def flatten(prefix: str, tree: Any) -> Arrays:
    """The leaves of a tree of arrays by name."""
    return {f"{prefix}/{number}": np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(tree))}


def restore(prefix: str, arrays: Arrays, like: Any) -> Any:
    """The tree that `flatten` took apart, shaped like `like`; ValueError where an array does not fit."""
    leaves, shape = jax.tree.flatten(like)
    found = []
    for number, leaf in enumerate(leaves):
        array = arrays.get(f"{prefix}/{number}")
        if array is None or array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise ValueError(
                f"{prefix}/{number} is missing or not {leaf.dtype} {leaf.shape}: not a checkpoint of this model"
            )
        found.append(jax.numpy.asarray(array))
    return jax.tree.unflatten(shape, found)
