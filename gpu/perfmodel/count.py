"""Count our kernels on small instances: `python -m loadsparse.gpu.perfmodel.count [KERNEL ...]` writes data/counts.json.

Two executions per width and density, of 4 and of 8 steps along K, give the counts of a step and of a block.  `measure`
does the same for one point of any kernel that follows the protocol of `loadsparse.gpu.kernels`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

import numpy as np

from loadsparse.gpu.perfmodel.gpu import DATA
from loadsparse.gpu.perfmodel.tile import Counts

ARCH, STEPS, ROWS = "sm_80", (4, 8), 512
WIDTHS = (1, 2, 4, 8)
# LIMITS: density up to which a run holds
# kernel -> runs of densities that one compiled variant serves, with the kinks: 0.25 fills the registers that lscd stages in
# or, for adaptive, the encoding that random tiles take: delta, bitmaps of 8 and 4 bits a lane, dense
DENSITIES = {
    "lscd": ((0.0, 0.1, 0.2, 0.25, 0.3, 0.5, 1.0),),
    "bitmap": ((0.0, 0.1, 0.2), (0.25, 0.4, 0.5, 1.0)),
    "adaptive": ((0.0, 0.02, 0.05, 0.1, 0.12, 0.16), (0.19, 0.21), (0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 0.9), (0.95, 1.0)),
}
LIMITS = {"lscd": (1.0,), "bitmap": (0.22, 1.0), "adaptive": (0.18, 0.22, 0.92, 1.0)}


def counted(report: Any) -> Counts:
    """Counts of a launch report's first kernel, from the simulator's metrics."""
    metrics = report.metrics
    shared = "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_"
    return Counts(
        metrics["smsp__inst_executed.sum"],
        metrics[f"{shared}ld.sum"] + metrics[f"{shared}st.sum"] + metrics["shared_wavefronts_cp_async"],
        metrics["smsp__inst_executed_pipe_tensor_op_hmma.sum"],
        sum(row["executions"] for row in report.lines if re.match(r"(@\S+\s+)?popc\b", row["ptx"].strip())),
        metrics["barriers"],
        *(metrics[f"inst_executed_pipe_{pipe}"] for pipe in ("alu", "fma", "lsu")),
    )


def random_weights(m: int, k: int, density: float, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float16]]:
    """float16[m, k] of which each element is kept with probability `density`."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((m, k)).astype(np.float16)
    a[rng.random((m, k)) >= density] = 0
    return a


def measure(kernel: Any, panels: int, density: float, engine: str = "auto") -> dict[str, Any]:
    """One point: counts per step and per block of a kernel at 8*panels columns and a density."""
    totals, steps = [], []
    for along in STEPS:
        a = random_weights(ROWS, 64 * along, density)
        b = np.random.default_rng(1).standard_normal((a.shape[1], 8 * panels)).astype(np.float16)
        encoded = kernel.encode(a)
        launch = kernel.plan(encoded, b, arch=ARCH, split_k=1)
        _, report = launch.run(engine=engine)
        if not report.ok:
            raise RuntimeError(f"{kernel.name}: {report.hazards[0]}")
        totals.append(counted(report.steps[0]))
        steps.append(launch.steps[0])
    blocks = int(np.prod(steps[0].grid))
    step = (totals[1] + -1.0 * totals[0]) * (1 / (blocks * (STEPS[1] - STEPS[0])))
    block = totals[0] * (1 / blocks) + -STEPS[0] * step
    return {
        "density": density,
        "shared_bytes": max(one.shared_bytes for one in steps),
        "bytes": round(encoded.nbytes / a.size, 4),
        "rows": ROWS // steps[0].grid[0],
        "columns": 8 * panels // steps[0].grid[1],
        "threads": int(np.prod(steps[0].block)),
        "ahead": _ahead(steps[0].ptx),
        "ptx": steps[0].ptx,
        "step": [round(value, 3) for value in step.values()],
        "block": [round(value, 3) for value in block.values()],
    }


def _ahead(ptx: str) -> int:
    """Steps in flight: one more than the groups that the deepest cp.async wait leaves pending."""
    return max((int(left) for left in re.findall(r"cp\.async\.wait_group\s+(\d+)", ptx)), default=0) + 1


def count(name: str) -> dict[str, Any]:
    """All points of one of our kernels, by width."""
    from loadsparse.gpu import compiler, kernels

    kernel, by_width = kernels.get(name), {}
    for panels in WIDTHS:
        points: list[dict[str, Any]] = []
        for variant, (run, upto) in enumerate(zip(DENSITIES[name], LIMITS[name], strict=True)):
            for density in run:
                point = measure(kernel, panels, density)
                registers = compiler.resources(point.pop("ptx"), ARCH)["registers"]
                points.append({**point, "registers": registers, "variant": variant, "upto": upto})
        by_width[str(panels)] = points
        print(name, panels, flush=True)
    return by_width


def main(names: list[str]) -> None:
    """Count the named kernels (default: all) and write the file anew, keeping the others."""
    path = (DATA / "counts.json").resolve()  # a development install links to the file
    known = json.loads(path.read_text(encoding="utf-8"))["kernels"] if path.exists() else {}
    known |= {name: count(name) for name in names or DENSITIES}
    order = "instructions, shared wavefronts, mma, popc, barriers (per warp), alu, fma, lsu"
    body = {"arch": ARCH, "unit": f"per step of a block and per block: {order}", "kernels": known}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(body, indent=1).replace("\n    ", " ") + "\n", encoding="utf-8")
    os.replace(fresh, path)


if __name__ == "__main__":
    main(sys.argv[1:])
