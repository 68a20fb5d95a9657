"""Ask the learner's file for its answer, in a process of its own: PTX and launches, or arrays, and nothing else."""

from __future__ import annotations

import json
import operator
import re
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import sandbox
from loadsparse.tutorials.judge.mistakes import Fault
from loadsparse.tutorials.judge.puzzle import Puzzle, PuzzleError

SECONDS = 60.0
"""CPU and wall time of the learner's file, Numba's compilation included."""
MEMORY = 4 * 2**30
"""Bytes of address space."""
LARGEST_PTX = 2**19
"""Characters; the largest solution has 17,000."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
Extent = tuple[int, ...]


@dataclass(frozen=True)
class Compiled:
    """A kernel's answer: PTX with the entry `kernel`, and (grid, block) of each trial where the learner chose."""

    ptx: str
    launches: tuple[tuple[Extent, Extent], ...] = ()


@dataclass(frozen=True)
class Computed:
    """A function's answer: one array per trial, and the inputs that it changed."""

    arrays: tuple[NDArray[Any], ...]
    changed: tuple[tuple[str, ...], ...]


def numbers(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that are no arrays, as JSON has them."""
    return {name: value for name, value in inputs.items() if not isinstance(value, np.ndarray)}


class Asking:
    """The learner's process, started at once; `result()` waits for it.  Use as a context manager."""

    def __init__(
        self, puzzle: Puzzle, path: Path, trials: Sequence[Mapping[str, Any]], sealed: Sequence[Path], *,
        arch: str = "sm_80", seconds: float = SECONDS, memory: int = MEMORY,
    ) -> None:  # fmt: skip
        if not path.is_file():
            raise PuzzleError(f"{path}: no such file; `loadsparse puzzle start` writes it")
        self.puzzle, self.trials, self.seconds = puzzle, trials, seconds
        self._temporary = tempfile.TemporaryDirectory(prefix="loadsparse-")
        self.folder = Path(self._temporary.name)
        launch = puzzle.launch
        request = {
            "path": str(path.resolve()),
            "function": puzzle.function,
            "signature": None if launch is None else launch.signature,
            "chosen": launch is not None and launch.grid is None,
            "trials": [numbers(inputs) if launch else self._saved(i, inputs) for i, inputs in enumerate(trials)],
            "sealed": [str(place) for place in sealed],
            "arch": arch,
            "seconds": seconds,
            "memory": memory,
        }
        (self.folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        self._process = sandbox.Process("loadsparse.tutorials.judge.child:serve", self.folder)

    def _saved(self, trial: int, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays go to files of the hand-over folder, numbers into the request."""
        for name, value in inputs.items():
            if isinstance(value, np.ndarray):
                np.save(self.folder / f"in{trial}_{name}.npy", value, allow_pickle=False)
        return {name: None if isinstance(value, np.ndarray) else value for name, value in inputs.items()}

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.stop()
        self._temporary.cleanup()

    def result(self) -> Compiled | Computed:
        """The answer.  Raises Fault: what stopped the file, or why what it left is no answer."""
        code = self._process.wait(self.seconds)
        self._process.stop()  # whatever it started ends before anything is read
        if code is None or code == -getattr(signal, "SIGXCPU", 0):
            raise Fault("time", "", f"the file took longer than {self.seconds:g} s")
        if (mistake := self._json("mistake.json")) is not None:
            raise _fault(mistake)
        answer = self._json("answer.json")
        if answer is None:
            reason = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise Fault("exit", "", f"the file's process {reason} before it answered")
        return _compiled(answer, len(self.trials)) if self.puzzle.launch is not None else self._computed(answer)

    def _json(self, name: str) -> dict[str, Any] | None:
        """What the child left, which is not trusted."""
        path = self.folder / name
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 4 * LARGEST_PTX:
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _computed(self, answer: dict[str, Any]) -> Computed:
        arrays = []
        for trial in range(len(self.trials)):
            path = self.folder / f"out{trial}.npy"
            try:
                if path.is_symlink() or not path.is_file():  # a pipe would never end
                    raise ValueError("no such file" if not path.exists() else "it is no file")
                found = np.load(path, allow_pickle=False)
            except (ValueError, OSError, EOFError, MemoryError) as error:
                raise Fault("crash", "", f"the answer of trial {trial} cannot be read: {error}") from None
            if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
                raise Fault("dtype", "", f"{type(found).__name__}")
            arrays.append(found)
        changed = answer.get("changed")
        lists = changed if isinstance(changed, list) and len(changed) == len(arrays) else [[]] * len(arrays)
        names = (tuple(str(name) for name in one) if isinstance(one, list) else () for one in lists)
        return Computed(tuple(arrays), tuple(names))


def _compiled(answer: dict[str, Any], trials: int) -> Compiled:
    ptx, launches = answer.get("ptx"), answer.get("launches")
    if not isinstance(ptx, str) or len(ptx) > LARGEST_PTX:
        raise Fault("crash", "", f"the file handed over no PTX of at most {LARGEST_PTX} characters")
    checked = []
    for pair in launches if isinstance(launches, list) else ():
        try:
            grid, block = (tuple(operator.index(n) for n in size) for size in pair)
        except (TypeError, ValueError):
            raise Fault("launch", "", printable(f"{pair!r}"[:80])) from None
        checked.append((grid, block))
    if checked and len(checked) != trials:
        raise Fault("launch", "", f"{len(checked)} launches for {trials} trials")
    return Compiled(ptx, tuple(checked))


def _fault(mistake: dict[str, Any]) -> Fault:
    line, kind = mistake.get("line"), mistake.get("kind")
    names, used = (
        tuple(printable(name) for name in found) if isinstance(found := mistake.get(key), list) else ()
        for key in ("names", "used")
    )
    message, trace, error = (printable(mistake.get(key, "")) for key in ("message", "trace", "error"))
    return Fault(
        kind if isinstance(kind, str) and kind in ("placeholder", "missing", "nothing", "dtype", "launch") else None,
        error[:100],
        message[:6000],
        line if isinstance(line, int) else None,
        names,
        used,
        trace[:20000],
    )


def printable(text: Any) -> str:
    """Text of the child's without colours and control characters, which a terminal would obey."""
    plain = _COLOUR.sub("", str(text))
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in plain)
