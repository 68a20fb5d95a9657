"""`loadsparse learn`: the course and the puzzles in a folder of one's own, opened in Jupyter."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from loadsparse.cli.console import AlwaysPlain, Json, fail

INSTALL = "Jupyter is not installed: pip install 'loadsparse[tutorials]', then: jupyter lab {folder}"


def command(
    folder: Annotated[Path, typer.Argument(help="Where to; what is there already is kept.")] = Path(
        "loadsparse-course"
    ),
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that are there; what you wrote is lost.")
    ] = False,
    opened: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open Jupyter there; by default on a terminal.")
    ] = None,
    as_json: Json = False,
    plain: AlwaysPlain = False,
) -> None:
    """Copy the course (notebooks) and the puzzles to a folder, and open Jupyter.

    Example: loadsparse learn my-course
    """
    from loadsparse.tutorials import learn
    from loadsparse.tutorials.judge.puzzle import PuzzleError

    try:
        copied = learn.copy(folder, force=force)
    except PuzzleError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or folder}: {error.strerror or error}") from None
    jupyter = find_spec("jupyterlab") is not None
    if as_json:
        names = {"written": copied.written, "kept": copied.kept}
        paths = {key: [path.as_posix() for path in found] for key, found in names.items()}
        typer.echo(json.dumps({"folder": str(folder), **paths, "jupyter": jupyter}))
        return
    typer.echo(f"{folder}: {len(copied.written)} files written, {len(copied.kept)} kept as they were")
    typer.echo(f"puzzles: cd {folder / 'puzzles'}; loadsparse puzzle check 1")
    if not jupyter:
        typer.echo(INSTALL.format(folder=folder))
    elif opened or (opened is None and sys.stdout.isatty()):
        raise typer.Exit(subprocess.run([sys.executable, "-m", "jupyterlab", str(folder)], check=False).returncode)
    else:
        typer.echo(f"notebooks: jupyter lab {folder}")
