"""How a group of lanes leaves a basic block: branches, exits, traps, suspension; and guards."""

from __future__ import annotations

from loadsparse.gpu.simulator.bypass import Bypasses
from loadsparse.gpu.simulator.engine import layout, memory, parameters, runtime, warps
from loadsparse.gpu.simulator.engine.blocks import Block, Flow, branch_labels, is_aligned, is_barrier, is_loose_barrier
from loadsparse.gpu.simulator.engine.ir import FULL, Code, splat, vec
from loadsparse.gpu.simulator.engine.lowering import Frame, Lowering, refuse
from loadsparse.gpu.simulator.program import Instruction, Kernel
from loadsparse.gpu.simulator.request import QUANTUM, Checks


class Leaving:
    """The part of a translation that ends blocks."""

    kernel: Kernel
    checks: Checks
    flow: Flow
    bypasses: Bypasses
    code: Code
    frame: Frame
    count: int
    masked: bool
    """Which form is being emitted."""

    def resumes(self, block: Block) -> bool:
        """True if a warp that was suspended at the end of this block has a result to fetch (bar.red)."""
        last = self.kernel.instructions[block.stop - 1]
        return is_barrier_like(last) and "red" in last.modifiers

    def name_barrier(self, site: int) -> None:
        """Says which of the barriers that can be gone past the warp comes to."""
        if self.bypasses.sites:
            self.code.store("i32", str(self.bypasses.slot(site)), "%W", layout.W_SLOT, 4)

    def resume(self, block: Block) -> int:
        """The program counter, behind those of all blocks, at which it does so."""
        return self.count + 1 + block.number

    def call_runtime(self, name: str, *arguments: str | int) -> str:
        return self.code.call(runtime.prefix() + name, "i64", *(("i64", str(a)) for a in arguments))

    def _bump(self, base: str, offset: int, by: str) -> None:
        code = self.code
        place = code.at(base, offset)
        value = code.v(f"load i64, ptr {place}, align 8")
        code.emit(f"store i64 {code.v(f'add i64 {value}, {by}')}, ptr {place}, align 8")

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

    def lanes_missing(self, lowering: Lowering) -> None:
        """Reports, for its lowest lane, a warp that is not whole where all lanes exchange data."""
        code, group = self.code, lowering.group_mask
        lowest = code.v(f"and i32 {group}, {code.v(f'sub i32 0, {group}')}")
        part = code.v(f"icmp ne i32 {group}, -1")
        some = code.v(f"icmp ne i32 {lowering.mask}, 0")
        bad = code.v(f"select i1 {code.v(f'and i1 {part}, {some}')}, i32 {lowest}, i32 0")
        self._report_convergence(bad, layout.MISSING)

    def _guards_differ(self, lowering: Lowering) -> None:
        """Reports the lanes whose guard is false at an aligned instruction, unless all are."""
        code = self.code
        absent = code.v(f"xor i32 {lowering.mask}, {lowering.group_mask}")
        some = code.v(f"icmp ne i32 {lowering.mask}, 0")
        self._report_convergence(code.v(f"select i1 {some}, i32 {absent}, i32 0"), layout.GUARDS_DIFFER)

    def _report_convergence(self, bad: str, detail: int) -> None:
        """Reports the lanes of a mask, if there are any."""
        code = self.code
        cold, after = code.fresh("differ"), code.fresh("agree")
        code.branch(code.v(f"icmp ne i32 {bad}, 0"), cold, after, likely=False)
        code.start(cold)
        wide = code.v(f"zext i32 {bad} to i64")
        self.call_runtime("report_lanes", "%Bi", "%Wi", layout.CONVERGENCE, self.frame.index, wide, detail)
        code.goto(after)
        code.start(after)

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
                self.guarded(lowering, last)
                parameters.call(lowering, last)
                self.go(following, mask, block)
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
            back = code.fresh("back")
            code.branch(full, back, f"masked_{target}")
            code.start(back)
            self.store_pc(FULL, splat("i32", target))
            code.goto("again")
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
        # volatile: a launch that is interrupted has its budget taken away from outside
        budget = code.v(f"load volatile i64, ptr {code.at(worker, layout.K_BUDGET)}, align 8")
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
        self.stand_back(mask)

    def stand_back(self, mask: str) -> None:
        """Ends the turn; in the next one these lanes run when no other can."""
        code = self.code
        code.store("i32", mask, "%W", layout.W_ASIDE, 4)
        code.close(f"ret i64 {layout.YIELDED}")

    def _exit(self, lowering: Lowering, block: Block, instruction: Instruction, mask: str) -> None:
        self.guarded(lowering, instruction)
        leaving = lowering.mask
        if instruction.guard is not None:
            self.store_pc(mask, splat("i32", block.number + 1))
        arrived = self.exit_lanes(leaving)
        if any(is_loose_barrier(i) for i in self.kernel.instructions):
            self.hold_or_dispatch(arrived)
        else:
            self.code.goto("dispatch")

    def hold_or_dispatch(self, waiting: str) -> None:
        """Gives up the turn if the warp waits at a barrier now."""
        code = self.code
        hold = code.fresh("hold")
        code.branch(code.v(f"icmp ne i64 {waiting}, 0"), hold, "dispatch")
        code.start(hold)
        code.close(f"ret i64 {layout.WAITS}")

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

    def exit_lanes(self, leaving: str) -> str:
        """Returns 1 if the rest of the warp waits at a barrier."""
        wide = self.code.v(f"zext i32 {leaving} to i64")
        return self.call_runtime("exit_lanes", "%Bi", "%Wi", wide, self.frame.granule, memory.check_bits(self.frame))


def is_barrier_like(instruction: Instruction) -> bool:
    """Instructions after which a warp may be suspended; they end a coarse block."""
    return is_barrier(instruction) or instruction.name == "nanosleep"
