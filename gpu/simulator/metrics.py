"""Counters of an outcome under the names that Nsight Compute gives them."""

from __future__ import annotations

import numpy as np

from loadsparse.gpu.simulator.opcodes import pipe
from loadsparse.gpu.simulator.program import Instruction
from loadsparse.gpu.simulator.request import Outcome

STORES = frozenset({"st", "red", "stmatrix"})


def direction(instruction: Instruction) -> str:
    """ "cp" for cp.async, "st" for stores and red, "ld" for everything else."""
    if instruction.name == "cp":
        return "cp"
    if instruction.name in STORES or (instruction.name == "wmma" and "store" in instruction.modifiers):
        return "st"
    return "ld"


def metrics(instructions: tuple[Instruction, ...], outcome: Outcome) -> dict[str, int]:
    """Whole-launch sums: exact counts of what was executed, none of them modelled.

    Wavefronts of loads include ldmatrix and exclude cp.async, whose shared writes are counted apart; requests and
    sectors of global loads include cp.async and atom, those of stores include red.
    """
    ways = np.array([direction(i) for i in instructions])
    names = np.array([i.name for i in instructions])
    pipes = np.array([pipe(i.name, i.modifiers) for i in instructions])
    block_barrier = np.array([i.name in ("bar", "barrier") and "warp" not in i.modifiers for i in instructions], bool)

    def total(counter: str, *chosen: str) -> int:
        return int(outcome.counters[counter][np.isin(ways, chosen)].sum())

    def executed(flags: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> int:
        return int(outcome.executions[flags].sum())

    wavefronts = {way: total("wavefronts", way) for way in ("ld", "st", "cp")}
    ideal = {way: total("ideal_wavefronts", way) for way in ("ld", "st", "cp")}
    result = {
        "smsp__inst_executed.sum": int(outcome.executions.sum()),
        "smsp__thread_inst_executed.sum": int(outcome.threads.sum()),
        "smsp__inst_executed_pipe_tensor_op_hmma.sum": executed(pipes == "tensor"),
        "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum": total("requests", "ld", "cp"),
        "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum": total("requests", "st"),
        "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum": total("sectors", "ld", "cp"),
        "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum": total("sectors", "st"),
        "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum": wavefronts["ld"],
        "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum": wavefronts["st"],
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": wavefronts["ld"] - ideal["ld"],
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum": wavefronts["st"] - ideal["st"],
        "shared_wavefronts_ldmatrix": int(outcome.counters["wavefronts"][names == "ldmatrix"].sum()),
        "shared_wavefronts_cp_async": wavefronts["cp"],
        "cp_async_bytes": total("bytes", "cp"),
        "global_bytes_ld": total("bytes", "ld", "cp"),
        "global_bytes_st": total("bytes", "st"),
        "barriers": executed(block_barrier),
        "divergent_branches": int(outcome.counters["divergent"].sum()),
    }
    for name in sorted(set(pipes.tolist())):
        result[f"inst_executed_pipe_{name}"] = executed(pipes == name)
    return result
