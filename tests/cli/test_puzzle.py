"""`loadsparse puzzle` as a learner and an autograder meet it: files, exit codes, one-line refusals, JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loadsparse.cli.main import app

RIGHT = "def kernel(out, a, b):\n    out[0] = a[0] + b[0]\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        return CliRunner().invoke(app, ["puzzle", *words])

    return call


def test_start_check_solve(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert run("start", "1").exit_code == 0
    file = tmp_path / "puzzle_01_one_thread_adds.py"
    empty = run("check", "1", "--plain")
    assert empty.exit_code == 1
    assert "`...` is still here" in empty.stdout
    file.write_text(RIGHT)
    solved = run("check", "1", "--plain")
    assert solved.exit_code == 0, solved.output
    assert "solved" in solved.stdout
    assert "best known" in solved.stdout
    assert "you beat it" not in solved.stdout
    again = run("start", "one_thread_adds")
    assert again.exit_code == 2
    assert "already there" in again.stderr
    assert file.read_text() == RIGHT
    assert run("start", "1", "--force").exit_code == 0
    assert "FILL ME IN" in file.read_text()


def test_json_is_what_the_readme_says(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "mine.py").write_text("import os\n\n\ndef kernel(out, a, b):\n    out[0] = a[1] + b[0]\n")
    found = run("check", "1", "mine.py", "--json", "--seed", "4711")
    assert found.exit_code == 1
    verdict = json.loads(found.stdout)
    assert set(verdict) == {"ok", "puzzle", "name", "file", "seed", "trials", "problems", "score", "printed"}
    assert verdict["seed"].startswith("4711:")
    (problem,) = verdict["problems"]
    assert set(problem) == {"kind", "line", "sentence", "hint", "trial", "picture", "details"}
    assert (problem["kind"], problem["line"]) == ("bounds", 5)
    listed = json.loads(run("list", "--json").stdout)["puzzles"]
    assert listed[0]["name"] == "one_thread_adds"
    assert len(listed) == len({row["number"] for row in listed})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "1"), "no such file"),
        (("check", "99"), "no puzzle '99'"),
        (("start", "nothing"), "no puzzle 'nothing'"),
        (("list", "--from", "."), "holds no puzzles"),
        (("check", "1", "missing.py"), "missing.py: no such file"),
        (("check", "1", "--memory-limit", "inf"), "--memory-limit"),
        (("check", "1", "--time-limit", "nan"), "--time-limit"),
    ],
)
def test_refusals_are_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadsparse.cli.main", "puzzle", *words]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_file_that_is_no_text(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for data in (b"\xff\xfe\x00", b"x = 1\x00"):
        (tmp_path / "mine.py").write_bytes(data)
        found = run("check", "1", "mine.py", "--plain")
        assert found.exit_code == 1
        assert "no UTF-8 text" in found.stdout


def test_trace_shows_the_rest(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "mine.py").write_text("raise RuntimeError('too early')\n")
    short, full = run("check", "1", "mine.py", "--plain"), run("check", "1", "mine.py", "--plain", "--trace")
    assert "line 1: RuntimeError: too early" in short.stdout
    assert "Traceback" not in short.stdout
    assert "Traceback" in full.stdout


def test_help_and_puzzle_list_import_nothing_heavy() -> None:
    """What keeps `--help` within half a second: no NumPy, Numba, LLVM or SciPy; the list needs NumPy alone."""
    code = (
        "import sys\nfrom loadsparse.cli import main\nsys.argv = ['loadsparse', '--help']\n"
        "try: main.main()\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'numba', 'numba.cuda', 'llvmlite', 'scipy', 'lark'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_count_below_the_best_known_is_named(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    known = {"instructions": 1000, "wavefronts": 0, "conflicts": 0, "sectors": 20}
    monkeypatch.setattr("loadsparse.tutorials.judge.shelf.Entry.best", lambda entry: known)
    body = "    for d in (16, 8, 4, 2, 1):\n        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, d)\n"
    head = "from numba import cuda\n\n\ndef kernel(out, a):\n    value = a[cuda.grid(1)]\n"
    (tmp_path / "mine.py").write_text(head + body + "    out[cuda.blockIdx.x] = value\n")
    solved = run("check", "9", "mine.py", "--plain")
    assert solved.exit_code == 0, solved.output
    assert solved.stdout.count("you beat it") == 1
