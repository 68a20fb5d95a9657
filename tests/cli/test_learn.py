"""`loadsparse learn`: the course and the puzzles become the learner's own, and stay theirs."""

import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from loadsparse.cli import learn as command
from loadsparse.cli.main import app
from loadsparse.tutorials import learn
from loadsparse.tutorials.judge.shelf import shelf


def test_course_and_puzzles_are_copied(tmp_path: Path) -> None:
    folder = tmp_path / "course"
    found = CliRunner().invoke(app, ["learn", str(folder), "--json"])
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["kept"] == []
    notebooks = sorted(path.name for path in learn.SOURCE.glob("*.ipynb"))
    assert notebooks
    assert sorted(path.name for path in folder.glob("*.ipynb")) == notebooks
    assert sorted(path.name for path in (folder / "puzzles").glob("*.py")) == [entry.file_name for entry in shelf()]
    assert not list(folder.rglob("*.part"))
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not names & {"check.py", "best.json", shelf()[0].path.name}, "the judge and its oracles stay at home"


def test_notebooks_find_what_they_import(tmp_path: Path) -> None:
    learn.copy(tmp_path)
    beside = {path.stem for path in learn.SOURCE.glob("*.py")} - {"__init__"}
    for path in tmp_path.glob("*.ipynb"):
        code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        for name in beside:
            if re.search(rf"^(import {name}|from {name} )", code, re.MULTILINE):
                assert (tmp_path / f"{name}.py").is_file(), f"{path.name} imports {name}"


def test_what_the_learner_wrote_is_kept(tmp_path: Path) -> None:
    learn.copy(tmp_path)
    mine = tmp_path / "puzzles" / shelf()[0].file_name
    mine.write_text("mine")
    again = learn.copy(tmp_path)
    assert again.written == ()
    assert mine in again.kept
    assert mine.read_text() == "mine"
    learn.copy(tmp_path, force=True)
    assert mine.read_text() != "mine"


def test_jupyter_is_opened_or_its_installation_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    missing = CliRunner().invoke(app, ["learn", str(tmp_path / "a")])
    assert missing.exit_code == 0
    assert "pip install 'loadsparse[tutorials]'" in missing.stdout
    called: list[list[str]] = []

    def run(words: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        called.append(words)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(command, "find_spec", lambda name: object())
    monkeypatch.setattr(command.subprocess, "run", run)
    assert CliRunner().invoke(app, ["learn", str(tmp_path / "a")]).exit_code == 0
    assert not called, "without a terminal nothing is opened"
    assert CliRunner().invoke(app, ["learn", str(tmp_path / "a"), "--open"]).exit_code == 0
    assert called[0][1:] == ["-m", "jupyterlab", str(tmp_path / "a")]


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = CliRunner().invoke(app, ["learn", str(tmp_path / "file")])
    assert found.exit_code == 2
    assert found.stderr.count("\n") == 1
    assert "is a file" in found.stderr
