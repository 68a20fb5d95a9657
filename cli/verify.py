"""`loadsparse verify`: kernels against their oracles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadsparse.cli.console import Json, Plain, bad_input, console, progress

if TYPE_CHECKING:
    from loadsparse.gpu.verify import Result
    from loadsparse.theory.road import Road

_MARK = {True: "[green]yes[/]", False: "[red]NO[/]", None: "[dim]-[/]"}


def _shape(text: str | None) -> tuple[int, int, int] | None:
    from loadsparse.gpu.verify.errors import InputError

    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise InputError(f"--shape {text}: give M,N,K as three positive integers, for example 1024,16,1024")
    m, n, k = (int(part) for part in parts)
    return m, n, k


def _show_tokens(road: Road, plain: bool) -> None:
    marks = {
        "optimum certified": road.optimum_certified,
        "equals the linear program": road.optimum_equals_lp,
        "dual above the optimum": road.bounded_by_dual,
        "step identity (D1)": road.step_identity,
        "preference rule (D3)": road.preference_rule,
    }
    out = console(plain)
    out.print(f"tokens: {road.balancer} rule, T={road.tokens}, E={road.experts}, K={road.k}, {road.steps} steps")
    out.print("  " + ", ".join(f"{name} {_MARK[value]}" for name, value in marks.items()), soft_wrap=True)
    out.print(
        f"  MaxVio {road.violation_before:.3f} -> {road.violation_after:.3f}, dual gap {road.dual_gap:.2e}",
        soft_wrap=True,
    )


def _bytes(gigabytes: float) -> int:
    from loadsparse.gpu.verify.errors import InputError

    if not 0.1 <= gigabytes <= 2**20:
        raise InputError(f"--memory-limit {gigabytes}: give gigabytes, at least 0.1")
    return int(gigabytes * 2**30)


def _show(result: Result, plain: bool) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    out = console(plain)
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for name in ("kernel", "input", "M x N x K"):
        table.add_column(name, no_wrap=True)
    for name in ("exact", "accurate", "clean", "complete"):
        table.add_column(name, justify="center")
    table.add_column("seconds", justify="right")
    for row in result.rows:
        marks = (_MARK[value] for value in (row.exact, row.accurate, row.clean, row.complete))
        shape = " x ".join(str(size) for size in row.shape)
        table.add_row(escape(row.kernel), escape(row.input), shape, *marks, f"{row.seconds:.2f}")
    out.print(table)
    for row in result.rows:
        for line in row.failures:
            out.print(f"[red]{escape(row.kernel)} on {escape(row.input)}:[/] {escape(line)}", soft_wrap=True)
        for note in row.notes:
            out.print(f"{escape(row.kernel)} on {escape(row.input)}: {escape(note)}", soft_wrap=True)
    for note in result.notes:
        out.print(escape(note), style="dim", soft_wrap=True)


def command(
    kernels: Annotated[
        list[str] | None,
        typer.Argument(help="Kernel names, or path/to/mine.py:function; none means every kernel.", show_default=False),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="random, adversarial, real (dequantised 4-bit), or one adversarial name; repeatable.",
        ),
    ] = None,
    arch: Annotated[str, typer.Option(help="GPU architecture whose arithmetic is simulated.")] = "sm_80",
    dtype: Annotated[str, typer.Option(help="Format of A and B: f16 or bf16.")] = "f16",
    shape: Annotated[str | None, typer.Option(help="M,N,K of one random input (instead of ragged ones).")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Real weights: a .npy, .npz, .safetensors or .gguf file, instead of inputs.")
    ] = None,
    sparsity: Annotated[float, typer.Option(help="Share of zeros in random and in pruned real weights.")] = 0.8,
    split_k: Annotated[int | None, typer.Option(help="Split of K; by default the kernel chooses.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the inputs; fresh by default, and printed.", min=0)] = None,
    result: Annotated[Path | None, typer.Option(help="Judge this product (.npy), computed anywhere.")] = None,
    a: Annotated[Path | None, typer.Option("--a", help="A of that product (.npy).")] = None,
    b: Annotated[Path | None, typer.Option("--b", help="B of that product (.npy).")] = None,
    device: Annotated[
        str, typer.Option(help="simulator, or cuda for a real GPU (a path that its makers have not run).")
    ] = "simulator",
    explore: Annotated[
        int, typer.Option(help="Run each launch under N legal schedules; what depends on them is not clean.", min=1)
    ] = 1,
    budget: Annotated[int | None, typer.Option(help="Thread instructions a launch may execute.", min=1)] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds a kernel file may take to hand over.")] = 120.0,
    memory_limit: Annotated[float, typer.Option(help="GB of address space of a kernel file.")] = 8.0,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """Check kernels against their oracles: exact, accurate, clean, complete.  No GPU is needed."""
    with bad_input():
        from loadsparse.gpu import verify

        if result is not None or a is not None or b is not None:
            if result is None or a is None or b is None:
                raise verify.InputError("--result, --a and --b go together: give all three")
            if kernels:
                raise verify.InputError("--result judges a product computed elsewhere: leave the kernel names out")
            if shape is not None or inputs or weights is not None or split_k is not None:
                raise verify.InputError("--result comes with its own A and B: leave out the options that make inputs")
            verdict = verify.files(result, a, b, dtype=dtype)
        else:
            with progress("verify", quiet=as_json or plain) as update:
                verdict = verify.verify(
                    kernels or None,
                    inputs or None,
                    arch=arch,
                    dtype=dtype,
                    shape=_shape(shape),
                    weights=weights,
                    sparsity=sparsity,
                    split_k=split_k,
                    seed=seed,
                    time_limit=time_limit,
                    memory_limit=_bytes(memory_limit),
                    device=device,
                    explore=explore,
                    budget=budget,
                    progress=update,
                )
    road = None
    if result is None and not kernels:
        from loadsparse.theory.road import judge_tokens

        road = judge_tokens(verdict.seed or 0)
    ok = verdict.ok and (road is None or road.ok)
    if as_json:
        tokens = {} if road is None else {"tokens": road.to_dict()}
        typer.echo(json.dumps({**verdict.to_dict(), **tokens, "ok": ok}))
    else:
        _show(verdict, plain)
        if road is not None:
            _show_tokens(road, plain)
        console(plain).print("[green]verified[/]" if ok else "[red]not verified[/]")
    raise typer.Exit(0 if ok else 1)
