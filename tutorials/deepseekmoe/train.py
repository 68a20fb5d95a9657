"""Train the arms: `python -m deepseekmoe.train` in the folder `tutorials`. Kill it and start it again at will.

Finished runs are small JSON files in the store, unfinished ones checkpoints beside them; `report` reads both.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from loadsparse.cli.console import fail, progress
from loadsparse.reference import weights
from loadsparse.theory import experiment

from . import data, model, run
from .arms import arms

HERE = Path(__file__).parent
STORE = weights.cache_folder() / "deepseekmoe"
TINY = {"steps": 20, "sequences": 4, "log_every": 5, "evaluate_every": 10, "windows": 8, "model": model.TINY.to_dict()}


def settings(names: list[str], seeds: int, tiny: bool = False, **changed: Any) -> list[run.Setting]:
    """One setting per arm and seed, arm by arm; ValueError for an unknown arm."""
    common = {**(TINY if tiny else {}), **changed, "corpus": data.standard_library().sha256}
    return [run.Setting(arm=name, seed=seed, **common) for name in names for seed in range(seeds)]


def executor(text: str, workers: int | None) -> experiment.Executor:
    """ "local": processes; "tcp://host:8786": the Dask cluster there, whose workers see the same folder and modules."""
    if text == "local":
        return experiment.Processes(workers)
    if "://" not in text:
        raise ValueError(f"--executor {text}: give local, or the address of a Dask scheduler such as tcp://host:8786")
    return experiment.Dask(text)


def steps_done(wanted: list[run.Setting], store: Path) -> int:
    """Steps in the checkpoints of all settings; one that cannot be read counts as none."""
    done, unreadable = 0, (OSError, ValueError, KeyError, zipfile.BadZipFile)
    for setting in wanted:
        with contextlib.suppress(*unreadable), (store / setting.name / "checkpoint.npz").open("rb") as file:
            done += int(np.load(file, allow_pickle=False)["step"])
    return done


@contextlib.contextmanager
def watched(wanted: list[run.Setting], store: Path, update: Callable[[str, int, int], None]) -> Iterator[None]:
    """Call update("steps", done, all) every second: what the workers have written says how far they are."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(1.0):
            update("steps", steps_done(wanted, store), sum(setting.steps for setting in wanted))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def train(wanted: list[run.Setting], store: Path, runner: experiment.Executor) -> list[dict[str, Any]]:
    """The records of all settings, in their order."""
    work = partial(run.summary, folder=str(store.resolve()))
    return experiment.run_all(work, [run.to_task(setting) for setting in wanted], runner, store)


app = typer.Typer(add_completion=False)


@app.command()
def command(
    arm: Annotated[list[str] | None, typer.Option(help="May be repeated; default: all, the story first.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each arm, with seeds 0, 1, ...", min=1, max=100)] = 3,
    steps: Annotated[int | None, typer.Option(help="Training steps; default 800, tiny 20.", min=1)] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="A model of seconds, to see that everything works.")] = False,
    store: Annotated[Path, typer.Option(help="Folder of checkpoints and finished runs.")] = STORE,
    executor_: Annotated[
        str, typer.Option("--executor", help="local, or a Dask scheduler, tcp://host:8786.")
    ] = "local",
    workers: Annotated[int | None, typer.Option(help="Local processes; default: one per core.", min=1)] = None,
) -> None:
    """Train a small DeepSeekMoE with every balancer, three seeds each; resumes where it was stopped."""
    begun = time.monotonic()
    try:
        runner = executor(executor_, workers)
        names = arm or list(arms(run.Setting().config.k))
        wanted = settings(names, seeds, tiny, **({} if steps is None else {"steps": steps}))
        with progress("steps", quiet=False) as update, watched(wanted, store, update):
            train(wanted, store, runner)
    except (ValueError, RuntimeError) as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or 'file'}: {error.strerror or error}") from None
    print(f"{len(wanted)} runs finished in {store} ({time.monotonic() - begun:.0f} s)", file=sys.stderr)


if __name__ == "__main__":
    app()
