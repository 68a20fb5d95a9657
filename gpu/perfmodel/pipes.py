"""How long each pipe of a multiprocessor is busy."""

from __future__ import annotations

from loadsparse.gpu.perfmodel.gpu import Gpu
from loadsparse.gpu.perfmodel.tile import Counts

PIPES = ("shared", "tensor", "popc", "alu", "fma", "lsu")
"""Names of the parts that `busy` gives."""


def busy(counts: Counts, gpu: Gpu) -> dict[str, float]:
    """Cycles of one multiprocessor in which a pipe works on these counts, each alone.

    A warp instruction takes 32 / lanes cycles of a pipe; a wavefront one cycle at 128 bytes per clock; an mma its
    interval on one of four Tensor Cores.
    """
    return {
        "shared": counts.wavefronts * 128 / gpu.shared_bytes_per_clock,
        "tensor": counts.mma * gpu.mma_interval / 4,
        "popc": counts.popc * 32 / gpu.popc_lanes_per_clock,
        "alu": counts.alu * 32 / gpu.alu_lanes_per_clock,
        "fma": counts.fma * 32 / gpu.fma_lanes_per_clock,
        "lsu": counts.lsu * 32 / gpu.lsu_lanes_per_clock,
    }
