"""`loadsparse balance`: balancers on a score matrix, against the exact balanced assignment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadsparse.cli.console import Json, Plain, bad_input, console, progress

if TYPE_CHECKING:
    from loadsparse.theory.compare import Row


def _draw(rows: list[Row], path: Path) -> None:
    """MaxVio of every balancer after each step that was looked at."""
    from loadsparse.gpu.perfmodel import plot
    from loadsparse.gpu.perfmodel.gpu import PerfError
    from loadsparse.gpu.verify.errors import InputError

    names = [name for name in dict.fromkeys(row.balancer for row in rows) if name != "optimum"]
    curves = {name: [row.max_violation for row in rows if row.balancer == name] for name in names}
    steps = [row.step for row in rows if row.balancer == names[0]]
    try:
        plot.lines(path, steps, curves, "step", "MaxVio", "Load of the busiest expert over the mean, minus 1")
    except PerfError as error:
        raise InputError(str(error)) from None


def command(
    scores: Annotated[
        str,
        typer.Argument(
            help="Scores of tokens x experts: a .npy or .npz file, trace:sign-1e-3/2 of a trained layer (with -k 6), or "
            "skewed:T,E to draw some."
        ),
    ],
    k: Annotated[int, typer.Option("--top-k", "-k", help="Experts per token.", min=1)] = 2,
    balancers: Annotated[
        list[str] | None, typer.Option("--balancer", "-b", help="May be repeated; default: all.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of each balancer.", min=0)] = 300,
    batch: Annotated[int | None, typer.Option(help="Tokens per step; default: all of them.", min=1)] = None,
    exact: Annotated[bool, typer.Option(help="Solve the exact assignment and show the gap to it.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the batches.", min=0)] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write MaxVio against steps as .png, .svg or .pdf.")] = None,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """Compare balancers with the exact optimum: MaxVio, idle experts, dual gap, score kept."""
    with bad_input():
        from loadsparse.gpu.verify.errors import InputError
        from loadsparse.theory import score_laws
        from loadsparse.theory.compare import compare

        try:
            matrix = score_laws.named(scores, seed)
        except ValueError as error:
            raise InputError(str(error)) from None
        with progress("balance", quiet=as_json or plain) as update:
            try:
                rows = compare(
                    matrix,
                    k,
                    balancers or None,
                    steps,
                    seed,
                    batch,
                    exact,
                    lambda done, all_: update("balance", done, all_),
                )
            except ValueError as error:
                raise InputError(f"{scores}: {error}") from None
        if plot is not None:
            _draw(rows, plot)
    if as_json:
        typer.echo(json.dumps({"rows": [row.to_dict() for row in rows]}))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for name in ("balancer", "step", "MaxVio", "idle", "Gini", "dual gap", "score kept"):
        table.add_column(name, justify="left" if name == "balancer" else "right")
    last = {row.balancer: row for row in rows}
    for row in last.values():
        gap = "-" if row.dual_gap is None else f"{row.dual_gap:.2e}"
        kept = "-" if row.kept is None else f"{row.kept:.5f}"
        table.add_row(
            row.balancer, str(row.step), f"{row.max_violation:.3f}", str(row.idle), f"{row.gini:.3f}", gap, kept
        )
    console(plain).print(table)
