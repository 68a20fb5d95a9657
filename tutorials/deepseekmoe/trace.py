"""Save the routing of trained layers: `python -m deepseekmoe.trace` writes the packaged file, `--tokens` bigger ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import typer

from loadsparse.cli.console import fail
from loadsparse.reference import traces
from loadsparse.theory import experiment

from . import data, run
from .arms import slug
from .train import HERE, STORE, settings

ARMS = ("none", "loss 1e-2", "sign 1e-3", "quantile")
PACKAGED = HERE.parents[1] / "reference" / "data" / "deepseekmoe_traces.npz"


def record(setting: run.Setting, store: Path, tokens: int) -> dict[str, traces.Trace]:
    """The traces of a finished run: `tokens` bytes of the validation text, whole windows, evenly spaced."""
    trained, _ = run.run(setting, store)
    config = setting.config
    _, look = run.compiled(config, setting.steps, setting.rate)
    text = data.standard_library().windows(-(-tokens // config.sequence), config.sequence)
    parts = [
        look(trained.weights, jnp.asarray(text[first : first + 8]), jnp.asarray(trained.biases, jnp.float32))[1]
        for first in range(0, len(text), 8)
    ]
    found = {}
    for layer, bias in enumerate(trained.biases):
        scores, choices = (
            np.concatenate([np.asarray(getattr(part[layer], field)) for part in parts])[:tokens]
            for field in ("scores", "choices")
        )
        name = f"{slug(setting.arm)}/{layer + 1}"
        found[name] = traces.Trace(name, scores.astype(np.float16), choices.astype(np.int64), bias)
    return found


app = typer.Typer(add_completion=False)


@app.command()
def command(
    arm: Annotated[list[str] | None, typer.Option(help="May be repeated; default: the four of the story.")] = None,
    seed: Annotated[int, typer.Option(help="The run's seed.", min=0)] = 0,
    tokens: Annotated[int, typer.Option(help="Bytes of validation text.", min=1)] = 1024,
    store: Annotated[Path, typer.Option(help="Folder of finished runs.")] = STORE,
    out: Annotated[Path, typer.Option(help="The .npz file to write.")] = PACKAGED,
) -> None:
    """Write router scores, choices and biases of trained layers as one compact file."""
    try:
        found: dict[str, traces.Trace] = {}
        for setting in settings(list(arm or ARMS), seed + 1):
            if setting.seed == seed and experiment.stored(store, run.to_task(setting)) is not None:
                found |= record(setting, store, tokens)
        if not found:
            raise ValueError(f"{store} holds no such finished run: run `python -m deepseekmoe.train`")
        aside = out.with_name(f"{out.name}.{os.getpid()}.part")
        traces.save(aside, found)
        os.replace(aside, out)
    except ValueError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or 'file'}: {error.strerror or error}") from None
    print(f"{out}: {', '.join(found)}, {tokens} tokens each, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    app()
