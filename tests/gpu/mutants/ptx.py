"""Bugs planted into the PTX of a tensor-core SpMM kernel: every function takes PTX and returns broken PTX.

Each raises NoSuchPlace where the kernel has nothing to break in that way, so that no mutant is silently the original.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Mutation = Callable[[str], str]

MMA = r"(mma\.sync\.aligned\.m16n8k16\S+)\s*\{([^}]*)\},\s*\{([^}]*)\},\s*\{([^}]*)\},\s*\{([^}]*)\};"
LDMATRIX = r"(ldmatrix\S+)\s*\{([^}]*)\},\s*\[([^\]+]+)\+(\d+)\];"


class NoSuchPlace(AssertionError):
    """The PTX holds nothing that this mutation changes."""


def replace(ptx: str, pattern: str, change: Callable[[re.Match[str]], str] | str, which: int | None = 0) -> str:
    """Replace match number `which` of `pattern` (from the end if negative, every one if None)."""
    found = list(re.finditer(pattern, ptx))
    if not found or (which is not None and not -len(found) <= which < len(found)):
        raise NoSuchPlace(pattern)
    for match in reversed(found if which is None else [found[which]]):
        text = match.expand(change) if isinstance(change, str) else change(match)
        ptx = ptx[: match.start()] + text + ptx[match.end() :]
    return ptx


def _mma(match: re.Match[str], order: tuple[int, ...], operand: int) -> str:
    """The mma with the registers of one operand (1 D, 2 A, 3 B, 4 C) in another order."""
    parts = [[register.strip() for register in match[group].split(",")] for group in range(2, 6)]
    parts[operand - 1] = [parts[operand - 1][index] for index in order]
    return f"{match[1]} " + ", ".join("{" + ", ".join(part) + "}" for part in parts) + ";"


def swap_a_registers(ptx: str) -> str:
    return replace(ptx, MMA, lambda match: _mma(match, (0, 2, 1, 3), 2))


def swap_b_registers(ptx: str) -> str:
    return replace(ptx, MMA, lambda match: _mma(match, (1, 0), 3))


def drop_barrier(ptx: str, which: int) -> str:
    return replace(ptx, r"bar\.sync\s+0;", "", which)
