"""The outcome of a native launch: the counts and hazard records of all its threads put together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.arena import words
from loadsparse.gpu.simulator.engine.compiled import Compiled
from loadsparse.gpu.simulator.engine.structures import Worker
from loadsparse.gpu.simulator.request import COUNTERS, Hazard, HazardKind, Outcome


def outcome(compiled: Compiled, workers: list[Worker], printed: str, seconds: float) -> Outcome:
    """Counts and hazards of all workers."""
    counters = sum((w.counters for w in workers), np.zeros_like(workers[0].counters))
    executions, lanes = counts(compiled, workers)
    by_name = {name: np.ascontiguousarray(counters[:, i]) for i, name in enumerate(COUNTERS)}
    stopped: HazardKind | None = None
    for worker in workers:
        if worker.stopped:
            stopped = L.KINDS[worker.stopped - 1]
    return Outcome(executions, lanes, by_name, _hazards(compiled, workers), stopped, printed, execute_seconds=seconds)


def counts(compiled: Compiled, workers: list[Worker]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Executions of each instruction so far, by warps and by threads."""
    counts = sum((w.counts for w in workers), np.zeros_like(workers[0].counts))
    executions = np.zeros(compiled.instruction_count, np.int64)
    lanes = np.zeros_like(executions)
    for number, (start, stop, coarse_stop) in enumerate(compiled.ranges):
        full, groups, active, _ = counts[number]
        executions[start:coarse_stop] += full
        lanes[start:coarse_stop] += 32 * full
        executions[start:stop] += groups
        lanes[start:stop] += active
    return executions, lanes


def _hazards(compiled: Compiled, workers: list[Worker]) -> list[Hazard]:
    """Records of all workers: the lowest block's is the first occurrence."""
    merged: dict[tuple[str, int, int | None], Hazard] = {}
    for worker in workers:
        count = int(words(worker.hazards, 1)[0])
        fields = L.H_BYTES // 8
        records = words(worker.hazards + L.H_RECORDS, max(1, count) * fields).reshape(-1, fields)[:count]
        for kind, site, other, block, thread, address, size, detail, events, *theirs in records.tolist():
            if other == -2:
                site, other = compiled.ranges[site][0], -1
            hazard = Hazard(
                L.KINDS[kind], site, None if other < 0 else other, block, thread,
                None if size < 0 else address & (2**64 - 1), None if size < 0 else size, L.DETAILS[detail], events,
                *(None if n < 0 else n for n in theirs),
            )  # fmt: skip
            key = (hazard.kind, hazard.instruction, hazard.other)
            earlier = merged.get(key)
            if earlier is None:
                merged[key] = hazard
            else:
                first, later = (earlier, hazard) if earlier.block <= hazard.block else (hazard, earlier)
                first.count += later.count
                merged[key] = first
    return sorted(merged.values(), key=lambda h: (h.block, h.instruction, h.kind, h.other or 0))
