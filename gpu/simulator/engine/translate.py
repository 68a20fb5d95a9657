"""A kernel as two native functions, ``run_full(block, warp) -> reason`` and ``run_masked(block, warp, entry)``.

Every basic block exists twice.  The *full* form serves 32 lanes that run together: no blending, native branches while
the condition is uniform, blocks joined across rendezvous instructions.  The *masked* form serves any group of lanes
and blends results; it is compiled only when a warp first needs it.  A dispatcher picks the lowest program counter; all
state that outlives a block is in memory, so that a warp can be suspended at a barrier and resumed, or change its form.
"""

from __future__ import annotations

from loadsparse.gpu.simulator import padding
from loadsparse.gpu.simulator.bypass import bypasses
from loadsparse.gpu.simulator.engine import (  # noqa: F401  (lowerings register themselves)
    atomics,
    bits,
    convert,
    floats,
    holes,
    integers,
    layout,
    memory,
    predicates,
    runtime,
    selection,
    tensor,
    warps,
    wmma,
)
from loadsparse.gpu.simulator.engine.blocks import (
    ENDS,
    EXCHANGES,
    Block,
    Flow,
    analyse,
    is_masked_sync,
    is_rendezvous,
    live_out,
    names_everyone,
)
from loadsparse.gpu.simulator.engine.ir import FULL, Code, splat, vec
from loadsparse.gpu.simulator.engine.leaving import Leaving, is_barrier_like
from loadsparse.gpu.simulator.engine.lowering import LEFT, TABLE, Frame, Lowering, element_of, refuse
from loadsparse.gpu.simulator.engine.memory import narrowest_access, orders_by_atomics
from loadsparse.gpu.simulator.layout import Layout
from loadsparse.gpu.simulator.program import Instruction, Kernel, Register, Special
from loadsparse.gpu.simulator.request import Checks
from loadsparse.gpu.simulator.special_registers import CLOCKS

CONTROL = ENDS | {"bar", "barrier", "nanosleep"}
"""Opcodes that end blocks (`leaving.py`, `warps.py`)."""
SILENT = frozenset({"prefetch", "prefetchu", "applypriority", "pmevent", "griddepcontrol"})


def left_to_interpreter(name: str) -> tuple[str, ...] | None:
    """The forms of an opcode that only the interpreter executes; None if those are all."""
    return LEFT.get(name, ()) if name in TABLE or name in CONTROL or name in SILENT else None


def _is_left(instruction: Instruction) -> bool:
    modifiers = set(instruction.modifiers)
    return any(modifiers.issuperset(form.split(".")) for form in LEFT.get(instruction.name, ()))


class Translation(Leaving):
    """Emits one kernel."""

    def __init__(self, kernel: Kernel, place: Layout, checks: Checks, arch: str, fine: bool = False) -> None:
        self.kernel, self.checks, self.fine = kernel, checks, fine
        self.flow: Flow = analyse(kernel)
        self.bypasses = bypasses(kernel)
        self.code = Code()
        self.masked = False
        slots, defined_slots, self.clear_bytes, self.warp_bytes = self._place_registers()
        granule = narrowest_access(kernel, layout.SHARED)
        self.frame = Frame(kernel, self.flow, checks, arch, granule, place.shared_bytes, slots, defined_slots)
        self.frame.fine = fine
        self.frame.carried, self.frame.cell = padding.carried(kernel), padding.cell_bytes([kernel])
        self.frame.has_copies = any(i.name == "cp" for i in kernel.instructions)
        self.frame.global_granule = narrowest_access(kernel, layout.GLOBAL)
        self.frame.orders_by_atomics = orders_by_atomics(kernel)
        self.frame.reads_clock = any(
            isinstance(o, Special) and o.name in CLOCKS for i in kernel.instructions for o in i.operands
        )
        self.frame.param_bytes = sum(v.size for v in kernel.parameters[-1:]) + sum(
            v.offset for v in kernel.parameters[-1:]
        )
        self.count = len(self.flow.blocks)

    def _place_registers(self) -> tuple[dict[int, int], dict[int, int], int, int]:
        """Slots for registers that live across blocks; those live at the entry and all defined masks are cleared."""
        by_index: dict[int, Register] = {r.index: r for r in self.kernel.registers}
        kept: set[int] = set()
        for block in self.flow.blocks:
            kept |= block.live_in
        entry = self.flow.blocks[0].live_in if self.flow.blocks else set()
        offset = layout.W_REGISTERS
        defined: dict[int, int] = {}
        for index in sorted(kept & self.flow.maybe_undefined):
            element = element_of(by_index[index])
            whole = self.fine and element != "i1"
            defined[index] = offset = -(-offset // 64) * 64 if whole else offset
            offset += 4 * int(element[1:]) if whole else 4
        slots: dict[int, int] = {}
        clear = 0
        for index in sorted(kept, key=lambda i: (i not in entry, i)):
            if index not in entry and not clear:
                clear = offset - layout.W_REGISTERS
            element = element_of(by_index[index])
            if element == "i1":
                slots[index] = offset
                offset += 4
            else:
                offset = -(-offset // 64) * 64
                slots[index] = offset
                offset += 4 * int(element[1:])
        clear = clear or offset - layout.W_REGISTERS
        return slots, defined, clear, -(-offset // 4096) * 4096 + 64

    def full_text(self) -> str:
        """IR of the full form."""
        code = self._begin(masked=False)
        self._dispatcher()
        code.start("dispatch_full")
        ways = [f"i32 {b.number}, label %full_{b.number}" for b in self.flow.blocks if b.coarse]
        ways += [f"i32 {self.resume(b)}, label %fetch_{b.number}" for b in self.flow.blocks if self.resumes(b)]
        code.close(f"switch i32 %lowest, label %elsewhere [ {' '.join(ways)} ]")
        code.start("elsewhere")
        self._call_masked(-1)
        for block in self.flow.blocks:
            if block.coarse:
                self._full(block)
        return self._module("run_full(ptr noalias %B, ptr noalias %W)")

    def masked_text(self) -> str:
        """IR of the masked form; a warp that became full again goes back to the full one."""
        code = self._begin(masked=True)
        code.emit("%mask = alloca i32")
        code.emit("store i32 -1, ptr %mask")
        entries = " ".join(f"i64 {b.number}, label %masked_{b.number}" for b in self.flow.blocks)
        code.close(f"switch i64 %entry, label %dispatch [ {entries} ]")
        self._dispatcher()
        code.start("dispatch_full")
        coarse = " ".join(f"i32 {b.number}, label %again" for b in self.flow.blocks if b.coarse)
        code.close(f"switch i32 %lowest, label %elsewhere [ {coarse} ]")
        code.start("again")
        code.close(f"ret i64 {layout.AGAIN}")
        code.start("elsewhere")
        code.emit("store i32 %lanes, ptr %mask")
        ways = [f"i32 {b.number}, label %masked_{b.number}" for b in self.flow.blocks]
        ways += [f"i32 {self.resume(b)}, label %fetch_{b.number}" for b in self.flow.blocks if self.resumes(b)]
        code.close(f"switch i32 %lowest, label %the_end [ {' '.join(ways)} ]")
        for block in self.flow.blocks:
            self._masked(block)
        code.start("the_end")
        self.exit_lanes(code.v("load i32, ptr %mask"))
        code.goto("dispatch")
        return self._module("run_masked(ptr noalias %B, ptr noalias %W, i64 %entry)")

    def _begin(self, masked: bool) -> Code:
        self.masked = masked
        self.code = Code()
        self.frame.called.clear()
        self.code.emit("%Bi = ptrtoint ptr %B to i64")
        self.code.emit("%Wi = ptrtoint ptr %W to i64")
        if not masked:
            self.code.goto("dispatch")
        return self.code

    def _module(self, signature: str) -> str:
        code = self.code
        known = set(runtime.declarations().splitlines())
        called = {f"declare i64 @{name}(i64, i64, i64, i64)" for name in self.frame.called}
        external = "\n".join(sorted((code.declared | called) - known))
        body = "\n".join(code.lines)
        metadata = '!0 = !{!"branch_weights", i32 2000, i32 1}\n!1 = !{!"branch_weights", i32 1, i32 2000}\n'
        return (
            f"{runtime.declarations()}\n{external}\ndefine i64 @{signature} nounwind {{\nbegin:\n{body}\n}}\n{metadata}"
        )

    def _dispatcher(self) -> None:
        """Lowest program counter first; lanes that wait at a rendezvous are not runnable, others may stand back."""
        code = self.code
        code.start("dispatch")
        live = code.load("i32", "%W", layout.W_LIVE, 4)
        waiting = code.load("i32", "%W", layout.W_WAITING, 4)
        idle = code.v(f"xor i32 {waiting}, -1")
        runnable = code.v(f"and i32 {live}, {idle}")
        none = code.v(f"icmp eq i32 {runnable}, 0")
        code.branch(none, "nobody", "somebody", likely=False)
        code.start("nobody")
        gone = code.v(f"icmp eq i32 {live}, 0")
        code.branch(gone, "exited", "stuck")
        code.start("stuck")
        self.call_runtime("stuck", "%Bi", "%Wi")
        code.close(f"ret i64 {layout.STOPPED}")
        code.start("exited")
        code.close(f"ret i64 {layout.EXITED}")
        code.start("somebody")
        aside = code.load("i32", "%W", layout.W_ASIDE, 4)
        eager = code.v(f"and i32 {runnable}, {code.v(f'xor i32 {aside}, -1')}")
        any_eager = code.v(f"icmp ne i32 {eager}, 0")
        still = code.v(f"select i1 {any_eager}, i32 {aside}, i32 0")
        code.store("i32", still, "%W", layout.W_ASIDE, 4)
        runnable = code.v(f"select i1 {any_eager}, i32 {eager}, i32 {runnable}")
        pcs = code.load(vec("i32"), "%W", layout.W_PC, 64)
        candidates = code.select(code.flags(runnable), "i32", pcs, splat("i32", 0x7FFFFFFF))
        lowest = code.intrinsic("llvm.vector.reduce.umin.v32i32", "i32", (vec("i32"), candidates))
        same = code.v(f"icmp eq {vec('i32')} {candidates}, {code.broadcast('i32', lowest)}")
        code.emit(f"%lowest = add i32 {lowest}, 0")
        code.emit(f"%lanes = bitcast {vec('i1')} {same} to i32")
        code.branch(code.v("icmp eq i32 %lanes, -1"), "dispatch_full", "elsewhere")

    def _call_masked(self, entry: int) -> None:
        """Runs the masked form, from block `entry` on or (-1) from its dispatcher."""
        code = self.code
        worker = code.load("ptr", "%B", layout.B_WORKER, 8)
        kept = code.load("i64", worker, layout.K_MASKED, 8)
        find, found, run, ended, before = (code.fresh(s) for s in ("find", "found", "run", "ended", "before"))
        code.label(before)
        code.branch(code.v(f"icmp eq i64 {kept}, 0"), find, run, likely=False)
        code.start(find)
        fresh = self.call_runtime("find_masked", "%Bi")
        code.branch(code.v(f"icmp eq i64 {fresh}, 0"), found, run, likely=False)
        code.start(found)
        code.close(f"ret i64 {layout.STOPPED}")
        code.start(run)
        address = code.v(f"phi i64 [ {kept}, %{before} ], [ {fresh}, %{find} ]")
        reason = code.v(f"call i64 {code.v(f'inttoptr i64 {address} to ptr')}(ptr %B, ptr %W, i64 {entry})")
        code.branch(code.v(f"icmp eq i64 {reason}, {layout.AGAIN}"), "dispatch", ended)
        code.start(ended)
        code.close(f"ret i64 {reason}")

    def _count(self, block: Block, stop: int, mask: str) -> None:
        """Executions and lanes of a block up to `stop`, and the instructions of this turn and of the launch."""
        code = self.code
        length = stop - block.start
        counts = code.load("ptr", "%B", layout.B_BLOCK_COUNTS, 8)
        base = layout.N_BYTES * block.number
        if mask == FULL:
            self._bump(counts, base + layout.N_FULL, "1")
            lanes = str(32 * length)
        else:
            self._bump(counts, base + layout.N_GROUPS, "1")
            active = code.intrinsic("llvm.ctpop.i32", "i32", ("i32", mask))
            active = code.v(f"zext i32 {active} to i64")
            self._bump(counts, base + layout.N_LANES, active)
            lanes = code.v(f"mul i64 {active}, {length}")
        self._bump("%B", layout.B_TURN, str(length))
        if self.frame.reads_clock:
            self._bump("%W", layout.W_STEPPED, str(length))
            self.frame.counted_to = stop
        worker = code.load("ptr", "%B", layout.B_WORKER, 8)
        self._bump(worker, layout.K_INSTRUCTIONS, lanes)

    def _go_past(self, start: int, stop: int, mask: str) -> None:
        """Notes the barriers that whoever executes these instructions went past."""
        code = self.code
        slots = [slot for index in range(start, stop) for slot in self.bypasses.behind.get(index, ())]
        for slot in slots if self.checks.convergence else ():
            known = code.load("i32", "%W", layout.W_PASSED + 4 * slot, 4)
            code.store("i32", code.v(f"or i32 {known}, {mask}"), "%W", layout.W_PASSED + 4 * slot, 4)
            noted = code.load("i64", "%B", layout.B_PASSED, 8)
            code.store("i64", code.v(f"or i64 {noted}, {1 << slot}"), "%B", layout.B_PASSED, 8)

    def _full(self, first: Block) -> None:
        """One coarse block: up to the next one, straight through its rendezvous instructions."""
        blocks = self.flow.blocks
        last = first.number
        while last + 1 < self.count and not blocks[last + 1].coarse:
            last += 1
        stop = blocks[last].stop
        self.code.start(f"full_{first.number}")
        self._expect_everyone(first)
        self._count(first, stop, FULL)
        self._go_past(first.start, stop, FULL)
        lowering = Lowering(self.frame, self.code, FULL, live_out(self.flow, blocks[last]))
        self._instructions(lowering, first.start, stop)
        self._leave(lowering, blocks[last], FULL)

    def _expect_everyone(self, block: Block) -> None:
        """A full warp passes a rendezvous by mask freely only if every mask names everyone."""
        instruction = self.kernel.instructions[block.start]
        if not is_masked_sync(instruction) or names_everyone(instruction):
            return
        code = self.code
        lowering = Lowering(self.frame, code, FULL, set())
        members = lowering.get(instruction.operands[-1], "b32")
        named = code.bits(code.v(f"icmp eq {vec('i32')} {members}, {splat('i32', -1)}"))
        self.guarded(lowering, instruction, report=False)
        every = code.mask_and(named, lowering.mask)
        whole, parts = code.fresh("whole"), code.fresh("parts")
        code.branch(code.v(f"icmp eq i32 {every}, -1"), whole, parts)
        code.start(parts)
        self.store_pc(FULL, splat("i32", block.number))
        self._call_masked(block.number)
        code.start(whole)

    def _masked(self, block: Block) -> None:
        code = self.code
        code.start(f"masked_{block.number}")
        first = self.kernel.instructions[block.start]
        if is_rendezvous(first):
            self._rendezvous(block, first)
        mask = code.v("load i32, ptr %mask")
        self._count(block, block.stop, mask)
        self._go_past(block.start, block.stop, mask)
        lowering = Lowering(self.frame, code, mask, live_out(self.flow, block))
        self._instructions(lowering, block.start, block.stop)
        self._leave(lowering, block, mask)

    def _rendezvous(self, block: Block, instruction: Instruction) -> None:
        """Waits until every lane that must come is there; run-time functions decide who may pass."""
        code = self.code
        mask = code.v("load i32, ptr %mask")
        go, wait = f"go_{block.number}", f"wait_{block.number}"
        if is_masked_sync(instruction):
            self.store_pc(mask, splat("i32", block.number))  # who came alone may have to wait here, or part
            lowering = Lowering(self.frame, code, mask, set())
            passing = warps.gather(lowering, instruction, block, self)
        else:
            live = code.load("i32", "%W", layout.W_LIVE, 4)
            here = code.v(f"icmp eq i32 {mask}, {live}")
            ask = f"ask_{block.number}"
            code.branch(here, go, ask, likely=True)
            code.start(ask)
            wide = code.v(f"zext i32 {mask} to i64")
            passing = self.call_runtime("gather_aligned", "%Wi", wide, block.number)
        narrow = code.v(f"trunc i64 {passing} to i32")
        code.emit(f"store i32 {narrow}, ptr %mask")
        some = code.v(f"icmp ne i32 {narrow}, 0")
        code.branch(some, go, wait)
        code.start(wait)
        code.goto("dispatch")
        code.start(go)

    def _instructions(self, lowering: Lowering, start: int, stop: int) -> None:
        for index in range(start, stop):
            instruction = self.kernel.instructions[index]
            self.frame.index = index
            if _is_left(instruction):
                raise refuse(instruction)
            if instruction.name in ENDS or is_barrier_like(instruction):
                continue
            self.guarded(lowering, instruction)
            if instruction.name in SILENT:
                continue
            if instruction.name in EXCHANGES and lowering.mask != FULL and self.checks.convergence:
                self.lanes_missing(lowering)
            lowered = TABLE.get(instruction.name)
            if lowered is None:
                raise refuse(instruction)
            lowered(lowering, instruction)
        lowering.mask = lowering.group_mask
