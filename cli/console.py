"""What every command shares: where text goes, how bad input ends, and a progress bar that knows a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Plain = Annotated[
    bool, typer.Option("--plain", help="No colour, no boxes, no progress bar (NO_COLOR is honoured too).")
]
AlwaysPlain = Annotated[bool, typer.Option("--plain", help="As elsewhere; this command is always plain.")]


def console(plain: bool = False) -> Console:
    """Standard output; without a terminal it is wide enough to keep every row on one line."""
    from rich.console import Console

    width = None if sys.stdout.isatty() and not plain else 160
    return Console(
        no_color=True if plain else None, highlight=False, width=width, force_terminal=False if plain else None
    )


def fail(message: str) -> typer.Exit:
    """One line on standard error; raise what it returns (exit code 2)."""
    typer.echo(f"loadsparse: {' '.join(message.split())}", err=True)
    return typer.Exit(2)


@contextmanager
def bad_input() -> Iterator[None]:
    """Turn refused input into one line and exit code 2; anything else is a bug of ours and keeps its traceback."""
    from loadsparse.gpu.compiler import CompileError
    from loadsparse.gpu.verify.errors import InputError
    from loadsparse.reference.formats import FormatError
    from loadsparse.reference.gguf import GgufError
    from loadsparse.reference.weights import WeightError

    try:
        yield
    except OSError as error:
        raise fail(f"{error.filename or 'file'}: {error.strerror or error}") from None
    except (InputError, CompileError, FormatError, GgufError, WeightError) as error:
        raise fail(str(error)) from None
    except MemoryError:
        raise fail("not enough memory for this input: choose a smaller shape") from None


@contextmanager
def progress(title: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A callback (what, done, total) that draws a bar on a terminal's standard error and nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def update(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield update
