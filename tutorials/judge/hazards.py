"""Hazards of a launch in the learner's words: array names and elements for bytes, the two lines of a race."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loadsparse.gpu.simulator import Finding, Report
from loadsparse.tutorials.judge.problem import Problem, hint

KINDS = {
    "bounds": "bounds",
    "alignment": "alignment",
    "uninitialized": "uninitialized",
    "race": "race",
    "pending": "copy",
    "convergence": "barrier",
    "deadlock": "barrier",
    "budget": "budget",
}
"""The simulator's kinds of hazards -> kinds of problems."""


def source_line(report: Report, ptx_line: int | None, file: Path) -> int | None:
    """The line of the learner's file that a PTX line comes from."""
    for row in report.lines:
        if row["line"] == ptx_line and row["file"] and Path(row["file"]).name == file.name:
            return int(row["source_line"])
    return None


def problems(
    report: Report, file: Path, args: Sequence[Any], arrays: Mapping[str, Any], own: Mapping[str, str], trial: int
) -> list[Problem]:
    """One problem per kind and place; undefined values that follow from another hazard are left out.

    args: what the kernel was launched with, array names for addresses.
    """
    found: dict[tuple[Any, ...], Problem] = {}
    for finding in report.hazards:
        kind = _kind(finding)
        line, other = (source_line(report, at, file) for at in (finding.line, finding.other_line))
        sentence = _sentence(finding, line, other, args, arrays)
        lines = tuple(sorted(n for n in (line, other) if n is not None))
        problem = Problem(kind, sentence, hint(kind, own), line, trial, details=(str(finding),))
        found.setdefault((kind, lines), problem)
    causes = [problem for problem in found.values() if problem.kind != "uninitialized"]
    return causes or list(found.values())


def _kind(finding: Finding) -> str:
    if finding.kind == "race" and "shared byte" not in finding.message:
        return "collision"
    return KINDS.get(finding.kind, "crash")


def _sentence(
    finding: Finding, line: int | None, other: int | None, args: Sequence[Any], arrays: Mapping[str, Any]
) -> str:
    who = f"thread {_shown(finding.thread)} of block {_shown(finding.block)}"
    if finding.kind == "race":
        what = finding.message.split(" at ")[0]
        places = "two threads race here"
        if line is not None and other is not None and line != other:
            places = f"lines {min(line, other)} and {max(line, other)} race"
        if "shared byte" in finding.message:
            return f"{places} for the same shared memory ({what}; {who}): no barrier stands between them"
        element = _element(finding.message, args, arrays).partition(", which")[0]
        return f"{places} for {element} ({what}; {who}), and nothing orders the two"
    if finding.kind == "pending" and other is not None and (verb := re.match(r"(read|write)s the", finding.message)):
        return f"{who} {verb[1]}s what the copy of line {other} brings, and nobody has waited for that copy"
    if finding.kind == "bounds":
        return f"{who} is out of bounds: {_element(finding.message, args, arrays)}"
    if finding.kind == "uninitialized" and re.search(r"array \d+: offset", finding.message):
        said, _, place = finding.message.partition(" to global memory: ")
        return f"{said} to {_element(place, args, arrays).partition(', which')[0]} ({who})"
    return f"{finding.message} ({who})"


def _shown(point: tuple[int, int, int]) -> str:
    return str(point[0]) if not any(point[1:]) else str(point)


def point(index: int, size: tuple[int, int, int]) -> str:
    """A linear index, x fastest, as a place for people: "3", or "(3, 1, 0)"."""
    return _shown((index % size[0], index // size[0] % size[1], index // (size[0] * size[1])))


def _element(message: str, args: Sequence[Any], arrays: Mapping[str, Any]) -> str:
    """ "array 4: offset 40..44 of 40 bytes", or "array 4, byte 40" -> "element 10 of `a`, which has 10"."""
    found = re.search(r"array (\d+)(?:: offset|, byte) (-?\d+)", message)
    if shared := re.search(r"shared memory: offset (-?\d+)\.\.-?\d+ of (\d+) bytes", message):
        return f"shared memory: byte {shared[1]} of {shared[2]}"
    if found is None or not isinstance(name := args[int(found[1])], str):
        return message.partition(": ")[2] or message
    array = np.asarray(arrays[name])
    return f"element {int(found[2]) // array.itemsize} of `{name}`, which has {array.size}"
