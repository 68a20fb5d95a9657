"""Widths of memory instructions in bytes, from their modifiers."""

from __future__ import annotations

from loadsparse.gpu.simulator.program import WIDTH, Immediate, Instruction


def vector_length(modifiers: tuple[str, ...]) -> int:
    return 8 if "v8" in modifiers else 4 if "v4" in modifiers else 2 if "v2" in modifiers else 1


def global_width(instruction: Instruction) -> int | None:
    """Bytes per lane of an access that may reach global memory, or None."""
    name, modifiers = instruction.name, instruction.modifiers
    reaches = not any(m in ("local", "const") or m.startswith(("param", "shared")) for m in modifiers)
    if name in ("ld", "ldu", "st", "atom", "red") and reaches:
        return min(4, WIDTH[modifiers[-1]] // 8 * vector_length(modifiers))
    if name == "wmma" and "mma" not in modifiers and reaches:
        return min(4, WIDTH.get(modifiers[-1], 32) // 8)
    return None


def shared_width(instruction: Instruction) -> int | None:
    """Bytes per lane of an access that may reach shared memory, or None."""
    name, modifiers = instruction.name, instruction.modifiers
    reaches = not any(m in ("global", "local", "const") or m.startswith("param") for m in modifiers)
    if name in ("ld", "st", "atom", "red") and reaches:
        return min(4, WIDTH[modifiers[-1]] // 8 * vector_length(modifiers))
    if name == "cp" and "async" in modifiers and len(instruction.operands) >= 3:
        size = instruction.operands[2]
        return min(4, size.value) if isinstance(size, Immediate) else 4
    if name == "wmma" and "mma" not in modifiers and reaches:
        return min(4, WIDTH.get(modifiers[-1], 32) // 8)
    return 4 if name in ("ldmatrix", "stmatrix", "mbarrier") else None
