"""Threads that spin for ever: in the default order a state of the whole launch that comes back will come back again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from loadsparse.gpu.simulator.program import Instruction, Special
from loadsparse.gpu.simulator.special_registers import CLOCKS

FIRST = 4
"""Rounds in which every block gave way before the first state is remembered."""
LOOKS = 4
"""How often memory is looked at for one remembered state."""


class Recurrence:
    """Looks for a state that comes back (Brent's search: compare with one state, which is replaced at powers of two).

    Registers change in nearly every loop that goes on, so memory is looked at only when they came back.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self.threads, self.memory = b"", b""
        self.looks = 0

    def found(self, threads: Callable[[], bytes], memory: Callable[[], bytes]) -> bool:
        """One more round is over: True if registers and memory are as they were after an earlier one.

        `threads` and `memory` give digests of the present state.
        """
        self.rounds += 1
        if self.rounds < FIRST:
            return False
        now = threads()
        if self.rounds & (self.rounds - 1) == 0:
            self.threads, self.memory, self.looks = now, b"", LOOKS
            return False
        if now != self.threads or not self.looks:
            return False
        self.looks -= 1
        held = memory()
        if not self.memory:
            self.memory = held
            return False
        return held == self.memory


def outside(instructions: Iterable[Instruction]) -> list[int]:
    """The instructions that read or change what is in no register and no memory: clocks, and copies on their way.  A
    round in which one was executed is like no other.
    """
    return [
        number
        for number, instruction in enumerate(instructions)
        if instruction.name == "cp" or any(isinstance(o, Special) and o.name in CLOCKS for o in instruction.operands)
    ]
