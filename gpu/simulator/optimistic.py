"""The first read of a compare-and-swap loop, as the CUDA programming guide writes it:

    unsigned old = *address, assumed;
    do { assumed = old; old = atomicCAS(address, assumed, f(assumed)); } while (assumed != old);

The plain load may be stale without harm, for the swap believes it only if memory still holds it.  It is executed as
`ld.relaxed` with the scope of the swap, so that it races with no atomic; with plain stores it still does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from loadsparse.gpu.simulator.program import Address, Immediate, Instruction, Operand, Register, Variable

_SCOPES = {"cta", "cluster", "gpu", "sys"}
_NOT_WEAK = {"volatile", "relaxed", "acquire", "mmio", "nc"}


def relax_optimistic_reads(instructions: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    """The instructions, with the loads that a compare-and-swap at the same address compares made relaxed."""
    swaps = [i for i in instructions if i.name == "atom" and "cas" in i.modifiers]
    if not swaps:
        return instructions
    copies = [i.operands for i in instructions if i.name == "mov" and len(i.operands) == 2]
    steps = _steps(instructions)

    def place(address: Operand | None) -> Operand | None:
        """The address from where its base register was counted, be it a variable or another register."""
        while isinstance(address, Address) and address.base is not None and address.base in steps:
            base, offset = steps[address.base]
            address = Address(base, address.offset + offset)
        return address

    scopes: dict[tuple[Operand | None, Operand | None], str] = {}
    for swap in swaps:
        scope = next((m for m in swap.modifiers if m in _SCOPES), "gpu")
        for register in _origins(swap.operands[2], copies):
            scopes[register, place(swap.operands[1])] = scope

    def relaxed(instruction: Instruction) -> Instruction:
        if instruction.name != "ld" or _NOT_WEAK & set(instruction.modifiers):
            return instruction
        scope = scopes.get((instruction.operands[0], place(instruction.operands[1])))
        if scope is None:
            return instruction
        rest = tuple(m for m in instruction.modifiers if m != "weak")
        return replace(instruction, modifiers=("relaxed", scope, *rest))

    return tuple(map(relaxed, instructions))


def _steps(instructions: Sequence[Instruction]) -> dict[Register | Variable, tuple[Register | Variable, int]]:
    """Registers that are always a variable, or another register plus a number: (that, the number)."""
    written = Counter(operand for i in instructions for operand in i.operands[:1] if isinstance(operand, Register))
    steps: dict[Register | Variable, tuple[Register | Variable, int]] = {}
    for i in instructions:
        match i.name, i.operands:
            case "mov", (Register() as target, Variable() as origin) if i.guard is None and written[target] == 1:
                steps[target] = origin, 0
            case "add", (Register() as target, Register() as base, Immediate(value, 0)) if (
                i.guard is None and written[target] == 1 and written[base] <= 1
            ):
                steps[target] = base, value
    return steps


def _origins(register: Operand | None, copies: Sequence[tuple[Operand, ...]]) -> set[Operand | None]:
    """The register and all that it may be a copy of."""
    found: set[Operand | None] = {register}
    fresh = [register]
    while fresh:
        target = fresh.pop()
        for destination, origin in copies:
            if destination == target and origin not in found:
                found.add(origin)
                fresh.append(origin)
    return found
