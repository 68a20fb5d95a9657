"""A modelled L2 cache: which sectors of a launch would come from DRAM.

Modelled, not counted.  Blocks run one after the other; every global access of the interpreter passes, in that order,
through one cache of 128-byte lines with 32-byte sectors, fully associative, least recently used first out, write back.
L1, the split of a real L2 in two halves, its hashing and the interleaving of blocks are left out; what was loaded
before the launch is not in the cache.  So: with room for everything, DRAM reads are the distinct sectors that are read.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter.observe import Event
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.watching import Access, Watcher, prepared

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.module import Entry

SECTOR, LINE = 32, 128
CAPACITY = {"sm_80": 40 << 20, "sm_86": 6 << 20, "sm_89": 72 << 20, "sm_90": 50 << 20, "sm_90a": 50 << 20}
"""Bytes of the L2 of the A100, RTX 3090, RTX 4090 and H100 (data sheets)."""
MOST_INSTRUCTIONS = 10_000
"""Warp instructions that a profile replays for this model; the interpreter runs some 5,000 a second."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes between L2 and DRAM, and the sectors that were asked for and found."""

    read_bytes: int
    write_bytes: int
    sectors: int
    hits: int

    @property
    def hit_rate(self) -> float:
        """Sectors found in L2 / sectors asked for; 1 where nothing was asked for."""
        return self.hits / self.sectors if self.sectors else 1.0


class Cache:
    """Lines of four sectors: valid and dirty bits per line, in order of their last use."""

    def __init__(self, capacity: int) -> None:
        self.lines: OrderedDict[int, list[int]] = OrderedDict()
        self.most = max(1, capacity // LINE)
        self.sectors = self.hits = self.read = self.written = 0

    def touch(self, sector: int, write: bool, whole: bool) -> None:
        """One sector is read, or written; a write that does not cover it reads it first."""
        line, bit = divmod(sector, LINE // SECTOR)
        state = self.lines.pop(line, None) or [0, 0]
        self.lines[line] = state
        self.sectors += 1
        mask = 1 << bit
        if state[0] & mask:
            self.hits += 1
        elif not (write and whole):
            self.read += SECTOR
        state[0] |= mask
        if write:
            state[1] |= mask
        if len(self.lines) > self.most:
            _, (_, dirty) = self.lines.popitem(last=False)
            self.written += SECTOR * dirty.bit_count()

    def finish(self) -> Traffic:
        """What is still dirty is written back."""
        left = sum(dirty.bit_count() for _, dirty in self.lines.values())
        return Traffic(self.read, self.written + SECTOR * left, self.sectors, self.hits)


def access(cache: Cache, accesses: list[Access], name: str) -> None:
    """All sectors of one warp instruction, ascending."""
    for one in accesses:
        if one.space != "global" or not one.lanes.any():
            continue
        starts = one.offsets[one.lanes].astype(np.int64)
        covered = np.unique((starts[:, None] + np.arange(one.size)).reshape(-1))
        sectors, bytes_of = np.unique(covered // SECTOR, return_counts=True)
        for sector, count in zip(sectors.tolist(), bytes_of.tolist(), strict=True):
            cache.touch(sector, name in ("st", "red", "atom"), name == "st" and count == SECTOR)


def traffic(
    entry: Entry,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...],
    *arguments: Any,
    shared_bytes: int = 0,
    capacity: int | None = None,
) -> Traffic:
    """Modelled DRAM traffic of a launch; arguments as for `Entry.launch`, nothing is written back.

    capacity: bytes of L2; None is that of the architecture's largest part.
    """
    cache = Cache(CAPACITY[entry.module.arch] if capacity is None else capacity)

    def seen(event: Event, accesses: list[Access], warp: Warp) -> None:
        access(cache, accesses, event.instruction.name)

    request = prepared(entry, grid, block, arguments, shared_bytes)
    machine = Watcher(request, None, None, seen)
    machine.run()
    return cache.finish()
