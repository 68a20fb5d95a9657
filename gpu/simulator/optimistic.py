"""The first read of a compare-and-swap loop, as the CUDA programming guide writes it:

    unsigned old = *address, assumed;
    do { assumed = old; old = atomicCAS(address, assumed, f(assumed)); } while (assumed != old);

The plain load may be stale without harm, for the swap believes it only if memory still holds it.  It is executed as
`ld.relaxed` with the scope of the swap, so that it races with no atomic; with plain stores it still does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from loadsparse.gpu.simulator.opcodes import destinations
from loadsparse.gpu.simulator.program import (
    Address,
    Call,
    Immediate,
    Instruction,
    Operand,
    Pair,
    Register,
    Variable,
    Vector,
)

_SCOPES = {"cta", "cluster", "gpu", "sys"}
MOST_COPIES = 64  # that are followed from one swap: no compiler makes more, and hostile text shall not take long
_NOT_WEAK = {"volatile", "relaxed", "acquire", "mmio", "nc"}


def relax_optimistic_reads(instructions: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    """The instructions, with the loads that a compare-and-swap at the same address compares made relaxed."""
    swaps = [i for i in instructions if i.name == "atom" and "cas" in i.modifiers]
    if not swaps:
        return instructions
    copies = _copies(instructions)
    steps = _steps(instructions)

    def place(address: Operand | None) -> Operand | None:
        """The address from where its base register was counted, be it a variable or another register."""
        if not isinstance(address, Address):
            return address
        base, offset, seen = address.base, address.offset, set()
        while base in steps and base not in seen:  # registers may be counted from each other in a circle
            seen.add(base)
            base, more = steps[base]
            offset += more
        return Address(base, offset)

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


def _written(instruction: Instruction) -> Iterator[Register]:
    """The registers that an instruction writes."""
    pending: list[Operand | None] = [*instruction.operands[: destinations(instruction.name, instruction.modifiers)]]
    for operand in pending:
        match operand:
            case Register():
                yield operand
            case Vector(elements):
                pending.extend(elements)
            case Pair(first, second):
                pending.extend((first, second))
            case Call(results):
                pending.extend(results)


def _steps(instructions: Sequence[Instruction]) -> dict[Register | Variable | None, tuple[Register | Variable, int]]:
    """Registers that are always a variable, or another register plus a number: (that, the number)."""
    times = Counter(register for instruction in instructions for register in _written(instruction))
    steps: dict[Register | Variable | None, tuple[Register | Variable, int]] = {}
    for i in instructions:
        match i.name, i.operands:
            case "mov", (Register() as target, Variable() as origin) if i.guard is None and times[target] == 1:
                steps[target] = origin, 0
            case "add", (Register() as target, Register() as base, Immediate(value, 0)) if (
                i.guard is None and times[target] == 1 and times[base] <= 1
            ):
                steps[target] = base, value
    return steps


def _copies(instructions: Sequence[Instruction]) -> dict[Operand | None, list[Operand | None]]:
    """Register -> what `mov` puts into it."""
    copies: dict[Operand | None, list[Operand | None]] = {}
    for i in instructions:
        if i.name == "mov" and len(i.operands) == 2:
            copies.setdefault(i.operands[0], []).append(i.operands[1])
    return copies


def _origins(register: Operand | None, copies: dict[Operand | None, list[Operand | None]]) -> set[Operand | None]:
    """The register and all that it may be a copy of."""
    found: set[Operand | None] = set()
    fresh = [register]
    while fresh and len(found) < MOST_COPIES:
        target = fresh.pop()
        if target not in found:
            found.add(target)
            fresh.extend(copies.get(target, ()))
    return found
