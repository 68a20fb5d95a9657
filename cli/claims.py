"""`loadsparse claims`: every promise with its assumption, function, tests and status."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from typing import Annotated, Any

import typer

from loadsparse.cli.console import Json, Plain, bad_input, console

STATUSES = ("proved", "counted", "compiled", "measured", "predicted", "cited", "false without condition", "not yet")
"""proved: by derivation and test, or bit for bit; counted: by the simulator; compiled: read off SASS; measured: by a benchmark
on the CPU, on the machine and the day that the row names; predicted: by the performance model; cited: said or measured
by others; false without condition: a test holds a counterexample."""


def ledger() -> list[dict[str, Any]]:
    """The packaged rows: id, source, phrase, assumption, function, tests, status.  `make claims` writes them."""
    rows: list[dict[str, Any]] = json.loads((files("loadsparse.cli") / "claims.json").read_text(encoding="utf-8"))
    return rows


def command(
    status: Annotated[str | None, typer.Option(help="Only rows of this status.")] = None,
    source: Annotated[str | None, typer.Option(help="Only rows whose source contains this text.")] = None,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """List every promise of the two papers and of this project: assumption, function, test, status."""
    with bad_input():
        if status is not None and status not in STATUSES:
            from loadsparse.gpu.verify.errors import InputError

            raise InputError(f"unknown status {status!r}: use one of {', '.join(STATUSES)}")
    rows = [
        row
        for row in ledger()
        if (status is None or row["status"] == status) and (source is None or source.lower() in row["source"].lower())
    ]
    if as_json:
        typer.echo(json.dumps({"claims": rows}))
        return
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    out = console(plain)
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, show_lines=False)
    for name in ("status", "source", "claim", "assumption", "function", "tests"):
        table.add_column(name, overflow="fold")
    for row in rows:
        names = "\n".join(test.rsplit("::", 1)[-1] for test in row["tests"])
        cells = (row["status"], row["source"], row["phrase"], row["assumption"], row["function"], names)
        table.add_row(*(escape(cell) for cell in cells))
    out.print(table)
    counts = Counter(row["status"] for row in rows)
    out.print(", ".join(f"{counts[name]} {name}" for name in STATUSES if counts[name]))
