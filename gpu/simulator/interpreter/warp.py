"""The state of one warp: 32 lanes, each with its own program counter and its own column of the register file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.bypass import MOST
from loadsparse.gpu.simulator.interpreter.numbers import Flags

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.block import Block

WARP = 32
LANES = np.arange(WARP)


@dataclass(slots=True)
class Warp:
    """`bits` and `unknown` (the bits that are not defined) have one row per register and one column per lane."""

    block: Block
    index: int
    bits: NDArray[np.uint64]
    unknown: NDArray[np.uint64]
    alive: Flags
    pc: NDArray[np.int64] = field(default_factory=lambda: np.zeros(WARP, np.int64))
    barrier: NDArray[np.int64] = field(default_factory=lambda: np.full(WARP, -1))
    """The block barrier at which a lane waits, or -1."""
    carry: Flags = field(default_factory=lambda: np.zeros(WARP, bool))
    returns: list[list[int]] = field(default_factory=lambda: [[] for _ in range(WARP)])
    """Return addresses of each lane."""
    deferred: Flags = field(default_factory=lambda: np.zeros(WARP, bool))
    """Lanes that stand back because their loop, sleep or failed try_wait ended the last turn."""
    went_past: Flags = field(default_factory=lambda: np.zeros((MOST, WARP), bool))
    """For each barrier of `bypass.py`, the lanes that went past it."""
    issued: int = 0
    """Warp instructions of the current turn."""
    turn_over: bool = False
    stepped: int = 0
    """Warp instructions so far: the number of this step, and the value of %clock."""

    @property
    def threads(self) -> NDArray[np.int64]:
        """Linear thread index of each lane within the block."""
        return self.index * WARP + LANES

    def give_way(self, lanes: Flags) -> None:
        """Ends the warp's turn; in the next one these lanes stand back while others can run."""
        self.turn_over = True
        self.deferred[:] = lanes

    def finished(self) -> bool:
        return not self.alive.any()

    def waits_at_barrier(self) -> bool:
        """True when no lane can move before a block barrier opens."""
        return bool(self.alive.any()) and not (self.alive & (self.barrier < 0)).any()
