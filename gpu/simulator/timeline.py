"""The warps of one block side by side: what each issued, where it waited at barriers, which copies were in flight.

The axis is an order, not a time: each warp issues one instruction a step, a barrier opens one step after its last warp
arrived, a copy is in flight from its cp.async to the wait that lands it.  Latencies, stalls and issue limits are not in it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.interpreter.observe import Event
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.opcodes import pipe
from loadsparse.gpu.simulator.program import Immediate, Instruction
from loadsparse.gpu.simulator.watching import Access, Watcher, prepared

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.module import Entry

MOST_INSTRUCTIONS = 20_000
"""Warp instructions of the block that are replayed."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One warp instruction at a step: its PTX line, pipe and number of active lanes."""

    step: int
    line: int
    pipe: str
    lanes: int


@dataclass(frozen=True, slots=True)
class Span:
    """Steps `begin` to `end - 1`: a wait at the barrier in PTX line `line`, or copies of `size` bytes issued from there."""

    begin: int
    end: int
    line: int
    size: int = 0


@dataclass(slots=True)
class Track:
    """One warp."""

    warp: int
    issues: list[Issue] = field(default_factory=list)
    waits: list[Span] = field(default_factory=list)
    copies: list[Span] = field(default_factory=list)
    clock: int = 0
    """The step of the next instruction."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The tracks of a block's warps; `whole` is false where the replay was cut short."""

    tracks: tuple[Track, ...]
    steps: int
    whole: bool


def timeline(
    entry: Entry,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...],
    *arguments: Any,
    shared_bytes: int = 0,
    thread_block: int = 0,
) -> Timeline:
    """The timeline of one block, which runs alone in the interpreter; arguments as for `Entry.launch`."""
    recorder = _Recorder()
    recorder.machine = Watcher(prepared(entry, grid, block, arguments, shared_bytes), thread_block, None, recorder)
    recorder.machine.run()
    return recorder.result()


@dataclass(frozen=True, slots=True)
class _Arrival:
    """Lanes of a warp at a barrier since a step."""

    track: Track
    lanes: NDArray[np.bool_]
    step: int
    line: int


class _Recorder:
    """Gives every instruction its step while the interpreter runs the block."""

    machine: Watcher

    def __init__(self) -> None:
        self.tracks: dict[int, Track] = {}
        self.waiting: dict[int, list[_Arrival]] = defaultdict(list)
        self.flying: dict[int, list[tuple[int, int, set[int]]]] = defaultdict(list)
        """By warp: (step, PTX line, numbers of the copies) of every cp.async with copies in flight."""
        self.sizes: dict[int, int] = {}
        self.passed, self.whole = 0, True

    def __call__(self, event: Event, accesses: list[Access], warp: Warp) -> None:
        if self.passed == MOST_INSTRUCTIONS:
            self.whole = False
            raise self.machine.stop_here()
        self.passed += 1
        track = self.tracks.setdefault(event.warp, Track(event.warp))
        self._open(track, event.active)
        instruction, step = event.instruction, track.clock
        kind = pipe(instruction.name, instruction.modifiers)
        track.issues.append(Issue(step, instruction.line, kind, int(event.active.sum())))
        track.clock += 1
        barrier = _barrier(instruction)
        if barrier is not None:
            self.waiting[barrier].append(_Arrival(track, event.active, track.clock, instruction.line))
        elif instruction.name == "cp":
            self._copies(track, warp, event.index, instruction.line, step)

    def _open(self, track: Track, active: NDArray[np.bool_]) -> None:
        """Lanes that run on after a barrier: it has opened, for all that had arrived."""
        for arrivals in self.waiting.values():
            if not any(a.track is track and (a.lanes & active).any() for a in arrivals):
                continue
            opened = max(arrival.step for arrival in arrivals)
            for arrival in arrivals:
                if opened > arrival.step:
                    arrival.track.waits.append(Span(arrival.step, opened, arrival.line))
                arrival.track.clock = max(arrival.track.clock, opened)
            arrivals.clear()

    def _copies(self, track: Track, warp: Warp, index: int, line: int, step: int) -> None:
        """After a cp.async, commit or wait: copies that began, and copies that landed."""
        left = warp.block.copies.flying
        mine = self.flying[track.warp]
        for number, (begin, where, copies) in reversed(list(enumerate(mine))):
            if not copies & left.keys():
                size = sum(self.sizes.pop(copy) for copy in copies)
                track.copies.append(Span(begin, step, where, size))
                del mine[number]
        fresh = {n for n, copy in left.items() if copy.instruction == index and n not in self.sizes}
        if fresh:
            self.sizes.update({n: int(left[n].data.size) for n in fresh})
            mine.append((step, line, fresh))

    def result(self) -> Timeline:
        """Ends what is still in flight where its warp ended."""
        for warp, track in self.tracks.items():
            for begin, line, copies in self.flying[warp]:
                track.copies.append(Span(begin, track.clock, line, sum(self.sizes[copy] for copy in copies)))
            track.copies.sort(key=lambda span: (span.begin, span.end))
        for arrivals in self.waiting.values():
            last = max((track.clock for track in self.tracks.values()), default=0)
            for arrival in arrivals:
                arrival.track.waits.append(Span(arrival.step, last, arrival.line))
        tracks = tuple(self.tracks[warp] for warp in sorted(self.tracks))
        return Timeline(tracks, max((track.clock for track in tracks), default=0), self.whole)


def _barrier(instruction: Instruction) -> int | None:
    """Number of the block's barrier at which an instruction waits (a number in a register counts as 0)."""
    if (
        instruction.name not in ("bar", "barrier")
        or "warp" in instruction.modifiers
        or "arrive" in instruction.modifiers
    ):
        return None
    number = instruction.operands[1 if "red" in instruction.modifiers else 0]
    return number.value if isinstance(number, Immediate) else 0
