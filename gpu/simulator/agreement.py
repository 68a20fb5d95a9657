"""Operands must fit their instruction: PTX that NVIDIA's assembler refuses for its operands is refused here too.

The rule of widths is that of the PTX ISA, "Type information for instructions and operands": a register agrees with any type of
its own size; only loads, stores and conversions take wider ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from loadsparse.gpu.simulator.opcodes import OPCODES, VIDEO, destinations
from loadsparse.gpu.simulator.program import WIDTH, Immediate, Negated, Operand, Pair, Register, Vector

_SAME = (
    "add", "sub", "addc", "subc", "mul", "mad", "madc", "mul24", "mad24", "fma", "div", "rem", "abs", "neg", "min", "max",
    "sad", "copysign", "rcp", "sqrt", "rsqrt", "sin", "cos", "lg2", "ex2", "tanh", "and", "or", "xor", "not", "cnot", "brev",
    "mov", "cvta", "shf", "prmt", "dp4a", "dp2a", "fns", "bmsk", "szext", "redux", *VIDEO,
)  # fmt: skip
"""Mnemonics whose operands all have the (last) type."""
_RELAXED = ("ld", "ldu", "st", "cvt")
"""Mnemonics whose registers may be wider than the type."""
_BITS = {"shfl": 32, "activemask": 32, "ldmatrix": 32, "stmatrix": 32, "movmatrix": 32}


def _wanted(name: str, modifiers: tuple[str, ...], count: int) -> tuple[int, ...]:
    """Widths in bits of the operands, destinations first; () where nothing is required."""
    kinds = [modifier for modifier in modifiers if modifier in OPCODES[name].types]
    width = _BITS.get(name) or (WIDTH.get(kinds[-1], 0) if kinds else 0)
    if name in ("mul", "mad") and "wide" in modifiers:
        return (2 * width, width, width, 2 * width)[:count]
    if name in ("shl", "shr"):
        return width, width, 32
    if name in ("popc", "clz", "bfind"):
        return 32, width
    if name == "bfe":
        return width, width, 32, 32
    if name == "bfi":
        return width, width, width, 32, 32
    if name in ("setp", "set"):
        return (1 if name == "setp" else WIDTH[kinds[0]], width, width, 1)[:count]
    if name == "selp":
        return width, width, width, 1
    if name == "slct":
        return (*(WIDTH[kinds[0]],) * 3, 32)
    if name == "cvt":
        return (WIDTH[kinds[0]], width, width)[:count]
    if name == "testp":
        return 1, width
    if name == "isspacep":
        return 1, 0
    if name == "lop3":
        return 32, 32, 32, 32, 32, 1
    if name == "atom":
        return width, 0, width, width
    if name == "red":
        return 0, width
    return (width,) * count if name in _SAME or name in _BITS or name in _RELAXED else ()


def _registers(operand: Operand | None, whole: int) -> Iterator[tuple[Register, int]]:
    """The registers of an operand and the width each must have where the operand has `whole` bits."""
    if isinstance(operand, Register):
        yield operand, whole
    elif isinstance(operand, Negated):
        yield operand.register, 1
    elif isinstance(operand, Pair):
        yield from _registers(operand.first, whole)
        yield from _registers(operand.second, 1)


def _elements(name: str, operand: Operand | None, width: int, whole: bool) -> Iterator[tuple[Register, int]]:
    """As `_registers`; a vector that is moved as a `whole`, or has 128 bits, is cut into its parts, elements of others
    have the width.
    """
    if isinstance(operand, Vector):
        part = width // len(operand.elements) if width == 128 or (name == "mov" and whole) else width
        for element in operand.elements:
            yield from _registers(element, part)
    else:
        yield from _registers(operand, width)


def _can_be_written(operand: Operand | None) -> bool:
    """A register, the sink `_`, or several of them."""
    if isinstance(operand, Pair):
        return _can_be_written(operand.first) and _can_be_written(operand.second)
    if isinstance(operand, Vector):
        return all(map(_can_be_written, operand.elements))
    return operand is None or isinstance(operand, Register)


def _barrier(modifiers: tuple[str, ...], operands: tuple[Operand, ...]) -> str | None:
    """Why no block has such a barrier, where its number and count of threads are written in the instruction."""
    number, *count = operands[1:-1] if "red" in modifiers else operands
    if isinstance(number, Immediate) and number.value not in range(16):
        return f"barrier {number.value}: a block has barriers 0 to 15"
    if count and isinstance(count[0], Immediate) and count[0].value % 32:
        return f"a barrier of {count[0].value} threads: the number is a multiple of 32"
    return None


def disagreement(name: str, modifiers: tuple[str, ...], operands: tuple[Operand, ...]) -> str | None:
    """Which register does not fit its instruction, or what is written to is none; else None."""
    if not all(map(_can_be_written, operands[: destinations(name, modifiers)])):
        return f"'{'.'.join((name, *modifiers))}' writes to what is no register"
    if name in ("bar", "barrier") and "warp" not in modifiers and (wrong := _barrier(modifiers, operands)):
        return wrong
    for operand, width in zip(operands, _wanted(name, modifiers, len(operands)), strict=False):
        if not width:
            continue
        for register, wanted in _elements(name, operand, width, not {"v2", "v4"} & set(modifiers)):
            held = WIDTH[register.type]
            if (
                held == wanted
                or (name in _RELAXED and held > wanted > 1)
                or (max(held, wanted) == 16 and min(held, wanted) == 8)
            ):
                continue
            opcode = ".".join((name, *modifiers))
            return f"'{opcode}' wants {wanted} bits in {register.name}, which is .{register.type}"
    return None
