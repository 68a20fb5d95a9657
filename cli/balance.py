"""`loadsparse balance`: balancers on a score matrix, against the exact balanced assignment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from loadsparse.cli.console import Json, Plain, bad_input, console, progress


def command(
    scores: Annotated[Path, typer.Argument(help="Score matrix [tokens, experts], a .npy file (never a pickle).")],
    k: Annotated[int, typer.Option("--top-k", "-k", help="Experts per token.", min=1)] = 2,
    balancers: Annotated[
        list[str] | None, typer.Option("--balancer", "-b", help="May be repeated; default: all.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of each balancer.", min=0)] = 300,
    batch: Annotated[int | None, typer.Option(help="Tokens per step; default: all of them.", min=1)] = None,
    exact: Annotated[bool, typer.Option(help="Solve the exact assignment and show the gap to it.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the batches.", min=0)] = 0,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """Compare balancers with the exact optimum: MaxVio, idle experts, dual gap, score kept."""
    with bad_input():
        import numpy as np

        from loadsparse.gpu.verify.errors import InputError
        from loadsparse.theory.compare import compare

        try:
            matrix = np.load(scores, mmap_mode="r", allow_pickle=False)
            if not isinstance(matrix, np.ndarray):
                raise ValueError("an archive: give a single .npy matrix")
        except (ValueError, EOFError) as error:
            raise InputError(f"{scores} cannot be read: {error}") from None
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
