"""What an answer cost, counted by the simulator, beside the best known."""

from __future__ import annotations

from collections.abc import Mapping

from loadsparse.gpu.simulator import Report

_SHARED = ("l1tex__data_pipe_lsu_wavefronts_mem_shared_op_", "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_")


def counts(report: Report) -> dict[str, int]:
    """The COUNTS of a launch: warp instructions, shared-memory wavefronts and conflicts, global-memory sectors."""
    found = report.metrics
    waves, conflicts = (found[f"{name}ld.sum"] + found[f"{name}st.sum"] for name in _SHARED)
    sectors = sum(found[f"l1tex__t_sectors_pipe_lsu_mem_global_op_{way}.sum"] for way in ("ld", "st"))
    return {
        "instructions": report.instructions,
        "wavefronts": waves + found["shared_wavefronts_cp_async"],
        "conflicts": conflicts,
        "sectors": sectors,
    }


def compared(own: Mapping[str, int], best: Mapping[str, int]) -> dict[str, dict[str, int | None]]:
    """count -> {"yours", "best"}; best is None where it is not known."""
    return {name: {"yours": value, "best": best.get(name)} for name, value in own.items()}
