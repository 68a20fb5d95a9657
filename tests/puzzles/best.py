"""Count our solutions on the public inputs and write tutorials/puzzles/best.json: python tests/puzzles/best.py"""

import json
import os
from pathlib import Path

from loadsparse.tutorials.judge import check
from loadsparse.tutorials.judge.shelf import FOLDER, shelf

SOLUTIONS = Path(__file__).parent / "solutions"


def main() -> None:
    found = {}
    for entry in shelf():
        verdict = check.check(entry.number, SOLUTIONS / entry.path.name)
        if not verdict.ok:
            raise SystemExit(str(verdict))
        if verdict.score:
            found[entry.path.stem] = {name: value["yours"] for name, value in verdict.score.items()}
    temporary = FOLDER / "best.json.part"
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(temporary, FOLDER / "best.json")


if __name__ == "__main__":
    main()
