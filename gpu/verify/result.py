"""What `verify` returns: one row per kernel and input, and what the rows do not prove."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loadsparse.gpu.verify.errors import InputError

FIELDS = ("exact", "accurate", "clean", "complete")


@dataclass(frozen=True)
class Row:
    """One kernel on one input; a judged field is true or false, None where the question could not be asked."""

    kernel: str
    input: str
    shape: tuple[int, int, int]
    """M, N, K."""
    exact: bool | None
    accurate: bool | None
    clean: bool | None
    complete: bool | None
    seconds: float
    """Wall time of execution, without judging."""
    metrics: dict[str, Any] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    """One line per failed field: the first mismatch explained, hazards, unwritten elements."""
    rows_exact: int = 0
    """Rows compared bit for bit; fewer than M on large products."""
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """No judged field is false."""
        return all(getattr(self, name) is not False for name in FIELDS)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kernel": self.kernel,
            "input": self.input,
            "shape": list(self.shape),
            **{name: getattr(self, name) for name in FIELDS},
            "seconds": self.seconds,
            "metrics": self.metrics,
            "failures": list(self.failures),
            "rows_exact": self.rows_exact,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Result:
    """All rows of one call."""

    rows: tuple[Row, ...]
    seed: int | None
    notes: tuple[str, ...]
    """What a green verify does not prove, and how to repeat it."""

    def __post_init__(self) -> None:
        if not self.rows:
            raise InputError("nothing was judged: name a kernel and an input")

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The object that `loadsparse verify --json` prints."""
        return {
            "ok": self.ok,
            "seed": self.seed,
            "kernels": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        mark = {True: "yes", False: "NO", None: "-"}
        lines = [f"{'kernel':24}{'input':16}{'M x N x K':18}" + "".join(f"{name:10}" for name in FIELDS)]
        for row in self.rows:
            shape = " x ".join(str(size) for size in row.shape)
            marks = "".join(f"{mark[getattr(row, name)]:10}" for name in FIELDS)
            lines.append(f"{row.kernel:24}{row.input:16}{shape:18}{marks}")
            lines += [f"    {line}" for line in row.failures]
        return "\n".join([*lines, "verified" if self.ok else "not verified"])

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"
