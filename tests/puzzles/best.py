"""Count our answers on the public inputs and write tutorials/puzzles/best.json: python tests/puzzles/best.py

`solutions/` are to be read, `records/` are lean; of each count the least of either is the best known.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from loadsparse.tutorials.judge import check
from loadsparse.tutorials.judge.shelf import FOLDER, Entry, shelf

ANSWERS = tuple(Path(__file__).parent / name for name in ("solutions", "records"))


def answers(entry: Entry) -> list[Path]:
    """Our answers to a puzzle."""
    return [path for folder in ANSWERS if (path := folder / entry.path.name).is_file()]


def least(scores: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Of each count the least."""
    found = list(scores)
    return {name: min(score[name] for score in found) for name in found[0]}


def counts(entry: Entry, answer: Path) -> dict[str, int]:
    verdict = check.check(entry.number, answer)
    if not verdict.ok:
        raise SystemExit(str(verdict))
    return {name: int(value["yours"] or 0) for name, value in verdict.score.items()}


def main() -> None:
    counted = {entry.path.stem: least(counts(entry, answer) for answer in answers(entry)) for entry in shelf()}
    temporary = FOLDER / "best.json.part"
    temporary.write_text(json.dumps({stem: best for stem, best in counted.items() if best}, indent=1) + "\n")
    os.replace(temporary, FOLDER / "best.json")


if __name__ == "__main__":
    main()
