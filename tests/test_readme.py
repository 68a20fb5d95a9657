"""The README's Python runs as written, in one namespace from top to bottom, and its own kernel verifies."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_tour(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, object] = {}
    for block in BLOCKS:
        if not block.startswith("# mine.py"):
            exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "race" in printed
    assert float(printed.split()[-1]) >= 0


def test_own_kernel_verifies(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(next(block for block in BLOCKS if block.startswith("# mine.py")))
    command = [sys.executable, "-m", "loadsparse.cli.main", "verify", "mine.py:kernel", "--input", "random", "--plain"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.rstrip().endswith("verified")


def test_links_resolve() -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert targets
    missing = [target for target in targets if not (Path(__file__).parents[1] / target.split("#")[0]).exists()]
    assert not missing


COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
ELSEWHERE = {
    "make verify": "continuous integration runs it",
    "make test": "this very suite",
    "source .venv/bin/activate": "sets a path, as this test does",
    "loadsparse compare --shape 1024,16,1024": "half a minute of compiling; tests/cli/test_compare.py runs it smaller",
    "loadsparse llm perplexity": "fetches 98 MB and computes for minutes; tests/cli/test_llm.py runs a tiny model",
    "loadsparse learn my-course": "opens Jupyter where it is installed; tests/cli/test_learn.py copies without",
    "loadsparse verify": "the main job, minutes; its parts are tested in tests/cli and tests/gpu",
}


def bare(line: str) -> str:
    return shlex.join(shlex.split(line, comments=True))


def test_every_command_is_accounted_for() -> None:
    assert set(ELSEWHERE) <= set(map(bare, COMMANDS)), "an exception for a command that the README no longer has"
    assert all(line.startswith(("loadsparse ", "make ", "source ")) for line in COMMANDS)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody who has just installed: an empty home, no caches, nothing of this process but its path."""
    home = str(tmp_path_factory.mktemp("home"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    system = {key: os.environ[key] for key in ("SYSTEMROOT", "TEMP", "TMPDIR", "LANG") if key in os.environ}
    return {**system, "PATH": path, "HOME": home, "USERPROFILE": home, "LOCALAPPDATA": home}


@pytest.mark.parametrize("line", [line for line in COMMANDS if bare(line) not in ELSEWHERE], ids=bare)
def test_command_runs_as_written(line: str, newcomer: dict[str, str], tmp_path: Path) -> None:
    """As typed, in an empty folder."""
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, env=newcomer, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr
