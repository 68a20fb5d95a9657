"""`loadsparse regret`: the experiment as a command, resumed from its store."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from loadsparse.cli.main import app

SMALL = ["regret", "--experts", "4", "-k", "1", "--tokens", "16", "--steps", "40", "--seeds", "2"]


def test_runs_are_kept_and_resumed(tmp_path: Path) -> None:
    arguments = [*SMALL, "--store", str(tmp_path / "runs"), "--json"]
    first = json.loads(CliRunner().invoke(app, arguments).stdout)
    kept = sorted((tmp_path / "runs").glob("*.json"))
    assert len(kept) == 2
    assert first["rows"][-1]["steps"] == 40
    assert first["rows"][-1]["regret"] >= 0
    stamp = [file.stat().st_mtime_ns for file in kept]
    assert json.loads(CliRunner().invoke(app, arguments).stdout) == first
    assert [file.stat().st_mtime_ns for file in kept] == stamp
    assert "mean regret" in CliRunner().invoke(app, [*arguments[:-1], "--plain"]).stdout


def test_bad_settings_are_one_line() -> None:
    for more in (["--rule", "magic"], ["--schedule", "2/n"], ["-k", "4"], ["--rate", "nan"]):
        result = CliRunner().invoke(app, [*SMALL, *more])
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("loadsparse: ")
        assert result.stderr.count("\n") == 1
