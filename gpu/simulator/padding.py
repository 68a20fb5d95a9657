"""Padding of structures: bytes that no program writes, and that copies of whole structures carry along.

PTX has no types, so padding is told by two facts: C aligns a field to its own size, so that undefined bytes lie beside
defined ones inside an aligned cell as wide as the widest field; and a copy does nothing with a value but store it.
"""

from __future__ import annotations

from collections.abc import Iterable

from loadsparse.gpu.simulator.program import (
    WIDTH,
    Instruction,
    Kernel,
    Operand,
    Register,
    registers_in,
)

_PRIVATE = frozenset({"shared", "shared::cta", "local", "param", "param::entry", "param::func"})
_ELSEWHERE = frozenset({"global", "const", "param", "param::entry", "param::func"})


def _reaches_own_memory(instruction: Instruction) -> bool:
    """A load or store of shared, local or generic memory."""
    return not _ELSEWHERE & set(instruction.modifiers)


def carried(kernel: Kernel) -> frozenset[int]:
    """Loads (indices of instructions) of shared, local or generic memory whose results are only stored to global or
    generic memory."""
    otherwise: set[Register] = set()
    for instruction in kernel.instructions:
        operands: tuple[Operand, ...] = instruction.operands
        if instruction.name == "ld":
            operands = operands[1:]
        elif instruction.name == "st" and not _PRIVATE & set(instruction.modifiers):
            operands = operands[:1]
        for operand in operands:
            otherwise.update(registers_in(operand))
        if instruction.guard is not None:
            otherwise.add(instruction.guard.register)
    return frozenset(
        index
        for index, instruction in enumerate(kernel.instructions)
        if instruction.name == "ld"
        and _reaches_own_memory(instruction)
        and otherwise.isdisjoint(registers_in(instruction.operands[0]))
    )


def cell_bytes(kernels: Iterable[Kernel]) -> int:
    """Bytes of the widest number that is stored to shared, local or generic memory: no field is aligned to more."""
    stores = (i for kernel in kernels for i in kernel.instructions if i.name == "st" and _reaches_own_memory(i))
    return max((WIDTH[store.modifiers[-1]] // 8 for store in stores), default=1)
