"""Work per multiprocessor of the grouped kernel: counted instructions of its items, handed out in the order of the list.

The gate and up matrices of DeepSeekMoE-16B's 64 experts, 2816 x 2048 (executed with K = 512, split as at 2048), with the
tokens that a batch sends to each.  Three divisions of the product on 108 multiprocessors, busiest over mean: every expert on
one of them; a block per expert and strip of rows that walks over all of the expert's columns, in the order of the experts; ours.
Bar: ours <= 1.10.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from loadsparse.gpu.kernels.grouped import Grouped, choose_split
from loadsparse.gpu.kernels.worklist import imbalance, share
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.perfmodel.moe import Routing, loads
from loadsparse.gpu.simulator import Checks

EXPERTS, TOP_K, M, K, FULL_K, SMS, SAMPLE = 64, 6, 2816, 512, 2048, 108, 8


def width(launch: Launch) -> int:
    """Panels of 8 columns of the widest item."""
    work = launch.buffers["work"].astype(int)
    return int(-(-(work[:, 4] - work[:, 3]).max() // 8))


def counted(launch: Launch) -> Any:
    """Warp instructions of an item's blocks: float64[items, splits]; SAMPLE of them are executed, the others interpolated."""
    step, work = launch.steps[0], launch.buffers["work"]
    rows = np.linspace(0, len(work) - 1, SAMPLE).astype(int)
    found = []
    for row in rows:
        alone = replace(step, grid=(1, 1, step.grid[2]))
        buffers = {**launch.buffers, "work": work[row : row + 1]}
        _, report = replace(launch, steps=(alone,), buffers=buffers).run(checks=Checks.none())
        found.append(report.instructions / step.grid[2])
    return np.repeat(np.interp(np.arange(len(work)), rows, found)[:, None], step.grid[2], axis=1)


def main() -> int:
    rng = np.random.default_rng(0)
    experts = rng.standard_normal((EXPERTS, M, K), np.float32).astype(np.float16)
    experts[rng.random((EXPERTS, M, K), np.float32) >= 0.2] = 0
    passed = True
    for name in sys.argv[1:] or ("lscd", "bitmap"):
        kernel = Grouped(name)
        encoded = kernel.encode(experts)
        for tokens, popularity in ((16, "uniform"), (64, "uniform"), (64, "1/rank"), (512, "1/rank")):
            counts = loads(tokens, EXPERTS, TOP_K, Routing(popularity))
            b = rng.standard_normal((K, int(counts.sum()))).astype(np.float16)
            whole = kernel.plan(encoded, b, counts, split_k=1)
            items, panels = len(whole.buffers["work"]), width(whole)
            launch = kernel.plan(encoded, b, counts, split_k=choose_split(items, FULL_K // 64, panels, "sm_80", 3))
            costs = counted(launch)
            owner = launch.buffers["work"][:, 0] // encoded.tile_rows
            strip = launch.buffers["work"][:, 1]
            ours = imbalance(share(costs.T.ravel(), SMS))
            by_expert = imbalance(np.bincount(owner % SMS, weights=costs.sum(axis=1), minlength=SMS))
            keys, where = np.unique(np.stack([owner, strip]), axis=1, return_inverse=True)
            walks = np.bincount(where.ravel(), weights=costs.sum(axis=1), minlength=keys.shape[1])
            by_strip = imbalance(share(walks, SMS))
            passed &= ours <= 1.10
            print(
                f"{kernel.name:15} {tokens:4} tokens {popularity:8} N_e {counts.min()}..{counts.max()}: "
                f"{len(costs)} items x {costs.shape[1]} splits, busiest/mean: an expert per SM {by_expert:.2f}, "
                f"expert and strip {by_strip:.2f}, ours {ours:.2f}; items differ by {costs.max() / costs.min() - 1:.0%}",
                flush=True,
            )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
