"""The opcodes that are simulated, and which engine executes them, and what is refused by name, as a table."""

from __future__ import annotations

from loadsparse.gpu.simulator import unsimulated
from loadsparse.gpu.simulator.opcodes import OPCODES, either


def coverage() -> list[dict[str, str]]:
    """One row per mnemonic: its modifiers, types, operand counts, pipe and fastest engine, as text for a table.

    Opcodes, special registers, directives and functions that are refused by name follow, with the reason in place of the engine.

    >>> {row["opcode"]: row["engine"] for row in coverage()}["mma"]
    'llvm (interpreter: s4 u4 b1)'
    """
    refused = {
        **unsimulated.OPCODES,
        **unsimulated.REGISTERS,
        **unsimulated.DIRECTIVES,
        **{f"call {name}": why for name, why in unsimulated.FUNCTIONS.items()},
    }
    return [
        {
            "opcode": row.name,
            "types": " ".join(sorted(row.types)),
            "modifiers": " ".join(sorted(row.flags)),
            "operands": either(row.operands),
            "pipe": row.pipe,
            "engine": _engine(row.name),
        }
        for row in OPCODES.values()
    ] + [
        {"opcode": name, "types": "", "modifiers": "", "operands": "", "pipe": "", "engine": f"refused: {why}"}
        for name, why in refused.items()
    ]


def _engine(name: str) -> str:
    try:
        from loadsparse.gpu.simulator.engine.translate import left_to_interpreter
    except ImportError:  # no llvmlite
        return "interpreter"
    forms = left_to_interpreter(name)
    if forms is None:
        return "interpreter"
    return f"llvm (interpreter: {' '.join(forms)})" if forms else "llvm"
