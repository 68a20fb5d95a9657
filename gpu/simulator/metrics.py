"""Counters of an outcome under the names that Nsight Compute gives them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.layout import Layout
from loadsparse.gpu.simulator.opcodes import destinations, pipe
from loadsparse.gpu.simulator.program import (
    Address,
    Call,
    Instruction,
    Negated,
    Operand,
    Pair,
    Register,
    Vector,
)
from loadsparse.gpu.simulator.request import Outcome

Flags = NDArray[np.bool_]
STORES = frozenset({"st", "stmatrix"})
WAYS = ("ld", "st", "cp", "atom", "red")


def directions(instructions: Sequence[Instruction]) -> list[str]:
    """ "cp" for cp.async, "st" for stores, "atom", "red", and "ld" for everything else.

    An `atom` whose result no instruction reads is a "red", as the assembler makes it one (`cas` and `exch` have no such form).
    """
    read = {register for instruction in instructions for register in _read(instruction)}

    def direction(instruction: Instruction) -> str:
        if instruction.name == "atom":
            is_plain = not {"cas", "exch"} & set(instruction.modifiers)
            return "red" if is_plain and instruction.operands[0] not in read else "atom"
        if instruction.name in STORES or (instruction.name == "wmma" and "store" in instruction.modifiers):
            return "st"
        return instruction.name if instruction.name in ("cp", "red") else "ld"

    return [direction(instruction) for instruction in instructions]


def _read(instruction: Instruction) -> Iterator[Register]:
    """Registers that an instruction reads."""
    if instruction.guard is not None:
        yield instruction.guard.register
    pending: list[Operand | None] = [*instruction.operands[destinations(instruction.name, instruction.modifiers) :]]
    for operand in pending:
        match operand:
            case Register():
                yield operand
            case Negated(register) | Address(Register() as register):
                yield register
            case Vector(elements):
                pending.extend(elements)
            case Pair(first, second):
                pending.extend((first, second))
            case Call(_, _, arguments):
                pending.extend(arguments)


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
    ways = np.array(directions(instructions))
    pipes = np.array([pipe(i.name, i.modifiers) for i in instructions])
    return _Groups(
        {way: ways == way for way in WAYS},
        {name: pipes == name for name in sorted(set(pipes.tolist()))},
        np.array([i.name == "ldmatrix" for i in instructions], bool),
        np.array([i.name in ("bar", "barrier") and "warp" not in i.modifiers for i in instructions], bool),
    )


def metrics(plan: Layout, outcome: Outcome) -> dict[str, int]:
    """Whole-launch sums: exact counts of what was executed, none of them modelled.

    Wavefronts of loads include ldmatrix and exclude cp.async, whose shared writes are counted apart, and atomics, which in
    shared memory are all `atom`; requests and sectors of global loads include cp.async.
    """
    groups = _groups(plan)

    def total(counter: str, *chosen: str) -> int:
        return sum(int(outcome.counters[counter][groups.ways[way]].sum()) for way in chosen)

    def executed(flags: Flags) -> int:
        return int(outcome.executions[flags].sum())

    chosen = {"ld": ("ld",), "st": ("st",), "cp": ("cp",), "atom": ("atom", "red")}
    wavefronts = {way: total("wavefronts", *ways) for way, ways in chosen.items()}
    ideal = {way: total("ideal_wavefronts", *ways) for way, ways in chosen.items()}
    result = {
        "smsp__inst_executed.sum": int(outcome.executions.sum()),
        "smsp__thread_inst_executed.sum": int(outcome.threads.sum()),
        "smsp__inst_executed_pipe_tensor_op_hmma.sum": executed(groups.pipes["tensor"])
        if "tensor" in groups.pipes
        else 0,
        "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum": total("requests", "ld", "cp"),
        "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum": total("requests", "st"),
        "l1tex__t_requests_pipe_lsu_mem_global_op_atom.sum": total("requests", "atom"),
        "l1tex__t_requests_pipe_lsu_mem_global_op_red.sum": total("requests", "red"),
        "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum": total("sectors", "ld", "cp"),
        "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum": total("sectors", "st"),
        "l1tex__t_sectors_pipe_lsu_mem_global_op_atom.sum": total("sectors", "atom"),
        "l1tex__t_sectors_pipe_lsu_mem_global_op_red.sum": total("sectors", "red"),
        "l1tex__t_requests_pipe_lsu_mem_local_op_ld.sum": total("local_requests", "ld"),
        "l1tex__t_requests_pipe_lsu_mem_local_op_st.sum": total("local_requests", "st"),
        "l1tex__t_sectors_pipe_lsu_mem_local_op_ld.sum": total("local_sectors", "ld"),
        "l1tex__t_sectors_pipe_lsu_mem_local_op_st.sum": total("local_sectors", "st"),
        "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum": wavefronts["ld"],
        "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum": wavefronts["st"],
        "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_atom.sum": wavefronts["atom"],
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": wavefronts["ld"] - ideal["ld"],
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum": wavefronts["st"] - ideal["st"],
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_atom.sum": wavefronts["atom"] - ideal["atom"],
        "shared_wavefronts_ldmatrix": int(outcome.counters["wavefronts"][groups.ldmatrix].sum()),
        "shared_wavefronts_cp_async": wavefronts["cp"],
        "cp_async_bytes": total("bytes", "cp"),
        "global_bytes_ld": total("bytes", "ld", "cp"),
        "global_bytes_st": total("bytes", "st"),
        "global_bytes_atomics": total("bytes", "atom", "red"),
        "barriers": executed(groups.block_barrier),
        "divergent_branches": int(outcome.counters["divergent"].sum()),
    }
    for name, flags in groups.pipes.items():
        result[f"inst_executed_pipe_{name}"] = executed(flags)
    return result
