"""Work per multiprocessor of the grouped kernel: counted instructions of its items, handed out in the order of the list.

The gate and up matrices of DeepSeekMoE-16B's 64 experts, 2816 x 2048 (executed with K = 512), with the
tokens that a batch sends to each.  Three divisions of the product on 108 multiprocessors, busiest over mean: every expert on
one of them; a block per expert and strip of rows that walks over all of the expert's columns, in the order of the experts; ours.
Bar: ours <= 1.10.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from loadsparse.gpu.kernels.grouped import Grouped
from loadsparse.gpu.kernels.worklist import imbalance, schedule
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.perfmodel.moe import Routing, loads
from loadsparse.gpu.simulator import Checks

EXPERTS, TOP_K, M, K, SMS = 64, 6, 2816, 512, 108


def counted(launch: Launch) -> Any:
    """Warp instructions of every block: float64[blocks]; of each width and length one is executed."""
    step, work = launch.steps[0], launch.buffers["work"]
    kinds, where = np.unique(np.stack([work[:, 4] >> 8, work[:, 6] - work[:, 5]], axis=1), axis=0, return_inverse=True)
    found = []
    for kind in range(len(kinds)):
        row = int(np.flatnonzero(where.ravel() == kind)[0])
        alone = replace(step, grid=(1, 1, 1))
        buffers = {**launch.buffers, "work": work[row : row + 1]}
        _, report = replace(launch, steps=(alone,), buffers=buffers).run(checks=Checks.none())
        found.append(report.instructions)
    return np.array(found, float)[where.ravel()]


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
            launch = kernel.plan(encoded, b, counts)
            costs, work = counted(launch), launch.buffers["work"].astype(int)
            owner = np.searchsorted(np.cumsum(counts), work[:, 3], side="right")
            ours = imbalance(schedule(costs.tolist(), SMS)[1])
            by_expert = imbalance(np.bincount(owner % SMS, weights=costs, minlength=SMS))
            keys, where = np.unique(np.stack([owner, work[:, 1]]), axis=1, return_inverse=True)
            walks = np.bincount(where.ravel(), weights=costs, minlength=keys.shape[1])
            by_strip = imbalance(schedule(walks.tolist(), SMS)[1])
            passed &= ours <= 1.10
            print(
                f"{kernel.name:15} {tokens:4} tokens {popularity:8} N_e {counts.min()}..{counts.max()}: "
                f"{len(costs)} blocks, busiest/mean: an expert per SM {by_expert:.2f}, "
                f"expert and strip {by_strip:.2f}, ours {ours:.2f}; "
                f"largest over smallest block {costs.max() / costs.min():.1f}",
                flush=True,
            )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
