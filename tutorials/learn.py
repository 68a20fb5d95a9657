"""The course and the puzzles as a learner's own files, in a folder to write in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadsparse.tutorials.judge import shelf
from loadsparse.tutorials.judge.puzzle import PuzzleError

SOURCE = Path(__file__).resolve().parent
_OURS = {"__init__.py", "py.typed", "learn.py", "compiled.py", "compiled.zip", "judge", "puzzles", "__pycache__"}
"""What belongs to the package and not to the course."""


@dataclass(frozen=True)
class Copied:
    """What `copy` did: files written, and files of the learner's that were there and stayed as they are."""

    folder: Path
    written: tuple[Path, ...]
    kept: tuple[Path, ...]


def course(source: Path = SOURCE) -> Iterator[Path]:
    """Files of the course, relative to `source`: notebooks (without the scripts they are made from) and what they need."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        ours = relative.parts[0] in _OURS or "__pycache__" in relative.parts
        if path.is_file() and not ours and not (path.suffix == ".py" and path.with_suffix(".ipynb").is_file()):
            yield relative
    yield Path("puzzles/README.md")


def copy(folder: Path, *, force: bool = False) -> Copied:
    """Write notebooks and puzzles (in puzzles/) to `folder`; what is there is kept unless `force`.

    Raises PuzzleError where `folder` is a file, and OSError where it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise PuzzleError(f"{folder} is a file: name a folder, new or existing")
    written, kept = [], []
    for relative in course():
        target = folder / relative
        if target.exists() and not force:
            kept.append(target)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as file:
            file.write((SOURCE / relative).read_bytes())
        os.chmod(file.name, 0o644)
        os.replace(file.name, target)
        written.append(target)
    puzzles = folder / "puzzles"
    for entry in shelf.shelf():
        target = puzzles / entry.file_name
        if target.exists() and not force:
            kept.append(target)
        else:
            written.append(shelf.start(entry.number, puzzles, force=force))
    return Copied(folder, tuple(written), tuple(kept))
