"""Bank conflicts as text: the execution of a shared-memory instruction that takes most wavefronts, bank by bank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from loadsparse.gpu.simulator import Event
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.watching import Access, Watcher, prepared
from loadsparse.tutorials.judge.launching import Run

BANKS, HEIGHT = 32, 8
MOST_INSTRUCTIONS = 20_000
"""Warp instructions of block 0 that are watched."""


def worst(done: Run, inputs: Mapping[str, Any], ptx_line: int) -> Access | None:
    """The access of this PTX line with most wavefronts in block 0."""
    request = prepared(done.entry, done.grid, done.block, done.fresh(inputs), done.shared)
    found: Access | None = None
    passed = 0

    def seen(event: Event, accesses: list[Access], warp: Warp) -> None:
        nonlocal found, passed
        passed += 1
        if passed > MOST_INSTRUCTIONS:
            raise watcher.stop_here()
        if event.instruction.line == ptx_line:
            for access in accesses:
                if access.space == "shared" and (found is None or access.wavefronts > found.wavefronts):
                    found = access

    watcher = Watcher(request, 0, None, seen)
    watcher.run()
    return found


def bars(access: Access) -> tuple[str, ...]:
    """Lanes per bank as bars, readable without colour, and the worst bank in words."""
    lanes = [0] * BANKS
    for bank in access.banks():
        if bank is not None:
            lanes[bank] += 1
    most = max(lanes)
    steps = min(most, HEIGHT)
    picture = [f"one warp, {access.wavefronts} wavefronts; lanes that begin in each of the {BANKS} banks:"]
    for step in range(steps, 0, -1):
        level = -(-step * most // steps)
        picture.append(f"{level:4} |" + "".join("#" if count >= level else " " for count in lanes).rstrip())
    picture += ["     +" + "-" * BANKS, "bank  0       8       16      24     31"]
    busy = sum(count > 0 for count in lanes)
    picture.append(
        f"bank {lanes.index(most)} serves {most} lanes, one after another; {BANKS - busy} banks have nothing to do"
    )
    return tuple(picture)


def table(access: Access) -> tuple[str, ...]:
    """The lanes of each bank."""
    found = defaultdict(list)
    for lane, bank in enumerate(access.banks()):
        if bank is not None:
            found[bank].append(str(lane))
    return tuple(f"bank {bank:2}: lanes {' '.join(found[bank])}" for bank in sorted(found))
