"""What is wrong with an answer, for the person who wrote it: their line, one sentence, one hint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HINTS = {
    "syntax": "Look at brackets, colons and indentation, here and one line above.",
    "placeholder": "Replace the `...` by your code.",
    "name": "Check the spelling; every name is a parameter, an import, or assigned before its use.",
    "type": "Check what you call and what you give it: inside a kernel only Numba's names and plain arithmetic "
    "exist, and `/` makes a float, `//` a whole number.",
    "index": "One index per dimension, each an integer: x[i], or x[i, j] for a matrix.",
    "constant": "Write a number, or the name of a number that stands outside of the function: indices of mixed tuples, shapes "
    "of shared arrays and some operands must be known when the kernel is compiled.",
    "missing": "Keep the name and the parameters that the puzzle's file began with.",
    "crash": "Run the function yourself on a small example; --trace shows where it stopped.",
    "exit": "Let the function return; do not end its process.",
    "time": "Look for a loop that never ends.",
    "memory": "Look for an array that is far too large.",
    "nothing": "End the function with `return` and the result.",
    "dtype": "Return a NumPy array (or number) of the type that the puzzle asks for; .astype(...) converts.",
    "shape": "Compare the shape of your result with the one in the puzzle.",
    "forbidden": "An answer needs its arguments and what the puzzle's file imports, and nothing else.",
    "float64": "In Numba float32 + int is float64, and so is 0.5: write float32(10), and keep indices integers.",
    "race": "cuda.syncthreads() between the two makes every thread wait for the others.",
    "collision": "Give each element to one thread: in global memory nothing orders threads, and blocks never wait for blocks.",
    "bounds": "Threads beyond the data must do nothing: guard the access with `if i < n:`. In shared memory: the largest index is one less than the array's size.",
    "alignment": "The address must be a multiple of the number of bytes that is moved.",
    "uninitialized": "Shared memory and registers start undefined: write before you read.",
    "barrier": "Every thread of the block must reach the same barrier: take it out of the `if`.",
    "copy": "After cp_async_commit(), cp_async_wait(0) waits for the copies of this thread; then a barrier shows them to all.",
    "budget": "Look for a loop that never ends: does its variable change?",
    "ptx": "Solve the puzzle without this instruction: it is not simulated.",
    "launch": "Give (grid, block): how many blocks, and at most 1024 threads in each.",
    "unwritten": "Does every element have a thread that writes it? Count blocks times threads.",
    "overwritten": "Work on a copy: inputs may only be read.",
    "drift": "Keep nothing from call to call: the same inputs must always give the same answer.",
    "wrong": "Compute this element by hand, from the puzzle's NumPy, and compare.",
    "conflicts": "Lanes of a warp that hit one bank at different words wait for each other: pad the rows by one element.",
    "costly": "Neighbouring threads should touch neighbouring elements: let threadIdx.x run along the last dimension.",
}
"""kind -> a general hint; a puzzle may have a better one."""


@dataclass(frozen=True)
class Problem:
    """One problem.

    line: of the learner's file, if known; picture: lines of text; details: what --trace adds; element: flat index of the
    first wrong element.
    """

    kind: str
    sentence: str
    hint: str
    line: int | None = None
    trial: int | None = None
    picture: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    element: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "kind": self.kind,
            "line": self.line,
            "sentence": self.sentence,
            "hint": self.hint,
            "trial": self.trial,
            "picture": list(self.picture),
            "details": list(self.details),
        }

    def __str__(self) -> str:
        return (f"line {self.line}: " if self.line is not None else "") + self.sentence


def hint(kind: str, own: Mapping[str, str]) -> str:
    """The puzzle's own hint for a kind of problem, or the general one."""
    return own.get(kind, HINTS[kind])
