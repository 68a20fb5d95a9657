"""Barriers that a thread can go past, and where it has.

    if (t < k) { ...; __syncthreads(); }   // the barrier
    out[t] = ...;                          // a thread that is here without it has gone past it

A basic block is *behind* a barrier if every way from the barrier to the end leads through it, a way that avoids the
barrier leads to it, no way leads from it to the barrier or to itself, and it is more than a jump or the end.  A thread that
was there and has ended is missing when the barrier opens.  A thread that returned early was at no such place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from loadsparse.gpu.simulator.program import Instruction, Kernel, Label

MOST = 32
"""Barriers of a kernel that are watched, and of each the nearest blocks behind it."""
MOST_BLOCKS, MOST_VISITS = 4_000, 2_000_000
"""Larger kernels are not looked at, nor barriers after so many visits of blocks: hostile text shall not take long."""
_ENDS = frozenset({"bra", "brx", "ret", "exit", "trap", "brkpt"})


@dataclass(frozen=True, slots=True)
class Bypasses:
    """`sites`: the barriers that can be gone past; `behind`: leader of a basic block -> the places in `sites` it is behind."""

    sites: tuple[int, ...]
    behind: dict[int, tuple[int, ...]]

    def slot(self, site: int) -> int:
        """1 + the place of a barrier in `sites`; 0 for one that nobody can go past."""
        return self.sites.index(site) + 1 if site in self.sites else 0


def waits_for_all(instruction: Instruction) -> bool:
    """A block barrier without a count of threads."""
    if instruction.name not in ("bar", "barrier") or not {"sync", "red"} & set(instruction.modifiers):
        return False
    if "warp" in instruction.modifiers:
        return False
    return len(instruction.operands) == (3 if "red" in instruction.modifiers else 1)


@lru_cache(maxsize=256)
def bypasses(kernel: Kernel) -> Bypasses:
    """The barriers of a kernel that a thread can go past."""
    instructions = kernel.instructions
    sites = [index for index, instruction in enumerate(instructions) if waits_for_all(instruction)]
    if not sites:
        return Bypasses((), {})
    ends = [index + 1 for index, instruction in enumerate(instructions) if instruction.name in _ENDS]
    leaders = sorted({0, len(instructions), *ends, *kernel.targets.values()})
    if len(leaders) > MOST_BLOCKS:
        return Bypasses((), {})
    successors = [_successors(kernel, leaders, stop) for _, stop in pairwise(leaders)] + [set()]
    predecessors = _reversed(successors)
    following = _next_on_every_way(successors, predecessors)
    found: list[int] = []
    behind: dict[int, tuple[int, ...]] = {}
    for site in sites[: 1 + MOST_VISITS // (MOST * len(leaders))]:
        block = bisect_right(leaders, site) - 1
        around = _reached(successors, [0], block) - _reached(predecessors, [block])
        candidates: list[int] = []
        place = following[block]
        while place is not None and place < len(leaders) - 1 and len(candidates) < MOST:
            body = instructions[leaders[place] : leaders[place + 1]]
            if place in around and any(i.name not in _ENDS or i.guard is not None for i in body):
                candidates.append(place)
            place = following[place]
        places = [leaders[c] for c in candidates if c not in _reached(successors, successors[c])]
        for leader in places:
            behind[leader] = (*behind.get(leader, ()), len(found))
        found += [site] if places else []
        if len(found) == MOST:
            break
    return Bypasses(tuple(found), behind)


def _successors(kernel: Kernel, leaders: list[int], stop: int) -> set[int]:
    """Blocks after the one that ends before instruction `stop`; the last leader is the end of the kernel."""
    last = kernel.instructions[stop - 1]
    targets = [operand.target for operand in last.operands if isinstance(operand, Label)]
    if last.name == "brx":
        targets = [kernel.targets[name] for name in kernel.branch_tables[getattr(last.operands[-1], "name", "")]]
    if last.name in ("ret", "exit", "trap", "brkpt"):
        targets = [len(kernel.instructions)]
    if last.name not in _ENDS or last.guard is not None:
        targets.append(stop)
    return {bisect_left(leaders, target) for target in targets}


def _reversed(successors: Sequence[set[int]]) -> list[set[int]]:
    predecessors: list[set[int]] = [set() for _ in successors]
    for block, following in enumerate(successors):
        for successor in following:
            predecessors[successor].add(block)
    return predecessors


def _reached(successors: Sequence[set[int]], start: Iterable[int], without: int | None = None) -> set[int]:
    """Blocks to which a way leads from `start` that avoids one block."""
    seen: set[int] = set()
    pending = [block for block in start if block != without]
    while pending:
        block = pending.pop()
        if block not in seen:
            seen.add(block)
            pending += successors[block] - seen - {without}
    return seen


def _next_on_every_way(successors: Sequence[set[int]], predecessors: Sequence[set[int]]) -> list[int | None]:
    """The immediate post-dominators (Cooper, Harvey, Kennedy: A Simple, Fast Dominance Algorithm, 2001)."""
    end = len(successors) - 1
    rank: dict[int, int] = {}  # post-order of the reversed graph
    entered: set[int] = {end}
    pending = [(end, iter(predecessors[end]))]
    while pending:
        block, rest = pending[-1]
        fresh = next((b for b in rest if b not in entered), None)
        if fresh is None:
            rank[block] = len(rank)
            pending.pop()
        else:
            entered.add(fresh)
            pending.append((fresh, iter(predecessors[fresh])))
    following: list[int | None] = [None] * len(successors)
    following[end] = end

    def meet(one: int, other: int) -> int:
        while one != other:
            if rank[one] < rank[other]:
                one = following[one] or 0
            else:
                other = following[other] or 0
        return one

    changed = True
    while changed:
        changed = False
        for block in sorted(rank, key=rank.__getitem__, reverse=True)[1:]:
            ways = [successor for successor in successors[block] if following[successor] is not None]
            common = ways[0]
            for way in ways[1:]:
                common = meet(common, way)
            if following[block] != common:
                following[block], changed = common, True
    following[end] = None
    return following
