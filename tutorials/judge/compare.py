"""An answer against the oracle's, element by element: dtype, shape, then every value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.tutorials.judge.problem import Problem, hint
from loadsparse.tutorials.judge.puzzle import Inputs, Puzzle


def problem(puzzle: Puzzle, inputs: Inputs, got: NDArray[Any], expected: NDArray[Any], trial: int) -> Problem | None:
    """What is wrong with an answer to a trial, or None.  NaN is right only where NaN is expected."""
    own = puzzle.hints
    if (kind := _kind_of(got.dtype)) != (wanted := _kind_of(expected.dtype)):
        return Problem(
            "dtype", f"the answer holds {kind}, the puzzle asks for {wanted}", hint("dtype", own), trial=trial
        )
    if got.shape != expected.shape:
        sentence = f"the answer has shape {got.shape}, the puzzle asks for {expected.shape}"
        return Problem("shape", f"{sentence} ({_sizes(inputs)})", hint("shape", own), trial=trial)
    if puzzle.accepts is not None:
        said = puzzle.accepts(inputs, got)
        return None if said is None else Problem("wrong", f"{said} ({_sizes(inputs)})", hint("wrong", own), trial=trial)
    wrong = _differs(puzzle, inputs, got, expected)
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    place = f"{'out' if puzzle.launch else 'the answer'}{list(at) if at else ''}"
    sentence = f"{place} is {got[at]}, expected {expected[at]}; {int(wrong.sum())} of {got.size} elements are wrong"
    shown = tuple(
        f"[{', '.join(map(str, one))}] got {got[tuple(one)]}, expected {expected[tuple(one)]}"
        for one in np.argwhere(wrong)[:64].tolist()
    )
    first = int(np.flatnonzero(wrong)[0])
    said = f"{sentence} ({_sizes(inputs)})"
    return Problem("wrong", said, hint("wrong", own), trial=trial, details=shown, element=first)


def _kind_of(dtype: np.dtype[Any]) -> str:
    return {"b": "bool", "i": "integers", "u": "integers"}.get(dtype.kind, dtype.name)


def _differs(puzzle: Puzzle, inputs: Inputs, got: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.bool_]:
    if puzzle.bound is None:
        same = got == expected
    else:
        with np.errstate(invalid="ignore"):
            error = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        same = (error <= puzzle.bound(inputs)) | (got == expected)
    if got.dtype.kind == "f":
        same |= np.isnan(got) & np.isnan(expected)
    return np.asarray(~same)


def _sizes(inputs: Mapping[str, Any]) -> str:
    """The trial in a few words: "a: 37, k = 2"."""
    shown = (
        f"{name}: {' x '.join(map(str, value.shape))}" if isinstance(value, np.ndarray) else f"{name} = {value}"
        for name, value in inputs.items()
    )
    return ", ".join(shown)
