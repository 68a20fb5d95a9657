"""`loadsparse predict`: the time of kernels, the cost of a model, and the published comparisons again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadsparse.cli.console import Json, Plain, console, fail

if TYPE_CHECKING:
    from loadsparse.gpu.perfmodel import EndToEnd, Prediction

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
WIDTHS = (8, 16, 32, 64)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
DEFAULT = ["cublas", "sputnik", "sparta", "flash-llm", "lscd", "bitmap", "adaptive"]
MODEL_DEFAULT = ["fastertransformer", "deepspeed", "flash-llm", "lscd", "bitmap"]


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise fail(f"--shape {text}: give M,N,K as three positive integers, for example 36864,8,9216")
    m, n, k = (int(part) for part in parts)
    return m, n, k


def _table(rows: list[dict[str, Any]], plain: bool) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, no_wrap=True, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        cells = (
            "-" if value is None else f"{value:.4g}" if isinstance(value, float) else value for value in row.values()
        )
        table.add_row(*map(str, cells))
    console(plain).print(table)


def _kernel_row(kernel: str, n: int, sparsity: float, found: Prediction) -> dict[str, Any]:
    return {
        "kernel": kernel, "N": n, "sparsity": sparsity, "seconds": found.seconds, "low": found.low, "high": found.high,
        "bound": found.bound, "roofline_seconds": found.roofline_seconds, "split_k": found.split_k,
    }  # fmt: skip


def _model_row(found: EndToEnd, price: float, published: float | str | None) -> dict[str, Any]:
    return {
        "kernel": found.kernel, "gpus": found.gpus, "batch": found.batch, "fits": found.fits,
        "tokens_per_gpu_second": found.tokens_per_gpu_second, "published": published, "gib_per_gpu": found.memory.total / 2**30,
        "dollars_per_million_tokens": found.dollars_per_million_tokens(price) if found.fits else None, "bound": found.bound,
    }  # fmt: skip


def _finish(
    rows: list[dict[str, Any]], details: list[dict[str, Any]], notes: list[str], as_json: bool, plain: bool
) -> None:
    """Print what was asked for: one JSON object, or a table, explanations and notes."""
    if as_json:
        typer.echo(json.dumps({"rows": rows, "explain": details, "notes": notes}))
        return
    _table(rows, plain)
    out = console(plain)
    for detail in details:
        out.print(f"{detail['what']}:", markup=False)
        for name, text in detail["lines"]:
            out.print(f"  {name:20} {text}", markup=False)
    for note in notes:
        out.print(f"note: {note}", style="dim", markup=False, soft_wrap=True)


def _replay(as_json: bool, plain: bool) -> None:
    from loadsparse.gpu.perfmodel import replay

    points = replay.points()
    rows = replay.summary(points)
    if as_json:
        listed = [
            {"figure": p.figure, "what": p.what, "published": p.published, "predicted": p.predicted, "error": p.error,
             "roofline": p.roofline, "fitted": p.fitted, "agrees": p.agrees}
            for p in points
        ]  # fmt: skip
        typer.echo(json.dumps({"summary": rows, "points": listed}))
        return

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:+.1%}"

    def number(value: float | None) -> str:
        return "out of memory" if value is None else f"{value:.4g}"

    _table([
        {"figure": p.figure, "what": p.what, "published": number(p.published), "predicted": number(p.predicted),
         "error": percent(p.error) if p.error is not None else ("same" if p.agrees else "WRONG"),
         "roofline": "-" if p.roofline is None else f"{p.roofline:.4g}"}
        for p in points if not p.fitted
    ], plain)  # fmt: skip
    _table([
        {"figure": row["figure"], "kernel": row["kernel"], "points": row["points"], "fitted": "yes" if row["fitted"] else "no",
         "mean error": percent(row["mean_error"]), "largest": percent(row["largest_error"]),
         "roofline": percent(row["roofline_mean_error"]), "memory": "right" if row["memory_agrees"] else "WRONG"}
        for row in rows
    ], plain)  # fmt: skip


def command(
    kernels: Annotated[
        list[str] | None,
        typer.Argument(
            help="cublas, sputnik, sparta, flash-llm, lscd, bitmap, adaptive (these if none is given), spinfer, twofour; "
            "with --model also fastertransformer, deepspeed.",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[str, typer.Option(help="M,N,K of one product C[M,N] = A[M,K] x B[K,N].")] = "36864,8,9216",
    model: Annotated[
        str | None, typer.Option(help="A whole model instead: opt-66b, llama-3-8b, mixtral-8x7b, ...")
    ] = None,
    gpu: Annotated[
        str, typer.Option(help="A packaged GPU, or a .json or .toml file of the same fields.")
    ] = "a100-80gb",
    gpus: Annotated[int, typer.Option(help="Tensor-parallel GPUs (with --model).")] = 1,
    batch: Annotated[int, typer.Option(help="Sequences answered together (with --model).")] = 8,
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt (with --model).")] = 64,
    output: Annotated[int, typer.Option(help="Tokens of the answer (with --model).")] = 512,
    routing: Annotated[
        str,
        typer.Option(
            help="Popularity of a MoE's experts: uniform, 1/rank, trace:sign-1e-3/2 of a trained layer, or "
            "trace:mine.npz:ARM/LAYER of a file that loadsparse.reference.traces.save wrote."
        ),
    ] = "uniform",
    balancer: Annotated[
        str | None,
        typer.Option(help="Balance that routing first: sign, proportional, quantile, ... (with --model, experts)."),
    ] = None,
    price: Annotated[float, typer.Option(help="Dollars per GPU-hour (with --model).")] = 2.0,
    sparsity: Annotated[float, typer.Option(help="Share of zeros in the weights.")] = 0.8,
    sweep: Annotated[str | None, typer.Option(help="Vary one thing: sparsity, n, or batch (with --model).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the sweep as .png, .svg or .pdf.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what binds, and what would help.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Every published comparison again, with errors.")] = False,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """Predict the time of a kernel, or tokens per GPU-second of a model, with the plain roofline beside it.

    Examples: loadsparse predict bitmap --sweep sparsity --explain

    loadsparse predict --model opt-66b --gpus 2 --sweep batch

    loadsparse predict --model deepseek-moe-16b --routing 1/rank --balancer sign
    """
    from loadsparse.gpu.perfmodel import PerfError

    if replay:
        _replay(as_json, plain)
        return
    allowed = ("sparsity", "batch") if model else ("sparsity", "n")
    if sweep is not None and sweep not in allowed:
        raise fail(f"--sweep {sweep}: choose {' or '.join(allowed)}")
    if plot is not None and sweep is None:
        raise fail("--plot draws a sweep: add --sweep")
    try:
        if model is not None:
            names = kernels or MODEL_DEFAULT
            _model(
                names, model, gpu, gpus, batch, prompt, output, routing, balancer, price, sparsity, sweep, plot, explain, as_json,
                plain,
            )  # fmt: skip
        else:
            _kernels(kernels or DEFAULT, _shape(shape), gpu, sparsity, sweep, plot, explain, as_json, plain)
    except PerfError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or 'file'}: {error.strerror or error}") from None


def _kernels(
    names: list[str], shape: tuple[int, int, int], gpu: str, sparsity: float, sweep: str | None, plot: Path | None,
    explain: bool, as_json: bool, plain: bool,
) -> None:  # fmt: skip
    from loadsparse.gpu import perfmodel
    from loadsparse.gpu.perfmodel.plot import lines

    m, width, k = shape
    device = perfmodel.load(gpu)
    points = [(width, s) for s in SPARSITIES] if sweep == "sparsity" else [(width, sparsity)]
    points = [(n, sparsity) for n in WIDTHS] if sweep == "n" else points
    rows, details, notes, curves = [], [], [], {}
    for name in names:
        found = [perfmodel.predict(name, m, n, k, s, device) for n, s in points]
        rows += [_kernel_row(name, n, s, one) for (n, s), one in zip(points, found, strict=True)]
        notes += [note for one in found for note in one.notes]
        curves[name] = [one.seconds * 1e3 for one in found]
        if explain:
            last = found[-1]
            parts = [
                (part, f"{value * 1e6:9.1f} us")
                for part, value in sorted(last.parts.items(), key=lambda x: -x[1])
                if value
            ]
            what_if = perfmodel.sensitivities(name, m, *(points[-1][0], k, points[-1][1]), device)
            parts += [
                (f"10% better {what}", f"{value:+9.1%}") for what, value in sorted(what_if.items(), key=lambda x: x[1])
            ]
            title = f"{name} at N = {points[-1][0]}, sparsity {points[-1][1]:g}: bound by {last.bound}"
            details.append({"what": title, "lines": parts})
    if plot is not None:
        axis = [s for _, s in points] if sweep == "sparsity" else [n for n, _ in points]
        lines(plot, axis, curves, sweep or "", "ms", f"{m} x {k} on {device.name}")
    _finish(rows, details, list(dict.fromkeys(notes)), as_json, plain)


def _model(
    names: list[str], model: str, gpu: str, gpus: int, batch: int, prompt: int, output: int, routing: str,
    balancer: str | None, price: float, sparsity: float, sweep: str | None, plot: Path | None, explain: bool,
    as_json: bool, plain: bool,
) -> None:  # fmt: skip
    from loadsparse.gpu import perfmodel
    from loadsparse.gpu.perfmodel import models, replay
    from loadsparse.gpu.perfmodel.plot import lines

    if balancer is not None and not models.get(model).experts:
        raise perfmodel.PerfError(f"{model} has no experts: --balancer needs a model with some, such as mixtral-8x7b")
    routed = perfmodel.Routing(routing, balancer)
    points = [(b, sparsity) for b in BATCHES] if sweep == "batch" else [(batch, sparsity)]
    points = [(batch, s) for s in SPARSITIES] if sweep == "sparsity" else points
    rows, details, notes, curves = [], [], [], {}
    for name in names:
        found = [
            perfmodel.end_to_end(
                model, name, gpus, b, gpu=gpu, sparsity=s, prompt=prompt, output=output, routing=routed
            )
            for b, s in points
        ]
        for (b, s), one in zip(points, found, strict=True):
            cited = replay.measured(model, name, gpus, b, gpu=gpu, sparsity=s, prompt=prompt, output=output)
            rows.append({**_model_row(one, price, cited), "sparsity": s})
        notes += [note for one in found for note in one.notes]
        curves[name] = [one.tokens_per_gpu_second for one in found]
        if explain:
            last = found[-1]
            parts = [
                (part, f"{value * 1e3:9.2f} ms per step")
                for part, value in sorted(last.step.items(), key=lambda x: -x[1])
            ]
            held = last.memory
            for part in ("weights", "cache", "activations", "reserved"):
                parts.append((f"memory: {part}", f"{getattr(held, part) / 2**30:9.2f} GiB"))
            parts.append(("memory: there is", f"{held.available / 2**30:9.2f} GiB"))
            details.append({"what": f"{name}, batch {last.batch}: bound by {last.bound}", "lines": parts})
    if plot is not None:
        lines(
            plot, [p[0 if sweep == "batch" else 1] for p in points], curves, sweep or "", "tokens per GPU-second", model
        )
    _finish(rows, details, list(dict.fromkeys(notes)), as_json, plain)
