"""Heat maps of memory instructions: which lane hits which bank, or which sector, over the executions of one block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.interpreter.observe import Event
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.watching import Access, Watcher, prepared

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.module import Entry

COLUMNS = 32
MOST_INSTRUCTIONS = 20_000
"""Warp instructions of the block that are replayed."""


@dataclass(frozen=True, slots=True)
class Heat:
    """counts[lane, bank] for shared, counts[lane, sector] for global memory (sectors from the lowest one of the warp,
    the last column holds everything beyond).  `executions` of the instruction were seen in the block."""

    line: int
    ptx: str
    space: str
    size: int
    executions: int
    counts: NDArray[np.int64]


def heatmaps(
    entry: Entry,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...],
    *arguments: Any,
    lines: Sequence[int],
    shared_bytes: int = 0,
    thread_block: int = 0,
) -> list[Heat]:
    """Heat maps of the memory instructions in these PTX lines, in that order; arguments as for `Entry.launch`."""
    request = prepared(entry, grid, block, arguments, shared_bytes)
    wanted = set(lines)
    found: dict[tuple[int, str], tuple[Event, Access, NDArray[np.int64], list[int]]] = {}
    passed = 0

    def seen(event: Event, accesses: list[Access], warp: Warp) -> None:
        nonlocal passed
        passed += 1
        if passed > MOST_INSTRUCTIONS:
            raise machine.stop_here()
        if event.instruction.line not in wanted:
            return
        for access in accesses:
            if access.space not in ("shared", "global"):
                continue
            key = event.instruction.line, access.space
            counts = found.setdefault(key, (event, access, np.zeros((32, COLUMNS), np.int64), [0]))
            counts[3][0] += 1
            for lane, column in enumerate(access.banks() if access.space == "shared" else access.sectors()):
                if column is not None:
                    counts[2][lane, min(column, COLUMNS - 1)] += 1

    machine = Watcher(request, thread_block, None, seen)
    machine.run()
    order = {line: number for number, line in enumerate(lines)}
    return [
        Heat(line, event.instruction.text, space, access.size, executions[0], counts)
        for (line, space), (event, access, counts, executions) in sorted(found.items(), key=lambda i: order[i[0][0]])
    ]
