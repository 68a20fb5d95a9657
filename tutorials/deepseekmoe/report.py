"""Write the log, the results table and the plots from whatever runs have finished: `python -m deepseekmoe.report`."""

from __future__ import annotations

import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import typer

from loadsparse.cli.console import fail
from loadsparse.theory import experiment

from . import data, results, run
from .arms import arms
from .train import HERE, STORE, settings

COMMAND = "cd tutorials && python -m deepseekmoe.train && python -m deepseekmoe.report"
PACKAGES = ("jax", "jaxlib", "optax", "numpy", "scipy", "numba", "loadsparse")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000", "#e69f00", "#999999")


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def to_text(log: results.Record, rows: str) -> str:
    """JSON with one entry of log[rows], and one other value, per line."""
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in log[rows])
    head = "".join(
        f"{json.dumps(name)}: {json.dumps(log[name], separators=(',', ':'))},\n" for name in log if name != rows
    )
    return "{" + head + f'"{rows}": [\n{lines}\n]}}\n'


def collect(store: Path, wanted: list[run.Setting]) -> results.Record:
    """The log of the finished runs among `wanted`; ValueError if there is none."""
    runs = []
    for setting in wanted:
        found = experiment.stored(store, run.to_task(setting))
        if found is not None:
            runs.append({"arm": setting.arm, "seed": setting.seed} | found)
    if not runs:
        raise ValueError(f"{store} holds no finished run of these settings: run `python -m deepseekmoe.train`")
    common = {name: value for name, value in run.to_task(wanted[0]).items() if name not in ("arm", "seed")}
    corpus = data.standard_library()
    return {
        "command": COMMAND,
        "versions": versions(),
        "setting": common,
        "corpus": {
            "sha256": corpus.sha256, "training_bytes": corpus.training.size, "validation_bytes": corpus.validation.size,
            "files": [list(file) for file in corpus.files],
        },
        "runs": runs,
    }  # fmt: skip


def markdown(log: results.Record) -> str:
    """The results table: one row per arm, mean and 95% interval over seeds."""
    rows = results.summary(log)
    titles = list(next(iter(rows.values())))
    runs = results.by_arm(log)
    lines = ["| arm | seeds | " + " | ".join(titles) + " |", "|---" * (len(titles) + 2) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {len(runs[name])} | " + " | ".join(str(row[title]) for title in titles) + " |")
    missing = [name for name in arms(log["setting"]["model"]["k"]) if name not in rows]
    if missing:
        lines += ["", "Not finished: " + ", ".join(missing) + "."]
    return "\n".join(lines)


def trend_table(log: results.Record) -> str:
    """Published trends beside what this log says, one row each."""
    lines = ["| published | here | difference | verdict |", "|---" * 4 + "|"]
    lines += [
        f"| {trend.published} | {trend.difference} | {trend.here} | {trend.verdict} |" for trend in results.trends(log)
    ]
    return "\n".join(lines)


def replace(path: Path, content: bytes) -> None:
    """Write beside the place and rename."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    aside.write_bytes(content)
    os.replace(aside, path)


def into(path: Path, name: str, text: str) -> None:
    """Put `text` between the markers <!-- name --> and <!-- /name --> of a markdown file."""
    old = path.read_text()
    new, count = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda found: found[1] + text + "\n" + found[2], old, flags=re.S
    )
    if count != 1:
        raise ValueError(f"{path} needs the markers <!-- {name} --> and <!-- /{name} --> once, found {count}")
    replace(path, new.encode())


def plots(log: results.Record, folder: Path) -> None:
    """curves.svg: MaxVio of each batch, per layer, and the dual gap, over training; mean over seeds."""
    every, layers = log["setting"]["log_every"], log["setting"]["model"]["layers"]
    figure, axes = plt.subplots(1, layers + 1, figsize=(5 * (layers + 1), 4), layout="constrained")
    for number, (name, runs) in enumerate(results.by_arm(log).items()):
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": "-" if number < len(COLOURS) else "--",
            "label": name,
        }
        violation = np.mean([one["max_violation"] for one in runs], axis=0)
        steps = np.arange(len(violation)) * every
        for layer in range(layers):
            axes[layer].plot(steps, violation[:, layer], **style)
        gaps = [results.table(one, "dual") / results.table(one, "optimum") - 1 for one in runs]
        axes[layers].semilogy(steps, np.mean(gaps, axis=(0, 2)), **style)
    for layer in range(layers):
        axes[layer].set(title=f"MaxVio of a batch, layer {layer + 1}", xlabel="step", yscale="log")
    axes[layers].set(title="Dual above the exact optimum, relative", xlabel="step")
    axes[0].legend(fontsize="small")
    for axis in axes:
        axis.grid(alpha=0.3)
    aside = folder / "curves.svg.part"
    matplotlib.rcParams["svg.hashsalt"] = "loadsparse"  # the same figure gives the same file
    figure.savefig(aside, format="svg", metadata={"Date": None})
    plt.close(figure)
    os.replace(aside, folder / "curves.svg")


app = typer.Typer(add_completion=False)


@app.command()
def command(
    store: Annotated[Path, typer.Option(help="Folder of finished runs.")] = STORE,
    seeds: Annotated[int, typer.Option(help="Seeds of each arm.", min=1, max=100)] = 3,
    folder: Annotated[Path, typer.Option(help="Where log.json, README.md and curves.svg are.")] = HERE,
) -> None:
    """Write log.json, the table in README.md and curves.svg."""
    try:
        log = collect(store, settings(list(arms(run.Setting().config.k)), seeds))
        replace(folder / "log.json", to_text(log, "runs").encode())
        into(folder / "README.md", "results", markdown(log))
        into(folder / "README.md", "trends", trend_table(log))
        plots(log, folder)
    except ValueError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or 'file'}: {error.strerror or error}") from None
    print(markdown(log))


if __name__ == "__main__":
    app()
