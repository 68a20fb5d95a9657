"""What the lowering of one instruction sees: operands as vectors, the active mask, defined bits, results.

Inside a block every register is an SSA value; registers that a later block reads are stored to the warp's register
file when they are written.  `lowers` registers one function per opcode name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from loadsparse.gpu.simulator.engine.blocks import Flow, written
from loadsparse.gpu.simulator.engine.ir import FULL, Code, Unsupported, splat, vec
from loadsparse.gpu.simulator.engine.mma import Multiply
from loadsparse.gpu.simulator.engine.specials import special_register
from loadsparse.gpu.simulator.program import (
    WIDTH,
    Address,
    Immediate,
    Instruction,
    Kernel,
    Negated,
    Operand,
    Pair,
    Register,
    Special,
    Variable,
    Vector,
)
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, CONSTANT, LOCAL, PARAM, SHARED, Checks

WINDOW = {"shared": SHARED, "local": LOCAL, "const": CONSTANT, "global": CONSTANT, "param": PARAM}


def refuse(instruction: Instruction, why: str = "") -> Unsupported:
    """The exception for an instruction that this engine does not know."""
    detail = f" ({why})" if why else ""
    return Unsupported(f"line {instruction.line}: the LLVM engine does not support {instruction.opcode}{detail}")


Lowerer = Callable[["Lowering", Instruction], None]
TABLE: dict[str, Lowerer] = {}
LEFT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "sub", "mul", "mad", "fma", "div", "rcp", "sqrt"), ("rz.f64", "rm.f64", "rp.f64")),
    **dict.fromkeys(("ld", "ldu"), ("v4.b64", "v4.u64", "v4.s64", "v4.f64")),
    "st": ("v4.b64", "v4.u64", "v4.s64", "v4.f64"),
    "cp": ("mbarrier",),
    "barrier": ("arrive",),
    "call": ("functions of the module",),
    **dict.fromkeys(("mma", "wmma"), ("s4", "u4", "b1")),
    **dict.fromkeys(("atom", "red"), ("v2", "v4", "v8", "b128")),
    "mov": ("v2", "v4", "b128"),
    **dict.fromkeys(("vabsdiff2", "vabsdiff4"), ("sat",)),
}
"""Forms of these opcodes that are left to the interpreter, as modifiers that occur together (of calls in words)."""


SPREADS: dict[str, Callable[[Lowering, Instruction], str | None]] = {}
"""How holes (bits that are not defined) spread through an instruction, where one does not make its result undefined."""


def lowers(*names: str) -> Callable[[Lowerer], Lowerer]:
    """Registers the lowering of opcodes."""

    def register(function: Lowerer) -> Lowerer:
        TABLE.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass(slots=True)
class Frame:
    """What is fixed for one kernel: flow, checks, and the place of every register in a warp's memory."""

    kernel: Kernel
    flow: Flow
    checks: Checks
    arch: str
    granule: int
    static_shared: int
    slots: dict[int, int]
    """Register index -> byte offset in the warp structure."""
    defined_slots: dict[int, int]
    helpers: dict[str, str] = field(default_factory=dict)
    """IR of the helper functions that the kernel needs, by name."""
    fine: bool = False
    """Definedness is followed bit by bit, not register by register."""
    carried: frozenset[int] = frozenset()
    """Loads that may carry padding along, in cells of so many bytes."""
    cell: int = 1
    called: set[str] = field(default_factory=set)
    """Those that the form being emitted calls."""
    multiplies: dict[str, Multiply] = field(default_factory=dict)
    """The Tensor Core variants that it needs, by name."""
    has_copies: bool = False
    global_granule: int = 4
    orders_by_atomics: bool = False
    """Strong accesses order others."""
    reads_clock: bool = False
    counted_to: int = 0
    """The instruction before which W_STEPPED has been brought up to date."""
    param_bytes: int = 0
    index: int = 0
    """Instruction being lowered."""


def element_of(register: Register) -> str:
    """LLVM type of one lane."""
    width = WIDTH[register.type]
    return f"i{16 if width == 8 else width}"


class Lowering:
    """The state of one block being emitted."""

    def __init__(self, frame: Frame, code: Code, mask: str, live_out: set[int]) -> None:
        self.frame, self.code = frame, code
        self.group_mask = mask
        self.mask = mask
        self.live_out = live_out
        self.values: dict[int, str] = {}
        self.defined: dict[int, str] = {}
        self.holes: dict[int, str] = {}
        """Of registers (not predicates) in the fine form: the bits that are not defined."""
        self.bad_guard = "0"
        self.arguments: dict[tuple[Variable, int], str] = {}
        """64-bit parameters that this block has stored, by variable and offset."""
        self.carry = ""
        """Carry flags (<32 x i1>) that this block has set so far, if any."""

    # operands

    def value_of(self, register: Register) -> str:
        """The vector that a register holds now."""
        value = self.values.get(register.index)
        if value is None:
            element = element_of(register)
            offset = self.frame.slots.get(register.index)
            if offset is None:
                value = splat(element, 0)
            elif element == "i1":
                value = self.code.flags(self.code.load("i32", "%W", offset, 4))
            else:
                value = self.code.load(vec(element), "%W", offset, 64)
            self.values[register.index] = value
        return value

    def defined_register(self, register: Register) -> str:
        """i32 mask of the lanes in which a register is defined."""
        if not self.frame.checks.uninitialized or register.index not in self.frame.flow.maybe_undefined:
            return FULL
        if self.frame.fine and register.type != "pred":
            element = element_of(register)
            holes = self.holes_of_register(register)
            return (
                FULL
                if holes == splat(element, 0)
                else self.code.bits(self.code.v(f"icmp eq {vec(element)} {holes}, zeroinitializer"))
            )
        mask = self.defined.get(register.index)
        if mask is None:
            offset = self.frame.defined_slots.get(register.index)
            mask = self.code.load("i32", "%W", offset, 4) if offset is not None else "0"
            self.defined[register.index] = mask
        return mask

    def holes_of_register(self, register: Register) -> str:
        """The bits of a register that are not defined; memory holds those that are, so that fresh memory is undefined."""
        element, index = element_of(register), register.index
        if not self.frame.checks.uninitialized or index not in self.frame.flow.maybe_undefined:
            return splat(element, 0)
        if element == "i1":
            return self.code.op("xor", vec("i1"), self.code.flags(self.defined_register(register)), splat("i1", 1))
        holes = self.holes.get(index)
        if holes is None:
            offset = self.frame.defined_slots.get(index)
            known = self.code.load(vec(element), "%W", offset, 64) if offset is not None else splat(element, 0)
            holes = self.holes[index] = self.code.op("xor", vec(element), known, splat(element, -1))
        return holes

    def holes_of(self, operand: Operand | None, type_: str) -> str:
        """The bits of an operand, as wide as `type_`, that are not defined (fine form)."""
        element = f"i{WIDTH[type_]}"
        match operand:
            case Register():
                return self.resize(self.holes_of_register(operand), element_of(operand), element)
            case Negated(register=register):
                return self.holes_of_register(register)
            case Address(base=Register() as register):
                bad = self.code.flags(self.code.v(f"xor i32 {self.defined_register(register)}, -1"))
                return self.code.v(f"sext {vec('i1')} {bad} to {vec(element)}")
            case Vector(elements=elements):
                part = WIDTH[type_] // len(elements)
                return self.pack([self.holes_of(e, f"b{part}") for e in elements], part)
        return splat(element, 0)

    def missing_lanes(self, operand: Operand | None, type_: str) -> str:
        """Flags of the lanes in which any bit of an operand is not defined (fine form)."""
        element = f"i{WIDTH[type_]}"
        holes = self.holes_of(operand, type_)
        if holes == splat(element, 0):
            return splat("i1", 0)
        return holes if element == "i1" else self.code.v(f"icmp ne {vec(element)} {holes}, zeroinitializer")

    def spread(self, instruction: Instruction) -> str | None:
        """Holes of a result, in the fine form and where the instruction has a rule for them."""
        rule = SPREADS.get(instruction.name)
        return rule(self, instruction) if rule is not None and self.frame.fine else None

    def defined_of(self, *operands: Operand | None) -> str:
        """AND of the defined masks of operands."""
        mask = FULL
        for operand in operands:
            match operand:
                case Register():
                    mask = self.code.mask_and(mask, self.defined_register(operand))
                case Negated(register=register):
                    mask = self.code.mask_and(mask, self.defined_register(register))
                case Vector(elements=elements):
                    mask = self.code.mask_and(mask, self.defined_of(*elements))
                case Address(base=Register() as register):
                    mask = self.code.mask_and(mask, self.defined_register(register))
        return mask

    def get(self, operand: Operand | None, type_: str) -> str:
        """An operand as a vector of bit patterns as wide as `type_`."""
        width = WIDTH[type_]
        element = f"i{width}"
        match operand:
            case Register():
                return self.resize(self.value_of(operand), element_of(operand), element)
            case Negated(register=register):
                return self.code.op("xor", vec("i1"), self.value_of(register), splat("i1", 1))
            case Immediate(value=value, float_bits=float_bits):
                return splat(element, self.literal(value, float_bits, type_))
            case Special():
                return self.resize(*special_register(self.frame, self.code, operand), element)
            case Variable():
                return splat(element, self.variable_address(operand) & (2**width - 1))
            case Address(base=Variable() as base, offset=offset):
                return splat(element, (self.variable_address(base) + offset) & (2**width - 1))
            case Vector(elements=elements) if len(elements) * (part := width // max(1, len(elements))) == width:
                return self.pack([self.get(e, f"b{part}") for e in elements], part)
        raise Unsupported(f"the LLVM engine cannot read operand {operand!r}")

    @staticmethod
    def literal(value: int, float_bits: int, type_: str) -> int:
        """Bits of an immediate; a float literal is written for the width it is used at."""
        width = WIDTH[type_]
        if float_bits and float_bits != width:
            number = struct.unpack("<f" if float_bits == 32 else "<d", value.to_bytes(float_bits // 8, "little"))[0]
            if width not in (32, 64):
                raise Unsupported(f"a float literal where {type_} is wanted")
            value = int.from_bytes(struct.pack("<f" if width == 32 else "<d", number), "little")
        value &= 2**width - 1
        return value

    def variable_address(self, variable: Variable) -> int:
        """Offset of a variable in its window, or its generic address for global, const."""
        offset = variable.offset + (self.frame.static_shared if variable.dynamic else 0)
        return offset if variable.space in ("shared", "local", "param") else CONSTANT << ALLOCATION_BITS | offset

    def pack(self, parts: list[str], width: int) -> str:
        """Little-endian concatenation of vectors of `width` bits."""
        total = f"i{width * len(parts)}"
        result = splat(total, 0)
        for index, part in enumerate(parts):
            wide = self.resize(part, f"i{width}", total)
            if index:
                wide = self.code.op("shl", vec(total), wide, splat(total, width * index))
                result = self.code.op("or", vec(total), result, wide)
            else:
                result = wide
        return result

    def of_group(self, element: str, value: str) -> str:
        """A value that other lanes read: lanes outside the group (never started, exited) count as 0."""
        if self.group_mask == FULL:
            return value
        return self.code.select(self.code.flags(self.group_mask), element, value, splat(element, 0))

    # small vector algebra

    def resize(self, value: str, source: str, target: str) -> str:
        """Zero-extends or truncates integer lanes."""
        a, b = int(source[1:]), int(target[1:])
        if a == b:
            return value
        return self.code.v(f"{'zext' if a < b else 'trunc'} {vec(source)} {value} to {vec(target)}")

    def minimum(self, element: str, value: str, limit: int) -> str:
        """Unsigned minimum with a constant."""
        vector = vec(element)
        return self.code.intrinsic(f"llvm.umin.v32{element}", vector, (vector, value), (vector, splat(element, limit)))

    # results

    def put(self, register: Register, value: str, defined: str, holes: str | None = None) -> None:
        """Writes a register in the active lanes; `value` has the register's own width, and so have `holes`, which in
        the fine form take the place of `defined`.
        """
        element = element_of(register)
        index = register.index
        partial = self.mask != self.group_mask
        kept = index in self.live_out
        if partial or (kept and self.mask != FULL):
            old = self.value_of(register)
            value = self.code.select(self.code.flags(self.mask), element, value, old)
        self.values[index] = value
        offset = self.frame.slots.get(index)
        if kept and offset is not None:
            if element == "i1":
                self.code.store("i32", self.code.bits(value), "%W", offset, 4)
            else:
                self.code.store(vec(element), value, "%W", offset, 64)
        if not self.frame.checks.uninitialized or index not in self.frame.flow.maybe_undefined:
            return
        if self.frame.fine and element != "i1":
            self._put_holes(register, holes, defined, partial or (kept and self.mask != FULL))
        else:
            if holes is not None:
                defined = self.code.bits(self.code.op("xor", vec("i1"), holes, splat("i1", 1)))
            if partial or (kept and self.mask != FULL):
                defined = self.code.mask_blend(self.mask, defined, self.defined_register(register))
            self.defined[index] = defined
            offset = self.frame.defined_slots.get(index)
            if kept and offset is not None:
                self.code.store("i32", defined, "%W", offset, 4)

    def _put_holes(self, register: Register, holes: str | None, defined: str, blended: bool) -> None:
        code, element, index = self.code, element_of(register), register.index
        if holes is None and defined == FULL:
            holes = splat(element, 0)
        elif holes is None:
            holes = code.select(code.flags(defined), element, splat(element, 0), splat(element, -1))
        if blended:
            holes = code.select(code.flags(self.mask), element, holes, self.holes_of_register(register))
        self.holes[index] = holes
        offset = self.frame.defined_slots.get(index)
        if index in self.live_out and offset is not None:
            code.store(vec(element), code.op("xor", vec(element), holes, splat(element, -1)), "%W", offset, 64)

    def put_operand(
        self, operand: Operand | None, value: str, element: str, defined: str, holes: str | None = None
    ) -> None:
        """Writes a destination operand (a register, `_`, or {low, high} of a wide value), resizing."""
        if isinstance(operand, Register):
            target = element_of(operand)
            holes = None if holes is None else self.resize(holes, element, target)
            self.put(operand, self.resize(value, element, target), defined, holes)
        elif isinstance(operand, Vector):
            width = int(element[1:]) // len(operand.elements)
            for index, part in enumerate(operand.elements):
                if part is not None:
                    missing = None if holes is None else self.part(holes, element, index, width)
                    self.put_operand(part, self.part(value, element, index, width), f"i{width}", defined, missing)
        elif operand is not None:
            raise Unsupported(f"the LLVM engine cannot write operand {operand!r}")

    def part(self, value: str, element: str, index: int, width: int) -> str:
        """Bits [index width, (index + 1) width) of a vector."""
        moved = self.code.op("lshr", vec(element), value, splat(element, width * index)) if index else value
        return self.resize(moved, element, f"i{width}")

    def put_result(self, instruction: Instruction, value: str, defined: str | None = None) -> None:
        """Writes the one destination register of an instruction; by default defined where all sources are."""
        destination = written(instruction)[0]
        holes = self.spread(instruction) if defined != FULL else None
        if defined is None:
            defined = self.defined_of(*instruction.operands[1:])
        self.put(destination, value, defined, holes)

    def second(self, operand: Operand | None) -> tuple[Operand | None, Operand | None]:
        """A destination that may be a pair ``d|p``."""
        return (operand.first, operand.second) if isinstance(operand, Pair) else (operand, None)
