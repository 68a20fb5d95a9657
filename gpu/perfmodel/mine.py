"""The time of a kernel of your own: counted in the simulator, scaled by the tile model, predicted like ours."""

from __future__ import annotations

from typing import Any

from loadsparse.gpu import compiler
from loadsparse.gpu.perfmodel.constants import fitted
from loadsparse.gpu.perfmodel.gpu import Gpu, load
from loadsparse.gpu.perfmodel.kernel import Prediction, check_shape, outside, tiled, untested_sizes
from loadsparse.gpu.perfmodel.tile import Counts, Tile

SPREAD = 0.3
SPLITS = (1, 2, 3, 4, 6, 8)


def predict_mine(kernel: Any, m: int, n: int, k: int, sparsity: float, gpu: str | Gpu = "a100-80gb") -> Prediction:
    """Predicted time of any tiled kernel with `name`, `encode` and `plan` (the protocol of `loadsparse.gpu.kernels`).

    Two small launches with random weights of this sparsity are executed and counted; registers come from the compiled
    machine code.  The kernel must step along K by 64 and take `split_k=1`; the best split up to 8 is assumed, with float32
    partial sums.  Raises PerfError for a bad question and RuntimeError where the simulator reports a hazard.
    """
    from loadsparse.gpu.perfmodel import count  # also a script: not to be imported with the package

    check_shape(m, n, k, sparsity)
    device, constants = load(gpu), fitted()
    panels = min(-(-n // 8), 8)
    point = count.measure(kernel, panels, 1 - sparsity)
    weights = count.random_weights(count.ROWS, 64 * count.STEPS[1], 1 - sparsity)
    moved = kernel.encode(weights).nbytes / weights.size * m * k
    registers = compiler.resources(point["ptx"], count.ARCH)["registers"]
    shape = Tile(
        point["rows"],
        point["columns"],
        64,
        point["threads"],
        registers,
        point["shared_bytes"],
        point["ahead"],
        Counts(*point["step"]),
        Counts(*point["block"]),
        "simulator",
        True,
        4,
    )
    options = [
        tiled(shape, moved, m, n, k, device, constants, splits) for splits in SPLITS if splits * 64 <= max(k, 64)
    ]
    best = min(options, key=lambda option: option.seconds(constants.join))
    seconds = best.seconds(constants.join)
    roof = max((moved + 2 * n * (m + k)) / (device.dram_peak_gbs * 1e9), 2 * m * n * k / (device.tensor_tflops * 1e12))
    note = f"{kernel.name} was counted by the simulator and never timed; constants are those of Flash-LLM's timings"
    return Prediction(
        seconds,
        best.bound,
        roof,
        seconds / (1 + SPREAD),
        seconds * (1 + SPREAD),
        {**best.overlapping, **best.added},
        (note, *outside(kernel.name, n, sparsity, device), *untested_sizes(m, k)),
        best.split_k,
        best.resident_blocks,
    )
