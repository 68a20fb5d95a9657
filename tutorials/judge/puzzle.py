"""What a puzzle is: everything its judge needs, as data and NumPy functions, in one file that a teacher can write."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Inputs = Mapping[str, Any]
Size = int | tuple[int, ...]

HINTED = (
    "syntax", "placeholder", "name", "type", "index", "constant", "missing", "crash", "exit", "time", "memory",
    "nothing", "dtype", "shape", "forbidden", "float64", "race", "collision", "bounds", "alignment", "uninitialized", "barrier",
    "copy", "budget", "ptx", "launch", "unwritten", "overwritten", "drift", "wrong", "conflicts", "costly",
)  # fmt: skip
"""Kinds of problems, each of which a puzzle may give a hint of its own."""

COUNTS = ("instructions", "wavefronts", "conflicts", "sectors")
"""What is counted: warp instructions; wavefronts and bank conflicts of shared memory; 32-byte sectors of global memory."""

_ARRAY = re.compile(r"(?P<dtype>u?int(8|16|32)|float(16|32))\[(?P<axes>(:, )*)::1\]")
_SCALAR = ("int32", "uint32", "float32")


class PuzzleError(ValueError):
    """A puzzle, or a request, that cannot be judged; the message is one line with cause and mend (exit code 2)."""


@dataclass(frozen=True)
class Launch:
    """How the kernel of a puzzle is launched.

    parameters: name -> Numba type, in order; "out" is the result.  "float32[::1]" is an array with its shape, "uint64"
    the address of an array, "int32", "uint32" and "float32" numbers of the inputs.
    grid, block: fixed extents (1 to 3 integers), or a function of the inputs.  With grid=None the learner chooses: the
    file's `launch(...)` takes the inputs that are numbers, by name, and returns (grid, block).
    shared: dynamic shared memory in bytes.  float64: whether float64 arithmetic is allowed.
    """

    parameters: Mapping[str, str]
    grid: Size | Callable[[Inputs], Size] | None = 1
    block: Size = 32
    shared: int = 0
    float64: bool = False

    def __post_init__(self) -> None:
        if "out" not in self.parameters:
            raise PuzzleError("Launch.parameters has no 'out', the result")
        for name, kind in self.parameters.items():
            if not _ARRAY.fullmatch(kind) and kind not in ("uint64", *_SCALAR):
                raise PuzzleError(
                    f"parameter {name!r} is {kind!r}: use float32[::1], float32[:, ::1], uint64, int32 or the like"
                )

    def check(self, values: Inputs) -> None:
        """Raises PuzzleError unless every parameter has a value of its type."""
        for name, kind in self.parameters.items():
            if name not in values:
                raise PuzzleError(f"the kernel takes {name!r}, but the inputs are {', '.join(values) or 'none'}")
            value, match = values[name], _ARRAY.fullmatch(kind)
            if match is None:
                fits = isinstance(value, np.ndarray) == (kind == "uint64")
            else:
                fits = isinstance(value, np.ndarray) and value.dtype == match["dtype"]
                fits = fits and value.ndim == match["axes"].count(":") + 1
            if not fits:
                shown = f"{value.dtype}, {value.ndim}-d" if isinstance(value, np.ndarray) else type(value).__name__
                raise PuzzleError(f"parameter {name!r} is declared {kind}, but its value is {shown}")

    @property
    def signature(self) -> str:
        """The Numba signature, as text."""
        return f"void({', '.join(self.parameters.values())})"


@dataclass(frozen=True)
class Puzzle:
    """One puzzle.  Lint: tests/puzzles/test_shelf.py.

    title, text: its name and one or two sentences.
    oracle(**inputs): the right answer, NumPy array or number; for kernels it fixes the shape and dtype of `out`.
    inputs(rng, trial): the inputs of a trial, arrays and numbers by name, in the order of the function's arguments.
        Trial 0 is drawn from a public seed and gives the score; the others are secret.  All of one length, some ragged.
    template: the learner's file from its imports on; `...` marks the place to fill in, `lines` is about how many lines.
    launch: for kernels; None makes it a NumPy function, called with the inputs.
    spec: NumPy code that says what is wanted; by default the source of `oracle`.
    bound(inputs): most absolute error per element, derived from the inputs; None compares exactly.
    accepts(inputs, answer): where several answers are right: None, or a sentence that says what is wrong.
    limits: most of each of COUNTS on trial 0, for puzzles whose point is a count.
    hints: kind of problem (HINTED) -> what this puzzle says about it.
    goal: one sentence on what this teaches, for teachers and `list`.
    """

    title: str
    goal: str
    text: str
    oracle: Callable[..., Any]
    inputs: Callable[[np.random.Generator, int], dict[str, Any]]
    template: str
    lines: int
    launch: Launch | None = None
    spec: str = ""
    trials: int = 4
    bound: Callable[[Inputs], Any] | None = None
    accepts: Callable[[Inputs, Any], str | None] | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("title", "goal", "text", "template"):
            if not getattr(self, what).strip():
                raise PuzzleError(f"the puzzle's {what} is empty")
        if "..." not in self.template or f"def {self.function}(" not in self.template:
            raise PuzzleError(f"the template has no `def {self.function}(...)` with `...` to fill in")
        if not self.spec:
            object.__setattr__(self, "spec", textwrap.dedent(inspect.getsource(self.oracle)))
        for name, known in ((set(self.limits), COUNTS), (set(self.hints), HINTED)):
            if unknown := sorted(name - set(known)):
                raise PuzzleError(f"unknown {unknown[0]!r}: known are {', '.join(known)}")
        if self.trials < 2 or self.lines < 1:
            raise PuzzleError("a puzzle has at least 2 trials, one of them secret, and at least one line to fill in")

    @property
    def function(self) -> str:
        """Name of the learner's function."""
        if self.launch is not None:
            return "kernel"
        found = re.search(r"^def (\w+)\(", self.template, re.MULTILINE)
        return found[1] if found else "answer"

    def draw(self, trial: int, seed: list[int], *, secret: bool = False) -> dict[str, Any]:
        """Inputs of a trial; trial 0 does not depend on the seed, unless it is wanted with `secret` data."""
        rng = np.random.default_rng([0] if trial == 0 and not secret else [*seed, trial])
        try:
            drawn = self.inputs(rng, trial)
        except Exception as error:  # a teacher's code may raise anything
            raise PuzzleError(f"{self.title!r}: the inputs of trial {trial} failed: {error!r}") from error
        return {
            name: np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
            for name, value in drawn.items()
        }

    def answer(self, inputs: Inputs) -> NDArray[Any]:
        """What the oracle says."""
        try:
            return np.array(self.oracle(**{name: _copy(value) for name, value in inputs.items()}), order="C")
        except Exception as error:
            raise PuzzleError(f"{self.title!r}: the oracle failed: {error!r}") from error


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value
