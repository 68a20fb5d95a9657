"""A warp to step through: what each instruction did to the registers of 32 lanes, to memory and to copies in flight."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from loadsparse.gpu.simulator.interpreter.observe import Event
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.limits import LaunchError
from loadsparse.gpu.simulator.opcodes import destinations
from loadsparse.gpu.simulator.program import Operand, Pair, Register, Vector
from loadsparse.gpu.simulator.report import sentence
from loadsparse.gpu.simulator.watching import Access, Watcher, prepared

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.module import Entry

MOST_STEPS = 100_000


@dataclass(frozen=True, slots=True)
class Change:
    """A register that an instruction wrote: bit patterns of the 32 lanes, and which lanes are new.

    A lane is None while it was never given a defined value.
    """

    register: str
    type: str
    lanes: tuple[bool, ...]
    values: tuple[int | None, ...]

    def text(self, lane: int) -> str:
        """The value of a lane as a person reads it: floats as numbers, the rest in hexadecimal."""
        value = self.values[lane]
        if value is None:
            return "undefined"
        if self.type == "f32":
            return f"{struct.unpack('<f', struct.pack('<I', value))[0]:g}"
        if self.type == "f64":
            return f"{struct.unpack('<d', struct.pack('<Q', value))[0]:g}"
        if self.type == "pred":
            return str(bool(value)).lower()
        return f"{value:#x}"


@dataclass(frozen=True, slots=True)
class Step:
    """One executed warp instruction; `number` counts this warp's instructions from 0.

    `pending` counts this block's cp.async copies in flight after the step, `pending_bytes` their bytes.
    `hazards` are sentences of what was found first in this step.
    """

    number: int
    block: int
    warp: int
    line: int
    ptx: str
    file: str | None
    source_line: int | None
    active: tuple[bool, ...]
    changes: tuple[Change, ...]
    accesses: tuple[Access, ...]
    pending: int
    pending_bytes: int
    hazards: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "number": self.number, "block": self.block, "warp": self.warp, "line": self.line, "ptx": self.ptx,
            "file": self.file, "source_line": self.source_line, "active": list(self.active),
            "changes": [
                {"register": c.register, "type": c.type, "lanes": list(c.lanes), "values": list(c.values)}
                for c in self.changes
            ],
            "accesses": [
                {"space": a.space, "size": a.size, "lanes": a.lanes.tolist(), "offsets": a.offsets.tolist(),
                 "banks": a.banks(), "sectors": a.sectors(), "wavefronts": a.wavefronts}
                for a in self.accesses
            ],
            "pending": self.pending, "pending_bytes": self.pending_bytes, "hazards": list(self.hazards),
        }  # fmt: skip

    def __str__(self) -> str:
        return self.text(every_lane=False)

    def text(self, *, every_lane: bool) -> str:
        """The step in words; `every_lane` adds the 32 lanes of each register written and of each access."""
        source = f"  {self.file.rpartition('/')[2]}:{self.source_line}" if self.file else ""
        lines = [f"{self.number:6d}  line {self.line:4d}  {mask_text(self.active)}  {self.ptx}{source}"]
        for change in self.changes:
            lines.append(f"{'':14}{change.register} ({change.type}) = {lanes_text(change)}")
            texts = [change.text(lane) if new else "" for lane, new in enumerate(change.lanes)]
            if every_lane and len(set(texts)) > 1:
                lines += lane_rows(texts)
        for access in self.accesses:
            lines.append(f"{'':14}{access_text(access)}")
            places = {"shared": ("bank", access.banks()), "global": ("sector", access.sectors())}.get(access.space)
            if every_lane and places is not None:
                lines += lane_rows(["" if place is None else f"{places[0]} {place}" for place in places[1]])
        if self.pending and (self.accesses or self.ptx.startswith(("cp.", "mma", "bar"))):
            lines.append(f"{'':14}{self.pending} copies in flight, {self.pending_bytes} bytes")
        lines += [f"{'':14}! {hazard}" for hazard in self.hazards]
        return "\n".join(lines)


def mask_text(active: Sequence[bool]) -> str:
    """The lanes that take part: "all 32 lanes", or their bits, lane 0 on the right."""
    bits = sum(1 << lane for lane, on in enumerate(active) if on)
    return "all 32 lanes" if bits == 0xFFFFFFFF else f"lanes {bits:08x}  "


def lanes_text(change: Change, most: int = 6) -> str:
    """One value if all changed lanes agree, else the first few by lane."""
    lanes = [lane for lane, new in enumerate(change.lanes) if new]
    texts = [change.text(lane) for lane in lanes]
    if len(set(texts)) == 1:
        return f"{texts[0]} in {'every lane' if len(lanes) == len(change.lanes) else f'{len(lanes)} lanes'}"
    head = ", ".join(f"{lane}: {text}" for lane, text in zip(lanes[:most], texts[:most], strict=True))
    return head + (f", ... {lanes[-1]}: {texts[-1]}" if len(lanes) > most else "")


def lane_rows(texts: Sequence[str]) -> list[str]:
    """The texts of 32 lanes in rows of eight, aligned; a lane without one shows a dot."""
    width = max(map(len, texts))
    return [
        f"{'':16}lanes {first:2d}-{first + 7:2d}: "
        + " ".join((t or ".").rjust(width) for t in texts[first : first + 8])
        for first in range(0, len(texts), 8)
    ]


def access_text(access: Access) -> str:
    """What an access costs, in banks or sectors."""
    count = int(access.lanes.sum())
    if access.space == "shared":
        banks = [bank for bank in access.banks() if bank is not None]
        cost = f"{access.wavefronts} wavefront{'s' if access.wavefronts != 1 else ''}"
        return f"shared: {count} lanes x {access.size} bytes start in {len(set(banks))} of 32 banks, {cost}"
    if access.space == "global":
        sectors = {sector for sector in access.sectors() if sector is not None}
        return f"global: {count} lanes x {access.size} bytes start in {len(sectors)} sectors of 32 bytes"
    return f"{access.space}: {count} lanes x {access.size} bytes"


class Trace(Sequence[Step]):
    """The steps of one warp; a notebook shows them with a slider."""

    def __init__(self, kernel: str, steps: list[Step], ended: bool) -> None:
        self.kernel, self.steps, self.ended = kernel, steps, ended

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> list[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | list[Step]:
        return self.steps[index]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __str__(self) -> str:
        return "\n".join(str(step) for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: kernel, whether the warp ended, and the steps."""
        return {"kernel": self.kernel, "ended": self.ended, "steps": [step.to_dict() for step in self.steps]}

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict())

    def _repr_html_(self) -> str:
        from loadsparse.gpu.simulator.html import slider

        return str(slider([step.text(every_lane=True) for step in self.steps], self.kernel))


def trace(
    entry: Entry,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...],
    *arguments: Any,
    warp: int = 0,
    thread_block: int = 0,
    first: int = 0,
    count: int = 1000,
    shared_bytes: int = 0,
    **options: Any,
) -> Trace:
    """Steps `first` to `first + count - 1` of one warp of one block, which runs alone on memory as it was before.

    Arguments as for `Entry.launch`; nothing is written back.  `options` go to the launch (schedule, seed, cp_async).
    Raises LaunchError for a warp or block that the launch does not have.
    """
    if not 1 <= count <= MOST_STEPS or first < 0:
        raise LaunchError(f"trace 1 to {MOST_STEPS} steps from a step that is not negative")
    request = prepared(entry, grid, block, arguments, shared_bytes, **options)
    blocks = request.grid[0] * request.grid[1] * request.grid[2]
    warps = -(-request.block[0] * request.block[1] * request.block[2] // 32)
    if not 0 <= thread_block < blocks:
        raise LaunchError(f"block {thread_block}; the grid has blocks 0 to {blocks - 1}")
    if not 0 <= warp < warps:
        raise LaunchError(f"warp {warp}; a block has warps 0 to {warps - 1}")
    recorder = _Recorder(first, count)
    recorder.machine = Watcher(request, thread_block, warp, recorder)
    recorder.machine.run()
    return Trace(entry.kernel.name, recorder.steps, not recorder.cut)


class _Recorder:
    """Turns what a Watcher sees into steps."""

    machine: Watcher

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count
        self.passed = 0
        self.cut = False
        self.steps: list[Step] = []
        self.known: set[tuple[str, int, int | None]] = set()

    def __call__(self, event: Event, accesses: list[Access], warp: Warp) -> None:
        number, self.passed = self.passed, self.passed + 1
        fresh = [key for key in self.machine.hazards if key not in self.known and key[1] == event.index]
        self.known.update(fresh)
        if number < self.first:
            return
        if len(self.steps) == self.count:
            self.cut = True
            raise self.machine.stop_here()
        where = event.instruction.location.own() if event.instruction.location is not None else None
        flying = list(warp.block.copies.flying.values())
        self.steps.append(
            Step(
                number, event.block, event.warp, event.instruction.line, event.instruction.text,
                where.file if where else None, where.line if where else None, tuple(event.active.tolist()),
                self._changes(event), tuple(accesses), len(flying), sum(copy.data.size for copy in flying),
                tuple(self._sentence(key) for key in fresh),
            )
        )  # fmt: skip

    def _sentence(self, key: tuple[str, int, int | None]) -> str:
        hazard, instructions = self.machine.hazards[key], self.machine.instructions
        other = instructions[hazard.other] if hazard.other is not None else None
        return f"{hazard.kind}: {sentence(self.machine.request, instructions[hazard.instruction], other, hazard)}"

    def _changes(self, event: Event) -> tuple[Change, ...]:
        """Registers that were written, or whose bits changed (the parameters of a call)."""
        place = self.machine.place_of(event.index)
        lanes = event.active
        guard = event.instruction.guard
        if guard is not None:
            lanes = lanes & ((event.before[place.row(guard.register)] != 0) != guard.negated)
        count = destinations(event.instruction.name, event.instruction.modifiers)
        written = {place.row(r): r for r in _registers(event.instruction.operands[:count])}
        every = {place.row(r): r for r in place.kernel.registers}
        differs = event.before != event.after
        found = []
        for row, register in every.items():
            new = lanes if row in written else differs[row]
            if new.any():
                pairs = zip(event.after[row].tolist(), event.defined[row].tolist(), strict=True)
                values = tuple(value if known else None for value, known in pairs)
                found.append(Change(register.name, register.type, tuple(new.tolist()), values))
        return tuple(found)


def _registers(operands: Sequence[Operand | None]) -> Iterator[Register]:
    for operand in operands:
        if isinstance(operand, Register):
            yield operand
        elif isinstance(operand, Vector):
            yield from _registers(operand.elements)
        elif isinstance(operand, Pair):
            yield from _registers((operand.first, operand.second))
