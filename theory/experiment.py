"""Many runs of one function, on processes or on a Dask cluster, resumable after a kill.

Every finished task is one small JSON file, written aside and renamed, so that a kill loses at most the tasks under
way and a restart repeats none that finished. The same tasks give the same numbers on every executor.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from loadsparse.theory import online

Task = dict[str, Any]
Result = dict[str, Any]


class Executor(Protocol):
    """Runs function(task) for every task and yields (index of the task, result) in any order."""

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """The results as they come; an error in a task is raised here."""


@dataclass(frozen=True)
class Serial:
    """One task after the other in this process."""

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """The results in order."""
        for index, task in enumerate(tasks):
            yield index, function(task)


@dataclass(frozen=True)
class Processes:
    """Fresh worker processes; workers = None: one per core."""

    workers: int | None = None

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """The results as they finish."""
        with ProcessPoolExecutor(self.workers, mp_context=get_context("spawn")) as pool:
            waiting = {pool.submit(function, task): index for index, task in enumerate(tasks)}
            try:
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Dask:
    """A Dask cluster by the address of its scheduler, "tcp://host:8786"; its workers need this package installed."""

    address: str

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """The results as they finish."""
        try:
            from distributed import Client, as_completed
        except ImportError:
            raise RuntimeError("a Dask cluster needs the extra: pip install 'loadsparse[cluster]'") from None
        with Client(self.address) as client:
            futures = client.map(function, list(tasks), pure=False)
            waiting = {future.key: index for index, future in enumerate(futures)}
            for future in as_completed(futures):
                yield waiting[future.key], future.result()


SMALL = 50_000_000
"""Scores that one process draws and routes in about the time that another takes to start."""


def executor(scheduler: str | None = None, workers: int | None = None, scores: float = math.inf) -> Executor:
    """The Dask cluster at `scheduler`, else processes; this one alone where all tasks together draw few `scores`."""
    if scheduler is not None:
        return Dask(scheduler)
    return Serial() if scores < SMALL else Processes(workers)


def key(task: Task) -> str:
    """A file name for a task: the first 32 hex digits of the SHA-256 of its JSON with sorted keys."""
    return hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()[:32]


def stored(store: Path, task: Task) -> Result | None:
    """The finished result of a task, or None; ValueError if the file is not what was written for this task."""
    file = store / f"{key(task)}.json"
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text())
        if record["task"] != json.loads(json.dumps(task)):
            raise KeyError("task")
        return dict(record["result"])
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{file} is not a result of this task: remove it to compute the task again") from None


def save(store: Path, task: Task, result: Result) -> None:
    """Write one result beside its place and rename it there."""
    file = store / f"{key(task)}.json"
    aside = file.with_suffix(f".{os.getpid()}.part")
    aside.write_text(json.dumps({"task": task, "result": result}))
    os.replace(aside, file)


def run_all(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    runner: Executor | None = None,
    store: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """function(task) for all tasks, in their order; what `store` already holds is not computed again.

    function must be importable by name (for processes); tasks and results are JSON: what a worker returns and what a
    store gives back are equal. progress(done, total) is called after every finished task.
    """
    folder = None if store is None else Path(store)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, Result] = {}
    for index, task in enumerate(tasks):
        known = None if folder is None else stored(folder, task)
        if known is not None:
            found[index] = known
    open_tasks = [index for index in range(len(tasks)) if index not in found]
    if progress is not None:
        progress(len(found), len(tasks))
    runs = (Serial() if runner is None else runner).run(function, [tasks[index] for index in open_tasks])
    for position, result in runs:
        index = open_tasks[position]
        found[index] = json.loads(json.dumps(result))
        if folder is not None:
            save(folder, tasks[index], found[index])
        if progress is not None:
            progress(len(found), len(tasks))
    return [found[index] for index in range(len(tasks))]


def regret_run(task: Task) -> Result:
    """One `online.Setting` as a task: its `online.Run` as a result."""
    return online.simulate(online.Setting.from_dict(task)).to_dict()


def regret(
    settings: Sequence[online.Setting],
    runner: Executor | None = None,
    store: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[online.Run]:
    """The regret experiment over any grid of (E, K, T, schedule, law, seed), one run per setting."""
    tasks = [setting.to_dict() for setting in settings]
    return [online.Run(**result) for result in run_all(regret_run, tasks, runner, store, progress)]
