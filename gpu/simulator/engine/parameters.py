"""Loads and stores, those of parameters apart; and calls of the CUDA run time's functions, with which a native run ends.

Memory is then put back, and the interpreter executes the launch: an assertion that holds costs nothing.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout, memory
from loadsparse.gpu.simulator.engine.ir import FULL
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.program import Address, Instruction, Operand, Variable, Vector


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
    """The arguments of a call are not stored: only the interpreter would read them."""
    if memory.space_of(instruction) != layout.PARAM:
        return memory.store(x, instruction)
    place = _place(instruction.operands[0])
    width, count = memory.access_bytes(instruction)
    if place is None or not 0 <= place[1] <= place[0].size - width * count or place[1] % (width * count):
        raise refuse(instruction, "a parameter access out of bounds")
    return memory.report_undefined(x, x.bad_guard, "0", "0", width * count)


def _load_parameter(x: Lowering, instruction: Instruction, variable: Variable, offset: int) -> None:
    """A launch parameter, the same for every lane; or the result of a call, behind which no lane comes."""
    code, place = x.code, variable.offset + offset
    width, count = memory.access_bytes(instruction)
    given = variable in x.frame.kernel.parameters
    if not given:
        leave_to_interpreter(x)
    elif place < 0 or place + width * count > x.frame.param_bytes or place % (width * count):
        raise refuse(instruction, "a parameter access out of bounds")
    base = code.load("ptr", "%B", layout.B_PARAM, 8)
    destination, element = instruction.operands[0], f"i{8 * width}"
    targets = destination.elements if isinstance(destination, Vector) else (destination,)
    signed = instruction.modifiers[-1].startswith("s")
    for index, target in enumerate(targets):
        if target is not None:
            value = code.load(element, base, place + index * width, 1) if given else "0"
            memory.put_loaded(x, target, code.broadcast(element, value), element, signed, FULL)
