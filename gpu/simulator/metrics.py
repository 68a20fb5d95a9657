"""Counters of an outcome under the names that Nsight Compute gives them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.layout import Layout
from loadsparse.gpu.simulator.opcodes import pipe
from loadsparse.gpu.simulator.program import Instruction
from loadsparse.gpu.simulator.request import Outcome

Flags = NDArray[np.bool_]
STORES = frozenset({"st", "red", "stmatrix"})


def direction(instruction: Instruction) -> str:
    """ "cp" for cp.async, "st" for stores and red, "ld" for everything else."""
    if instruction.name == "cp":
        return "cp"
    if instruction.name in STORES or (instruction.name == "wmma" and "store" in instruction.modifiers):
        return "st"
    return "ld"


@dataclass(frozen=True, slots=True)
class _Groups:
    """Which instructions belong together: boolean masks over the instructions of a kernel."""

    ways: dict[str, Flags]
    pipes: dict[str, Flags]
    ldmatrix: Flags
    block_barrier: Flags


@functools.lru_cache(maxsize=256)
def _groups(plan: Layout) -> _Groups:
    instructions = plan.instructions
    ways = np.array([direction(i) for i in instructions])
    pipes = np.array([pipe(i.name, i.modifiers) for i in instructions])
    return _Groups(
        {way: ways == way for way in ("ld", "st", "cp")},
        {name: pipes == name for name in sorted(set(pipes.tolist()))},
        np.array([i.name == "ldmatrix" for i in instructions], bool),
        np.array([i.name in ("bar", "barrier") and "warp" not in i.modifiers for i in instructions], bool),
    )


def metrics(plan: Layout, outcome: Outcome) -> dict[str, int]:
    """Whole-launch sums: exact counts of what was executed, none of them modelled.

    Wavefronts of loads include ldmatrix and exclude cp.async, whose shared writes are counted apart; requests and
    sectors of global loads include cp.async and atom, those of stores include red.
    """
    groups = _groups(plan)

    def total(counter: str, *chosen: str) -> int:
        return sum(int(outcome.counters[counter][groups.ways[way]].sum()) for way in chosen)

    def executed(flags: Flags) -> int:
        return int(outcome.executions[flags].sum())

    wavefronts = {way: total("wavefronts", way) for way in ("ld", "st", "cp")}
    ideal = {way: total("ideal_wavefronts", way) for way in ("ld", "st", "cp")}
    result = {
        "smsp__inst_executed.sum": int(outcome.executions.sum()),
        "smsp__thread_inst_executed.sum": int(outcome.threads.sum()),
        "smsp__inst_executed_pipe_tensor_op_hmma.sum": executed(groups.pipes["tensor"])
        if "tensor" in groups.pipes
        else 0,
        "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum": total("requests", "ld", "cp"),
        "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum": total("requests", "st"),
        "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum": total("sectors", "ld", "cp"),
        "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum": total("sectors", "st"),
        "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum": wavefronts["ld"],
        "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum": wavefronts["st"],
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": wavefronts["ld"] - ideal["ld"],
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum": wavefronts["st"] - ideal["st"],
        "shared_wavefronts_ldmatrix": int(outcome.counters["wavefronts"][groups.ldmatrix].sum()),
        "shared_wavefronts_cp_async": wavefronts["cp"],
        "cp_async_bytes": total("bytes", "cp"),
        "global_bytes_ld": total("bytes", "ld", "cp"),
        "global_bytes_st": total("bytes", "st"),
        "barriers": executed(groups.block_barrier),
        "divergent_branches": int(outcome.counters["divergent"].sum()),
    }
    for name, flags in groups.pipes.items():
        result[f"inst_executed_pipe_{name}"] = executed(flags)
    return result
