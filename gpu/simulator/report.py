"""What a launch showed: hazards in words, metrics, and one row per PTX instruction."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from loadsparse.gpu.simulator.layout import Layout
from loadsparse.gpu.simulator.metrics import metrics
from loadsparse.gpu.simulator.opcodes import pipe
from loadsparse.gpu.simulator.program import Instruction
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, COUNTERS, Hazard, Outcome, Request

Point = tuple[int, int, int]
SHOWN = 10
"""Hazards that the repr of a report shows, one for each pair of source lines."""
WINDOWS = {0: "null", 1: "shared memory", 2: "local memory", 3: "module variables", 4: "parameters"}
VERBS = {
    "guard": "a guard that was never written decides whether this executes",
    "address": "an address is computed from a value that was never written",
    "value": "a value that was never written is stored to global memory",
}
DEADLOCK = {
    "": "threads wait at this barrier for threads that will never arrive",
    "spins": "threads spin here for ever: all that are left do, and what they look at no longer changes",
}
CONVERGENCE = {
    "stuck": "lanes of this warp wait here for lanes that will never come",
    "lanes missing": "an instruction of the whole warp is executed by a part of it: lanes have exited or never existed",
    "went past": "a thread of this block has ended without coming to this barrier, by another way than returning early",
    "kinds mixed": "bar.red meets bar.sync or bar.arrive at one barrier, which is unpredictable",
    "guards differ": "an .aligned instruction is executed by part of the warp: guards differ",
    "not in own mask": "a lane executes this that is not in its own member mask",
    "inactive source": "a shuffle reads from a lane that does not take part",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One hazard for people: where (kernel, 3-D block and thread, PTX line, source line), what, and how often.

    `other_line` is the PTX line of the copy or access that it conflicts with; a race also names who did that.
    """

    kind: str
    kernel: str
    block: Point
    thread: Point
    line: int
    ptx: str
    file: str | None
    source_line: int | None
    message: str
    count: int
    other_line: int | None = None
    other_block: Point | None = None
    other_thread: Point | None = None
    other_source_line: int | None = None

    def __str__(self) -> str:
        source = f", {os.path.basename(self.file)}:{self.source_line}" if self.file else ""
        times = f" ({self.count} times)" if self.count > 1 else ""
        return (
            f"{self.kind}: {self.message}; kernel {self.kernel[:60]}, block {self.block}, thread {self.thread}, "
            f"PTX line {self.line}{source}{times}"
        )


@dataclass(slots=True)
class Report:
    """The result of one launch; `ok` is true when there is no hazard.

    `instructions` counts warp instructions, `thread_instructions` their active lanes (predicated-off included);
    `lines` has one row per PTX instruction; `seconds` holds "translate" and "execute"; `printed` the output of printf.
    """

    kernel: str
    arch: str
    engine: str
    grid: Point
    block: Point
    hazards: list[Finding]
    metrics: dict[str, int]
    lines: list[dict[str, Any]] = field(repr=False)
    seconds: dict[str, float] = field(repr=False)
    printed: str = field(default="", repr=False)
    stopped: str | None = None

    @property
    def ok(self) -> bool:
        return not self.hazards

    @property
    def instructions(self) -> int:
        return self.metrics["smsp__inst_executed.sum"]

    @property
    def thread_instructions(self) -> int:
        return self.metrics["smsp__thread_inst_executed.sum"]

    def __repr__(self) -> str:
        head = (
            f"Report({self.kernel[:60]!r}, {self.arch}, grid {self.grid}, block {self.block}: "
            f"{'ok' if self.ok else f'{len(self.hazards)} hazards'}, {self.instructions} warp instructions, "
            f"{self.seconds['execute']:.3f} s by the {self.engine})"
        )
        first: dict[tuple[str, int, int | None], Finding] = {}
        for hazard in self.hazards:
            lines = hazard.source_line or hazard.line, hazard.other_source_line or hazard.other_line
            first.setdefault((hazard.kind, *lines), hazard)
        shown = [str(hazard) for hazard in first.values()][:SHOWN]
        more = len(self.hazards) - len(shown)
        return "\n  ".join([head, *shown, *([f"and {more} more, see .hazards"] if more else [])])

    def to_json(self) -> str:
        """The whole report as a JSON object."""
        return json.dumps({"ok": self.ok, **asdict(self)}, sort_keys=True)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """One self-contained page: hazards, metrics, and the PTX with its counts."""
        from loadsparse.gpu.simulator import html

        html.write(path, [html.Panel(self)])


def build(request: Request, plan: Layout, outcome: Outcome, engine: str) -> Report:
    """The report of an engine's outcome."""
    instructions = plan.instructions
    names = ("executions", "threads", *COUNTERS)
    columns = (outcome.executions, outcome.threads, *(outcome.counters[name] for name in COUNTERS))
    counts = zip(*(column.tolist() for column in columns), strict=True)
    rows = [{**row, **dict(zip(names, c, strict=True))} for row, c in zip(_rows(plan), counts, strict=True)]
    findings = [_finding(request, instructions, hazard) for hazard in outcome.hazards]
    seconds = {"translate": outcome.translate_seconds, "execute": outcome.execute_seconds}
    return Report(
        request.kernel.name, request.arch, engine, request.grid, request.block, findings,
        metrics(plan, outcome), rows, seconds, outcome.printed, outcome.stopped,
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _rows(plan: Layout) -> tuple[dict[str, Any], ...]:
    """What is known of every instruction before a launch."""
    rows = []
    for instruction in plan.instructions:
        file, line = _location(instruction)
        kind = pipe(instruction.name, instruction.modifiers)
        rows.append(
            {"line": instruction.line, "ptx": instruction.text, "file": file, "source_line": line, "pipe": kind}
        )
    return tuple(rows)


def _location(instruction: Instruction) -> tuple[str | None, int | None]:
    """Source file and line."""
    where = instruction.location.own() if instruction.location is not None else None
    return (where.file, where.line) if where is not None else (None, None)


def _point(index: int, size: Point) -> Point:
    return index % size[0], index // size[0] % size[1], index // (size[0] * size[1])


def _finding(request: Request, instructions: tuple[Instruction, ...], hazard: Hazard) -> Finding:
    instruction = instructions[hazard.instruction]
    other = instructions[hazard.other] if hazard.other is not None else None
    file, line = _location(instruction)
    return Finding(
        hazard.kind,
        request.kernel.name,
        _point(hazard.block, request.grid),
        _point(hazard.thread, request.block),
        instruction.line,
        instruction.text,
        file,
        line,
        sentence(request, instruction, other, hazard),
        hazard.count,
        other.line if other is not None else None,
        _point(hazard.other_block, request.grid) if hazard.other_block is not None else None,
        _point(hazard.other_thread, request.block) if hazard.other_thread is not None else None,
        _location(other)[1] if other is not None else None,
    )


def place(request: Request, instruction: Instruction, address: int, size: int) -> str:
    """Which memory an access meant: "array 3: offset 4096..4100 of 4096 bytes"."""
    modifiers = {modifier.partition("::")[0] for modifier in instruction.modifiers}
    if (
        "shared" in modifiers
        or instruction.name in ("ldmatrix", "stmatrix")
        or "local" in modifiers
        or "param" in modifiers
    ):
        explicit = not (modifiers & {"global"}) or instruction.name == "cp"
    else:
        explicit = False
    total = request.static_shared_bytes + request.dynamic_shared_bytes
    if explicit and address >> ALLOCATION_BITS not in request.allocations:
        name, limit = ("local memory", request.local_bytes) if "local" in modifiers else ("shared memory", total)
        if "param" in modifiers:
            name, limit = "parameters", int(request.parameters.size)
        offset = (
            address - (1 << 64)
            if address >= 1 << 63
            else address - (1 << 32)
            if 1 << 31 <= address < 1 << 32
            else address
        )
        return f"{name}: offset {offset}..{offset + size} of {limit} bytes"
    number, offset = address >> ALLOCATION_BITS, address & ((1 << ALLOCATION_BITS) - 1)
    if number not in request.allocations and offset >= 1 << (ALLOCATION_BITS - 1) and number + 1 in request.allocations:
        number, offset = number + 1, offset - (1 << ALLOCATION_BITS)
    allocation = request.allocations.get(number)
    if allocation is not None and offset >= 1 << (ALLOCATION_BITS - 1) and number + 1 in request.allocations:
        allocation, offset = request.allocations[number + 1], offset - (1 << ALLOCATION_BITS)
    if allocation is not None:
        return f"{allocation.name}: offset {offset}..{offset + size} of {allocation.data.size} bytes"
    if number in (1, 2):
        limit = total if number == 1 else request.local_bytes
        return f"{WINDOWS[number]}: offset {offset}..{offset + size} of {limit} bytes"
    if number == 0:
        return f"address {address:#x} near null, {size} bytes"
    return f"address {address:#x} in no allocation, {size} bytes"


def _race(request: Request, instruction: Instruction, hazard: Hazard, against: str) -> str:
    """Where, what and against whom."""
    assert hazard.address is not None
    assert hazard.other_block is not None
    assert hazard.other_thread is not None
    number, offset = hazard.address >> ALLOCATION_BITS, hazard.address & ((1 << ALLOCATION_BITS) - 1)
    allocation = request.allocations.get(number)
    where = f"{allocation.name}, byte {offset}" if allocation is not None else f"shared byte {hazard.address}"
    block, thread = _point(hazard.other_block, request.grid), _point(hazard.other_thread, request.block)
    who = f"thread {thread} of block {block}" if hazard.other_block != hazard.block else f"thread {thread}"
    if hazard.detail == "stale read":
        return f"a read-only (.nc) load of {where}, which the same kernel writes: {who}, {against}"
    return f"{hazard.detail} at {where}, not ordered against {who}, {against}"


def sentence(request: Request, instruction: Instruction, other: Instruction | None, hazard: Hazard) -> str:
    """One clear sentence about a hazard."""
    where = place(request, instruction, hazard.address, hazard.size or 0) if hazard.address is not None else ""
    against = ""
    if other is not None:
        file, line = _location(other)
        source = f", {os.path.basename(file)}:{line}" if file else ""
        against = f"the access in PTX line {other.line}{source} ('{other.text[:60]}')"
    match hazard.kind:
        case "bounds":
            return f"out of bounds: {where}"
        case "alignment":
            return f"misaligned access: {where}; the address must be a multiple of the access size"
        case "uninitialized":
            return VERBS.get(hazard.detail, "an undefined value is used") + (f": {where}" if where else "")
        case "race":
            return _race(request, instruction, hazard, against)
        case "pending":
            if hazard.detail == "unwaited":
                return "a cp.async is never waited for"
            if hazard.detail == "source":
                return f"writes the source of a cp.async that has not been waited for ({against}): {where}"
            return f"{hazard.detail}s the destination of a cp.async that has not been waited for ({against}): {where}"
        case "convergence":
            return CONVERGENCE.get(hazard.detail, hazard.detail)
        case "deadlock":
            return DEADLOCK[hazard.detail]
        case "trap" if instruction.name == "brx":
            return "the index is beyond the list of branch targets"
        case "budget":
            if request.budget is None:
                return "the launch did not end within the default budget; if this is no endless loop, give it more"
            return f"the launch did not end within its budget of {request.budget} thread instructions"
        case _:
            return hazard.detail or hazard.kind
