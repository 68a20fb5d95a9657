"""A kernel's profile: what the simulator counted, what the compiler reported, what the occupancy rules derive.

A `Job` comes from one of this project's launches (`of_launch`) or from anything a user names (targets.py).  Each number
says where it comes from: "counted" (exact, by executing), "compiled" (NVIDIA's compiler), "derived" (rules or a
quotient of the former), "modelled" (an idealised cache).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import compiler, sass, simulator
from loadsparse.gpu.launch import Launch, Step
from loadsparse.gpu.simulator import heat, hot, html, l2, occupancy, timeline
from loadsparse.gpu.simulator.explore import Exploration, Outputs, Schedule, explore
from loadsparse.gpu.simulator.overlap import Overlap, overlap
from loadsparse.gpu.simulator.report import Finding, Report
from loadsparse.gpu.verify.errors import InputError

T = TypeVar("T")
HOT = 10
HEAT = 6
"""Memory instructions whose lanes are mapped on the page."""
SOURCES = ("counted", "compiled", "derived", "modelled")


@dataclass(frozen=True, slots=True)
class Job:
    """Kernels to run in order on named buffers; `undefined` buffers start uninitialised."""

    name: str
    arch: str
    steps: tuple[Step, ...]
    buffers: Mapping[str, NDArray[Any]]
    undefined: frozenset[str] = frozenset()

    def arguments(self, step: Step, memory: Mapping[str, NDArray[Any]], fresh: frozenset[str]) -> list[Any]:
        """Arguments of a step on `memory`; buffers in `fresh` are handed over as undefined."""
        held = {name: simulator.empty(array) if name in fresh else array for name, array in memory.items()}
        return [held[arg] if isinstance(arg, str) else arg for arg in step.args]

    def memory(self) -> dict[str, NDArray[Any]]:
        """Fresh copies of the buffers."""
        return {name: np.array(array, order="C") for name, array in self.buffers.items()}

    def entry(self, step: Step) -> simulator.Entry:
        """The loaded kernel of a step.  Raises InputError for PTX that is refused."""
        try:
            return simulator.load(step.ptx, arch=self.arch)[step.entry]
        except KeyError as error:
            raise InputError(str(error.args[0])) from None
        except (simulator.PtxError, simulator.LaunchError) as error:
            raise InputError(f"{self.name}: {error}") from None

    def stages(self, **options: Any) -> Iterator[Stage]:
        """Executes the steps one after the other; each comes with the arguments it had.  Raises InputError."""
        memory, fresh = self.memory(), self.undefined
        for step in self.steps:
            entry, names = self.entry(step), {arg for arg in step.args if isinstance(arg, str)}
            before = self.arguments(step, {name: memory[name].copy() for name in names}, fresh)
            yield Stage(step, entry, before, self._launch(entry, step, self.arguments(step, memory, fresh), options))
            fresh -= names

    def run(self, **options: Any) -> tuple[dict[str, NDArray[Any]], list[Report]]:
        """Executes every step; the buffers afterwards and one report per step.  Raises InputError."""
        memory, fresh, reports = self.memory(), self.undefined, []
        for step in self.steps:
            entry = self.entry(step)
            reports.append(self._launch(entry, step, self.arguments(step, memory, fresh), options))
            fresh -= {arg for arg in step.args if isinstance(arg, str)}
        return memory, reports

    def _launch(self, entry: simulator.Entry, step: Step, arguments: list[Any], options: Mapping[str, Any]) -> Report:
        try:
            return entry.launch(step.grid, step.block, *arguments, shared_bytes=step.shared_bytes, **options)
        except simulator.LaunchError as error:
            raise InputError(f"{self.name}: {error}") from None


@dataclass(frozen=True, slots=True)
class Stage:
    """A step that was executed, and its arguments as they were before: enough to replay a block of it."""

    step: Step
    entry: simulator.Entry
    arguments: list[Any]
    report: Report

    def replay(self, look: Callable[..., T], **options: Any) -> T:
        """`look` (heat maps, overlap, timeline, traffic) on the launch."""
        step = self.step
        return look(self.entry, step.grid, step.block, *self.arguments, shared_bytes=step.shared_bytes, **options)


@dataclass(frozen=True, slots=True)
class Metric:
    """One number with Nsight Compute's name where it has one; `source` is one of SOURCES."""

    name: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class Section:
    """The profile of one kernel of a job.  `machine` is None where the compiler could not be asked, `note` says why."""

    report: Report
    step: Step
    machine: MachineCode | None
    occupancy: occupancy.Occupancy | None
    memory: l2.Traffic | None
    overlap: Overlap | None = None
    note: str = ""

    @property
    def metrics(self) -> list[Metric]:
        """Every number of the section."""
        return _metrics(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = self.occupancy
        return {
            "kernel": self.report.kernel, "arch": self.report.arch, "grid": self.report.grid,
            "block": self.report.block, "engine": self.report.engine, "seconds": self.report.seconds,
            "metrics": {m.name: {"value": m.value, "unit": m.unit, "source": m.source} for m in self.metrics},
            "occupancy": None if found is None else {
                "blocks": found.blocks, "warps": found.warps, "maximum_warps": found.maximum_warps,
                "limits": found.limits, "limiter": found.limiter,
            },
            "hazards": [_hazard(h) for h in self.report.hazards],
            "hot": hot.ptx(self.report.lines, HOT), "hot_source": hot.source(self.report.lines, HOT), "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything known about a job; `ok` is false where a hazard was found or a result depends on the schedule."""

    name: str
    job: Job
    sections: tuple[Section, ...]
    exploration: Exploration | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    """Source text by file, for the page."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the launches, for the page's replay."""

    @property
    def ok(self) -> bool:
        explored = self.exploration is None or self.exploration.ok
        return explored and all(section.report.ok for section in self.sections)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "ok": self.ok,
            "name": self.name,
            "kernels": [section.to_dict() for section in self.sections],
            "exploration": self.exploration.to_dict() if self.exploration is not None else None,
        }


def write_html(found: Profile, path: str | os.PathLike[str]) -> None:
    """The profile as one self-contained page.  Every kernel runs once more: block 0 is drawn warp by warp, and its hottest
    memory instructions lane by lane."""
    panels = []
    for section, stage in zip(found.sections, found.job.stages(**found.options), strict=True):
        report, halted = section.report, section.report.stopped is not None
        touching = [row for row in report.lines if row["sectors"] or row["wavefronts"]]
        lines = [row["line"] for row in hot.ptx(touching, HEAT)]
        machine = section.machine
        panels.append(
            html.Panel(
                report, [(m.name, m.value, m.unit, m.source) for m in section.metrics], section.occupancy,
                () if machine is None else machine.code, section.note, found.sources,
                stage.replay(heat.heatmaps, lines=lines) if lines and not halted else [],
                None if halted else stage.replay(timeline.timeline),
            )
        )  # fmt: skip
    remarks = [] if found.exploration is None else str(found.exploration).splitlines()
    html.write(path, panels, found.name, remarks)


def _hazard(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind, "line": finding.line, "other_line": finding.other_line, "ptx": finding.ptx,
        "file": finding.file, "source_line": finding.source_line, "block": finding.block, "thread": finding.thread,
        "message": finding.message, "count": finding.count,
    }  # fmt: skip


def _metrics(section: Section) -> list[Metric]:
    report, found = section.report, section.occupancy
    rows = [Metric(name, value, _unit(name), "counted") for name, value in report.metrics.items()]
    active = report.instructions * 32
    if active:
        share = 100 * report.thread_instructions / active
        rows.append(Metric("smsp__thread_inst_executed_per_inst_executed.pct", round(share, 2), "%", "derived"))
    for way in ("ld", "st"):
        requests = report.metrics[f"l1tex__t_requests_pipe_lsu_mem_global_op_{way}.sum"]
        if requests:
            sectors = report.metrics[f"l1tex__t_sectors_pipe_lsu_mem_global_op_{way}.sum"]
            name = f"l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_{way}.ratio"
            rows.append(Metric(name, round(sectors / requests, 3), "sectors", "derived"))
    if section.machine is not None:
        rows.append(Metric("launch__registers_per_thread", section.machine.registers, "registers", "compiled"))
        rows.append(Metric("launch__spill_bytes", section.machine.spill_bytes, "bytes", "compiled"))
        rows.append(Metric("launch__stack_bytes", section.machine.stack_bytes, "bytes", "compiled"))
    if found is not None:
        rows.append(Metric(occupancy.METRIC, round(100 * found.fraction, 2), "%", "derived"))
        for name, value in found.limits.items():
            if value is not None:
                rows.append(Metric(f"launch__occupancy_limit_{name}", value, "blocks", "derived"))
    if section.overlap is not None and section.overlap.mma:
        flying = section.overlap
        rows += [
            Metric("mma_with_copies_in_flight.pct", round(100 * flying.share, 2), "% (block 0)", "counted"),
            Metric("cp_async_bytes_in_flight_at_mma.avg", round(flying.mean_bytes, 1), "bytes a warp", "counted"),
            Metric("cp_async_groups_in_flight_at_mma.max", flying.groups, "groups a lane", "counted"),
        ]
    if section.memory is not None:
        rows += [
            Metric("dram__bytes_read.sum", section.memory.read_bytes, "bytes", "modelled"),
            Metric("dram__bytes_write.sum", section.memory.write_bytes, "bytes", "modelled"),
            Metric("lts__t_sector_hit_rate.pct", round(100 * section.memory.hit_rate, 2), "%", "modelled"),
        ]
    return rows


def _unit(name: str) -> str:
    for word, unit in (("sectors", "sectors"), ("requests", "requests"), ("bytes", "bytes"), ("conflict", "wavefronts"),
                       ("wavefront", "wavefronts")):  # fmt: skip
        if word in name:
            return unit
    return "threads" if "thread_inst" in name else "warp inst."


def of_launch(launch: Launch) -> Job:
    """The job of one of this project's launches."""
    undefined = frozenset({launch.output, *launch.workspace})
    return Job(launch.kernel, launch.arch, launch.steps, launch.buffers, undefined)


def profile(
    job: Job,
    *,
    explored: int = 0,
    seed: int = 0,
    sources: Mapping[str, str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Profile:
    """Runs a job once with every check and counter, asks the compiler, and runs `explored` schedules if any.

    A schedule may execute 16 times what the default order needed; more is hazard `budget`.  `options` go to the
    simulator's launch (engine, budget).  Raises InputError.
    """
    options = {**options, "seed": seed}
    sections = []
    for stage in job.stages(**options):
        step = stage.step
        machine, note = resources(step, job.arch)
        held = None
        if machine is not None:
            threads = step.block[0] * step.block[1] * step.block[2]
            shared = machine.shared_bytes + step.shared_bytes
            held = occupancy.occupancy(job.arch, threads, machine.registers, shared)
        sections.append(Section(stage.report, step, machine, held, _traffic(stage), _overlap(stage), note))
    exploration = None
    if explored:
        patience = 16 * max(section.report.thread_instructions for section in sections) + 2**20
        limited = {**options, "budget": min(patience, options.get("budget") or patience)}

        def run(schedule: Schedule) -> tuple[Outputs, list[Finding]]:
            arrays, found = job.run(**{**limited, **schedule.options})
            return arrays, [hazard for one in found for hazard in one.hazards]

        def update(number: int) -> None:
            if progress is not None:
                progress("schedules", number, explored)

        exploration = explore(run, max(2, explored), seed, update)
    return Profile(job.name, job, tuple(sections), exploration, sources or {}, options)


def _traffic(stage: Stage) -> l2.Traffic | None:
    """Modelled DRAM traffic, for launches small enough to be replayed in the interpreter."""
    report = stage.report
    if report.stopped is not None or report.instructions > l2.MOST_INSTRUCTIONS:
        return None
    return stage.replay(l2.traffic)


def _overlap(stage: Stage) -> Overlap | None:
    """Copies in flight at each mma of block 0, where a kernel has both."""
    counts = stage.report.metrics
    has_both = counts["smsp__inst_executed_pipe_tensor_op_hmma.sum"] and counts["cp_async_bytes"]
    return stage.replay(overlap) if stage.report.stopped is None and has_both else None


@dataclass(frozen=True, slots=True)
class MachineCode:
    """What NVIDIA's compiler made of a kernel: per thread its registers, stack and spilled bytes, per block its static
    shared bytes, and its SASS with the PTX line of each instruction."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int
    code: tuple[sass.Instruction, ...]


def resources(step: Step, arch: str) -> tuple[MachineCode | None, str]:
    """The machine code of a step's kernel, or None and the compiler's reason."""
    try:
        code, log = compiler.cubin(step.ptx, arch)
        listing = sass.listing(code, step.entry)
    except (compiler.CompileError, ValueError, ImportError) as error:
        return None, f"no machine code: {error}"
    found = re.search(
        rf"for '?{re.escape(step.entry)}'?\W.*?used (\d+) registers[^\n]*", log, re.DOTALL | re.IGNORECASE
    )
    if found is None:
        return None, "no machine code: the compiler's log does not name this kernel"
    text = found[0]

    def number(pattern: str) -> int:
        match = re.search(pattern, text)
        return int(match[1]) if match else 0

    spilled = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
    shared, stack = number(r"(\d+) bytes smem"), number(r"(\d+) bytes stack frame")
    return MachineCode(int(found[1]), shared, stack, spilled, listing), ""
