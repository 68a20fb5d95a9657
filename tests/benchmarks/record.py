"""Measure the promises of speed and write records.json: `python tests/benchmarks/record.py`, on an idle machine.

A promise about seconds cannot be a test: a busy machine would break it.  It is measured here, written down with its bar,
the machine and the date, and the claims ledger carries it as `measured` where every number meets its bar
(tests/test_records.py), else as `not yet`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_pack
import bench_simulator
import bench_theory

from loadsparse.gpu import simulator
from loadsparse.gpu.kernels import pack, pack_lanes

RECORDS = Path(__file__).with_name("records.json")
EVERY = simulator.Checks()


def number(what: str, measured: float, bar: float, *, least: bool) -> dict[str, Any]:
    """One measured number; `least`: the bar is the least that is good enough, else the most."""
    return {"what": what, "measured": float(f"{measured:.3g}"), "bar": bar, "least": least}


def simulator_speed() -> list[dict[str, Any]]:
    """LSCD, 1024 x 4096, N = 16, 80% sparse, every check."""
    rate = bench_simulator.one_core(EVERY)
    return [number("thread-instructions per CPU second of one thread", rate, 1e9, least=True)]


def largest_layer() -> list[dict[str, Any]]:
    """LSCD, 49152 x 12288, N = 16, 80% sparse, every check."""
    found = bench_simulator.layer(49152, 12288, 16, EVERY)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [number("wall seconds", found["wall"], 15, least=False), number("GB", peak, 8, least=False)]


def packing_speed() -> list[dict[str, Any]]:
    """9216 x 9216, 80% sparse, one thread, over Flash-LLM's 0.13 GB/s of dense FP16 (timed on such a machine before)."""
    dense = bench_pack.weights()
    packers = {
        "tiled-CSL": pack.pack_tiled_csl, "bitmap": pack.pack_bitmap,
        "lanes": pack_lanes.pack_lane_bitmap, "adaptive": pack_lanes.pack_adaptive,
    }  # fmt: skip
    return [
        number(f"{name}: times Flash-LLM's", bench_pack.rate(packer, dense) / bench_pack.FLASH_LLM, 5, least=True)
        for name, packer in packers.items()
    ]


def assignment_speed() -> list[dict[str, Any]]:
    """T = 65,536, E = 256, K = 8, all threads, over OR-tools' min-cost flow on one, in one run."""
    found = bench_theory.solvers()
    return [
        number("OR-tools' wall seconds over ours", found["flow_wall"] / found["wall"], 10, least=True),
        number("GB beside the scores", found["gb"], 1, least=False),
        number("relative difference of the optima", found["off"], 1e-9, least=False),
    ]


MEASURES: dict[str, tuple[Callable[[], list[dict[str, Any]]], str]] = {
    "simulator-speed": (simulator_speed, "loadsparse.gpu.simulator.load"),
    "largest-layer": (largest_layer, "loadsparse.gpu.kernels.lscd.Lscd.plan"),
    "packing-speed": (packing_speed, "loadsparse.gpu.kernels.pack.pack_tiled_csl"),
    "assignment-speed": (assignment_speed, "loadsparse.theory.assignment.solve"),
}
"""Claim -> (what measures it, the function that it is about)."""


def processor() -> str:
    """The processor's name and how many of them."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{len(names)} x {names[0].partition(':')[2].strip()}" if names else platform.processor()


def main(chosen: list[str]) -> int:
    """Measure the named claims (default: all), each in a process of its own, and replace their records."""
    if chosen[:1] == ["--one"]:
        print(json.dumps(MEASURES[chosen[1]][0]()))
        return 0
    for name in chosen or MEASURES:
        load = os.getloadavg()[0]
        done = subprocess.run([sys.executable, __file__, "--one", name], check=True, stdout=subprocess.PIPE, text=True)
        measure, function = MEASURES[name]
        record = {
            "how": measure.__doc__, "function": function, "numbers": json.loads(done.stdout.splitlines()[-1]),
            "machine": processor(), "load": round(load, 1), "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        known = json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else {}
        fresh = RECORDS.with_suffix(".new")
        fresh.write_text(json.dumps({**known, name: record}, indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, RECORDS)
        print(name, record["numbers"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
