"""Puzzles are found by path: a folder of files NN_name.py, each with one `PUZZLE`."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path

from loadsparse.tutorials.judge.puzzle import Launch, Puzzle, PuzzleError

FOLDER = Path(__file__).resolve().parents[1] / "puzzles"
"""The puzzles that come with the project."""

_FILE = re.compile(r"(\d{2})_([a-z0-9_]+)\.py")


@dataclass(frozen=True)
class Entry:
    """A puzzle's place on the shelf; the file is imported when it is asked for."""

    number: int
    name: str
    path: Path

    @property
    def file_name(self) -> str:
        """Name of the learner's file."""
        return f"puzzle_{self.number:02}_{self.name}.py"

    def load(self) -> Puzzle:
        """The puzzle.  Raises PuzzleError where the file holds none."""
        spec = spec_from_file_location(f"puzzle_{self.number:02}", self.path)
        if spec is None or spec.loader is None:
            raise PuzzleError(f"{self.path} is no Python file")
        module = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except PuzzleError as error:
            raise PuzzleError(f"{self.path.name}: {error}") from None
        found = getattr(module, "PUZZLE", None)
        if not isinstance(found, Puzzle):
            raise PuzzleError(f"{self.path} defines no PUZZLE = Puzzle(...)")
        return found

    def best(self) -> dict[str, int]:
        """The best known counts on trial 0: those of a solution of ours, counted by the simulator; {} if unknown."""
        file = self.path.parent / "best.json"
        if not file.is_file():
            return {}
        known: dict[str, dict[str, int]] = json.loads(file.read_text(encoding="utf-8"))
        return known.get(self.path.stem, {})


def shelf(folder: Path = FOLDER) -> list[Entry]:
    """Every puzzle of a folder, by number.  Raises PuzzleError for a folder without puzzles and for a number used twice."""
    found = []
    for path in sorted(folder.glob("*.py")):
        if match := _FILE.fullmatch(path.name):
            found.append(Entry(int(match[1]), match[2], path))
    if not found:
        raise PuzzleError(f"{folder} holds no puzzles (files NN_name.py)")
    for one, other in pairwise(found):
        if one.number == other.number:
            raise PuzzleError(f"{one.path.name} and {other.path.name} have the same number")
    return found


def get(which: str | int, folder: Path = FOLDER) -> Entry:
    """The puzzle of a number or a name.  Raises PuzzleError."""
    entries = shelf(folder)
    for entry in entries:
        if str(which).lstrip("0") == str(entry.number) or which == entry.name:
            return entry
    raise PuzzleError(
        f"no puzzle {which!r}: there are {entries[0].number} to {entries[-1].number}; `loadsparse puzzle list` names them"
    )


def page(entry: Entry) -> str:
    """The learner's file: what is asked, in words and NumPy, and the place to fill in."""
    puzzle = entry.load()
    quoted = "\n".join(f"    {line}".rstrip() for line in puzzle.spec.strip().splitlines())
    head = [f'"""Puzzle {entry.number}: {puzzle.title}', "", puzzle.text.strip(), "", "In NumPy:", "", quoted, ""]
    if puzzle.launch is not None:
        head += [_launch(puzzle.launch), ""]
    head += [f"Fill me in: about {puzzle.lines} line{'s' if puzzle.lines > 1 else ''}.  Then:"]
    head += [f"    loadsparse puzzle check {entry.number}", '"""', "", puzzle.template.strip(), ""]
    return "\n".join(head)


def _launch(launch: Launch) -> str:
    kinds = "\n".join(
        f"    {name}: {kind}{', the address of an array' if kind == 'uint64' else ''}"
        for name, kind in launch.parameters.items()
    )
    if launch.grid is None:
        return f"You choose the launch.  Parameters and their Numba types:\n\n{kinds}"
    grid = "as many blocks as the result needs" if callable(launch.grid) else f"grid {launch.grid}"
    return f"Launched with {grid}, block {launch.block}.  Parameters and their Numba types:\n\n{kinds}"


def start(which: str | int, target: Path, *, force: bool = False, folder: Path = FOLDER) -> Path:
    """Write the learner's file of a puzzle into the folder `target`; an existing one is kept unless `force`.

    Raises PuzzleError for an unknown puzzle and for a file that is already there.
    """
    entry = get(which, folder)
    path = target / entry.file_name
    if path.exists() and not force:
        raise PuzzleError(f"{path} is already there: --force starts it anew and loses what you wrote")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target, suffix=".part", delete=False) as file:
        file.write(page(entry))
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
    return path
