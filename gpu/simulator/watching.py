"""Which bytes each lane of a warp instruction addresses, seen while one block runs in the interpreter.

The interpreter's counters say how many wavefronts and sectors an instruction cost; a `Watcher` says which lanes caused
them.  It can run one block alone, on memory as it was before the launch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.arguments import bind
from loadsparse.gpu.simulator.interpreter.block import Block
from loadsparse.gpu.simulator.interpreter.counters import BANKS, SECTOR, WORD, row_wavefronts, wavefronts
from loadsparse.gpu.simulator.interpreter.machine import Machine, Stop
from loadsparse.gpu.simulator.interpreter.memory import space_of
from loadsparse.gpu.simulator.interpreter.numbers import Flags
from loadsparse.gpu.simulator.interpreter.observe import Event
from loadsparse.gpu.simulator.interpreter.operands import address
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.interpreter.widths import vector_length
from loadsparse.gpu.simulator.program import WIDTH, Address, Immediate, Instruction
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, CONSTANT, SHARED, Request

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.module import Entry

_PLACES = {"ld": (1,), "ldu": (1,), "atom": (1,), "ldmatrix": (1,), "st": (0,), "red": (0,), "stmatrix": (0,)}
"""Which operands of an instruction are memory."""


@dataclass(frozen=True, slots=True)
class Access:
    """Addresses of one warp instruction: `lanes` take part, each with `size` bytes at `offsets` (uint64[32]).

    For shared memory the offset is the byte in the block's shared memory, for global memory the device address.
    """

    space: str
    lanes: NDArray[np.bool_]
    offsets: NDArray[np.uint64]
    size: int
    rows: bool = False
    """True for ldmatrix and stmatrix: the lanes give addresses of rows."""

    @property
    def wavefronts(self) -> int:
        """Wavefronts of a shared access by the rules of SEMANTICS.md; 0 elsewhere."""
        if self.space != "shared" or not self.lanes.any():
            return 0
        offsets = self.offsets.astype(np.int64)[self.lanes]
        if self.rows:
            number = np.flatnonzero(self.lanes) // 8
            return sum(row_wavefronts(offsets[number == matrix])[0] for matrix in np.unique(number).tolist())
        return wavefronts(np.flatnonzero(self.lanes), offsets, self.size)[0]

    def banks(self) -> list[int | None]:
        """First bank of each lane; None for lanes that take no part, and outside shared memory."""
        if self.space != "shared":
            return [None] * len(self.lanes)
        first = (self.offsets // np.uint64(WORD) % np.uint64(BANKS)).tolist()
        return [bank if active else None for bank, active in zip(first, self.lanes.tolist(), strict=True)]

    def sectors(self) -> list[int | None]:
        """32-byte segment of each lane, counted from the lowest one touched; None outside global memory."""
        if self.space != "global" or not self.lanes.any():
            return [None] * len(self.lanes)
        first = self.offsets // np.uint64(SECTOR)
        low = int(first[self.lanes].min())
        pairs = zip(first.tolist(), self.lanes.tolist(), strict=True)
        return [sector - low if active else None for sector, active in pairs]


def _bytes(instruction: Instruction) -> int:
    """Bytes per lane."""
    if instruction.name in ("ldmatrix", "stmatrix"):
        return 16
    if instruction.name == "cp":
        size = instruction.operands[2]
        return size.value if isinstance(size, Immediate) else 16
    return WIDTH[instruction.modifiers[-1]] * vector_length(instruction.modifiers) // 8


def _places(instruction: Instruction) -> tuple[tuple[int, str], ...]:
    """(operand, space) of every memory operand; none for parameters and for what is no memory access."""
    if instruction.name == "cp":
        copies = len(instruction.operands) >= 3 and "bulk" not in instruction.modifiers
        return ((0, "shared"), (1, "global")) if copies else ()
    space = space_of(instruction.modifiers)
    return tuple((operand, space) for operand in _PLACES.get(instruction.name, ()) if space != "param")


def prepared(
    entry: Entry,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...],
    arguments: Sequence[Any],
    shared_bytes: int,
    **options: Any,
) -> Request:
    """A launch with its arguments bound, none of which will be written back; `options` go to `Entry.request`."""
    request = entry.request(grid, block, shared_bytes, **options)
    bound = bind(entry.kernel, tuple(arguments))
    request.parameters = bound.parameters
    variables = entry.module.variables
    own = replace(variables, data=variables.data.copy())
    request.allocations = {CONSTANT: own, **bound.allocations}
    return request


Seen = Callable[[Event, list[Access], Warp], None]


class Watcher(Machine):
    """Shows `seen` every instruction of one warp (None: of every warp) with its accesses; runs one block, or all (None)."""

    def __init__(self, request: Request, block: int | None, warp: int | None, seen: Seen) -> None:
        super().__init__(request, self._observe)
        self.chosen, self.warp, self.seen = block, warp, seen
        self._now: tuple[list[Access], Warp] | None = None

    def _blocks(self) -> None:
        if self.chosen is None:
            super()._blocks()
            return
        block = Block(self, self.chosen)
        while not self._block(block):
            pass

    def _step(self, warp: Warp, group: Flags) -> None:
        watched = self.warp is None or warp.index == self.warp
        self.observer = self._observe if watched else None
        if watched:
            index = int(warp.pc[int(np.argmax(group))])
            self._now = (self.accesses(index, warp, group), warp)
        super()._step(warp, group)

    def _observe(self, event: Event) -> None:
        if self._now is not None:
            self.seen(event, *self._now)

    def stop_here(self) -> Stop:
        """What `seen` raises to end the launch."""
        return Stop()

    def accesses(self, index: int, warp: Warp, group: Flags) -> list[Access]:
        """The accesses that an instruction is about to make."""
        instruction, place = self.instructions[index], self.place_of(index)
        found = []
        for number, space in _places(instruction):
            operand = instruction.operands[number]
            if not isinstance(operand, Address):
                continue
            lanes, rows = group.copy(), instruction.name in ("ldmatrix", "stmatrix")
            if instruction.guard is not None:
                held = warp.bits[place.row(instruction.guard.register)] != 0
                lanes &= held != instruction.guard.negated
            if rows:
                count = next(int(m[1:]) for m in instruction.modifiers if m in ("x1", "x2", "x4"))
                lanes &= np.arange(len(lanes)) < 8 * count
            offsets = address(place, operand)(warp).copy()
            if space == "generic":
                shared = offsets >> np.uint64(ALLOCATION_BITS) == np.uint64(SHARED)
                inside = offsets & np.uint64((1 << ALLOCATION_BITS) - 1)
                for kind, chosen, values in (("shared", lanes & shared, inside), ("global", lanes & ~shared, offsets)):
                    if chosen.any():
                        found.append(Access(kind, chosen, values, _bytes(instruction), rows))
            else:
                found.append(Access(space, lanes, offsets, _bytes(instruction), rows))
        return found
