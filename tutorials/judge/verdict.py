"""What the judge says of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadsparse.tutorials.judge.problem import Problem


@dataclass(frozen=True)
class Verdict:
    """Solved or not, and why.  score: count -> {"yours", "best"} on the public trial 0, of kernels that are right."""

    number: int
    name: str
    title: str
    file: str
    seed: str
    """Repeats the secret inputs, given as --seed."""
    problems: tuple[Problem, ...] = ()
    score: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)
    trials: int = 0
    printed: tuple[str, ...] = ()
    """First lines of what the kernel printed on the public trial 0."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """What `loadsparse puzzle check --json` prints."""
        return {
            "ok": self.ok,
            "puzzle": self.number,
            "name": self.name,
            "file": self.file,
            "seed": self.seed,
            "trials": self.trials,
            "problems": [problem.to_dict() for problem in self.problems],
            "score": {name: dict(value) for name, value in self.score.items()},
            "printed": list(self.printed),
        }

    def __str__(self) -> str:
        head = f"puzzle {self.number}, {self.title}: {'solved' if self.ok else 'not yet'}"
        lines = [
            line for problem in self.problems for line in (f"  {problem}", f"    {problem.hint}", *problem.picture)
        ]
        score = (f"  {name}: {value['yours']} (best known {value['best']})" for name, value in self.score.items())
        printed = (f"  it printed: {line}" for line in self.printed)
        return "\n".join([head, *lines, *score, *printed])

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"
