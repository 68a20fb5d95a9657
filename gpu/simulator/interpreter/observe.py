"""What an observer of the interpreter sees: one event per executed warp instruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.program import Instruction


@dataclass(frozen=True, slots=True)
class Event:
    """`before` and `after` are the register file (rows: registers, columns: lanes) around the instruction;
    `defined` says which of `after` are defined, `active` which lanes took part (guards not yet applied)."""

    block: int
    warp: int
    step: int
    index: int
    instruction: Instruction
    active: NDArray[np.bool_]
    before: NDArray[np.uint64]
    after: NDArray[np.uint64]
    defined: NDArray[np.bool_]


Observer = Callable[[Event], None]
