"""Source lines of instructions: what the `.loc` directives of one function say, inlined code with its callers."""

from __future__ import annotations

import re
from bisect import bisect
from dataclasses import replace

from lark import Token

from loadsparse.gpu.simulator.program import Location, PtxError

LOCATION = re.compile(r"\.loc\s+(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})\s*(?:$|,|//)")
MOST_INLINED = 64
"""Callers of inlined code that are followed."""


class InlineAssembly:
    """Where a module has inline assembly, by the comments that compilers put around it."""

    def __init__(self, text: str) -> None:
        marks = [(found.start(), found[1] == "begin") for found in re.finditer(r"// (begin|end) inline asm", text)]
        self.starts, self.begins = [start for start, _ in marks], [begin for _, begin in marks]

    def around(self, position: int) -> int | None:
        """The number of the piece around a place in the text."""
        before = bisect(self.starts, position) - 1
        return before if before >= 0 and self.begins[before] else None


class Locations:
    """Reads the directives of one function in order; `files` are the names that `.file` numbers.

    Of a piece of inline assembly only the first directive counts: LLVM counts one source line on with each of its lines.
    """

    def __init__(self, files: dict[int, str], inline_assembly: InlineAssembly) -> None:
        self.files, self.inline_assembly = files, inline_assembly
        self.current: Location | None = None
        self.piece: int | None = None
        self.inlined: dict[Location, tuple[Location, int]] = {}
        """The latest code inlined at each place, which itself may stand in inlined code: (with its callers, how many)."""

    def at(self, directive: Token) -> Location | None:
        """The place of what follows a `.loc`; None for line 0, which no source has.  Raises PtxError."""
        piece = self.inline_assembly.around(directive.start_pos or 0)
        if piece is None or piece != self.piece:
            self.current = self._read(directive)
        self.piece = piece
        return self.current

    def _read(self, directive: Token) -> Location | None:
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
