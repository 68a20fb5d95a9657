"""`loadsparse llm` on a tiny model of the tests' own."""

from __future__ import annotations

import json
from pathlib import Path

import gguf_files
import pytest
from typer.testing import CliRunner

from loadsparse.cli.main import app


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "tiny.gguf").write_bytes(gguf_files.tiny_model())
    (tmp_path / "text.txt").write_text("the anthem of the ants than then " * 12)
    return ["--model", str(tmp_path / "tiny.gguf"), "--text", str(tmp_path / "text.txt")]


def test_perplexity(files: list[str]) -> None:
    arguments = ["llm", "perplexity", *files, "--tokens", "40", "--window", "16", "--sparsity", "0,0.9"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert [(row["method"], row["sparsity"]) for row in rows] == [
        ("dense", 0), ("magnitude", 0), ("magnitude", 0.9), ("wanda", 0), ("wanda", 0.9),
    ]  # fmt: skip
    assert rows[0]["perplexity"] == rows[1]["perplexity"] == rows[3]["perplexity"] != rows[2]["perplexity"]
    assert {row["tokens"] for row in rows} == {37}  # windows of 16, 16 and 8
    table = CliRunner().invoke(app, [*arguments, "--plain"])
    assert table.exit_code == 0
    assert "without any retraining" in table.stdout
    assert "4-bit" not in table.stdout  # true of SmolLM2's file only, as are its 135 million weights
    assert "135" not in table.stdout


def test_block(files: list[str]) -> None:
    arguments = ["llm", "block", *files, "--index", "1", "--tokens", "4", "--sparsity", "0.5"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["ok"]
    assert len(found["products"]) == 7
    assert "bit for bit" in CliRunner().invoke(app, [*arguments, "--plain"]).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["perplexity", "--tokens", "4000"], "lower --tokens"),
        (["perplexity", "--sparsity", "half"], "give numbers"),
        (["perplexity", "--sparsity", "1.5"], "between 0 and 1"),
        (["block", "--index", "2", "--tokens", "4"], "no block 2"),
        (["block", "--kernel", "magic", "--tokens", "4"], "unknown kernel"),
    ],
)
def test_bad_input_is_one_line(files: list[str], arguments: list[str], message: str) -> None:
    index = [] if "--index" in arguments or arguments[0] != "block" else ["--index", "0"]
    done = CliRunner().invoke(app, ["llm", *arguments, *files, *index])
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_files_that_are_no_model_or_text(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"\xff\xfe")
    done = CliRunner().invoke(app, ["llm", "perplexity", *files])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "UTF-8" in done.stderr
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    done = CliRunner().invoke(app, ["llm", "perplexity", *files])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "truncated" in done.stderr
