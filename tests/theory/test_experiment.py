"""Executors give the same numbers; a killed experiment resumes with nothing lost or repeated."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadsparse.theory import experiment, online

SETTINGS = [online.Setting(experts=4, k=1, tokens=8, steps=20, rate=0.01, seed=seed) for seed in range(4)]


def test_processes_equal_serial() -> None:
    serial = experiment.regret(SETTINGS)
    assert experiment.regret(SETTINGS, experiment.Processes(2)) == serial
    assert len({r.expected[-1] for r in serial}) == 4


def test_few_scores_are_drawn_in_this_process() -> None:
    assert experiment.executor(scores=experiment.SMALL - 1) == experiment.Serial()
    assert experiment.executor(scores=experiment.SMALL, workers=2) == experiment.executor(workers=2)
    assert experiment.executor(workers=2) == experiment.Processes(2)
    assert experiment.executor("tcp://host:8786", scores=1) == experiment.Dask("tcp://host:8786")


def test_a_dask_cluster_equals_serial() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        assert experiment.regret(SETTINGS, experiment.executor(cluster.scheduler_address)) == experiment.regret(
            SETTINGS
        )


def test_resumes_after_a_kill(tmp_path: Path) -> None:
    """A child is killed in the middle; the restart computes exactly the tasks that have no file yet."""
    code = (
        "import sys\nfrom loadsparse.theory import experiment, online\n"
        "many = [online.Setting(experts=4, k=1, tokens=8, steps=3000, rate=0.01, seed=s) for s in range(400)]\n"
        "experiment.regret(many, store=sys.argv[1])\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.wait()
    kept = {f.name: f.read_bytes() for f in tmp_path.glob("*.json")}
    assert 2 <= len(kept) < 400
    many = [
        online.Setting(experts=4, k=1, tokens=8, steps=3000, rate=0.01, seed=s).to_dict() for s in range(len(kept) + 1)
    ]
    computed: list[int] = []

    def counted(task: experiment.Task) -> experiment.Result:
        computed.append(task["seed"])
        return experiment.regret_run(task)

    results = experiment.run_all(counted, many, store=tmp_path)
    assert computed == [len(kept)]
    for name, content in kept.items():
        assert (tmp_path / name).read_bytes() == content
    assert results[0] == experiment.regret_run(many[0])


def test_a_foreign_or_broken_result_is_refused(tmp_path: Path) -> None:
    task = SETTINGS[0].to_dict()
    file = tmp_path / f"{experiment.key(task)}.json"
    for text in ("{", json.dumps({"task": {"seed": 9}, "result": {}})):
        file.write_text(text)
        with pytest.raises(ValueError, match="not a result of this task"):
            experiment.regret(SETTINGS[:1], store=tmp_path)
