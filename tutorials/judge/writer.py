"""Who wrote an element of the result: observed in the interpreter, not derived from what the kernel should do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadsparse.gpu.simulator import Event
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.request import ALLOCATION_BITS
from loadsparse.gpu.simulator.watching import Access, Watcher, prepared
from loadsparse.tutorials.judge.launching import Run

MOST_INSTRUCTIONS = 20_000
"""Warp instructions that are watched for one explanation."""


def writer(done: Run, inputs: Mapping[str, Any], element: int) -> tuple[int, int, int] | None:
    """(PTX line, block, thread of the block) of the last store to a flat index of `out`; None if it was not seen."""
    request = prepared(done.entry, done.grid, done.block, done.fresh(inputs), done.shared)
    place = f"array {done.args.index('out')}"
    base = next(number for number, held in request.allocations.items() if held.name == place) << ALLOCATION_BITS
    address = base + element * done.out.itemsize
    found: tuple[int, int, int] | None = None
    passed = 0

    def seen(event: Event, accesses: list[Access], warp: Warp) -> None:
        nonlocal found, passed
        passed += 1
        if passed > MOST_INSTRUCTIONS:
            raise watcher.stop_here()
        if event.instruction.name in ("st", "red", "atom"):
            for access in accesses:
                for lane, offset in enumerate(access.offsets.tolist()):
                    if access.space == "global" and access.lanes[lane] and offset <= address < offset + access.size:
                        found = event.instruction.line, event.block, 32 * event.warp + lane

    watcher = Watcher(request, None, None, seen)
    watcher.run()
    return found if passed <= MOST_INSTRUCTIONS else None
