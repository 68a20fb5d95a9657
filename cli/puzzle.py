"""`loadsparse puzzle`: kernels and functions to fill in, and a judge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadsparse.cli.console import AlwaysPlain, Json, Plain, console, fail

if TYPE_CHECKING:
    from loadsparse.tutorials.judge.verdict import Verdict

app = typer.Typer(
    help="Kernels and functions to fill in, growing from one thread that adds to a working LSCD SpMM; and a judge.",
    no_args_is_help=True,
)
Which = Annotated[str, typer.Argument(metavar="N", help="Number or name of the puzzle.")]
SHOWN = 3
"""Problems that are shown at once: the first ones explain the others."""
From = Annotated[
    Path | None, typer.Option("--from", help="A folder of puzzles of your own (files NN_name.py).", show_default=False)
]


@contextmanager
def _refusals() -> Iterator[None]:
    """A puzzle or a file that does not exist is one line and exit code 2."""
    from loadsparse.tutorials.judge.puzzle import PuzzleError

    try:
        yield
    except PuzzleError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or 'file'}: {error.strerror or error}") from None


@app.command("list")
def list_puzzles(folder: From = None, as_json: Json = False, plain: Plain = False) -> None:
    """List the puzzles.

    Example: loadsparse puzzle list
    """
    with _refusals():
        from loadsparse.tutorials.judge.shelf import FOLDER, shelf

        rows = []
        for entry in shelf(folder or FOLDER):
            puzzle = entry.load()
            kind = "kernel" if puzzle.launch is not None else "NumPy"
            rows.append(
                {
                    "number": entry.number, "name": entry.name, "title": puzzle.title, "goal": puzzle.goal, "kind": kind,
                    "lines": puzzle.lines, "file": entry.file_name, "best": entry.best(),
                }
            )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"puzzles": rows}))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for name in ("number", "title", "kind", "lines", "goal"):
        table.add_column(name, justify="right" if name in ("number", "lines") else "left")
    for row in rows:
        table.add_row(*(str(row[name]) for name in ("number", "title", "kind", "lines", "goal")))
    console(plain).print(table)


@app.command()
def start(
    which: Which,
    force: Annotated[
        bool, typer.Option("--force", help="Start an existing file anew; what you wrote is lost.")
    ] = False,
    folder: From = None,
    plain: AlwaysPlain = False,
) -> None:
    """Write the file of a puzzle, to be filled in, into the current folder.

    Example: loadsparse puzzle start 1
    """
    with _refusals():
        from loadsparse.tutorials.judge import shelf

        path = shelf.start(which, Path("."), force=force, folder=folder or shelf.FOLDER)
    typer.echo(f"{path}: open it, fill it in, then: loadsparse puzzle check {which}")


@app.command()
def check(
    which: Which,
    file: Annotated[Path | None, typer.Argument(help="Your file; by default the one that `start` wrote.")] = None,
    seed: Annotated[
        str, typer.Option(help="A student's name or number: varies the secret inputs. A verdict's own seed repeats it.")
    ] = "",
    trace: Annotated[
        bool, typer.Option("--trace", help="Show all details: tracebacks, further elements, PTX.")
    ] = False,
    time_limit: Annotated[float, typer.Option(help="Seconds your file may take.", min=0.1, max=3600)] = 60.0,
    memory_limit: Annotated[float, typer.Option(help="GB of address space your file may take.", min=1, max=1024)] = 4.0,
    folder: From = None,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """Judge your answer: exit code 0 if it is right, 1 if not, 2 if there is nothing to judge.

    Examples: loadsparse puzzle check 1;  loadsparse puzzle check 9 mine.py --seed 4711 --json
    """
    with _refusals():
        from loadsparse.tutorials.judge import check as judge
        from loadsparse.tutorials.judge.shelf import FOLDER

        verdict = judge.check(
            which, file, seed=seed, folder=folder or FOLDER, seconds=time_limit, memory=int(memory_limit * 2**30)
        )
    if as_json:
        typer.echo(json.dumps(verdict.to_dict()))
    else:
        _show(verdict, trace, plain)
    raise typer.Exit(0 if verdict.ok else 1)


def _show(verdict: Verdict, trace: bool, plain: bool) -> None:
    from rich.markup import escape

    out = console(plain)

    def say(text: str, style: str | None = None) -> None:
        out.print(escape(text), style=style, soft_wrap=True)

    head = f"puzzle {verdict.number}, {verdict.title}:"
    say(
        f"{head} solved, on {verdict.trials} inputs" if verdict.ok else f"{head} not yet",
        "green" if verdict.ok else "red",
    )
    shown = verdict.problems if trace else verdict.problems[:SHOWN]
    for problem in shown:
        say(str(problem))
        say(f"  hint: {problem.hint}", "cyan")
        for line in (*problem.picture, *(problem.details if trace else ())):
            say(f"  {line}")
    if len(shown) < len(verdict.problems):
        say(f"and {len(verdict.problems) - len(shown)} more problems; begin with the first")
    for name, value in verdict.score.items():
        best = value["best"]
        mark = "" if best is None else f"   best known {best}"
        mark += ": you beat it" if verdict.ok and best is not None and value["yours"] < best else ""
        say(f"  {name:13}{value['yours']:>8}{mark}")
    if verdict.score:
        known = any(value["best"] is not None for value in verdict.score.values())
        ours = "; best known: the least of our own answers, each count by itself" if known else ""
        say(f"  counted by the simulator on the public input{ours}", "dim")
    if verdict.printed:
        say("it printed, on the public input:", "dim")
        for line in verdict.printed:
            say(f"  {line}")
    if any(problem.details for problem in verdict.problems) and not trace:
        say("--trace shows the rest", "dim")
    if any((problem.trial or 0) > 0 for problem in verdict.problems):
        say(f"a secret input; --seed {verdict.seed} repeats it", "dim")
