"""A kernel as one native function ``run_warp(block, warp) -> reason``.

Every basic block exists twice.  The *full* form serves 32 lanes that run together: no blending, native branches while
the condition is uniform, blocks joined across rendezvous instructions.  The *masked* form serves any group of lanes
and blends results.  A dispatcher picks the lowest program counter; all state that outlives a block is in memory, so
that a warp can be suspended at a barrier and resumed.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import (  # noqa: F401  (lowerings register themselves)
    atomics,
    convert,
    floats,
    integers,
    layout,
    memory,
    predicates,
    runtime,
    tensor,
    warps,
)
from loadsparse.gpu.simulator.engine.blocks import (
    ENDS,
    Block,
    Flow,
    analyse,
    branch_labels,
    is_aligned,
    is_masked_sync,
    is_rendezvous,
    live_out,
    names_everyone,
)
from loadsparse.gpu.simulator.engine.ir import FULL, Code, splat, vec
from loadsparse.gpu.simulator.engine.lowering import TABLE, Frame, Lowering, element_of, refuse
from loadsparse.gpu.simulator.engine.memory import narrowest_access
from loadsparse.gpu.simulator.layout import Layout
from loadsparse.gpu.simulator.program import Instruction, Kernel, Register
from loadsparse.gpu.simulator.request import QUANTUM, Checks

SILENT = frozenset(
    {"membar", "fence", "prefetch", "prefetchu", "discard", "applypriority", "pmevent", "griddepcontrol"}
)


class Translation:
    """Emits one kernel."""

    def __init__(self, kernel: Kernel, place: Layout, checks: Checks, arch: str) -> None:
        self.kernel, self.checks = kernel, checks
        self.flow: Flow = analyse(kernel)
        self.code = Code()
        slots, defined_slots, self.clear_bytes, self.warp_bytes = self._place_registers()
        granule = narrowest_access(kernel)
        self.frame = Frame(kernel, self.flow, checks, arch, granule, place.shared_bytes, slots, defined_slots)
        self.frame.has_copies = any(i.name == "cp" for i in kernel.instructions)
        self.frame.orders_by_atomics = any(
            i.name in ("membar", "fence") or {"acquire", "release", "acq_rel"} & set(i.modifiers)
            for i in kernel.instructions
        )
        self.resumes: list[tuple[int, str]] = []
        """Extra program counters (bar.red results to be fetched) and their labels."""
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
            defined[index] = offset
            offset += 4
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

    # structure

    def text(self) -> str:
        """The module's IR."""
        code = self.code
        code.emit("%mask = alloca i32")
        code.emit("%Bi = ptrtoint ptr %B to i64")
        code.emit("%Wi = ptrtoint ptr %W to i64")
        code.goto("dispatch")
        self._dispatcher()
        for block in self.flow.blocks:
            if block.coarse:
                self._full(block)
        for block in self.flow.blocks:
            self._masked(block)
        self._end()
        helpers = "\n".join(self.frame.helpers.values())
        known = set(runtime.inline_text().splitlines())
        external = "\n".join(sorted(code.declared - known))
        resumes = " ".join(f"i32 {number}, label %{label}" for number, label in self.resumes)
        body = "\n".join(code.lines).replace("; RESUMES", resumes)
        metadata = '!0 = !{!"branch_weights", i32 2000, i32 1}\n!1 = !{!"branch_weights", i32 1, i32 2000}\n'
        return (
            f"{runtime.inline_text()}\n{external}\n{helpers}\n"
            f"define i64 @run_warp(ptr noalias %B, ptr noalias %W) nounwind {{\nentry:\n{body}\n}}\n{metadata}"
        )

    def _dispatcher(self) -> None:
        """Lowest program counter first; lanes that wait at a rendezvous are not runnable."""
        code = self.code
        code.start("dispatch")
        live = code.load("i32", "%W", layout.W_LIVE, 4)
        waiting = code.load("i32", "%W", layout.W_WAITING, 4)
        idle = code.v(f"xor i32 {waiting}, -1")
        runnable = code.v(f"and i32 {live}, {idle}")
        none = code.v(f"icmp eq i32 {runnable}, 0")
        code.branch(none, "nobody", "somebody", likely=False)
        code.start("somebody")
        pcs = code.load(vec("i32"), "%W", layout.W_PC, 64)
        candidates = code.select(code.flags(runnable), "i32", pcs, splat("i32", 0x7FFFFFFF))
        lowest = code.intrinsic("llvm.vector.reduce.umin.v32i32", "i32", (vec("i32"), candidates))
        same = code.v(f"icmp eq {vec('i32')} {candidates}, {code.broadcast('i32', lowest)}")
        mask = code.bits(same)
        code.emit(f"store i32 {mask}, ptr %mask")
        full = code.v(f"icmp eq i32 {mask}, -1")
        code.branch(full, "dispatch_full", "dispatch_masked")
        code.start("dispatch_full")
        ways = " ".join(f"i32 {b.number}, label %full_{b.number}" for b in self.flow.blocks if b.coarse)
        code.close(f"switch i32 {lowest}, label %dispatch_masked [ {ways} ]")
        code.start("dispatch_masked")
        ways = " ".join(f"i32 {b.number}, label %masked_{b.number}" for b in self.flow.blocks) + " ; RESUMES"
        code.close(f"switch i32 {lowest}, label %the_end [ {ways}\n  ]")
        code.start("nobody")
        gone = code.v(f"icmp eq i32 {live}, 0")
        code.branch(gone, "exited", "stuck")
        code.start("stuck")
        self.call_runtime("stuck", "%Bi", "%Wi")
        code.close(f"ret i64 {layout.STOPPED}")
        code.start("exited")
        code.close(f"ret i64 {layout.EXITED}")

    def call_runtime(self, name: str, *arguments: str | int) -> str:
        return self.code.call(runtime.prefix() + name, "i64", *(("i64", str(a)) for a in arguments))

    def _count(self, block: Block, length: int, mask: str) -> None:
        """Executions and lanes of a block, and the instructions of this turn and of the launch."""
        code = self.code
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
        worker = code.load("ptr", "%B", layout.B_WORKER, 8)
        self._bump(worker, layout.K_INSTRUCTIONS, lanes)

    def _bump(self, base: str, offset: int, by: str) -> None:
        code = self.code
        place = code.at(base, offset)
        value = code.v(f"load i64, ptr {place}, align 8")
        code.emit(f"store i64 {code.v(f'add i64 {value}, {by}')}, ptr {place}, align 8")

    # blocks

    def _full(self, first: Block) -> None:
        """One coarse block: up to the next one, straight through its rendezvous instructions."""
        blocks = self.flow.blocks
        last = first.number
        while last + 1 < self.count and not blocks[last + 1].coarse:
            last += 1
        stop = blocks[last].stop
        self.code.start(f"full_{first.number}")
        self._expect_everyone(first)
        self._count(first, stop - first.start, FULL)
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
        code.emit("store i32 -1, ptr %mask")
        code.goto(f"masked_{block.number}")
        code.start(whole)

    def _masked(self, block: Block) -> None:
        code = self.code
        code.start(f"masked_{block.number}")
        first = self.kernel.instructions[block.start]
        if is_rendezvous(first):
            self._rendezvous(block, first)
        mask = code.v("load i32, ptr %mask")
        self._count(block, block.stop - block.start, mask)
        lowering = Lowering(self.frame, code, mask, live_out(self.flow, block))
        self._instructions(lowering, block.start, block.stop)
        self._leave(lowering, block, mask)

    def _rendezvous(self, block: Block, instruction: Instruction) -> None:
        """Waits until every lane that must come is there; run-time functions decide who may pass."""
        code = self.code
        mask = code.v("load i32, ptr %mask")
        go, wait = f"go_{block.number}", f"wait_{block.number}"
        if is_masked_sync(instruction):
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
            if instruction.name in ENDS or is_barrier_like(instruction):
                continue
            self.guarded(lowering, instruction)
            if instruction.name in SILENT:
                continue
            lowered = TABLE.get(instruction.name)
            if lowered is None:
                raise refuse(instruction)
            lowered(lowering, instruction)
        lowering.mask = lowering.group_mask

    def guarded(self, lowering: Lowering, instruction: Instruction, report: bool = True) -> None:
        """Sets the lanes in which an instruction takes effect; an undefined guard is reported."""
        lowering.mask = lowering.group_mask
        lowering.bad_guard = "0"
        guard = instruction.guard
        if guard is None:
            return
        code = self.code
        bits = code.bits(lowering.value_of(guard.register))
        if guard.negated:
            bits = code.v(f"xor i32 {bits}, -1")
        lowering.mask = code.mask_and(lowering.group_mask, bits)
        defined = lowering.defined_register(guard.register)
        if defined != FULL and report:
            bad = code.v(f"xor i32 {defined}, -1")
            lowering.bad_guard = code.mask_and(bad, lowering.group_mask)
            if not memory.reports_itself(instruction):
                memory.report_undefined(lowering, lowering.bad_guard, "0", "0", -1)
        if is_aligned(instruction) and report and self.checks.convergence:
            self._guards_differ(lowering)

    def _guards_differ(self, lowering: Lowering) -> None:
        """Reports the lanes whose guard is false at an aligned instruction, unless all are."""
        code = self.code
        absent = code.v(f"xor i32 {lowering.mask}, {lowering.group_mask}")
        some = code.v(f"icmp ne i32 {lowering.mask}, 0")
        bad = code.v(f"select i1 {some}, i32 {absent}, i32 0")
        cold, after = code.fresh("differ"), code.fresh("agree")
        code.branch(code.v(f"icmp ne i32 {bad}, 0"), cold, after, likely=False)
        code.start(cold)
        wide = code.v(f"zext i32 {bad} to i64")
        self.call_runtime(
            "report_lanes", "%Bi", "%Wi", layout.CONVERGENCE, self.frame.index, wide, layout.GUARDS_DIFFER
        )
        code.goto(after)
        code.start(after)

    # leaving a block

    def _leave(self, lowering: Lowering, block: Block, mask: str) -> None:
        last = self.kernel.instructions[block.stop - 1]
        self.frame.index = block.stop - 1
        following = block.number + 1
        match last.name:
            case "bra":
                self._branch(lowering, block, last, mask)
            case "ret" | "exit":
                self._exit(lowering, block, last, mask)
            case "trap" | "brkpt":
                self._trap(lowering, block, last, mask)
            case "brx":
                self._indexed(lowering, block, last, mask)
            case "call":
                raise refuse(last)
            case _ if is_barrier_like(last):
                warps.suspend(self, lowering, block, last, mask)
            case _:
                self.go(following, mask, block)

    def store_pc(self, mask: str, value: str) -> None:
        """Program counters (block numbers) of a group: `value` is a vector."""
        code = self.code
        if mask != FULL:
            old = code.load(vec("i32"), "%W", layout.W_PC, 64)
            value = code.select(code.flags(mask), "i32", value, old)
        code.store(vec("i32"), value, "%W", layout.W_PC, 64)

    def go(self, target: int, mask: str, block: Block) -> None:
        """The whole group continues at block `target`."""
        code = self.code
        if mask == FULL:
            if target < self.count and self.flow.blocks[target].coarse:
                return code.goto(f"full_{target}")
            self.store_pc(mask, splat("i32", target))
            return code.goto("dispatch")
        if target >= self.count:
            self.store_pc(mask, splat("i32", target))
            return code.goto("dispatch")
        live = code.load("i32", "%W", layout.W_LIVE, 4)
        alone = code.v(f"icmp eq i32 {mask}, {live}")
        together, apart = code.fresh("together"), code.fresh("apart")
        code.branch(alone, together, apart)
        code.start(apart)
        self.store_pc(mask, splat("i32", target))
        code.goto("dispatch")
        code.start(together)
        # a group that became full again returns to the fast form
        if self.flow.blocks[target].coarse:
            full = code.v(f"icmp eq i32 {mask}, -1")
            code.branch(full, f"full_{target}", f"masked_{target}")
        else:
            code.goto(f"masked_{target}")
        return None

    def _branch(self, lowering: Lowering, block: Block, instruction: Instruction, mask: str) -> None:
        code = self.code
        index = block.stop - 1
        target_index = branch_labels(self.kernel, instruction)[0]
        target = self.flow.target(target_index)
        backward = target_index <= index
        self.guarded(lowering, instruction)
        taken = lowering.mask
        if instruction.guard is None:
            if backward:
                self._backward(block, mask, splat("i32", target), index)
            return self.go(target, mask, block)
        every, other, none, split = (code.fresh(s) for s in ("every", "other", "none", "split"))
        all_taken = code.v(f"icmp eq i32 {taken}, {mask}")
        code.branch(all_taken, every, other)
        code.start(every)
        if backward:
            self._backward(block, mask, splat("i32", target), index)
        self.go(target, mask, block)
        code.start(other)
        nobody = code.v(f"icmp eq i32 {taken}, 0")
        code.branch(nobody, none, split)
        code.start(none)
        self.go(block.number + 1, mask, block)
        code.start(split)
        if target != block.number + 1:
            counters = code.load("ptr", "%B", layout.B_COUNTERS, 8)
            self._bump(counters, layout.C_SITE_BYTES * index + layout.C_DIVERGENT, "1")
        ways = code.select(code.flags(taken), "i32", splat("i32", target), splat("i32", block.number + 1))
        self.store_pc(mask, ways)
        if backward:
            self._quantum(index, taken)
        code.goto("dispatch")
        return None

    def _backward(self, block: Block, mask: str, pcs: str, index: int) -> None:
        """A backward branch that a whole group takes: the turn may be over, the budget spent."""
        code = self.code
        over, on = code.fresh("over"), code.fresh("on")
        turn = code.load("i64", "%B", layout.B_TURN, 8)
        late = code.v(f"icmp uge i64 {turn}, {QUANTUM}")
        spent = self._spent()
        either = code.v(f"or i1 {late}, {spent}")
        code.branch(either, over, on, likely=False)
        code.start(over)
        self.store_pc(mask, pcs)
        self._give_up(spent, index, mask)
        code.start(on)

    def _quantum(self, index: int, mask: str) -> None:
        code = self.code
        over, on = code.fresh("over"), code.fresh("on")
        turn = code.load("i64", "%B", layout.B_TURN, 8)
        late = code.v(f"icmp uge i64 {turn}, {QUANTUM}")
        spent = self._spent()
        code.branch(code.v(f"or i1 {late}, {spent}"), over, on, likely=False)
        code.start(over)
        self._give_up(spent, index, mask)
        code.start(on)

    def _spent(self) -> str:
        code = self.code
        worker = code.load("ptr", "%B", layout.B_WORKER, 8)
        used = code.load("i64", worker, layout.K_INSTRUCTIONS, 8)
        budget = code.load("i64", worker, layout.K_BUDGET, 8)
        return code.v(f"icmp ugt i64 {used}, {budget}")

    def _give_up(self, spent: str, index: int, mask: str) -> None:
        """Ends the turn, or the launch when the budget is spent."""
        code = self.code
        broke, done = code.fresh("broke"), code.fresh("done")
        code.branch(spent, broke, done)
        code.start(broke)
        lane = code.intrinsic("llvm.cttz.i32", "i32", ("i32", mask), ("i1", "false"))
        self.call_runtime("budget_spent", "%Bi", "%Wi", index, code.v(f"zext i32 {lane} to i64"))
        code.close(f"ret i64 {layout.STOPPED}")
        code.start(done)
        code.close(f"ret i64 {layout.YIELDED}")

    def _exit(self, lowering: Lowering, block: Block, instruction: Instruction, mask: str) -> None:
        self.guarded(lowering, instruction)
        leaving = lowering.mask
        self.exit_lanes(leaving)
        if instruction.guard is not None:
            self.store_pc(mask, splat("i32", block.number + 1))
        self.code.goto("dispatch")

    def _trap(self, lowering: Lowering, block: Block, instruction: Instruction, mask: str) -> None:
        code = self.code
        self.guarded(lowering, instruction)
        stop, on = code.fresh("trap"), code.fresh("on")
        code.branch(code.v(f"icmp ne i32 {lowering.mask}, 0"), stop, on, likely=False)
        code.start(stop)
        lane = code.intrinsic("llvm.cttz.i32", "i32", ("i32", lowering.mask), ("i1", "false"))
        self.call_runtime("trapped", "%Bi", "%Wi", block.stop - 1, code.v(f"zext i32 {lane} to i64"))
        code.close(f"ret i64 {layout.STOPPED}")
        code.start(on)
        self.go(block.number + 1, mask, block)

    def _indexed(self, lowering: Lowering, block: Block, instruction: Instruction, mask: str) -> None:
        """brx.idx: every lane picks its target from a table; always through the dispatcher."""
        code = self.code
        index = block.stop - 1
        if instruction.guard is not None:
            raise refuse(instruction, "with a guard")
        lowering.mask, lowering.bad_guard = mask, "0"
        choice = lowering.get(instruction.operands[0], "b32")
        bad = memory.missing(lowering, lowering.defined_of(instruction.operands[0]), mask)
        memory.report_undefined(lowering, "0", bad, "0", -1)
        targets = branch_labels(self.kernel, instruction)
        beyond = code.bits(code.v(f"icmp uge {vec('i32')} {choice}, {splat('i32', len(targets))}"))
        beyond = code.mask_and(beyond, mask)
        stop, on = code.fresh("beyond"), code.fresh("on")
        code.branch(code.v(f"icmp ne i32 {beyond}, 0"), stop, on, likely=False)
        code.start(stop)
        lane = code.intrinsic("llvm.cttz.i32", "i32", ("i32", beyond), ("i1", "false"))
        self.call_runtime("trapped", "%Bi", "%Wi", index, code.v(f"zext i32 {lane} to i64"))
        code.close(f"ret i64 {layout.STOPPED}")
        code.start(on)
        pcs = splat("i32", block.number + 1)
        back = "0"
        first = "0"
        for number, target in enumerate(targets):
            here = code.v(f"icmp eq {vec('i32')} {choice}, {splat('i32', number)}")
            pcs = code.select(here, "i32", splat("i32", self.flow.target(target)), pcs)
            if target <= index:
                lanes = code.mask_and(code.bits(here), mask)
                back = lanes if back == "0" else code.v(f"or i32 {back}, {lanes}")
        self.store_pc(mask, pcs)
        lane = code.intrinsic("llvm.cttz.i32", "i32", ("i32", mask), ("i1", "false"))
        first = code.v(f"extractelement {vec('i32')} {pcs}, i32 {lane}")
        other = code.bits(code.v(f"icmp ne {vec('i32')} {pcs}, {code.broadcast('i32', first)}"))
        split = code.v(f"icmp ne i32 {code.mask_and(other, mask)}, 0")
        counters = code.load("ptr", "%B", layout.B_COUNTERS, 8)
        place = layout.C_SITE_BYTES * index + layout.C_DIVERGENT
        self._bump(counters, place, code.v(f"zext i1 {split} to i64"))
        if back != "0":
            loops, done = code.fresh("loops"), code.fresh("done")
            code.branch(code.v(f"icmp ne i32 {back}, 0"), loops, done)
            code.start(loops)
            self._quantum(index, back)
            code.label(done)
        code.goto("dispatch")

    def exit_lanes(self, leaving: str) -> None:
        wide = self.code.v(f"zext i32 {leaving} to i64")
        self.call_runtime("exit_lanes", "%Bi", "%Wi", wide, self.frame.granule, memory.check_bits(self.frame))

    def _end(self) -> None:
        """Falling off the end is an exit."""
        self.code.start("the_end")
        self.exit_lanes(self.code.v("load i32, ptr %mask"))
        self.code.goto("dispatch")


def is_barrier_like(instruction: Instruction) -> bool:
    """Instructions after which a warp may be suspended; they end a coarse block."""
    return (is_aligned(instruction) and instruction.name in ("bar", "barrier")) or instruction.name == "nanosleep"
