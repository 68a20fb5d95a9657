"""`loadsparse trace`: step through one warp, instruction by instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadsparse.cli.console import AlwaysPlain, Json, bad_input
from loadsparse.cli.profile import (
    Arch,
    Arguments,
    Block,
    Dtype,
    Grid,
    Seed,
    Shape,
    Shared,
    Sparsity,
    Target,
    numbers,
    shape_of,
)


def command(
    target: Target,
    warp: Annotated[int, typer.Option(help="Warp of the block.", min=0)] = 0,
    thread_block: Annotated[int, typer.Option("--in-block", help="Linear index of the block.", min=0)] = 0,
    first: Annotated[int, typer.Option("--from", help="First step to show, counted from 0.", min=0)] = 0,
    count: Annotated[int, typer.Option(help="Steps to show.", min=1)] = 50,
    kernel: Annotated[int, typer.Option(help="Which kernel of a launch of several.", min=0)] = 0,
    shape: Shape = None,
    sparsity: Sparsity = 0.8,
    dtype: Dtype = "f16",
    grid: Grid = None,
    block: Block = None,
    shared: Shared = 0,
    arguments: Arguments = None,
    arch: Arch = "sm_80",
    seed: Seed = 0,
    perfetto: Annotated[
        Path | None, typer.Option(help="Write the whole block for a trace viewer here (an order, not a time).")
    ] = None,
    lanes: Annotated[bool, typer.Option("--lanes", help="Show all 32 lanes of registers, banks and sectors.")] = False,
    as_json: Json = False,
    plain: AlwaysPlain = False,
) -> None:
    """Show what each instruction of a warp did: registers of 32 lanes, banks and sectors, copies in flight, source."""
    with bad_input():
        from loadsparse.gpu import targets
        from loadsparse.gpu.simulator import LaunchError, tracing
        from loadsparse.gpu.simulator.perfetto import events, write
        from loadsparse.gpu.verify.errors import InputError

        if target is None:
            raise InputError("name a kernel to trace: lscd, mine.py:kernel, mine.cu:kernel or mine.ptx:kernel")
        job, _ = targets.resolve(
            target,
            shape=shape_of(shape),
            sparsity=sparsity,
            dtype=dtype,
            grid=numbers(grid, "--grid"),
            block=numbers(block, "--block"),
            shared=shared,
            arguments=arguments or (),
            arch=arch,
            seed=seed,
        )
        if kernel >= len(job.steps):
            raise InputError(f"--kernel {kernel}: the launch has kernels 0 to {len(job.steps) - 1}")
        if perfetto is not None and not perfetto.absolute().parent.is_dir():
            raise InputError(f"--perfetto {perfetto}: its folder does not exist")
        step = job.steps[kernel]
        arguments_of = job.arguments(step, job.memory(), job.undefined)
        try:
            found = tracing.trace(
                job.entry(step),
                step.grid,
                step.block,
                *arguments_of,
                warp=warp,
                thread_block=thread_block,
                first=first,
                count=count,
                shared_bytes=step.shared_bytes,
            )
            if perfetto is not None:
                shown = events(
                    job.entry(step),
                    step.grid,
                    step.block,
                    *arguments_of,
                    shared_bytes=step.shared_bytes,
                    thread_block=thread_block,
                )
                write(perfetto, shown)
        except LaunchError as error:
            raise InputError(str(error)) from None
    if as_json:
        typer.echo(found.to_json())
        return
    for one in found:
        typer.echo(one.text(every_lane=lanes))
    if found.ended:
        typer.echo(
            f"the warp ended after {first + len(found)} instructions"
            if found.steps
            else "the warp ended before this step"
        )
