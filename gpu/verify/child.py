"""A user's kernel file in a process of its own (see sandbox.py); only the description of a launch comes back."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import sandbox
from loadsparse.gpu.verify import handover
from loadsparse.gpu.verify.errors import InputError

TIME_LIMIT = 120.0
"""Seconds the user's file may take for all of its inputs."""

MEMORY_LIMIT = 8 * 2**30
"""Bytes of address space of the child (Linux and macOS; Windows has no such limit)."""


def _one_line(error: BaseException, path: Path) -> str:
    return " ".join(str(error).split())[:400] if isinstance(error, InputError) else sandbox.one_line(error, path)


def _load(path: Path, name: str) -> Any:
    """The callable `name` of the user's file."""
    module = sandbox.load(path)
    found = getattr(module, name, None)
    if not callable(found) and not hasattr(found, "plan"):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{path.name} has no function {name!r}; it has {', '.join(sorted(functions)) or 'none'}")
    return found


def _describe(found: Any, a: NDArray[Any], n: int, arch: str) -> Any:
    """What a function returns, or what an object with encode and plan plans for a stand-in B."""
    if not hasattr(found, "plan"):
        return found(a, n, arch)
    stand_in = np.random.default_rng().integers(0, 0x3C00, (a.shape[1], n), dtype=np.uint16).view(a.dtype)
    encoded = found.encode(a, "bf16" if a.dtype == np.uint16 else "f16")
    return handover.from_launch(found.plan(encoded, stand_in, arch=arch), stand_in)


def serve(folder: Path) -> None:
    """What the child does: one hand-over, or one line of error, per case."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    sandbox.limit(request["memory"], request["seconds"], handover.MAX_ARRAY + 2**20)
    path = Path(request["path"])
    found: Any = None
    failure: str | None = None
    try:
        found = _load(path, request["name"])
    except BaseException as error:  # the user's module may raise anything, SystemExit included
        failure = _one_line(error, path)
    for index, n in enumerate(request["columns"]):
        target = folder / f"out{index}"
        if failure is None:
            try:
                a = np.load(folder / f"a{index}.npy", allow_pickle=False)
                handover.write(handover.check(_describe(found, a, n, request["arch"]), int(a.shape[1])), target)
                continue
            except BaseException as error:
                failure = _one_line(error, path)
        (target / "error.txt").write_text(failure, encoding="utf-8")
        failure = failure if found is None else None


def submissions(
    path: str | os.PathLike[str],
    name: str,
    inputs: Sequence[tuple[NDArray[np.generic], int]],
    arch: str,
    *,
    time_limit: float = TIME_LIMIT,
    memory_limit: int = MEMORY_LIMIT,
) -> list[handover.Handover]:
    """What `name` of the file at `path` hands over for every (A, columns of B) of `inputs`.

    Raises InputError with the user's line number when the file fails, exceeds a limit, or hands over no launch.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise InputError(f"{path}: no such file")
    with tempfile.TemporaryDirectory(prefix="loadsparse-") as temporary:
        folder = Path(temporary)
        for index, (a, _) in enumerate(inputs):
            np.save(folder / f"a{index}.npy", np.ascontiguousarray(a), allow_pickle=False)
            (folder / f"out{index}").mkdir()
        request = {
            "path": str(file),
            "name": name,
            "arch": arch,
            "columns": [n for _, n in inputs],
            "memory": memory_limit,
            "seconds": time_limit,
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        with sandbox.Process("loadsparse.gpu.verify.child:serve", folder) as process:
            code = process.wait(time_limit)
        if code is None:
            raise InputError(f"{file.name}:{name} took longer than {time_limit:g} s; raise --time-limit")
        results = []
        for index, (a, n) in enumerate(inputs):
            target = folder / f"out{index}"
            where = f"{file.name}:{name} on A {a.shape[0]} x {a.shape[1]}, N = {n}"
            error = target / "error.txt"
            if error.is_file():
                raise InputError(f"{where}: {error.read_text(encoding='utf-8')[:600]}")
            if not (target / "launch.json").is_file():
                reason = f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"
                raise InputError(
                    f"{where}: its process {reason} before it handed over a launch (memory or time limit?)"
                )
            try:
                results.append(handover.read(target, int(a.shape[1])))
            except InputError as problem:
                raise InputError(f"{where}: {problem}") from None
        return results
