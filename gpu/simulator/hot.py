"""Which lines of a kernel cost most, in issues: exact counts, not time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
"""A row of `Report.lines`."""


def cost(row: Row) -> int:
    """Issues of a PTX line: its warp instructions, and every wavefront and sector beyond the first of each."""
    extra = max(0, row["wavefronts"] - row["executions"]) + max(0, row["sectors"] - row["requests"])
    return int(row["executions"] + extra)


def ptx(rows: Sequence[Row], most: int) -> list[Row]:
    """The costliest PTX lines, costliest first."""
    return sorted((row for row in rows if row["executions"]), key=lambda row: (-cost(row), row["line"]))[:most]


def source(rows: Sequence[Row], most: int) -> list[dict[str, Any]]:
    """The costliest source lines: file, source_line, executions, cost."""
    lines: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        if row["file"] is None or not row["executions"]:
            continue
        place = row["file"], row["source_line"]
        line = lines.setdefault(place, {"file": place[0], "source_line": place[1], "executions": 0, "cost": 0})
        line["executions"] += row["executions"]
        line["cost"] += cost(row)
    return sorted(lines.values(), key=lambda line: (-line["cost"], line["source_line"]))[:most]
