"""Source lines of instructions: what the `.loc` directives of one function say, inlined code with its callers."""

from __future__ import annotations

import re
from dataclasses import replace

from lark import Token

from loadsparse.gpu.simulator.program import Location, PtxError

LOCATION = re.compile(r"\.loc\s+(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})\s*(?:$|,|//)")
MOST_INLINED = 64
"""Callers of inlined code that are followed."""


class Locations:
    """Reads the directives of one function in order; `files` are the names that `.file` numbers."""

    def __init__(self, files: dict[int, str]) -> None:
        self.files = files
        self.inlined: dict[Location, tuple[Location, int]] = {}
        """The latest code inlined at each place, which itself may stand in inlined code: (with its callers, how many)."""

    def at(self, directive: Token) -> Location | None:
        """The place that a `.loc` names; None for line 0, which no source has.  Raises PtxError."""
        found = LOCATION.match(directive)
        if found is None:
            shown = " ".join(directive.split())[:60]
            raise PtxError(f"'{shown}' is no .loc file line column", directive.line or 0, directive.column or 0)
        place = self._place(found)
        if place.line == 0:
            return None
        inlined = re.search(r"inlined_at\s+(\d+)\s+(\d+)\s+(\d+)", directive)
        if inlined is None:
            return place
        caller, depth = self.inlined.get(self._place(inlined), (self._place(inlined), 0))
        if depth < MOST_INLINED:
            self.inlined[place] = replace(place, inlined_at=caller), depth + 1
        return replace(place, inlined_at=caller)

    def _place(self, numbers: re.Match[str]) -> Location:
        file, line, column = (int(number) for number in numbers.groups())
        return Location(self.files.get(file, f"file {file}"), line, column)
