"""The opcodes that are simulated, and which engine executes them, as a table."""

from __future__ import annotations

from loadsparse.gpu.simulator.opcodes import OPCODES, either


def coverage() -> list[dict[str, str]]:
    """One row per mnemonic: its modifiers, types, operand counts, pipe and fastest engine, as text for a table.

    >>> {row["opcode"]: row["engine"] for row in coverage()}["mma"]
    'llvm (interpreter: s4 u4 b1)'
    """
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
