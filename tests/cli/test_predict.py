"""`loadsparse predict`: a thin skin over the performance model."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadsparse.cli.main import app
from loadsparse.gpu import perfmodel


def run(*arguments: str):
    return CliRunner().invoke(app, ["predict", *arguments])


def test_kernel_rows_are_those_of_the_library() -> None:
    done = run("flash-llm", "cublas", "--shape", "9216,16,9216", "--sparsity", "0.7", "--json")
    assert done.exit_code == 0
    rows = json.loads(done.stdout)["rows"]
    assert [row["kernel"] for row in rows] == ["flash-llm", "cublas"]
    for row in rows:
        found = perfmodel.predict(row["kernel"], 9216, 16, 9216, 0.7)
        assert (row["seconds"], row["bound"], row["roofline_seconds"]) == (
            found.seconds,
            found.bound,
            found.roofline_seconds,
        )


def test_model_rows_and_out_of_memory() -> None:
    done = run("fastertransformer", "flash-llm", "--model", "opt-66b", "--gpus", "2", "--batch", "64", "--json")
    dense, sparse = json.loads(done.stdout)["rows"]
    assert (dense["fits"], dense["dollars_per_million_tokens"], dense["bound"]) == (False, None, "memory")
    assert sparse["tokens_per_gpu_second"] == perfmodel.end_to_end("opt-66b", "flash-llm", 2, 64).tokens_per_gpu_second


def test_a_balancer_evens_the_loads_of_a_skewed_router() -> None:
    arguments = ("cublas", "--model", "deepseek-moe-16b", "--batch", "16", "--routing", "1/rank", "--json")
    free, even = (json.loads(run(*arguments, *more).stdout)["rows"][0] for more in ((), ("--balancer", "proportional")))
    expected = perfmodel.end_to_end(
        "deepseek-moe-16b", "cublas", 1, 16, routing=perfmodel.Routing("1/rank", "proportional")
    )
    assert even["tokens_per_gpu_second"] == expected.tokens_per_gpu_second < free["tokens_per_gpu_second"]


def test_published_points_stand_beside_their_predictions() -> None:
    arguments = ("--model", "opt-66b", "--gpus", "2", "--sweep", "batch", "--json")
    rows = json.loads(run("fastertransformer", "flash-llm", *arguments).stdout)["rows"]
    shown = {(row["kernel"], row["batch"]): row["published"] for row in rows}
    assert shown["fastertransformer", 16] == 144
    assert shown["fastertransformer", 32] == "out of memory"
    assert shown["flash-llm", 64] == 520
    assert shown["flash-llm", 4] is None
    other = json.loads(run("flash-llm", *arguments, "--prompt", "65").stdout)["rows"]
    assert all(row["published"] is None for row in other)


def test_explain_says_what_binds() -> None:
    text = run("cublas", "--explain", "--plain").stdout
    assert "bound by dram" in text
    assert "10% better dram bandwidth" in text
    text = run("flash-llm", "--model", "opt-66b", "--gpus", "2", "--explain", "--plain").stdout
    assert "mlp matmuls" in text
    assert "memory: weights" in text


def test_untested_questions_are_noted() -> None:
    assert "note: N = 128 is outside" in run("cublas", "--shape", "9216,128,9216", "--plain").stdout


@pytest.mark.parametrize(("arguments", "count"), [
    (("cublas", "--sweep", "n"), 4), (("flash-llm", "--sweep", "sparsity"), 6),
    (("flash-llm", "--model", "opt-66b", "--gpus", "2", "--sweep", "batch"), 8),
])  # fmt: skip
def test_sweeps(arguments: tuple[str, ...], count: int) -> None:
    assert len(json.loads(run(*arguments, "--json").stdout)["rows"]) == count


def test_plot_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "sweep.svg"
    assert run("cublas", "flash-llm", "--sweep", "sparsity", "--plot", str(target)).exit_code == 0
    assert target.read_text().lstrip().startswith("<?xml")


def test_replay_shows_every_point_with_its_error() -> None:
    found = json.loads(run("--replay", "--json").stdout)
    assert {p["figure"] for p in found["points"]} == {"calibration", "sweep", "averages", "RTX 4090", "end to end"}
    assert all(p["error"] is not None or p["published"] is None or p["predicted"] is None for p in found["points"])
    table = run("--replay", "--plain").stdout
    assert "out of memory" in table
    assert "over sparta, headline" in table


@pytest.mark.parametrize(("arguments", "word"), [
    (("nosuch",), "unknown kernel"),
    (("cublas", "--shape", "1,2"), "--shape 1,2"),
    (("cublas", "--shape", "0,2,3"), "M must be"),
    (("cublas", "--gpu", "nosuch"), "unknown GPU"),
    (("cublas", "--gpu", "absent.json"), "cannot be read"),
    (("cublas", "--sparsity", "2"), "sparsity"),
    (("cublas", "--sweep", "batch"), "choose sparsity or n"),
    (("cublas", "--plot", "a.svg"), "add --sweep"),
    (("cublas", "--sweep", "n", "--plot", "a.txt"), ".png, .svg or .pdf"),
    (("cublas", "--sweep", "n", "--plot", "absent/a.svg"), "there is no folder absent"),
    (("--model", "nosuch"), "unknown model"),
    (("--model", "opt-66b", "--gpus", "5"), "divisor"),
    (("cublas", "--model", "opt-66b", "--price", "-1", "--gpus", "8"), "dollars"),
    (("cublas", "--model", "opt-66b", "--price", "nan", "--gpus", "8"), "dollars"),
    (("cublas", "--model", "opt-66b", "--price", "inf", "--gpus", "8"), "dollars"),
    (("cublas", "--model", "opt-66b", "--balancer", "sign"), "no experts"),
    (("cublas", "--model", "mixtral-8x7b", "--balancer", "odd"), "unknown balancer"),
])  # fmt: skip
def test_bad_input_ends_in_one_line(arguments: tuple[str, ...], word: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
