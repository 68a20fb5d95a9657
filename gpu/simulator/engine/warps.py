"""Instructions of a whole warp or block: shfl, vote, match, redux, activemask, barriers, nanosleep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsparse.gpu.simulator.engine import layout
from loadsparse.gpu.simulator.engine.blocks import Block, is_barrier, is_masked_sync
from loadsparse.gpu.simulator.engine.ir import FULL, lanes, splat, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.engine.memory import call_runtime, report_undefined, widen
from loadsparse.gpu.simulator.program import Immediate, Instruction

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.engine.translate import Translation


def gather(x: Lowering, instruction: Instruction, block: Block, translation: Translation) -> str:
    """Which lanes pass a rendezvous by mask now (i64)."""
    code = x.code
    members = x.get(instruction.operands[-1], "b32")
    code.store(vec("i32"), members, "%W", layout.W_DATA, 64)
    guards = FULL
    if instruction.guard is not None:
        guards = code.bits(x.value_of(instruction.guard.register))
        if instruction.guard.negated:
            guards = code.v(f"xor i32 {guards}, -1")
    narrow = code.v("load i32, ptr %mask")
    report = 1 if x.frame.checks.convergence else 0
    return call_runtime(
        x, "gather_masked", "%Bi", "%Wi", block.start, widen(x, narrow), widen(x, guards), block.number, report
    )


def suspend(translation: Translation, x: Lowering, block: Block, instruction: Instruction, mask: str) -> None:
    """Ends a block with a barrier or nanosleep: go on, or give up the turn."""
    code = x.code
    following = block.number + 1
    translation.guarded(x, instruction)
    if instruction.guard is not None:
        raise refuse(instruction, "a guard on a barrier")
    if instruction.name == "nanosleep":
        translation.store_pc(mask, splat("i32", following))
        code.close(f"ret i64 {layout.YIELDED}")
        return
    modifiers, operands = instruction.modifiers, instruction.operands
    if "red" in modifiers:
        raise refuse(instruction)
    number, *rest = operands
    waits = 0 if "arrive" in modifiers else 1
    if not isinstance(number, Immediate) or rest or not waits:
        raise refuse(instruction)
    everyone = widen(x, FULL)
    waiting = call_runtime(
        x, "arrive", "%Bi", "%Wi", block.stop - 1, number.value, 0, waits, everyone
    )
    hold, on = code.fresh("hold"), code.fresh("on")
    code.branch(code.v(f"icmp ne i64 {waiting}, 0"), hold, on)
    code.start(hold)
    translation.store_pc(mask, splat("i32", following))
    code.close(f"ret i64 {layout.WAITS}")
    code.start(on)
    translation.go(following, mask, block)


@lowers("shfl")
def shuffle(x: Lowering, instruction: Instruction) -> None:
    """d = the value of lane j; p = j was in range."""
    if not is_masked_sync(instruction):
        raise refuse(instruction)
    code, small = x.code, vec("i32")
    mode = next(m for m in instruction.modifiers if m in ("up", "down", "bfly", "idx"))
    first, second = x.second(instruction.operands[0])
    value, b, c = (x.get(o, "b32") for o in instruction.operands[1:4])
    own = lanes("i32", list(range(32)))
    b = code.op("and", small, b, splat("i32", 31))
    clamp = code.op("and", small, c, splat("i32", 31))
    segment = code.op("and", small, code.op("lshr", small, c, splat("i32", 8)), splat("i32", 31))
    outside = code.op("xor", small, segment, splat("i32", -1))
    low = code.op("and", small, own, segment)
    high = code.op("or", small, low, code.op("and", small, clamp, outside))
    match mode:
        case "up":
            source = code.op("sub", small, own, b)
            valid = code.v(f"icmp sge {small} {source}, {high}")
        case "down":
            source = code.op("add", small, own, b)
            valid = code.v(f"icmp sle {small} {source}, {high}")
        case "bfly":
            source = code.op("xor", small, own, b)
            valid = code.v(f"icmp sle {small} {source}, {high}")
        case _:
            source = code.op("or", small, low, code.op("and", small, b, outside))
            valid = code.v(f"icmp sle {small} {source}, {high}")
    source = code.select(valid, "i32", source, own)
    # a source lane that takes no part: the lane keeps its own value
    here = code.broadcast("i32", x.mask) if x.mask != FULL else splat("i32", -1)
    bit = code.op("and", small, code.op("lshr", small, here, source), splat("i32", 1))
    absent = code.v(f"icmp eq {small} {bit}, zeroinitializer")
    source = code.select(absent, "i32", own, source)
    if x.frame.checks.convergence:
        bad = code.mask_and(code.bits(absent), x.mask)
        cold, after = code.fresh("absent"), code.fresh("present")
        code.branch(code.v(f"icmp ne i32 {bad}, 0"), cold, after, likely=False)
        code.start(cold)
        call_runtime(
            x, "report_lanes", "%Bi", "%Wi", layout.CONVERGENCE, x.frame.index, widen(x, bad), layout.INACTIVE
        )
        code.goto(after)
        code.start(after)
    code.store(small, value, "%W", layout.W_DATA, 64)
    base = code.at("%W", layout.W_DATA)
    places = code.v(f"getelementptr i32, ptr {base}, {small} {source}")
    gathered = code.intrinsic(
        "llvm.masked.gather.v32i32.v32p0", small, ("<32 x ptr>", places), ("<32 x i1>", splat("i1", 1)), (small, "zeroinitializer")
    )
    known = FULL
    own_known = x.defined_of(instruction.operands[1])
    rest = x.defined_of(*instruction.operands[2:4])
    if own_known != FULL:
        wide = code.broadcast("i32", own_known)
        bits = code.op("and", small, code.op("lshr", small, wide, source), splat("i32", 1))
        known = code.bits(code.v(f"icmp ne {small} {bits}, zeroinitializer"))
    known = code.mask_and(known, rest)
    x.put_operand(first, gathered, "i32", known)
    x.put_operand(second, valid, "i1", rest)


@lowers("vote")
def vote(x: Lowering, instruction: Instruction) -> None:
    """all, any, uni, ballot over the members."""
    if not is_masked_sync(instruction):
        raise refuse(instruction)
    code = x.code
    mode = next(m for m in instruction.modifiers if m in ("all", "any", "uni", "ballot"))
    flags = code.bits(x.get(instruction.operands[1], "pred"))
    here = x.mask
    true = code.mask_and(flags, here)
    defined = x.defined_of(instruction.operands[1])
    known = FULL
    if defined != FULL:
        hole = code.mask_and(code.v(f"xor i32 {defined}, -1"), here)
        known = code.v(f"sext i1 {code.v(f'icmp eq i32 {hole}, 0')} to i32")
    if mode == "ballot":
        return x.put_operand(instruction.operands[0], code.broadcast("i32", true), "i32", known)
    every = code.v(f"icmp eq i32 {true}, {here}")
    none = code.v(f"icmp eq i32 {true}, 0")
    if mode == "all":
        flag = every
    elif mode == "any":
        flag = code.v(f"xor i1 {none}, true")
    else:
        flag = code.v(f"or i1 {every}, {none}")
    return x.put_operand(instruction.operands[0], code.broadcast("i1", flag), "i1", known)


@lowers("activemask")
def active_mask(x: Lowering, instruction: Instruction) -> None:
    mask = splat("i32", -1) if x.mask == FULL else x.code.broadcast("i32", x.mask)
    x.put_result(instruction, mask, FULL)


@lowers("bar", "barrier")
def warp_barrier(x: Lowering, instruction: Instruction) -> None:
    """bar.warp.sync: orders the members' accesses to shared memory."""
    if is_barrier(instruction):
        raise refuse(instruction)
    if x.frame.checks.races:
        call_runtime(x, "synchronise_lanes", "%Bi", "%Wi", widen(x, x.mask))


__all__ = ["gather", "report_undefined", "suspend"]
