"""Tools that plant bugs into PTX: each takes PTX and returns broken PTX.

They raise NoSuchPlace where the kernel has nothing to break in that way: no mutant is silently the original.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MMA = r"(mma\.sync\.aligned\.m16n8k16\S+)\s*\{([^}]*)\},\s*\{([^}]*)\},\s*\{([^}]*)\},\s*\{([^}]*)\};"
D, A, B, C = range(4)
"""Operands of an mma, in PTX order."""

Edit = Callable[[re.Match[str]], str] | str
Mutation = Callable[[str], str]


class NoSuchPlace(AssertionError):
    """The PTX holds nothing that this mutation changes."""


def replace(ptx: str, pattern: str, edit: Edit, which: int | None = 0) -> str:
    """Replace match number `which` of `pattern` (negative: from the end; None: every one)."""
    found = list(re.finditer(pattern, ptx))
    if not found or (which is not None and not -len(found) <= which < len(found)):
        raise NoSuchPlace(pattern)
    changed = ptx
    for match in reversed(found if which is None else [found[which]]):
        text = match.expand(edit) if isinstance(edit, str) else edit(match)
        changed = changed[: match.start()] + text + changed[match.end() :]
    if changed == ptx:
        raise NoSuchPlace(f"{pattern}: nothing changed")
    return changed


def changes(pattern: str, edit: Edit, which: int | None = 0) -> Mutation:
    """The mutation that `replace` performs."""
    return lambda ptx: replace(ptx, pattern, edit, which)


def mma_operands(match: re.Match[str]) -> list[list[str]]:
    """Register names of D, A, B and C."""
    return [[register.strip() for register in match[group].split(",")] for group in range(2, 6)]


def mma_text(opcode: str, operands: list[list[str]]) -> str:
    return f"{opcode} " + ", ".join("{" + ", ".join(registers) + "}" for registers in operands) + ";"


def permutes_mma(operand: int, order: tuple[int, ...], which: int = 0) -> Mutation:
    """The registers of one operand of one mma in another order."""

    def edit(match: re.Match[str]) -> str:
        operands = mma_operands(match)
        operands[operand] = [operands[operand][index] for index in order]
        return mma_text(match[1], operands)

    return changes(MMA, edit, which)


def rounds_after_mma(ptx: str) -> str:
    """Accumulators go through float16 after every mma."""

    def edit(match: re.Match[str]) -> str:
        steps = [
            f"{{ .reg .b16 %half; cvt.rn.f16.f32 %half, {register}; cvt.f32.f16 {register}, %half; }}"
            for register in mma_operands(match)[D]
        ]
        return "\n\t".join([match[0], *steps])

    return replace(ptx, MMA, edit, None)


def takes_neighbours_a(ptx: str) -> str:
    """The second mma multiplies the A fragment of the first."""
    first = mma_operands(next(re.finditer(MMA, ptx)))

    def edit(match: re.Match[str]) -> str:
        operands = mma_operands(match)
        operands[A] = first[A]
        return mma_text(match[1], operands)

    return replace(ptx, MMA, edit, 1)


def restarts_chain(ptx: str) -> str:
    """The last mma adds to zero instead of to the sum so far."""

    def edit(match: re.Match[str]) -> str:
        operands = mma_operands(match)
        operands[C] = ["%none"] * 4
        return "{ .reg .f32 %none; mov.f32 %none, 0f00000000; " + mma_text(match[1], operands) + " }"

    return replace(ptx, MMA, edit, -1)


def parameter_register(ptx: str, number: int) -> str:
    """The register that holds a parameter of the entry."""
    found = re.search(rf"ld\.param\.\S+\s+(%\w+), \[\w+_param_{number}\];", ptx)
    if found is None:
        raise NoSuchPlace(f"parameter {number}")
    return found[1]


def writes_parameter(number: int, byte: int = 0) -> Mutation:
    """Thread 0 stores a word into the buffer of a parameter."""

    def mutate(ptx: str) -> str:
        pointer = parameter_register(ptx, number)
        store = (
            "{ .reg .b32 %me; .reg .pred %first; mov.u32 %me, %tid.x; setp.eq.u32 %first, %me, 0; "
            f"@%first st.global.u32 [{pointer}+{byte}], %me; }}"
        )
        return replace(ptx, rf"ld\.param\.\S+\s+{pointer}, \[\w+\];", lambda match: match[0] + "\n\t" + store)

    return mutate


def splits_barrier(ptx: str) -> str:
    """Half of each warp arrives at one barrier, half at its copy."""
    halves = (
        "{ .reg .b32 %me; .reg .pred %low; mov.u32 %me, %laneid; setp.lt.u32 %low, %me, 16; "
        "@%low bar.sync 0; @!%low bar.sync 0; }"
    )
    return replace(ptx, r"bar\.sync\s+0;", halves)


def leaves_early(first_thread: int) -> Mutation:
    """Threads from `first_thread` on return at once."""
    text = (
        r"\g<0>" + "\n\t{ .reg .b32 %me; .reg .pred %late; mov.u32 %me, %tid.x; "
        f"setp.ge.u32 %late, %me, {first_thread}; @%late ret; }}"
    )
    return changes(r"ld\.param\.u64\s+%rd\d+, \[\w+_param_0\];", text)
