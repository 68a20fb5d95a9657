"""`loadsparse compare`: every SpMM kernel on one shape, or on the matrices of known models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from loadsparse.cli.console import Json, Plain, bad_input, console, fail, progress

Cells = dict[str, Any]

NOTES = (
    "bytes of A are those of the encoded matrix; DRAM bytes are A, B and C once",
    "counted: executed in full by the simulator; scaled: from four small executions, bilinear in M and K; published: "
    "counts of the authors' kernel; --exact executes in full",
    "registers and spills are reported by NVIDIA's compiler; times are predicted (dense: of cuBLAS); no GPU was involved",
    "useful: share of the executed multiply-adds whose weight is stored; limit N: from there on the Tensor Cores need longer "
    "for all of them, zeros included, than DRAM for A, B and C",
    "dense-4bit stores 0.625 bytes per element unpruned; twofour holds 2:4 weights (50%) whatever the sparsity asked for",
)


def _integers(text: str, option: str, example: str, count: int | None = None) -> list[int]:
    parts = text.split(",")
    if (count is not None and len(parts) != count) or not all(
        part.strip().isascii() and part.strip().isdigit() for part in parts
    ):
        raise fail(f"{option} {text}: give positive integers, for example {example}")
    return [int(part) for part in parts]


def _number(value: Any, form: str = "{:,.0f}", factor: float = 1.0) -> str:
    return "-" if value is None else form.format(value * factor)


def _memory(row: Cells) -> Cells:
    floor = row["bytes_a_floor"]
    return {
        "A, MB": _number(row["bytes_a"], "{:.3f}", 1e-6),
        "B/element": _number(row["bytes_per_element"], "{:.3f}"),
        "x floor": _number(floor and row["bytes_a"] / floor, "{:.2f}"),
        "DRAM, MB": _number(row["dram_bytes"], "{:.3f}", 1e-6),
        "sectors": _number(row["sectors"]),
        "shared wavefronts": _number(row["shared_wavefronts"]),
        "conflicts": _number(row["bank_conflicts"]),
        "instr/out": _number(row["instructions_per_output"], "{:.1f}"),
        "mma/out": _number(row["mma_per_output"], "{:.3f}"),
        "useful": _number(row["useful_multiply_adds"], "{:.0%}"),
        "limit N": _number(row["redundant_limit_n"]),
        "origin": row["origin"],
    }


def _resources(row: Cells) -> Cells:
    return {
        "registers": _number(row["registers"]),
        "shared, KB": _number(row["shared_bytes"], "{:.1f}", 1 / 1024),
        "spilled": _number(row["spill_bytes"]),
        "blocks/SM": _number(row["resident_blocks"]),
        "occupancy": _number(row["occupancy"], "{:.0%}"),
        "splits": _number(row["splits"]),
        "hazards": _number(row["hazards"]),
        "predicted, us": _number(row["predicted_seconds"], "{:.1f}", 1e6),
        "bound": row["bound"] or "-",
        "roofline, us": _number(row["roofline_seconds"], "{:.2f}", 1e6),
    }


def _pages(columns: dict[str, list[str]], keys: int, width: int) -> list[list[str]]:
    """Names of the columns that fit side by side into `width`, page after page; the first `keys` are on every page."""
    gap = 3
    wide = {name: gap + max(map(len, (name, *cells))) for name, cells in columns.items()}
    names = list(columns)
    pages: list[list[str]] = []
    for name in names[keys:]:
        if not pages or sum(wide[one] for one in (*pages[-1], name)) > width:
            pages.append(names[:keys])
        pages[-1] = [*pages[-1], name]
    return pages


def _show(rows: list[Cells], plain: bool) -> None:
    from rich import box
    from rich.table import Table

    out = console(plain)
    key: dict[str, list[str]] = {"kernel": [row["kernel"] for row in rows]}
    if "matrix" in rows[0]:
        key = {"matrix": [row["matrix"] for row in rows], "N": [str(row["shape"][1]) for row in rows], **key}
    for view in (_memory, _resources):
        cells = [view(row) for row in rows]
        columns = key | {name: [str(row[name]) for row in cells] for name in cells[0]}
        for page in _pages(columns, len(key), out.width):
            table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
            for name in page:
                left = name in ("matrix", "kernel", "origin", "bound")
                table.add_column(name, no_wrap=True, justify="left" if left else "right")
            for row in zip(*(columns[name] for name in page), strict=True):
                table.add_row(*row)
            out.print(table)
    for note in (*NOTES, *dict.fromkeys(note for row in rows for note in row.get("untested", ()))):
        out.print(note, style="dim", soft_wrap=True, markup=False)


def _check_plot(path: Path, kernels: list[str] | None, swept: bool) -> None:
    """Fails before the work rather than after it."""
    from loadsparse.gpu.perfmodel import PerfError
    from loadsparse.gpu.perfmodel.plot import check

    if swept and kernels and "dense" not in kernels:
        raise fail("the plot of a sweep shows speed-ups over dense: name dense among the kernels, or none")
    try:
        check(path)
    except PerfError as error:
        raise fail(str(error)) from None


def _plot(path: Path, rows: list[Cells], title: str) -> None:
    from loadsparse.gpu.perfmodel.plot import bars

    quantities = {
        "bytes of A per element": ("bytes_per_element", 1),
        "sectors of global memory": ("sectors", 1),
        "shared wavefronts": ("shared_wavefronts", 1),
        "warp instructions x 32 per output": ("instructions_per_output", 1),
        "useful multiply-adds, %": ("useful_multiply_adds", 100),
        "occupancy, %": ("occupancy", 100),
        "predicted time, us": ("predicted_seconds", 1e6),
        "roofline, us": ("roofline_seconds", 1e6),
    }
    panels = {
        title: [None if row[key] is None else row[key] * factor for row in rows]
        for title, (key, factor) in quantities.items()
    }
    bars(path, [row["kernel"] for row in rows], panels, title)


def _plot_sweep(path: Path, rows: list[Cells], title: str) -> None:
    """Predicted speed-up over dense for every matrix, a panel for each N."""
    from loadsparse.gpu.perfmodel.plot import dots

    seconds = {(row["shape"][1], row["kernel"], row["matrix"]): row["predicted_seconds"] for row in rows}
    matrices, kernels, many = (list(dict.fromkeys(key[i] for key in seconds)) for i in (2, 1, 0))

    def speedup(n: int, kernel: str, matrix: str) -> float | None:
        dense, ours = seconds.get((n, "dense", matrix)), seconds.get((n, kernel, matrix))
        return dense / ours if dense and ours else None

    panels = {f"N = {n}": {k: [speedup(n, k, m) for m in matrices] for k in kernels if k != "dense"} for n in many}
    panels = {title: {k: v for k, v in found.items() if any(v)} for title, found in panels.items()}
    dots(path, matrices, panels, "dense / kernel, predicted", title)


def command(
    kernels: Annotated[
        list[str] | None,
        typer.Argument(
            help="Kernels; none means dense, ours, the peers and a dense 4-bit row. Also flash-llm, spinfer."
        ),
    ] = None,
    shape: Annotated[str, typer.Option(help="M,N,K of C[M,N] = A[M,K] x B[K,N].")] = "1024,16,1024",
    sparsity: Annotated[float, typer.Option(help="Share of zeros in A.")] = 0.8,
    gpu: Annotated[str, typer.Option(help="A packaged GPU, or a .json or .toml description.")] = "a100-80gb",
    exact: Annotated[bool, typer.Option("--exact", help="Execute large products in full.")] = False,
    sweep: Annotated[
        str | None, typer.Option(help="Many matrices instead: opt, llama or smollm2 (with --out).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSONL file of the sweep; a killed sweep resumes from it.")] = None,
    columns: Annotated[str, typer.Option("--n", help="The N of a sweep, for example 8,16,32.")] = "16",
    plot: Annotated[Path | None, typer.Option(help="Write the comparison as .png, .svg or .pdf.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the drawn weights.", min=0)] = 0,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """Compare kernels: bytes, counts, registers, occupancy, predicted time, side by side.

    Examples: loadsparse compare --shape 36864,8,9216 --sparsity 0.8;
    loadsparse compare lscd bitmap flash-llm --shape 4096,16,4096 --gpu h100-sxm --json;
    loadsparse compare --sweep opt --n 8,16,32 --out opt.jsonl --plot opt.png
    """
    with bad_input(), progress("compare", quiet=as_json or plain) as update:
        from loadsparse.gpu import comparison
        from loadsparse.gpu.sweep import sweep as run_sweep

        if plot is not None:
            _check_plot(plot, kernels, sweep is not None)
        if sweep is None:
            if out is not None:
                raise fail("--out belongs to --sweep: use --json to write one comparison")
            m, n, k = _integers(shape, "--shape", "1024,16,1024", 3)
            rows = comparison.compare((m, n, k), sparsity, gpu, kernels, exact=exact, seed=seed, progress=update)
        else:
            if out is None:
                raise fail(f"--sweep {sweep} needs --out FILE.jsonl, from which it resumes after a kill")
            many = _integers(columns, "--n", "8,16,32")
            rows = run_sweep(sweep, out, many, sparsity, gpu, kernels, exact=exact, seed=seed, progress=update)
        if plot is not None and sweep is not None:
            _plot_sweep(plot, rows, f"Predicted speed-up over dense, {sweep}, {sparsity:.0%} sparse, {gpu}")
        elif plot is not None:
            _plot(plot, rows, f"{shape.replace(',', ' x ')} (M x N x K), {sparsity:.0%} sparse, {gpu}")
    if as_json:
        typer.echo(json.dumps({"rows": rows, "notes": NOTES}))
    else:
        _show(rows, plain)
    if any(row["hazards"] for row in rows):
        raise typer.Exit(1)
