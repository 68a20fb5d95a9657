"""`loadsparse profile`: what a kernel executes, touches and breaks, counted without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadsparse.cli.console import Json, Plain, bad_input, console, progress

if TYPE_CHECKING:
    from rich.console import Console

    from loadsparse.gpu.profiling import Profile, Section

Target = Annotated[
    str | None,
    typer.Argument(
        help="A kernel's name (lscd), mine.py:kernel, mine.cu:kernel or mine.ptx:kernel.", show_default=False
    ),
]
Shape = Annotated[str | None, typer.Option(help="M,N,K of a random sparse product, for names and .py files.")]
Sparsity = Annotated[float, typer.Option(help="Share of zeros in A.", min=0.0, max=1.0)]
Dtype = Annotated[str, typer.Option(help="Format of A and B: f16 or bf16.")]
Grid = Annotated[str | None, typer.Option(help="Blocks, as 4 or 4,2,1 (.cu and .ptx files).")]
Block = Annotated[str | None, typer.Option(help="Threads of a block, as 128 or 32,4 (.cu and .ptx files).")]
Shared = Annotated[int, typer.Option(help="Dynamic shared memory in bytes (.cu and .ptx files).", min=0)]
Arguments = Annotated[
    list[str] | None,
    typer.Option(
        "--arg", help="One per parameter: f32[1024], f32[1024]=zeros|ones|arange|empty, data.npy, 17, f16:2.5."
    ),
]
Arch = Annotated[str, typer.Option(help="GPU architecture that is simulated.")]
Seed = Annotated[int, typer.Option(help="Seed of random inputs and schedules.", min=0)]


def numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Positive integers separated by commas.  Raises InputError."""
    from loadsparse.gpu.verify.errors import InputError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() and len(part) < 12 and int(part) > 0 for part in parts):
        raise InputError(
            f"{option} {text}: give one to three positive integers, for example {option} 128 or {option} 16,8"
        )
    return tuple(int(part) for part in parts)


def shape_of(text: str | None) -> tuple[int, int, int] | None:
    """M,N,K.  Raises InputError."""
    from loadsparse.gpu.verify.errors import InputError

    sizes = numbers(text, "--shape")
    if sizes is None:
        return None
    if len(sizes) != 3:
        raise InputError(f"--shape {text}: give M,N,K as three positive integers, for example 512,16,1024")
    return sizes[0], sizes[1], sizes[2]


def _coverage(as_json: bool, plain: bool) -> None:
    from loadsparse.gpu.simulator import coverage

    rows = coverage()
    if as_json:
        typer.echo(json.dumps({"opcodes": rows}))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console(plain).print(table)
    refused = sum(row["engine"].startswith("refused") for row in rows)
    console(plain).print(
        f"{len(rows) - refused} opcodes; any other is refused at load, by name and line, {refused} names with their reason"
    )
    console(plain).print("engine llvm: rare forms fall back to the interpreter; a report's `engine` says which one ran")


def _section(out: Console, section: Section, plain: bool) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from loadsparse.gpu.simulator import hot

    report = section.report
    size = " x ".join(str(part) for part in report.grid), " x ".join(str(part) for part in report.block)
    out.print(f"[bold]{escape(report.kernel)}[/]  {report.arch}, grid {size[0]}, block {size[1]}", soft_wrap=True)
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for name, side in (("metric", "left"), ("value", "right"), ("unit", "left"), ("from", "left")):
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for metric in section.metrics:
        table.add_row(escape(metric.name), f"{metric.value:,}", metric.unit, metric.source)
    out.print(table)
    if section.occupancy is not None:
        found = section.occupancy
        out.print(
            f"occupancy: {found.warps} of {found.maximum_warps} warps ({100 * found.fraction:.0f} %), {found.blocks} "
            f"blocks; limited by {' and '.join(found.limiter)}",
            soft_wrap=True,
        )
    if section.note:
        out.print(escape(section.note), style="dim", soft_wrap=True)
    lines = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for name, side in (("issues", "right"), ("PTX line", "right"), ("source", "left"), ("instruction", "left")):
        lines.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for row in hot.ptx(report.lines, 10):
        source = f"{Path(row['file']).name}:{row['source_line']}" if row["file"] else ""
        lines.add_row(f"{hot.cost(row):,}", str(row["line"]), escape(source), escape(row["ptx"][:80]))
    out.print(lines)
    for hazard in report.hazards:
        out.print(f"[red]{escape(str(hazard))}[/]", soft_wrap=True)


def _show(found: Profile, plain: bool) -> None:
    from rich.markup import escape

    out = console(plain)
    for section in found.sections:
        _section(out, section, plain)
    if found.exploration is not None:
        style = "green" if found.exploration.ok else "red"
        out.print(escape(str(found.exploration)), style=style, soft_wrap=True)
    out.print(
        "counted: exact, by executing; compiled: NVIDIA's compiler; derived: rules or quotients; modelled: an idealised "
        "cache. Nothing here is a time.",
        style="dim",
        soft_wrap=True,
    )
    out.print("[green]no hazard[/]" if found.ok else "[red]not clean[/]")


def command(
    target: Target = None,
    shape: Shape = None,
    sparsity: Sparsity = 0.8,
    dtype: Dtype = "f16",
    split_k: Annotated[int | None, typer.Option(help="Split of K; by default the kernel chooses.")] = None,
    grid: Grid = None,
    block: Block = None,
    shared: Shared = 0,
    arguments: Arguments = None,
    arch: Arch = "sm_80",
    seed: Seed = 0,
    explore: Annotated[
        int, typer.Option(help="Run N schedules: adversarial orders of warps and lanes, copies late and early.", min=0)
    ] = 0,
    budget: Annotated[int | None, typer.Option(help="Most thread instructions of the launch.", min=1)] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page here.")] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="List the opcodes that are simulated or refused, and stop.")
    ] = False,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """Count what a kernel does: metrics under Nsight Compute's names, hot lines, hazards, occupancy.  No GPU is needed."""
    if coverage:
        _coverage(as_json, plain)
        return
    with bad_input():
        from loadsparse.gpu import profiling, targets
        from loadsparse.gpu.verify.errors import InputError

        if target is None:
            raise InputError("name a kernel to profile: lscd, mine.py:kernel, mine.cu:kernel or mine.ptx:kernel")
        if html is not None and not html.absolute().parent.is_dir():
            raise InputError(f"--html {html}: its folder does not exist")
        job, sources = targets.resolve(
            target,
            shape=shape_of(shape),
            sparsity=sparsity,
            dtype=dtype,
            split_k=split_k,
            grid=numbers(grid, "--grid"),
            block=numbers(block, "--block"),
            shared=shared,
            arguments=arguments or (),
            arch=arch,
            seed=seed,
        )
        with progress("profile", quiet=as_json or plain) as update:
            found = profiling.profile(job, explored=explore, seed=seed, sources=sources, progress=update, budget=budget)
        if html is not None:
            profiling.write_html(found, html)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
    else:
        _show(found, plain)
    raise typer.Exit(0 if found.ok else 1)
