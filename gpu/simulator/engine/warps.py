"""Instructions of a whole warp or block: shfl, vote, match, redux, activemask, barriers, nanosleep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsparse.gpu.simulator.engine import layout
from loadsparse.gpu.simulator.engine.blocks import Block, is_barrier, is_loose_barrier, is_masked_sync, live_out
from loadsparse.gpu.simulator.engine.ir import FULL, lanes, splat, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.engine.memory import call_runtime, report_undefined, widen
from loadsparse.gpu.simulator.program import Immediate, Instruction

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.engine.leaving import Leaving


def gather(x: Lowering, instruction: Instruction, block: Block, translation: Leaving) -> str:
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


def suspend(translation: Leaving, x: Lowering, block: Block, instruction: Instruction, mask: str) -> None:
    """Ends a block with a barrier or nanosleep: go on, or give up the turn."""
    code = x.code
    following = block.number + 1
    translation.guarded(x, instruction)
    if instruction.guard is not None:
        raise refuse(instruction, "a guard on a barrier")
    if instruction.name == "nanosleep":
        translation.store_pc(mask, splat("i32", following))
        translation.stand_back(mask)
        return
    if is_loose_barrier(instruction):
        return _arrive_loosely(translation, block, instruction, mask)
    reduction = "red" in instruction.modifiers
    operands = instruction.operands[1:] if reduction else instruction.operands
    how = layout.WAITS * ("arrive" not in instruction.modifiers) + layout.REDUCES * reduction
    how += layout.WATCHES * x.frame.checks.convergence
    counted = len(operands) > (2 if reduction else 1)
    if not isinstance(operands[0], Immediate):
        raise refuse(instruction)
    threads = "0"
    if counted:
        lane = code.intrinsic("llvm.cttz.i32", "i32", ("i32", mask), ("i1", "false"))
        count = code.v(f"extractelement {vec('i32')} {x.get(operands[1], 'b32')}, i32 {lane}")
        threads = code.v(f"zext i32 {count} to i64")
    flags = code.bits(x.get(operands[-1], "pred")) if reduction else FULL
    translation.name_barrier(block.stop - 1)
    waiting = call_runtime(x, "arrive", "%Bi", "%Wi", block.stop - 1, operands[0].value, threads, how, widen(x, flags))
    if reduction:
        following = translation.resume(block)
        translation.store_pc(mask, splat("i32", following))
    hold, on = code.fresh("hold"), code.fresh("on")
    code.branch(code.v(f"icmp ne i64 {waiting}, 0"), hold, on)
    code.start(hold)
    if not reduction:
        translation.store_pc(mask, splat("i32", following))
    code.close(f"ret i64 {layout.WAITS}")
    code.start(on)
    if reduction:
        code.goto("dispatch")
        _fetch(translation, block, instruction, mask)
    else:
        translation.go(following, mask, block)


def _arrive_loosely(translation: Leaving, block: Block, instruction: Instruction, mask: str) -> None:
    """barrier.sync 0: lanes wait for the rest of their warp, which may come from elsewhere; then the warp arrives."""
    code = translation.code
    number = instruction.operands[0]
    if len(instruction.operands) > 1 or not isinstance(number, Immediate) or number.value != 0:
        raise refuse(instruction, "other than barrier.sync 0")
    translation.store_pc(mask, splat("i32", block.number + 1))
    translation.name_barrier(block.stop - 1)
    wide = code.v(f"zext i32 {mask} to i64")
    translation.hold_or_dispatch(translation.call_runtime("arrive_lanes", "%Bi", "%Wi", block.stop - 1, wide))


def _fetch(translation: Leaving, block: Block, instruction: Instruction, mask: str) -> None:
    """Writes the result of bar.red and goes on behind it."""
    code = translation.code
    code.start(f"fetch_{block.number}")
    if translation.masked:
        mask = code.v("load i32, ptr %mask")
    x = Lowering(translation.frame, code, mask, live_out(translation.flow, block))
    result = code.load("i64", "%W", layout.W_RESULT, 8)
    if "popc" in instruction.modifiers:
        value = code.broadcast("i32", code.v(f"trunc i64 {result} to i32"))
        x.put_operand(instruction.operands[0], value, "i32", FULL)
    else:
        shift = 32 if "and" in instruction.modifiers else 33
        bit = code.v(f"trunc i64 {code.v(f'lshr i64 {result}, {shift}')} to i1")
        x.put_operand(instruction.operands[0], code.broadcast("i1", bit), "i1", FULL)
    translation.go(block.number + 1, mask, block)


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
        call_runtime(x, "report_lanes", "%Bi", "%Wi", layout.CONVERGENCE, x.frame.index, widen(x, bad), layout.INACTIVE)
        code.goto(after)
        code.start(after)
    gathered, known = _gather(x, value, source), FULL
    own_known = x.defined_of(instruction.operands[1])
    rest, holes = x.defined_of(*instruction.operands[2:4]), None
    if x.frame.fine and own_known != FULL:
        holes = _gather(x, x.holes_of(instruction.operands[1], "b32"), source)
        holes = holes if rest == FULL else code.select(code.flags(rest), "i32", holes, splat("i32", -1))
    elif own_known != FULL:
        wide = code.broadcast("i32", own_known)
        bits = code.op("and", small, code.op("lshr", small, wide, source), splat("i32", 1))
        known = code.bits(code.v(f"icmp ne {small} {bits}, zeroinitializer"))
    known = code.mask_and(known, rest)
    x.put_operand(first, gathered, "i32", known, holes)
    x.put_operand(second, valid, "i1", rest)


def _gather(x: Lowering, value: str, source: str) -> str:
    """The value that lane `source` has, for each lane."""
    code, small = x.code, vec("i32")
    code.store(small, value, "%W", layout.W_DATA, 64)
    places = code.v(f"getelementptr i32, ptr {code.at('%W', layout.W_DATA)}, {small} {source}")
    every = ("<32 x i1>", splat("i1", 1))
    return code.intrinsic(
        "llvm.masked.gather.v32i32.v32p0", small, ("<32 x ptr>", places), every, (small, "zeroinitializer")
    )


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


@lowers("membar", "fence")
def fence(x: Lowering, instruction: Instruction) -> None:
    """Orders strong accesses, where a kernel has any that order."""
    if x.frame.orders_by_atomics and x.frame.checks.races and "proxy" not in instruction.modifiers:
        wide = not {"cta", "cluster"} & set(instruction.modifiers)
        call_runtime(x, "fence_lanes", "%Bi", "%Wi", widen(x, x.mask), int(wide))


@lowers("match")
def match(x: Lowering, instruction: Instruction) -> None:
    """any: the participants with this lane's value; all: everyone's mask if all values agree, else 0."""
    if not is_masked_sync(instruction):
        raise refuse(instruction)
    code = x.code
    width = 64 if "b64" in instruction.modifiers else 32
    element = f"i{width}"
    value = x.get(instruction.operands[1], f"b{width}")
    first, second = x.second(instruction.operands[0])
    known = _everyone_defined(x, instruction)
    if "all" in instruction.modifiers:
        lane = code.intrinsic("llvm.cttz.i32", "i32", ("i32", x.mask), ("i1", "false"))
        lead = code.v(f"extractelement {vec(element)} {value}, i32 {code.v(f'and i32 {lane}, 31')}")
        other = code.bits(code.v(f"icmp ne {vec(element)} {value}, {code.broadcast(element, lead)}"))
        same = code.v(f"icmp eq i32 {code.mask_and(other, x.mask)}, 0")
        mask = code.v(f"select i1 {same}, i32 {x.mask}, i32 0")
        x.put_operand(first, code.broadcast("i32", mask), "i32", known)
        x.put_operand(second, code.broadcast("i1", same), "i1", known)
        return
    result = splat("i32", 0)
    for lane_number in range(32):
        lead = code.v(f"extractelement {vec(element)} {value}, i32 {lane_number}")
        same_lanes = code.bits(code.v(f"icmp eq {vec(element)} {value}, {code.broadcast(element, lead)}"))
        mask = code.mask_and(same_lanes, x.mask)
        result = code.v(f"insertelement {vec('i32')} {result}, i32 {mask}, i32 {lane_number}")
    x.put_operand(first, result, "i32", known)


def _everyone_defined(x: Lowering, instruction: Instruction) -> str:
    """All ones if the source is defined in every participant, else 0."""
    defined = x.defined_of(instruction.operands[1])
    if defined == FULL:
        return FULL
    hole = x.code.mask_and(x.code.v(f"xor i32 {defined}, -1"), x.mask)
    return x.code.v(f"sext i1 {x.code.v(f'icmp eq i32 {hole}, 0')} to i32")


@lowers("redux")
def reduce(x: Lowering, instruction: Instruction) -> None:
    """add, min, max, and, or, xor over the participants."""
    if not is_masked_sync(instruction):
        raise refuse(instruction)
    code, small = x.code, vec("i32")
    mode = next(m for m in instruction.modifiers if m in ("add", "min", "max", "and", "or", "xor"))
    signed = instruction.modifiers[-1] == "s32"
    neutral = {"add": 0, "or": 0, "xor": 0, "and": -1}
    if mode in ("min", "max"):
        neutral[mode] = {"smin": 0x7FFFFFFF, "smax": 0x80000000, "umin": -1, "umax": 0}[("s" if signed else "u") + mode]
        kind = ("s" if signed else "u") + mode
    else:
        kind = mode
    value = x.get(instruction.operands[1], "b32")
    value = code.select(code.flags(x.mask), "i32", value, splat("i32", neutral[mode]))
    total = code.intrinsic(f"llvm.vector.reduce.{kind}.v32i32", "i32", (small, value))
    x.put_operand(instruction.operands[0], code.broadcast("i32", total), "i32", _everyone_defined(x, instruction))


@lowers("elect")
def elect(x: Lowering, instruction: Instruction) -> None:
    """d = the lowest participant; p is true there."""
    code = x.code
    first, second = x.second(instruction.operands[0])
    lane = code.intrinsic("llvm.cttz.i32", "i32", ("i32", x.mask), ("i1", "false"))
    leader = code.broadcast("i32", lane)
    x.put_operand(first, leader, "i32", FULL)
    own = lanes("i32", list(range(32)))
    x.put_operand(second, code.v(f"icmp eq {vec('i32')} {own}, {leader}"), "i1", FULL)
