"""The command `loadsparse compare`: rows with fixed keys, a plot, a sweep, one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadsparse.cli import compare
from loadsparse.cli.main import app
from loadsparse.gpu import comparison

RUN = CliRunner()


def test_json_rows_and_plot(tmp_path: Path) -> None:
    picture = tmp_path / "bars.svg"
    done = RUN.invoke(app, ["compare", "lscd", "dense-4bit", "--shape", "64,8,64", "--plot", str(picture), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    lscd, four_bit = found["rows"]
    assert lscd["shape"] == [64, 8, 64]
    assert (lscd["hazards"], lscd["spill_bytes"], lscd["origin"]) == (0, 0, "counted")
    assert four_bit["bytes_a"] == 2560
    assert found["notes"]
    assert picture.read_text().lstrip().startswith("<?xml")


def test_table_and_sweep(tmp_path: Path) -> None:
    out = tmp_path / "opt.jsonl"
    arguments = ["compare", "dense-4bit", "spinfer", "--sweep", "opt", "--n", "8,64", "--out", str(out), "--plain"]
    done = RUN.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "opt-66b down" in done.stdout
    assert "published" in done.stdout
    assert len(out.read_text().splitlines()) == 12 * 2 * 2
    before = out.read_bytes()
    assert RUN.invoke(app, arguments).exit_code == 0
    assert out.read_bytes() == before


def test_plot_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swept(*_: object, **how: object) -> list[comparison.Row]:
        seconds = {"dense": 4e-5, "lscd": 2e-5, "dense-4bit": None}
        return [
            {**row, "matrix": matrix, "kernel": kernel, "predicted_seconds": seconds[kernel], "shape": [64, n, 64]}
            for row in comparison.compare((64, 8, 64), 0.8, names=["dense-4bit"])
            for matrix in ("up", "down")
            for n in (8, 64)
            for kernel in seconds
        ]

    monkeypatch.setattr("loadsparse.gpu.sweep.sweep", swept)
    picture = tmp_path / "sweep.svg"
    done = RUN.invoke(
        app, ["compare", "--sweep", "opt", "--out", str(tmp_path / "x"), "--plot", str(picture), "--plain"]
    )
    assert done.exit_code == 0, done.output
    drawn = picture.read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("up", "down", "N = 8", "N = 64", "lscd"))
    assert "<!-- dense-4bit -->" not in drawn  # no time is predicted


def test_columns_that_do_not_fit_go_to_another_table() -> None:
    columns = {"matrix": ["opt-30b up"], "kernel": ["lscd"], "a": ["1"], "wavefronts": ["1,000"], "b": ["-"]}
    assert compare._pages(columns, 2, 200) == [list(columns)]
    assert compare._pages(columns, 2, 40) == [["matrix", "kernel", "a", "wavefronts"], ["matrix", "kernel", "b"]]
    assert compare._pages(columns, 2, 1) == [["matrix", "kernel", name] for name in ("a", "wavefronts", "b")]


def test_a_plot_that_cannot_be_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "compare", lambda *_, **__: pytest.fail("work was done"))
    for name in ("x.bmp", "nowhere/x.png"):
        done = RUN.invoke(app, ["compare", "dense-4bit", "--plot", str(tmp_path / name)])
        assert done.exit_code == 2, done.output


def test_a_hazard_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    original = comparison.compare

    def raced(*args: object, **how: object) -> list[comparison.Row]:
        return [{**row, "hazards": 1} for row in original(*args, **how)]  # type: ignore[arg-type]

    monkeypatch.setattr(comparison, "compare", raced)
    assert RUN.invoke(app, ["compare", "dense-4bit"]).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "64,0,64"], "N = 0 is impossible"),
        (["--shape", "64,8"], "give positive integers, for example 1024,16,1024"),
        (["--shape", "64,8,-1"], "give positive integers"),
        (["flash-llm", "--shape", "64,12,64"], "kernel flash-llm takes N = 8, 16, 32, 64 or a multiple of 128, not 12"),
        (["nix"], "unknown kernel 'nix'"),
        (["--sweep", "opt"], "needs --out"),
        (["--out", "x.jsonl"], "--out belongs to --sweep"),
        (["lscd", "--sweep", "opt", "--out", "x.jsonl", "--plot", "x.png"], "shows speed-ups over dense: name dense"),
        (["--sweep", "opt", "--out", "x.jsonl", "--plot", "x.bmp"], "a plot is written as .png"),
        (["--sweep", "nix", "--out", "x.jsonl"], "unknown sweep 'nix': known are opt, llama, smollm2"),
        (["dense-4bit", "--plot", "x.bmp"], "a plot is written as .png"),
        (["dense-4bit", "--plot", "nowhere/x.png"], "there is no folder nowhere"),
        (["dense-4bit", "--gpu", "nix"], "unknown GPU 'nix'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = RUN.invoke(app, ["compare", *arguments])
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
