"""`loadsparse regret`: the regret experiment on fresh batches, many seeds in parallel, resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from loadsparse.cli.console import Json, Plain, bad_input, console, progress


def command(
    experts: Annotated[int, typer.Option(help="E, the number of experts.", min=2)] = 8,
    k: Annotated[int, typer.Option("--top-k", "-k", help="Experts per token.", min=1)] = 2,
    tokens: Annotated[int, typer.Option(help="T, tokens per batch.", min=1)] = 64,
    steps: Annotated[int, typer.Option(help="N, batches.", min=1)] = 2000,
    rule: Annotated[str, typer.Option(help="sign or proportional.")] = "sign",
    rate: Annotated[float, typer.Option(help="Step size u (sign) or eta (proportional).")] = 0.1,
    schedule: Annotated[str, typer.Option(help="constant, 1/n or 1/sqrt(n).")] = "1/n",
    law: Annotated[str, typer.Option(help="Scores: skewed or uniform.")] = "skewed",
    drift: Annotated[float, typer.Option(help="Random walk of the scores per step (an experiment, no claim).")] = 0.0,
    seeds: Annotated[int, typer.Option(help="Runs, with seeds 0, 1, ...", min=1, max=10_000)] = 6,
    store: Annotated[Path | None, typer.Option(help="Folder of finished runs: a killed experiment resumes.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler, tcp://host:8786; else local processes.")
    ] = None,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """Regret of a balancer against the best fixed bias, and how it grows with ln N, with 95% intervals over seeds."""
    with bad_input():
        from loadsparse.gpu.verify.errors import InputError
        from loadsparse.theory import experiment, online

        if rule not in ("sign", "proportional") or law not in ("skewed", "uniform"):
            raise InputError(f"rule {rule!r}, law {law!r}: use sign or proportional, skewed or uniform")
        common: dict[str, Any] = {
            "experts": experts, "k": k, "tokens": tokens, "steps": steps, "rule": rule, "rate": rate,
            "schedule": schedule, "law": law, "drift": drift,
        }  # fmt: skip
        try:
            settings = [online.Setting(**common, seed=seed) for seed in range(seeds)]
            with progress("regret", quiet=as_json or plain) as update:
                runner = experiment.executor(scheduler, scores=float(seeds) * steps * tokens * experts)
                runs = experiment.regret(settings, runner, store, lambda done, all_: update("regret", done, all_))
        except (ValueError, RuntimeError) as error:
            raise InputError(str(error)) from None
    slope = online.log_slope(runs) if steps >= 1000 else None
    rows = [
        {
            "steps": at,
            "regret": sum(run.expected[i] for run in runs) / seeds,
            "violation": sum(run.violation[i] for run in runs) / seeds,
        }
        for i, at in enumerate(runs[0].steps)
    ]
    if as_json:
        growth = None if slope is None or seeds < 2 else {"mean": slope.mean, "low": slope.low, "high": slope.high}
        typer.echo(json.dumps({"setting": common, "seeds": seeds, "rows": rows, "per_ln_n": growth}))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for name in ("step", "mean regret", "mean violation of the population"):
        table.add_column(name, justify="right")
    for row in rows[:: max(1, len(rows) // 12)]:
        table.add_row(str(row["steps"]), f"{row['regret']:.4f}", f"{row['violation']:.4f}")
    console(plain).print(table)
    if slope is not None:
        interval = f" [{slope.low:.4f}, {slope.high:.4f}]" if seeds > 1 else ""
        console(plain).print(
            f"growth per ln N from step 100 on: {slope.mean:.4f}{interval}", highlight=False, markup=False
        )
