"""A learner's text judged without a process of its own: the same code answers in this process, without limits and guard.

Compiling in one process costs a tenth of a second an answer instead of one; test_cheating.py has the real process.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from loadsparse.tutorials.judge import check, child
from loadsparse.tutorials.judge.shelf import FOLDER, Entry, shelf
from loadsparse.tutorials.judge.verdict import Verdict

HERE = Path(__file__).parent
ENTRIES = shelf()
IDS = [entry.path.stem for entry in ENTRIES]


class Here:
    """Stands for `sandbox.Process`: answers at once."""

    def __init__(self, serve: str, folder: Path) -> None:
        child.respond(folder, json.loads((folder / "request.json").read_text()))

    def stop(self) -> None:
        pass

    def wait(self, seconds: float) -> int:
        return 0


def judged(
    entry: Entry, text: str, tmp: Path, monkeypatch: pytest.MonkeyPatch, seed: str = "test:1", folder: Path = FOLDER
) -> Verdict:
    path = tmp / entry.file_name
    path.write_text(text)
    monkeypatch.setattr("loadsparse.gpu.sandbox.Process", Here)
    return check.check(entry.number, path, seed=seed, folder=folder)


def solution(entry: Entry) -> str:
    return (HERE / "solutions" / entry.path.name).read_text()


def wrong(entry: Entry) -> ModuleType:
    """WRONG of a puzzle: (kind of the first problem, words of its sentence or hint, the line's text or None, text)."""
    spec = importlib.util.spec_from_file_location(f"wrong_{entry.number}", HERE / "wrong" / entry.path.name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
