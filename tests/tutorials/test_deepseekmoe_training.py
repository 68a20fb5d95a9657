"""The trainer, at its tiny setting: exact resume after a kill, one record on every executor, a report that is current."""

from __future__ import annotations

import doctest
import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepseekmoe.arms
import numpy as np
import pytest
from deepseekmoe import checkpoint, data, measure, prune, report, results, run, train
from deepseekmoe.arms import arms
from scipy import stats
from typer.testing import CliRunner

from loadsparse.reference import balancing, routing
from loadsparse.theory import experiment, online

STEPS = 300  # as in chapter 34: one program, compiled once, serves both
LONG = train.settings(["sign 1e-2"], 1, tiny=True, steps=STEPS, log_every=20, evaluate_every=50)[0]


def same(a: run.Progress, b: run.Progress) -> None:
    """Every record, bias, weight and moment, bit for bit."""
    left, right = a.to_arrays(), b.to_arrays()
    assert left.keys() == right.keys()
    for name in left.keys() - {"seconds"}:
        assert left[name].tobytes() == right[name].tobytes(), name


@pytest.mark.claim(
    id="moe-training-resume",
    source="ours",
    phrase="a training run that is killed at any moment continues from its last checkpoint with the same bits",
    assumption="same machine and versions; the tiny setting, killed once",
    function="deepseekmoe.run.run",
    status="proved",
)
def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    code = (
        "import sys, json\nfrom pathlib import Path\nfrom deepseekmoe import run\n"
        "run.run(run.Setting(**json.loads(sys.argv[1])), Path(sys.argv[2]), checkpoint_every=5)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(run.to_task(LONG)), str(tmp_path / "killed")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    file, deadline = tmp_path / "killed" / LONG.name / "checkpoint.npz", time.monotonic() + 200
    while not file.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    child.kill()
    child.wait()
    found = checkpoint.load(file)
    assert found is not None
    assert 0 < found["step"] < STEPS
    assert train.steps_done([LONG], tmp_path / "killed") == found["step"]
    resumed, scores = run.run(LONG, tmp_path / "killed")
    whole, expected = run.run(LONG, tmp_path / "whole", checkpoint_every=1000)
    same(resumed, whole)
    assert scores.tobytes() == expected.tobytes()
    assert whole.bits[-20:].mean() < whole.bits[:20].mean() - 1  # text is learnt
    assert np.ptp(whole.biases) > 0
    assert not np.isnan(whole.measured[:, :, measure.FIELDS.index("obey")]).any()


def test_arms_see_the_same_text_and_start_from_the_same_weights() -> None:
    text = data.standard_library()
    assert text.batch(1, 7, 3, 20).tobytes() == text.batch(1, 7, 3, 20).tobytes()
    assert text.batch(1, 7, 3, 20).tobytes() != text.batch(2, 7, 3, 20).tobytes()
    one, other = (run.start(replace(LONG, arm=name)) for name in ("none", "quantile"))
    same(one, other)


def test_the_text_is_split_by_file_and_recorded(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / ("test" if number % 10 == 9 else "lib")
        folder.mkdir(exist_ok=True)
        (folder / f"m{number}.py").write_bytes(bytes([65 + number % 26]) * 4000)
    text = data.read(tmp_path)
    assert text.training.size + text.validation.size == sum(size + 1 for _, size in text.files) == 36 * 4001
    assert not any(name.startswith("test/") for name, _ in text.files)
    before = text.sha256
    (tmp_path / "lib" / "m0.py").write_bytes(b"other")
    assert data.read(tmp_path).sha256 != before
    with pytest.raises(ValueError, match="too little to train on"):
        data.read(tmp_path / "test")


def test_one_record_on_every_executor(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    wanted = train.settings(["none", "loss 1e-1", "quantile"], 1, tiny=True, steps=STEPS)
    serial = train.train(wanted, tmp_path / "serial", experiment.Serial())
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        dask = train.train(wanted, tmp_path / "dask", train.executor(cluster.scheduler_address, None))
    for one, other in zip(serial, dask, strict=True):
        assert {**one, "cpu_seconds": 0} == {**other, "cpu_seconds": 0}
    none, loss, quantile = serial
    assert none["spread"] == [0]
    assert none["measured"]["falls"] == [[None]] * (STEPS // 5)
    assert loss["bits"] != none["bits"]  # the loss reaches the weights
    assert max(quantile["spread"]) > 0
    assert json.loads(json.dumps(serial)) == serial
    # a finished run is not trained again
    stamp = [file.stat().st_mtime_ns for file in sorted((tmp_path / "serial").rglob("*"))]
    train.train(wanted, tmp_path / "serial", experiment.Serial())
    assert [file.stat().st_mtime_ns for file in sorted((tmp_path / "serial").rglob("*"))] == stamp
    # report
    log = report.collect(tmp_path / "serial", wanted)
    assert json.loads(report.to_text(log, "runs")) == json.loads(json.dumps(log))
    assert [one["arm"] for one in log["runs"]] == ["none", "loss 1e-1", "quantile"]
    assert "Not finished: loss 1e-2" in report.markdown(log)
    report.plots(log, tmp_path)
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")
    with pytest.raises(ValueError, match="no finished run"):
        report.collect(tmp_path, wanted)


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "checkpoint.npz"
    checkpoint.save(file, {"a": np.arange(3)})

    def torn(target: Any, **arrays: Any) -> None:
        target.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", torn)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(file, {"a": np.arange(4)})
    found = checkpoint.load(file)
    assert found is not None
    assert found["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x80\x04N.", "pickle"])
def test_a_broken_checkpoint_is_refused(tmp_path: Path, content: bytes | str) -> None:
    file = tmp_path / "checkpoint.npz"
    if isinstance(content, str):
        np.savez(file, step=np.asarray([{}], dtype=object))  # would need pickle
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        checkpoint.load(file)


def test_a_checkpoint_of_another_setting_is_refused(tmp_path: Path) -> None:
    file = tmp_path / LONG.name / "checkpoint.npz"
    checkpoint.save(file, run.start(LONG).to_arrays())
    assert run.resume(LONG, file).step == 0
    with pytest.raises(ValueError, match="belongs to another setting"):
        run.resume(replace(LONG, steps=STEPS + 1), file)
    checkpoint.save(file, run.start(LONG).to_arrays() | {"step": np.asarray(STEPS + 1)})
    with pytest.raises(ValueError, match="step does not fit"):
        run.resume(LONG, file)
    checkpoint.save(file, run.start(LONG).to_arrays())
    with pytest.raises(ValueError, match="fewer than 65,536"):
        replace(LONG, sequences=2**11)
    wider = replace(LONG, model=LONG.model | {"width": 8})
    with pytest.raises(ValueError, match="not a checkpoint of this model"):
        run.resume(wider, file)
    with pytest.raises(ValueError, match="is not the record of this run"):
        run.scores_file(tmp_path / "scores.npy", (2, 3), fresh=False)
    run.scores_file(tmp_path / "scores.npy", (2, 3), fresh=True)
    with pytest.raises(ValueError, match="belongs to another setting"):
        run.scores_file(tmp_path / "scores.npy", (2, 4), fresh=False)
    with pytest.raises(ValueError, match="not the text"):
        run.run(replace(LONG, corpus="0" * 64), tmp_path)


def test_measure_sees_what_it_should() -> None:
    """Fixed scores obey the preference rule; scores that move against the bias do not; a planted rise of D is a rise."""
    rng = np.random.default_rng(0)
    scores, bias = rng.random((60, 5)), rng.normal(size=5) * 0.1
    change = balancing.SignBias(0.05).step(balancing.State(bias), routing.loads(routing.top_k(scores, 2, bias), 5)).bias
    change = change - bias

    def measured(s: Any, k: int, p: Any, delta: Any, moved: Any) -> measure.Measured:
        return measure.Measured(*measure.measure(s, k, p, delta, moved))

    still = measured(scores, 2, bias, change, scores)
    assert still.dual >= still.optimum
    assert still.pairs == still.obey == still.moved_obey > 0
    assert still.moved_wrong == 0
    against = measured(scores, 2, bias, change, scores - 3 * change)
    assert against.moved_obey < against.moved_pairs
    assert against.moved_wrong > 0
    rise = measured(np.tile([0.4, 0.0], (10, 1)), 1, np.zeros(2), np.asarray([-1.0, 1.0]), np.tile([0.4, 0.0], (10, 1)))
    assert (rise.falls, rise.few, rise.keeps) == (0, 0, 0)
    assert math.isnan(measured(scores, 2, bias, None, scores).falls)


def test_regret_is_zero_for_the_best_bias_and_not_for_others() -> None:
    rng = np.random.default_rng(0)
    batches = rng.random((4, 30, 5)) + np.linspace(0, 0.5, 5)
    best, _ = online.hindsight(batches, 2)
    assert measure.regret(batches, 2, np.tile(best, (4, 1))) == pytest.approx(0, abs=1e-12)
    assert measure.regret(batches, 2, np.zeros((4, 5))) > 0.1
    drifting = batches + np.arange(4)[:, None, None] * np.eye(5)[0] * 0.2
    follows = np.asarray([online.hindsight(batch[None], 2)[0] for batch in drifting])
    assert measure.regret(drifting, 2, follows) < 0  # no fixed bias follows a drift


def test_intervals_and_bounds() -> None:
    found = results.interval([1.0, 2.0, 4.0, math.nan])
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert str(results.interval([])) == "-"
    assert math.isnan(results.interval([1.0]).half)
    known = arms(6)
    assert results.spread_bound(known["sign 1e-2"], 0.5, 64, 6) == pytest.approx(1.02)
    assert results.spread_bound(known["proportional 1e-2"], 0.5, 64, 6) == pytest.approx(1 + 0.01 * 64 / 6)
    assert math.isnan(results.spread_bound(known["none"], 0.5, 64, 6))


@pytest.mark.claim(
    id="moe-training",
    source="ours; trends of arXiv 2408.15664",
    phrase="a small DeepSeekMoE trained with every balancer: text, balance, dual gap, D2, D3, regret, with intervals",
    assumption="1.7 million weights, 800 steps of 1,024 bytes, three seeds: observations at this scale, not the 1B experiments",
    function="deepseekmoe.results.summary",
    status="counted",
)
def test_the_committed_table_is_that_of_the_committed_log() -> None:
    log = results.load()
    text = (report.HERE / "README.md").read_text()
    tables = {"results": report.markdown(log), "trends": report.trend_table(log)}
    tables["pruning"] = prune.markdown(results.load(report.HERE / "prune.json"))
    for name, table in tables.items():
        assert re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.S)[1] == table
    assert log["corpus"]["sha256"] == log["setting"]["corpus"]
    for one in log["runs"]:  # the theorems hold on every logged batch of the committed runs
        dual, optimum = results.table(one, "dual"), results.table(one, "optimum")
        assert (dual >= optimum - 1e-5).all()
        assert np.nansum(results.table(one, "obey")) == np.nansum(results.table(one, "pairs"))


def test_docstring_examples() -> None:
    for module in (deepseekmoe.arms, results):
        found = doctest.testmod(module)
        assert found.attempted > 0
        assert found.failed == 0


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    for arguments in (["--arm", "magic"], ["--executor", "magic"], ["--arm", "none", "--steps", "0"]):
        result = CliRunner().invoke(train.app, ["--tiny", "--store", str(tmp_path), *arguments])
        assert result.exit_code == 2, result.output
    result = CliRunner().invoke(train.app, ["--tiny", "--store", str(tmp_path), "--arm", "magic"])
    assert result.stderr.startswith("loadsparse: unknown arm 'magic'; known: none")
    assert result.stderr.count("\n") == 1
    result = CliRunner().invoke(report.app, ["--store", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
