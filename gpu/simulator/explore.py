"""One launch under many schedules: what depends on the order in which warps and lanes run, or on when copies land.

A schedule is legal if a GPU may follow it; a result that changes with it is a bug even where no hazard is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.arguments import Empty, empty
from loadsparse.gpu.simulator.report import Finding

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.module import Entry


@dataclass(frozen=True, slots=True)
class Schedule:
    """Options of a launch: lowest program counter first, or a seeded legal one; copies land late or at once."""

    schedule: Literal["default", "adversarial"] = "default"
    seed: int = 0
    cp_async: Literal["late", "eager"] = "late"

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `Entry.launch`."""
        return {"schedule": self.schedule, "seed": self.seed, "cp_async": self.cp_async}

    def __str__(self) -> str:
        order = f"adversarial order, seed {self.seed}" if self.schedule == "adversarial" else "default order"
        return f"{order}, copies {self.cp_async}"


@dataclass(frozen=True, slots=True)
class Difference:
    """What one schedule showed that the default one did not, in one sentence."""

    schedule: Schedule
    message: str

    def __str__(self) -> str:
        return f"{self.schedule}: {self.message}"


@dataclass(frozen=True, slots=True)
class Exploration:
    """Schedules that were run (the first is the default one) and what depended on them."""

    schedules: tuple[Schedule, ...]
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        """True when every schedule gave the same bits and the same hazards."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "schedules": len(self.schedules),
            "ok": self.ok,
            "differences": [{**d.schedule.options, "message": d.message} for d in self.differences],
        }

    def __str__(self) -> str:
        if self.ok:
            return f"{len(self.schedules)} schedules: the same bits and the same hazards"
        return "\n".join(
            [f"{len(self.schedules)} schedules, {len(self.differences)} differences:", *map(str, self.differences)]
        )


Outputs = Mapping[str, NDArray[Any]]
Run = Callable[[Schedule], tuple[Outputs, list[Finding]]]
"""Executes the launch on fresh copies of its inputs; returns the arrays afterwards and the hazards."""


def schedules(count: int, seed: int = 0) -> Iterator[Schedule]:
    """`count` schedules: the default order with late and with eager copies, then seeded orders with either in turn."""
    for number in range(count):
        timing: Literal["late", "eager"] = "eager" if number % 2 else "late"
        if number < 2:
            yield Schedule(cp_async=timing)
        else:
            yield Schedule("adversarial", seed + number, timing)


def same_bytes(array: NDArray[Any]) -> NDArray[Any]:
    """A copy with the padding of structures, too, which `array.copy()` leaves open."""
    if not array.size:
        return array.copy()
    return np.frombuffer(bytearray(array.tobytes()), array.dtype).reshape(array.shape)


def explore(run: Run, count: int = 16, seed: int = 0, progress: Callable[[int], None] | None = None) -> Exploration:
    """Runs `count` (>= 2) schedules; compares every array bit for bit, and hazards by place, with the default."""
    if count < 2:
        raise ValueError(f"{count} schedules: give at least 2, the default one and another")
    chosen = tuple(schedules(count, seed))
    outputs, findings = run(chosen[0])
    expected = {name: same_bytes(array) for name, array in outputs.items()}
    known = {_place(finding) for finding in findings}
    differences: dict[str, Difference] = {}
    for number, schedule in enumerate(chosen[1:], 1):
        if progress is not None:
            progress(number)
        outputs, findings = run(schedule)
        for message in _changes(expected, outputs):
            differences.setdefault(message.partition(":")[0], Difference(schedule, message))
        for finding in findings:
            if _place(finding) not in known:
                differences.setdefault(
                    str(_place(finding)), Difference(schedule, f"a hazard that the default order hides: {finding}")
                )
    return Exploration(chosen, tuple(differences.values()))


def _place(finding: Finding) -> tuple[str, str, tuple[int, ...]]:
    """Kind and lines; the two accesses of a race in either order."""
    lines = sorted(line for line in (finding.line, finding.other_line) if line is not None)
    return finding.kind, finding.kernel, tuple(lines)


def _changes(expected: Outputs, outputs: Outputs) -> Iterator[str]:
    for name, array in outputs.items():
        ours, theirs = (a.reshape(-1).view(np.uint8).reshape(a.size, a.itemsize) for a in (expected[name], array))
        wrong = np.flatnonzero((ours != theirs).any(axis=1))
        if wrong.size:
            first = int(wrong[0])
            before, after = expected[name].reshape(-1)[first], array.reshape(-1)[first]
            yield (
                f"{name} depends on the schedule: {wrong.size} of {array.size} elements differ, the first at index "
                f"{first}: {before} by default, {after} here"
            )


def explore_launch(
    entry: Entry,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...],
    *arguments: Any,
    count: int = 16,
    seed: int = 0,
    **options: Any,
) -> Exploration:
    """`explore` for one kernel; arguments as for `Entry.launch`, none of them is changed."""

    def run(schedule: Schedule) -> tuple[Outputs, list[Finding]]:
        copies = [
            empty(same_bytes(value.array))
            if isinstance(value, Empty)
            else same_bytes(value)
            if isinstance(value, np.ndarray)
            else value
            for value in arguments
        ]
        report = entry.launch(grid, block, *copies, **schedule.options, **options)
        held = [value.array if isinstance(value, Empty) else value for value in copies]
        return {f"argument {n}": a for n, a in enumerate(held) if isinstance(a, np.ndarray) and a.ndim}, report.hazards

    return explore(run, count, seed)
