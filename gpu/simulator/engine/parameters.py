"""Loads and stores, those of parameters apart; and calls of the CUDA run time's functions.

printf prints.  An assertion that fails ends the native run: memory is put back, and the interpreter executes the launch.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout, memory
from loadsparse.gpu.simulator.engine.blocks import branch_labels
from loadsparse.gpu.simulator.engine.ir import FULL, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.program import Address, Call, Instruction, Operand, Register, Variable, Vector


def leave_to_interpreter(x: Lowering) -> None:
    """Ends this run where a lane gets here."""
    code = x.code
    leave, on = code.fresh("leave"), code.fresh("on")
    code.branch(code.v(f"icmp ne i32 {x.mask}, 0"), leave, on, likely=False)
    code.start(leave)
    memory.call_runtime(x, "doubt", "%Bi", layout.CALLED)
    code.close(f"ret i64 {layout.STOPPED}")
    code.start(on)


def _place(operand: Operand | None) -> tuple[Variable, int] | None:
    """The variable that an operand addresses, and the offset in it."""
    match operand:
        case Variable():
            return operand, 0
        case Address(base=Variable() as variable, offset=offset):
            return variable, offset
    return None


@lowers("ld", "ldu")
def load(x: Lowering, instruction: Instruction) -> None:
    place = _place(instruction.operands[1])
    if memory.space_of(instruction) == layout.PARAM and place is not None:
        return _load_parameter(x, instruction, *place)
    return memory.load(x, instruction)


@lowers("st")
def store(x: Lowering, instruction: Instruction) -> None:
    """The arguments of a call are kept for it; nothing else reads them."""
    if memory.space_of(instruction) != layout.PARAM:
        return memory.store(x, instruction)
    place = _place(instruction.operands[0])
    width, count = memory.access_bytes(instruction)
    if place is None or not 0 <= place[1] <= place[0].size - width * count or place[1] % (width * count):
        raise refuse(instruction, "a parameter access out of bounds")
    x.arguments.pop(place, None)
    if width == 8 and count == 1 and instruction.guard is None:
        x.arguments[place] = x.get(instruction.operands[1], "b64")
    return memory.report_undefined(x, x.bad_guard, "0", "0", width * count)


def call(x: Lowering, instruction: Instruction) -> None:
    """vprintf prints; of the others (an assertion fails) the interpreter takes care."""
    called = instruction.operands[0]
    if not isinstance(called, Call):
        raise refuse(instruction)
    passed = [x.arguments.get((v, 0), "") if isinstance(v, Variable) else "" for v in called.arguments]
    if called.callee.name != "vprintf" or len(passed) != 2 or not all(passed):
        return leave_to_interpreter(x)
    code = x.code
    say, on = code.fresh("print"), code.fresh("on")
    code.branch(code.v(f"icmp ne i32 {x.mask}, 0"), say, on)
    code.start(say)
    for place, addresses in zip((layout.W_ADDRESS, layout.W_DATA), passed, strict=True):
        code.store(vec("i64"), addresses, "%W", place, 64)
    memory.call_runtime(x, "print_lanes", "%Bi", "%Wi", memory.widen(x, x.mask))
    code.goto(on)
    return code.start(on)


def _was_printed(x: Lowering, variable: Variable, offset: int, width: int) -> bool:
    """True if a variable holds the result of the vprintf right before this block, and nobody else comes here."""
    kernel, index = x.frame.kernel, x.frame.index
    start = max(leader for leader in x.frame.flow.block_at if leader <= index)
    before = kernel.instructions[start - 1] if start else None
    if before is None or before.name != "call" or before.guard is not None or (offset, width) != (0, 4):
        return False
    called = before.operands[0]
    targets = {t for i in kernel.instructions if i.name in ("bra", "brx") for t in branch_labels(kernel, i)}
    return (
        isinstance(called, Call)
        and called.callee.name == "vprintf"
        and called.results == (variable,)
        and start not in targets
    )


def _load_parameter(x: Lowering, instruction: Instruction, variable: Variable, offset: int) -> None:
    """A launch parameter, the same for every lane; or the result of a call."""
    code, place = x.code, variable.offset + offset
    width, count = memory.access_bytes(instruction)
    memory.report_undefined(x, x.bad_guard, "0", "0", width * count)
    destination, element = instruction.operands[0], f"i{8 * width}"
    if isinstance(destination, Register) and _was_printed(x, variable, offset, width * count):
        taken = code.load(vec("i32"), "%W", layout.W_PRINTED, 64)
        memory.put_loaded(x, destination, taken, "i32", instruction.modifiers[-1].startswith("s"), FULL)
        return
    given = variable in x.frame.kernel.parameters
    if not given:
        leave_to_interpreter(x)
    elif place < 0 or place + width * count > x.frame.param_bytes or place % (width * count):
        raise refuse(instruction, "a parameter access out of bounds")
    base = code.load("ptr", "%B", layout.B_PARAM, 8)
    targets = destination.elements if isinstance(destination, Vector) else (destination,)
    signed = instruction.modifiers[-1].startswith("s")
    for index, target in enumerate(targets):
        if target is not None:
            value = code.load(element, base, place + index * width, 1) if given else "0"
            memory.put_loaded(x, target, code.broadcast(element, value), element, signed, FULL)
