"""A launch: blocks in order, warps in turn, and the lanes of a warp grouped by program counter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np

from loadsparse.gpu.simulator import padding
from loadsparse.gpu.simulator.bypass import bypasses
from loadsparse.gpu.simulator.interpreter import rendezvous, states
from loadsparse.gpu.simulator.interpreter.block import Block
from loadsparse.gpu.simulator.interpreter.dispatch import Execute, decode
from loadsparse.gpu.simulator.interpreter.loads import STRONG
from loadsparse.gpu.simulator.interpreter.numbers import Flags
from loadsparse.gpu.simulator.interpreter.observe import Event, Observer
from loadsparse.gpu.simulator.interpreter.operands import Place
from loadsparse.gpu.simulator.interpreter.order import Messages
from loadsparse.gpu.simulator.interpreter.races import History
from loadsparse.gpu.simulator.interpreter.warp import Warp
from loadsparse.gpu.simulator.interpreter.widths import global_width, shared_width
from loadsparse.gpu.simulator.layout import layout
from loadsparse.gpu.simulator.program import Instruction
from loadsparse.gpu.simulator.recurrence import Recurrence
from loadsparse.gpu.simulator.request import COUNTERS, QUANTUM, Hazard, HazardKind, Outcome, Request

SWITCH = {
    "bounds": "bounds",
    "alignment": "alignment",
    "uninitialized": "uninitialized",
    "race": "races",
    "pending": "races",
    "convergence": "convergence",
}
"""Which check a hazard belongs to; what stops a launch is always reported."""


INTERRUPTED = 0.25
"""How probably another warp or block runs first where an adversarial order comes to a strong access."""


def _is_strong(instruction: Instruction) -> bool:
    return instruction.name in ("atom", "red") or bool(STRONG & set(instruction.modifiers))


class Stop(Exception):
    """Ends the launch after a hazard that nothing can follow."""


class Machine:
    """Everything that is shared by the blocks of one launch."""

    def __init__(self, request: Request, observer: Observer | None = None) -> None:
        started = time.perf_counter()
        self.request, self.observer = request, observer
        self.limit = request.limit(interpreted=True)
        self.layout = layout(request.program, request.kernel)
        self.instructions: tuple[Instruction, ...] = self.layout.instructions
        self.places: list[Place] = []
        self.register_count = 0
        self.padded = frozenset(
            self.layout.start[f.name] + index for f in self.layout.functions for index in padding.carried(f)
        )
        self.cell = padding.cell_bytes(self.layout.functions)
        for function in self.layout.functions:
            name = function.name
            self.places.append(
                Place(
                    function,
                    self.register_count,
                    self.layout.local[name],
                    self.layout.param[name],
                    self.layout.shared[name],
                    request.static_shared_bytes,
                )
            )
            self.register_count += len(function.registers)
        count = len(self.instructions)
        self.executions = np.zeros(count, np.int64)
        self.threads = np.zeros(count, np.int64)
        self.counters = {name: np.zeros(count, np.int64) for name in COUNTERS}
        self.requested: set[int] = set()
        self.hazards: dict[tuple[str, int, int | None], Hazard] = {}
        self.stopped: HazardKind | None = None
        self.printed: list[str] = []
        self.printed_characters = 0
        self.thread_instructions = 0
        self.shared_granule, self.global_granule = self._granule(shared_width), self._granule(global_width)
        self.messages = Messages()
        self.histories: dict[int, History] = {}
        self.random = random.Random(request.seed) if request.schedule == "adversarial" else None
        self.code: list[Execute] = []
        for function, place in zip(self.layout.functions, self.places, strict=True):
            base = self.layout.start[function.name]
            self.code += [decode(self, place, i, base + n, base) for n, i in enumerate(function.instructions)]
        self.strong = frozenset(n for n, i in enumerate(self.instructions) if _is_strong(i))
        self.partings = self.strong | self._block_starts()
        self.bypasses = bypasses(request.kernel)
        self.meetings = [rendezvous.kind(instruction) for instruction in self.instructions]
        self.masks = [rendezvous.member_mask(self.place_of(n), i) for n, i in enumerate(self.instructions)]
        self.translate_seconds = time.perf_counter() - started

    @staticmethod
    def aligned(instruction: Instruction) -> bool:
        """True where every lane of a warp must take part."""
        return rendezvous.kind(instruction) == "aligned"

    def place_of(self, index: int) -> Place:
        """The function that an instruction belongs to."""
        number = max(n for n, f in enumerate(self.layout.functions) if self.layout.start[f.name] <= index)
        return self.places[number]

    def _granule(self, reach: Callable[[Instruction], int | None]) -> int:
        """Width of the narrowest access that may reach a space, at most 4 bytes."""
        widths = [reach(instruction) for instruction in self.instructions]
        return min([width for width in widths if width], default=4)

    def _block_starts(self) -> frozenset[int]:
        """The first instruction of every basic block that something jumps to."""
        starts = set(self.layout.start.values())
        for function in self.layout.functions:
            base = self.layout.start[function.name]
            starts |= {base + target for target in function.targets.values()}
        return frozenset(starts)

    # hazards

    def hazard(
        self,
        kind: HazardKind,
        instruction: int,
        other: int | None,
        block: int,
        thread: int,
        address: int | None = None,
        size: int | None = None,
        detail: str = "",
        other_block: int | None = None,
        other_thread: int | None = None,
    ) -> None:
        """Records the first occurrence of (kind, instruction, other) and counts the rest."""
        switch = SWITCH.get(kind)
        if switch is not None and detail != "stuck" and not getattr(self.request.checks, switch):
            return
        known = self.hazards.get((kind, instruction, other))
        if known is not None:
            known.count += 1
            return
        self.hazards[kind, instruction, other] = Hazard(
            kind, instruction, other, block, thread, address, size, detail, 1, other_block, other_thread
        )

    def lane_hazard(
        self,
        kind: str,
        instruction: int,
        warp: Warp,
        lane: int,
        other: int | None = None,
        address: int | None = None,
        size: int | None = None,
        detail: str = "",
    ) -> None:
        thread = int(warp.threads[lane])
        self.hazard(kind, instruction, other, warp.block.index, thread, address, size, detail)  # type: ignore[arg-type]

    def stop(self, kind: HazardKind, instruction: int, warp: Warp, lane: int, detail: str = "") -> Stop:
        """Records a hazard that ends the launch."""
        self.hazard(kind, instruction, None, warp.block.index, int(warp.threads[lane]), None, None, detail)
        self.stopped = kind
        return Stop()

    # scheduling

    def run(self) -> Outcome:
        started = time.perf_counter()
        try:
            with np.errstate(all="ignore"):
                self._blocks()
        except Stop:
            pass
        return Outcome(
            self.executions,
            self.threads,
            self.counters,
            list(self.hazards.values()),
            self.stopped,
            "".join(self.printed),
            self.translate_seconds,
            time.perf_counter() - started,
        )

    def _blocks(self) -> None:
        """Blocks in linear order; one that only spins gives way to the next, up to `max_live_blocks` at once."""
        gx, gy, gz = self.request.grid
        total, following = gx * gy * gz, 0
        live: list[Block] = []
        turn = 0
        rounds = Recurrence()
        while live or following < total:
            if self.random is not None:
                turn = self.random.randrange(len(live) + 1)
            if turn == len(live):
                if following < total and len(live) < self.request.max_live_blocks:
                    block = Block(self, following)
                    self.spend(0, block.warps[0], 0)
                    live.append(block)
                    following += 1
                else:
                    turn = 0
                    if self.random is None and states.recurs(self, rounds, live):
                        raise self._spins(live[0])
            if self._block(live[turn]):
                live.pop(turn)
            else:
                turn += 1

    def _spins(self, block: Block) -> Stop:
        """Every warp that is left spins, and nothing changes any more: reported for the first lane that does."""
        warp = next(w for w in block.warps if not w.finished() and not w.waits_at_barrier())
        lane = int(np.argmax(warp.deferred))
        return self.stop("deadlock", int(warp.pc[lane]), warp, lane, "spins")

    def _block(self, block: Block) -> bool:
        """Rounds of a block; False when it gives way to the next block."""
        while True:
            ran, yielded = 0, 0
            warps = list(block.warps)
            if self.random is not None:
                self.random.shuffle(warps)
            for warp in warps:
                if warp.finished() or warp.waits_at_barrier():
                    continue
                ran += 1
                yielded += self._turn(warp)
            if block.finished():
                block.copies.end()
                return True
            if ran == 0:
                warp = next(w for w in block.warps if not w.finished())
                lane = int(np.argmax(warp.alive & (warp.barrier >= 0)))
                raise self.stop("deadlock", int(warp.pc[lane]) - 1, warp, lane)
            if yielded == ran or (yielded and self.random is not None):
                return False

    def _turn(self, warp: Warp) -> bool:
        """Runs a warp until it waits, exits or yields; True when it yielded."""
        warp.issued, warp.turn_over = 0, False
        while not warp.finished():
            ready = warp.alive & (warp.barrier < 0)
            if not ready.any():
                return False
            group = self._group(warp, ready)
            if group is None:
                return False
            if self._interrupts(warp, group):
                return True
            self._step(warp, group)
            if warp.turn_over:
                return True
        return False

    def _group(self, warp: Warp, ready: Flags) -> Flags | None:
        """The lanes that execute next: those at the lowest program counter that need not wait for others.

        Lanes whose loop ended the turn before stand back while any other lane can run, so that a lane which holds a
        lock is not starved by the lanes of its own warp that spin on it.
        """
        if (warp.deferred & ready).any():
            group = self._choose(warp, ready & ~warp.deferred)
            if group is not None:
                return group
        warp.deferred[:] = False
        group = self._choose(warp, ready)
        if group is not None or (warp.alive & (warp.barrier >= 0)).any():
            return group
        lane = int(np.argmax(ready))
        raise self.stop("convergence", int(warp.pc[lane]), warp, lane, "stuck")

    def _choose(self, warp: Warp, ready: Flags) -> Flags | None:
        waiting = ready.copy()
        while waiting.any():
            if self.random is not None:
                pc = int(self.random.choice(np.unique(warp.pc[waiting]).tolist()))
            else:
                pc = int(warp.pc[waiting].min())
            here = waiting & (warp.pc == pc)
            if pc >= len(self.meetings) or self.meetings[pc] is None:
                return self._maybe_split(here, pc)
            group = rendezvous.complete(self, warp, pc, here)
            if group is not None:
                return group
            waiting &= ~here
        return None

    def _interrupts(self, warp: Warp, group: Flags) -> bool:
        """Whether others run before this strong access: what lies between two of them need not happen in one step."""
        if self.random is None or int(warp.pc[np.argmax(group)]) not in self.strong:
            return False
        return self.random.random() < INTERRUPTED

    def _maybe_split(self, lanes: Flags, pc: int) -> Flags:
        if self.random is None or pc not in self.partings or lanes.sum() < 2 or self.random.random() < 0.5:
            return lanes
        chosen = lanes & np.array([self.random.random() < 0.5 for _ in range(lanes.size)])
        return chosen if chosen.any() else lanes

    def _step(self, warp: Warp, group: Flags) -> None:
        """Executes one warp instruction for a lane group."""
        lane = int(np.argmax(group))
        pc = int(warp.pc[lane])
        before = warp.bits.copy() if self.observer is not None else None
        active = int(group.sum())
        self.executions[pc] += 1
        self.threads[pc] += active
        self.thread_instructions += active
        warp.issued += 1
        warp.stepped += 1
        warp.pc[group] = pc + 1
        for slot in self.bypasses.behind.get(pc, ()):
            warp.went_past[slot] |= group
        self.code[pc](warp, group)
        if self.requested:
            for index in self.requested:
                self.counters["requests"][index] += 1
            self.requested.clear()
        if before is not None and self.observer is not None:
            self.observer(
                Event(
                    warp.block.index, warp.index, warp.stepped, pc, self.instructions[pc], group.copy(), before,
                    warp.bits.copy(), warp.unknown == 0,
                )
            )  # fmt: skip

    def spend(self, index: int, warp: Warp, lane: int) -> None:
        """Ends the launch, at this instruction and lane, if more than the budget has been executed."""
        if self.thread_instructions > self.limit:
            raise self.stop("budget", index, warp, lane)

    def backward(self, warp: Warp, index: int, lanes: Flags) -> None:
        """A backward branch was taken: the budget is looked at, and a long turn ends."""
        self.spend(index, warp, int(np.argmax(lanes)))
        if warp.issued >= QUANTUM:
            warp.give_way(lanes)

    def exit(self, warp: Warp, lanes: Flags) -> None:
        """Lanes end: their copies land, and barriers may open."""
        for lane in np.flatnonzero(lanes & warp.alive).tolist():
            warp.block.copies.leave(int(warp.threads[lane]))
        warp.alive &= ~lanes
        warp.block.barriers.check_all()
