"""A block's execution for a trace viewer (Perfetto, chrome://tracing): one track per warp, one slice per instruction.

The horizontal axis counts the instructions of the block in the order in which the simulator ran them, one microsecond
each: an order, not a time.  Copies by cp.async are slices from their issue to the wait that landed them.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadsparse.gpu.simulator.interpreter.observe import Event
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.opcodes import pipe
from loadsparse.gpu.simulator.watching import Access, Watcher, prepared

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.module import Entry

COPIES = 1000
"""Track numbers of copies begin here."""


def events(
    entry: Entry,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...],
    *arguments: Any,
    shared_bytes: int = 0,
    thread_block: int = 0,
    most: int = 20_000,
) -> list[dict[str, Any]]:
    """Trace events of the first `most` warp instructions of a block, which runs alone; arguments as for `Entry.launch`."""
    found: list[dict[str, Any]] = []
    flying: dict[tuple[int, int], tuple[int, int]] = {}
    warps: set[int] = set()
    now = 0

    def land(warp: Warp) -> None:
        """Ends the slices of instructions none of whose copies is left."""
        left = {(copy.instruction, copy.number) for copy in warp.block.copies.flying.values()}
        for key in [key for key in flying if key not in left]:
            start, owner = flying.pop(key)
            slice_ = {"name": "cp.async", "cat": "copy", "ph": "X", "ts": start, "dur": now - start, "pid": 1}
            found.append({**slice_, "tid": COPIES + owner})

    def seen(event: Event, accesses: list[Access], warp: Warp) -> None:
        nonlocal now
        if now >= most:
            raise machine.stop_here()
        instruction = event.instruction
        where = instruction.location
        found.append(
            {
                "name": instruction.opcode, "cat": pipe(instruction.name, instruction.modifiers), "ph": "X", "ts": now,
                "dur": 1, "pid": 1, "tid": event.warp,
                "args": {
                    "ptx": instruction.text, "line": instruction.line, "lanes": int(event.active.sum()),
                    "source": f"{os.path.basename(where.file)}:{where.line}" if where is not None else "",
                    "wavefronts": sum(access.wavefronts for access in accesses),
                },
            }
        )  # fmt: skip
        now += 1
        warps.add(event.warp)
        if instruction.name == "cp":
            land(warp)
            first: dict[int, tuple[int, int]] = {}
            for copy in warp.block.copies.flying.values():
                if copy.instruction == event.index and (copy.instruction, copy.number) not in flying:
                    first.setdefault(copy.instruction, (copy.instruction, copy.number))
            for key in first.values():
                flying[key] = (now - 1, event.warp)

    machine = Watcher(prepared(entry, grid, block, arguments, shared_bytes), thread_block, None, seen)
    machine.run()
    names = [(warp, f"warp {warp}") for warp in sorted(warps)] + [
        (COPIES + warp, f"copies of warp {warp}")
        for warp in sorted({e["tid"] - COPIES for e in found if e["cat"] == "copy"})
    ]
    head = [{"name": "thread_name", "ph": "M", "pid": 1, "tid": tid, "args": {"name": name}} for tid, name in names]
    return head + found


def write(path: str | os.PathLike[str], trace: list[dict[str, Any]]) -> None:
    """Writes events as a JSON file that trace viewers open, by a temporary file that is then renamed."""
    target = Path(path)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, suffix=".part", delete=False) as file:
        json.dump({"traceEvents": trace, "displayTimeUnit": "ms"}, file)
    os.replace(file.name, target)
