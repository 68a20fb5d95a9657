"""`loadsparse balance` and the tokens road inside `loadsparse verify`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from loadsparse.cli.main import app
from loadsparse.gpu import verify
from loadsparse.gpu.verify.inputs import adversarial_case


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "scores.npy"
    np.save(path, 1 / (1 + np.exp(-rng.normal(0, 1, (64, 8)) - rng.normal(0, 1, 8))))
    return path


def test_balancers_are_compared_with_the_optimum(scores: Path) -> None:
    runner = CliRunner()
    arguments = ["balance", str(scores), "-k", "2", "-b", "sign", "--steps", "20"]
    found = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)["rows"]
    assert {row["balancer"] for row in found} == {"sign", "optimum"}
    assert found[-1]["max_violation"] == 0
    assert all(row["dual_gap"] >= -1e-9 for row in found)
    table = runner.invoke(app, [*arguments, "--plain"])
    assert table.exit_code == 0
    assert "MaxVio" in table.stdout


def test_drawn_scores_and_a_plot(tmp_path: Path) -> None:
    picture = tmp_path / "maxvio.svg"
    arguments = ["balance", "skewed:40,6,0.7", "-b", "sign", "-b", "quantile", "--steps", "5", "--plot", str(picture)]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert {row["balancer"] for row in json.loads(result.stdout)["rows"]} == {"sign", "quantile", "optimum"}
    assert "<svg" in picture.read_text()


def test_a_trained_layer_is_balanced() -> None:
    arguments = ["balance", "trace:none/2", "-k", "6", "-b", "quantile", "--steps", "10", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    first, *_, last, _ = json.loads(result.stdout)["rows"]
    assert last["max_violation"] < 0.2 < first["max_violation"]


def test_bad_scores_are_refused(scores: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    np.save(tmp_path / "nan.npy", np.full((4, 3), np.nan))
    (tmp_path / "cut.npy").write_bytes(scores.read_bytes()[:-9])
    for arguments in (
        [str(scores), "-k", "9"],
        [str(scores), "-b", "magic"],
        [str(tmp_path / "nan.npy"), "-k", "1"],
        [str(tmp_path / "cut.npy")],
        [str(tmp_path / "none.npy")],
        ["skewed:40"],
        ["trace:none/9", "-k", "6"],
        ["skewed:40,6,nan,1"],
        ["skewed:0,6"],
        [str(scores), "--steps", "2", "--plot", str(tmp_path / "picture.txt")],
    ):
        result = runner.invoke(app, ["balance", *arguments])
        assert result.exit_code == 2, result.output
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("loadsparse: ")


def test_verify_without_a_kernel_prints_both_roads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel, and the balancer; the kernels' rows are replaced by one small one to save time."""
    real, asked = verify.verify, []

    def one(kernel: object, *given: object, **options: object) -> verify.Result:
        asked.append(kernel)
        return real("lscd", adversarial_case("minus-zero", 1), seed=1)

    monkeypatch.setattr(verify, "verify", one)
    found = json.loads(CliRunner().invoke(app, ["verify", "--json"]).stdout)
    assert asked == [None]
    assert found["ok"] is True
    assert found["tokens"]["ok"] is True
    assert found["tokens"]["optimum_certified"] is True
    text = CliRunner().invoke(app, ["verify", "--plain"]).stdout
    assert "tokens: sign rule" in text
    assert text.rstrip().endswith("verified")
