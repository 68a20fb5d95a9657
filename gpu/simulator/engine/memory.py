"""Loads, stores, cp.async and ldmatrix: the operands go to the warp's exchange area, a helper specialised for the kind
of access does the checked work, the results come back from the area."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout, runtime
from loadsparse.gpu.simulator.engine.ir import FULL, splat, vec
from loadsparse.gpu.simulator.engine.lowering import Frame, Lowering, element_of, lowers, refuse
from loadsparse.gpu.simulator.program import (
    WIDTH,
    Address,
    Immediate,
    Instruction,
    Kernel,
    Operand,
    Register,
    Variable,
    Vector,
)

SPACES = {
    "shared": layout.SHARED, "shared::cta": layout.SHARED, "global": layout.GLOBAL, "local": layout.LOCAL,
    "const": layout.GLOBAL, "param": layout.PARAM, "param::entry": layout.PARAM, "param::func": layout.PARAM,
}  # fmt: skip
ATOMIC_ORDERS = frozenset({"volatile", "relaxed", "acquire", "release", "acq_rel", "seq_cst"})


def space_of(instruction: Instruction) -> int:
    """The explicit state space, or generic."""
    return next((SPACES[m] for m in instruction.modifiers if m in SPACES), layout.GENERIC)


def access_bytes(instruction: Instruction) -> tuple[int, int]:
    """(bytes of one element, number of elements) of a load or store."""
    width = WIDTH[next(m for m in reversed(instruction.modifiers) if m in WIDTH)] // 8
    return width, 4 if "v4" in instruction.modifiers else 2 if "v2" in instruction.modifiers else 1


def bytes_in(instruction: Instruction, space: int) -> int | None:
    """Bytes per lane of an access that may reach a space."""
    if instruction.name in ("ld", "ldu", "st", "atom", "red"):
        if space_of(instruction) in (space, layout.GENERIC) and "const" not in instruction.modifiers:
            width, count = access_bytes(instruction)
            return width * count
    elif instruction.name == "wmma" and "mma" not in instruction.modifiers:
        return (
            WIDTH.get(instruction.modifiers[-1], 32) // 8 if space_of(instruction) in (space, layout.GENERIC) else None
        )
    elif space == layout.SHARED and instruction.name == "cp" and len(instruction.operands) >= 3:
        size = instruction.operands[2]
        return size.value if isinstance(size, Immediate) else 4
    return None


def narrowest_access(kernel: Kernel, space: int) -> int:
    """Bytes of the race granule: the narrowest access that may reach the space, at most 4."""
    return min([4, *(size for i in kernel.instructions if (size := bytes_in(i, space)) is not None)])


def strength(instruction: Instruction) -> int:
    """How an access takes part in races, in the bits of run-time functions."""
    words = set(instruction.modifiers)
    strong = instruction.name in ("atom", "red") or ATOMIC_ORDERS & words
    kind = layout.STRONG if strong else 0
    if strong and {"cta", "cluster"} & words:
        kind |= layout.NARROW
    return kind | (layout.STALE if "nc" in words or instruction.name == "ldu" else 0)


def orders_by_atomics(kernel: Kernel) -> bool:
    """True if strong accesses can order others: acquire or release occur, or fences beside strong accesses."""
    fences = any(i.name in ("membar", "fence") and "proxy" not in i.modifiers for i in kernel.instructions)
    ordering = any(
        {"acquire", "release", "acq_rel"} & set(i.modifiers) for i in kernel.instructions if i.name != "fence"
    )
    return ordering or (fences and any(strength(i) & layout.STRONG for i in kernel.instructions))


def order_by(x: Lowering, instruction: Instruction, reads: bool, writes: bool) -> None:
    """Lets a strong access, whose addresses lie in the exchange area, acquire and release."""
    if not (x.frame.orders_by_atomics and x.frame.checks.races and strength(instruction) & layout.STRONG):
        return
    words = set(instruction.modifiers)
    both = "acq_rel" in words
    wide = not strength(instruction) & layout.NARROW
    flags = (both or "acquire" in words, both or "release" in words, reads, writes, wide)
    space = space_of(instruction)
    call_runtime(x, "order_lanes", "%Bi", "%Wi", widen(x, x.mask), space, *(int(flag) for flag in flags))


def granule_of(x: Lowering, space: int) -> int:
    """Bytes of the race granule of a space; generic accesses look it up when they land."""
    return x.frame.global_granule if space == layout.GLOBAL else x.frame.granule


def check_bits(frame: Frame) -> int:
    """The checks as bits for run-time functions."""
    checks = frame.checks
    bits = layout.CHECK_BOUNDS * checks.bounds + layout.CHECK_ALIGNMENT * checks.alignment
    bits += layout.CHECK_UNINITIALIZED * checks.uninitialized + layout.CHECK_RACES * checks.races
    if frame.has_copies and checks.races:
        bits += layout.CHECK_PENDING
    return bits


def fine_bits(frame: Frame) -> int:
    """The checks of loads and stores, which in the fine form exchange the defined bits of every byte."""
    return check_bits(frame) | (layout.CHECK_FINE if frame.fine and frame.checks.uninitialized else 0)


def reports_itself(instruction: Instruction) -> bool:
    """Memory instructions report an undefined guard together with address and value, lane by lane."""
    return instruction.name in ("ld", "st", "atom", "red", "ldu") or (
        instruction.name == "cp" and len(instruction.operands) > 1
    )


def call_runtime(x: Lowering, name: str, *arguments: str | int) -> str:
    """Calls a run-time function with i64 arguments."""
    return x.code.call(runtime.prefix() + name, "i64", *(("i64", str(a)) for a in arguments))


def widen(x: Lowering, mask: str) -> str:
    """i32 mask as i64."""
    if mask == FULL:
        return "4294967295"
    return mask if mask == "0" else x.code.v(f"zext i32 {mask} to i64")


def report_undefined(x: Lowering, guards: str, addresses: str, values: str, size: int) -> None:
    """Reports undefined lanes on a cold path; masks are i32."""
    masks = [m for m in (guards, addresses, values) if m != "0"]
    if not masks or not x.frame.checks.uninitialized:
        return
    code = x.code
    bad = masks[0]
    for mask in masks[1:]:
        bad = code.v(f"or i32 {bad}, {mask}")
    cold, after = code.fresh("undefined"), code.fresh("defined")
    code.branch(code.v(f"icmp ne i32 {bad}, 0"), cold, after, likely=False)
    code.start(cold)
    if x.frame.fine:
        wide = [widen(x, m) for m in (guards, addresses, values)]
        call_runtime(x, "report_undefined", "%Bi", "%Wi", x.frame.index, *wide, size)
    else:
        call_runtime(x, "doubt", "%Bi", layout.DOUBTFUL)
    code.goto(after)
    code.start(after)


def missing(x: Lowering, defined: str, mask: str) -> str:
    """Lanes of `mask` that are not defined."""
    if defined == FULL or mask == "0":
        return "0"
    return x.code.mask_and(x.code.v(f"xor i32 {defined}, -1"), mask)


def address_vector(x: Lowering, operand: Operand | None) -> str:
    """<32 x i64> addresses; a 32-bit base wraps at 32 bits."""
    code = x.code
    if isinstance(operand, Variable):
        operand = Address(operand, 0)
    if isinstance(operand, Register):
        operand = Address(operand, 0)
    if isinstance(operand, Immediate):
        return splat("i64", operand.value)
    if not isinstance(operand, Address):
        raise TypeError(f"{operand!r} is no address")
    match operand.base:
        case Register() as register:
            element = element_of(register)
            value = x.value_of(register)
            if operand.offset:
                value = code.op("add", vec(element), value, splat(element, operand.offset))
            return x.resize(value, element, "i64")
        case Variable() as variable:
            return splat("i64", x.variable_address(variable) + operand.offset)
    return splat("i64", operand.offset)


def put_addresses(x: Lowering, operand: Operand | None) -> str:
    """Stores the addresses in the exchange area; returns the lanes whose address is undefined."""
    x.code.store(vec("i64"), address_vector(x, operand), "%W", layout.W_ADDRESS, 64)
    return missing(x, x.defined_of(operand), x.mask)


def helper(
    x: Lowering, name: str, function: str, *constants: int, pointers: tuple[str, ...] = (), support: str = ""
) -> str:
    """A function (B, W, site, mask) that is `function` with these constants (then pointers); returns its name.

    `support` is the IR of what the pointers name.
    """
    full = runtime.prefix() + "_".join([name, *(str(c) for c in constants)])
    passed = "".join(f", i64 {c}" for c in (*constants, *pointers))
    x.frame.helpers[full] = (
        f"{support}define i64 @{full}(i64 %B, i64 %W, i64 %site, i64 %mask) nounwind {{\n"
        f"  %r = call i64 @{runtime.prefix()}{function}(i64 %B, i64 %W, i64 %site, i64 %mask{passed})\n"
        f"  ret i64 %r\n}}\n"
    )
    x.frame.called.add(full)
    return full


def call_helper(x: Lowering, name: str) -> str:
    """Calls a helper for the active lanes; returns its result as an i32 mask."""
    arguments = (("i64", "%Bi"), ("i64", "%Wi"), ("i64", str(x.frame.index)), ("i64", widen(x, x.mask)))
    return x.code.v(f"trunc i64 {x.code.call(name, 'i64', *arguments)} to i32")


@lowers("createpolicy")
def policy(x: Lowering, instruction: Instruction) -> None:
    """Opaque, and nothing here depends on it."""
    x.put_result(instruction, splat("i64", 0), defined=FULL)


def load(x: Lowering, instruction: Instruction) -> None:
    space = space_of(instruction)
    source = instruction.operands[1]
    width, count = access_bytes(instruction)
    checks = fine_bits(x.frame)
    if checks & layout.CHECK_FINE and x.frame.index in x.frame.carried:
        checks |= x.frame.cell << layout.CHECK_CELL
    constants = (space, width * count, width, granule_of(x, space), strength(instruction), checks)
    bad_address = put_addresses(x, source)
    report_undefined(x, x.bad_guard, bad_address, "0", width * count)
    call_helper(x, helper(x, "load", "read", *constants))
    order_by(x, instruction, True, False)
    fine = x.frame.fine and x.frame.checks.uninitialized
    element = f"i{8 * width}"
    signed = instruction.modifiers[-1].startswith("s")
    destination = instruction.operands[0]
    targets = destination.elements if isinstance(destination, Vector) else (destination,)
    for index, target in enumerate(targets):
        if target is None:
            continue
        value = x.code.load(vec(element), "%W", layout.W_DATA + 256 * index, 64)
        if fine:
            known = x.code.load(vec(element), "%W", layout.W_KNOWN + 256 * index, 64)
            holes = x.code.op("xor", vec(element), known, splat(element, -1))
            put_loaded(x, target, value, element, signed, FULL, holes)
        else:
            defined = x.code.load("i32", "%W", layout.W_DEFINED + 4 * index, 4)
            put_loaded(x, target, value, element, signed, defined)
    return None


def put_loaded(
    x: Lowering, target: Operand, value: str, element: str, signed: bool, defined: str, holes: str | None = None
) -> None:
    """Sign- or zero-extends to the register."""
    if not isinstance(target, Register):
        raise TypeError(f"{target!r} is no destination")
    register = element_of(target)
    if signed and register != element:
        value = x.code.v(f"sext {vec(element)} {value} to {vec(register)}")
        holes = None if holes is None else x.code.v(f"sext {vec(element)} {holes} to {vec(register)}")
        element = register
    holes = None if holes is None else x.resize(holes, element, register)
    x.put(target, x.resize(value, element, register), defined, holes)


def store(x: Lowering, instruction: Instruction) -> None:
    space = space_of(instruction)
    width, count = access_bytes(instruction)
    code = x.code
    element = f"i{8 * width}"
    bad_address = put_addresses(x, instruction.operands[0])
    source = instruction.operands[1]
    sources = source.elements if isinstance(source, Vector) else (source,)
    bad_value = "0"
    for index, part in enumerate(sources):
        code.store(vec(element), x.get(part, f"b{8 * width}"), "%W", layout.W_DATA + 256 * index, 64)
        if x.frame.fine and x.frame.checks.uninitialized:
            holes = x.holes_of(part, f"b{8 * width}")
            known = code.op("xor", vec(element), holes, splat(element, -1))
            code.store(vec(element), known, "%W", layout.W_KNOWN + 256 * index, 64)
            bad = code.mask_and(code.bits(x.missing_lanes(part, f"b{8 * width}")), x.mask)
        else:
            defined = x.defined_of(part)
            code.store("i32", defined, "%W", layout.W_DEFINED + 4 * index, 4)
            bad = missing(x, defined, x.mask)
        bad_value = bad if bad_value == "0" else (code.v(f"or i32 {bad_value}, {bad}") if bad != "0" else bad_value)
    constants = (space, width * count, width, granule_of(x, space), strength(instruction), fine_bits(x.frame))
    order_by(x, instruction, False, True)
    outside = call_helper(x, helper(x, "store", "write", *constants))
    if space not in (layout.GLOBAL, layout.GENERIC):
        bad_value = "0"
    elif bad_value != "0":
        bad_value = code.mask_and(bad_value, outside)
    report_undefined(x, x.bad_guard, bad_address, bad_value, width * count)


@lowers("cp")
def copy_async(x: Lowering, instruction: Instruction) -> None:
    """cp.async.{ca,cg}, commit_group, wait_group, wait_all."""
    modifiers, operands = instruction.modifiers, instruction.operands
    if modifiers[:1] != ("async",) or "mbarrier" in modifiers:
        raise refuse(instruction)
    mask = widen(x, x.mask)
    bits = check_bits(x.frame)
    if "commit_group" in modifiers:
        call_runtime(x, "commit_group", "%Bi", "%Wi", mask)
    elif "wait_all" in modifiers:
        call_runtime(x, "wait_group", "%Bi", "%Wi", mask, -1, x.frame.granule, bits)
    elif "wait_group" in modifiers:
        allowed = operands[0]
        if not isinstance(allowed, Immediate):
            raise refuse(instruction)
        call_runtime(x, "wait_group", "%Bi", "%Wi", mask, allowed.value & 0xFFFFFFFF, x.frame.granule, bits)
    else:
        _copy(x, instruction, bits)


def _copy(x: Lowering, instruction: Instruction, bits: int) -> None:
    operands = instruction.operands
    size = operands[2]
    if not isinstance(size, Immediate) or size.value not in (4, 8, 16):
        raise refuse(instruction, "a copy size that is not 4, 8 or 16")
    code = x.code
    source = address_vector(x, operands[1])
    code.store(vec("i64"), source, "%W", layout.W_DATA, 64)
    count = splat("i32", size.value)
    needed = [operands[0], operands[1]]
    if len(operands) > 3:
        extra = operands[3]
        needed.append(extra)
        if isinstance(extra, Register) and extra.type == "pred":
            count = code.select(x.get(extra, "pred"), "i32", splat("i32", 0), count)
        else:
            count = x.minimum("i32", x.get(extra, "u32"), size.value)
    code.store(vec("i32"), count, "%W", layout.W_DATA + 256, 64)
    put_addresses(x, operands[0])
    bad_address = missing(x, x.defined_of(*needed), x.mask)
    report_undefined(x, x.bad_guard, bad_address, "0", size.value)
    call_helper(x, helper(x, "copy", "copy_lanes", size.value, x.frame.granule, bits))


@lowers("ldmatrix")
def load_matrix(x: Lowering, instruction: Instruction) -> None:
    """Rows come from the addresses of lanes 8j..8j+7; a row-major matrix already lies in lane order."""
    if instruction.guard is not None:
        raise refuse(instruction, "with a guard")
    modifiers = instruction.modifiers
    count = next(int(m[1]) for m in modifiers if m in ("x1", "x2", "x4"))
    space = space_of(instruction)
    code = x.code
    suppliers = (1 << 8 * count) - 1
    bad_address = put_addresses(x, instruction.operands[1])
    if bad_address != "0":
        bad_address = code.v(f"and i32 {bad_address}, {suppliers}")
    report_undefined(x, x.bad_guard, bad_address, "0", 16)
    call_helper(x, helper(x, "matrix", "read_rows", space, count, x.frame.granule, check_bits(x.frame)))
    if bad_address != "0":
        call_runtime(x, "forget_rows", "%Wi", widen(x, bad_address))
    destination = instruction.operands[0]
    targets = destination.elements if isinstance(destination, Vector) else (destination,)
    pairs = vec("i32")
    tracked = x.frame.checks.uninitialized
    order = ", ".join(f"i32 {(2 * (lane & 3) + half) * 8 + (lane >> 2)}" for lane in range(32) for half in (0, 1))
    for index, target in enumerate(targets):
        defined, holes = FULL, None
        if "trans" in modifiers:
            rows = code.load("<64 x i16>", "%W", layout.W_DATA + 128 * index, 64)
            rows = code.v(f"shufflevector <64 x i16> {rows}, <64 x i16> poison, <64 x i32> <{order}>")
            value = code.v(f"bitcast <64 x i16> {rows} to {pairs}")
        else:
            value = code.load(pairs, "%W", layout.W_DATA + 128 * index, 64)
        if tracked:
            known = code.load("<64 x i16>", "%W", layout.W_MATRIX_DEFINED + 128 * index, 64)
            if "trans" in modifiers:
                known = code.v(f"shufflevector <64 x i16> {known}, <64 x i16> poison, <64 x i32> <{order}>")
            known = code.v(f"bitcast <64 x i16> {known} to {pairs}")
            defined = code.bits(code.v(f"icmp eq {pairs} {known}, {splat('i32', -1)}"))
            holes = code.op("xor", pairs, known, splat("i32", -1)) if x.frame.fine else None
        if not isinstance(target, Register):
            raise refuse(instruction)
        x.put(target, value, defined, holes)
