"""The README's Python runs as written, in one namespace from top to bottom, and its own kernel verifies."""

import re
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
