"""Control flow of a kernel: basic blocks, liveness, and which registers can ever be undefined."""

from __future__ import annotations

from dataclasses import dataclass, field

from loadsparse.gpu.simulator.program import (
    Call,
    Immediate,
    Instruction,
    Kernel,
    Label,
    Operand,
    Register,
    Special,
    Variable,
    registers_in,
)

MASKED_SYNC = frozenset({"shfl", "vote", "match", "redux", "elect"})
EXCHANGES = frozenset({"mma", "wmma", "ldmatrix", "stmatrix", "movmatrix"})
"""Instructions in which every lane of a warp has a part."""
WARP_WIDE = EXCHANGES | {"bar", "barrier"}
ENDS = frozenset({"bra", "brx", "ret", "exit", "trap", "brkpt", "call"})
NO_RESULT = frozenset(
    [
        "st",
        "red",
        "bra",
        "brx",
        "ret",
        "exit",
        "trap",
        "brkpt",
        "membar",
        "fence",
        "cp",
        "nanosleep",
        "prefetch",
        "prefetchu",
        "applypriority",
        "call",
        "bar",
        "barrier",
        "pmevent",
        "griddepcontrol",
        "stmatrix",
    ]
)


def is_warp_sync(instruction: Instruction) -> bool:
    """`bar.warp.sync`."""
    return instruction.name in ("bar", "barrier") and instruction.modifiers[:1] == ("warp",)


def is_barrier(instruction: Instruction) -> bool:
    """A block barrier (any form)."""
    return instruction.name in ("bar", "barrier") and not is_warp_sync(instruction)


def is_loose_barrier(instruction: Instruction) -> bool:
    """`barrier.sync`, at which the lanes of a warp may arrive one after the other."""
    return instruction.name == "barrier" and not is_warp_sync(instruction) and "aligned" not in instruction.modifiers


def is_masked_sync(instruction: Instruction) -> bool:
    """A `.sync` instruction with a member mask."""
    return (instruction.name in MASKED_SYNC and "sync" in instruction.modifiers) or is_warp_sync(instruction)


def is_aligned(instruction: Instruction) -> bool:
    """A rendezvous of every lane of the warp."""
    if is_masked_sync(instruction):
        return False
    if instruction.name == "barrier":
        return "aligned" in instruction.modifiers
    return instruction.name in WARP_WIDE


def is_rendezvous(instruction: Instruction) -> bool:
    return is_aligned(instruction) or is_masked_sync(instruction)


def names_everyone(instruction: Instruction) -> bool:
    """True if the member mask is the literal of a full warp and no lane is guarded off."""
    mask = instruction.operands[-1]
    return isinstance(mask, Immediate) and mask.value & 0xFFFFFFFF == 0xFFFFFFFF and instruction.guard is None


def suspends(instruction: Instruction) -> bool:
    """After this instruction a warp may give up its turn."""
    return is_barrier(instruction) or instruction.name == "nanosleep"


def has_result(instruction: Instruction) -> bool:
    if instruction.name in ("bar", "barrier"):
        return "red" in instruction.modifiers
    if instruction.name == "wmma":
        return "store" not in instruction.modifiers
    return instruction.name not in NO_RESULT


def written(instruction: Instruction) -> tuple[Register, ...]:
    """Registers that an instruction writes (call results included)."""
    if instruction.name == "call":
        calls = [o for o in instruction.operands if isinstance(o, Call)]
        return tuple(r for c in calls for result in c.results for r in registers_in(result))
    if not has_result(instruction) or not instruction.operands:
        return ()
    return tuple(registers_in(instruction.operands[0]))


def read(instruction: Instruction) -> tuple[Register, ...]:
    """Registers that an instruction reads, its guard included."""
    if instruction.name == "call":
        calls = [o for o in instruction.operands if isinstance(o, Call)]
        sources = [r for c in calls for a in c.arguments for r in registers_in(a)]
    else:
        rest = instruction.operands[1:] if has_result(instruction) else instruction.operands
        sources = [r for operand in rest for r in registers_in(operand)]
    if instruction.guard is not None:
        sources.append(instruction.guard.register)
    return tuple(sources)


@dataclass(slots=True)
class Block:
    """Instructions [start, stop) that a lane group executes together; `successors` are block numbers.

    `coarse` blocks are where full warps enter; other blocks start at a rendezvous, which a full warp passes freely.
    """

    number: int
    start: int
    stop: int
    coarse: bool
    successors: tuple[int, ...] = ()
    live_in: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Flow:
    """Blocks in instruction order; `block_at` maps a leader's instruction index to its block number."""

    blocks: list[Block]
    block_at: dict[int, int]
    maybe_undefined: set[int]
    """Register indices whose defined bits must be tracked at run time."""

    def target(self, instruction_index: int) -> int:
        """Block number of an instruction index; the end of the kernel is one past the last block."""
        return self.block_at.get(instruction_index, len(self.blocks))


def branch_labels(kernel: Kernel, instruction: Instruction) -> list[int]:
    """Instruction indices that a branch can jump to."""
    labels = [o.target for o in instruction.operands if isinstance(o, Label)]
    if instruction.name == "brx":
        table = instruction.operands[-1]
        names = kernel.branch_tables[getattr(table, "name", "")]
        labels = [kernel.targets[name] for name in names]
    return labels


def analyse(kernel: Kernel) -> Flow:
    """Basic blocks, liveness and definedness of a kernel."""
    instructions = kernel.instructions
    count = len(instructions)
    coarse = {0}
    fine = {0}
    for index, instruction in enumerate(instructions):
        if instruction.name in ENDS:
            coarse.add(index + 1)
            if instruction.name in ("bra", "brx"):
                coarse.update(branch_labels(kernel, instruction))
        if suspends(instruction):
            coarse.add(index + 1)
        if is_rendezvous(instruction) or is_loose_barrier(instruction):
            fine.update((index, index + 1))
        if is_masked_sync(instruction) and not names_everyone(instruction):
            coarse.update((index, index + 1))
    fine |= coarse
    leaders = sorted(i for i in fine if i < count)
    block_at = {leader: number for number, leader in enumerate(leaders)}
    blocks = [
        Block(number, start, stop, start in coarse)
        for number, (start, stop) in enumerate(zip(leaders, [*leaders[1:], count], strict=True))
    ]
    flow = Flow(blocks, block_at, set())
    for block in blocks:
        block.successors = _successors(kernel, flow, block)
    _liveness(instructions, blocks)
    flow.maybe_undefined = _undefinable(kernel, blocks)
    return flow


def _successors(kernel: Kernel, flow: Flow, block: Block) -> tuple[int, ...]:
    last = kernel.instructions[block.stop - 1]
    following = block.number + 1
    if last.name in ("bra", "brx"):
        ways = [flow.target(i) for i in branch_labels(kernel, last)]
        if last.guard is not None or last.name == "brx":
            ways.append(following)
    elif last.name in ("ret", "exit", "trap", "brkpt"):
        ways = [following] if last.guard is not None else []
    else:
        ways = [following]
    return tuple(dict.fromkeys(w for w in ways if w < len(flow.blocks)))


def _liveness(instructions: tuple[Instruction, ...], blocks: list[Block]) -> None:
    reads: list[set[int]] = []
    writes: list[set[int]] = []
    for block in blocks:
        used: set[int] = set()
        killed: set[int] = set()
        for instruction in instructions[block.start : block.stop]:
            used.update(r.index for r in read(instruction) if r.index not in killed)
            results = {r.index for r in written(instruction)}
            if instruction.guard is None:
                killed |= results
            else:
                used |= results - killed
        reads.append(used)
        writes.append(killed)
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            out: set[int] = set()
            for successor in block.successors:
                out |= blocks[successor].live_in
            live = reads[block.number] | (out - writes[block.number])
            if live != block.live_in:
                block.live_in, changed = live, True


def live_out(flow: Flow, block: Block) -> set[int]:
    """Registers that some successor of `block` reads."""
    out: set[int] = set()
    for successor in block.successors:
        out |= flow.blocks[successor].live_in
    return out


_MEMORY_RESULT = frozenset(
    {"ld", "ldu", "atom", "ldmatrix", "wmma", "call", "shfl", "vote", "match", "redux", "bar", "barrier"}
)


def _undefinable(kernel: Kernel, blocks: list[Block]) -> set[int]:
    """Registers that may be read undefined: loaded from memory, read before written, or computed from such."""
    undefined = set(blocks[0].live_in) if blocks else set()
    dependents: dict[int, set[int]] = {}
    for instruction in kernel.instructions:
        results = {r.index for r in written(instruction)}
        dynamic = instruction.name in _MEMORY_RESULT and not (
            instruction.name == "ld" and "param" in instruction.modifiers
        )
        if dynamic:
            undefined |= results
        for source in read(instruction):
            dependents.setdefault(source.index, set()).update(results)
    work = list(undefined)
    while work:
        for result in dependents.get(work.pop(), ()):
            if result not in undefined:
                undefined.add(result)
                work.append(result)
    return undefined


def is_constant(operand: Operand | None) -> bool:
    return isinstance(operand, Immediate | Special | Variable)
