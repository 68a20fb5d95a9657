"""The typed program: what the parser builds and what both engines execute.

Nothing here executes anything.  An `Instruction` holds one PTX statement with its opcode split into parts, its
operands resolved (registers to declared registers, labels to instruction indices, variables to `Variable`), and the
place it came from.  Both engines read this structure and share nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Space = Literal["reg", "param", "global", "shared", "local", "const", "generic"]

WIDTH = {
    "pred": 1,
    **{f"{kind}{bits}": bits for kind in "bus" for bits in (8, 16, 32, 64)},
    "b128": 128,
    "f16": 16,
    "bf16": 16,
    "f32": 32,
    "f64": 64,
    "f16x2": 32,
    "bf16x2": 32,
    "s16x2": 32,
    "u16x2": 32,
    "tf32": 32,
    "e4m3": 8,
    "e5m2": 8,
    "e4m3x2": 16,
    "e5m2x2": 16,
}
"""Width in bits of every type a register or an operand may have."""


class PtxError(ValueError):
    """PTX that cannot be accepted: the message names line, column and the mend."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        self.line, self.column = line, column
        super().__init__(f"line {line}, column {column}: {message}" if line else message)


@dataclass(frozen=True, slots=True)
class Register:
    """A virtual register: `index` is its row in the register file of a kernel (predicates included)."""

    name: str
    type: str
    index: int


@dataclass(frozen=True, slots=True)
class Immediate:
    """A literal; `value` is an int, or the bit pattern of a float literal when `float_bits` is 32 or 64."""

    value: int
    float_bits: int = 0


@dataclass(frozen=True, slots=True)
class Special:
    """A special register such as `%tid` with component `x`, or `%laneid` with component ``""``."""

    name: str
    component: str = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """A declared variable or parameter; `offset` is its byte offset inside its space's frame."""

    name: str
    space: Space
    type: str
    size: int
    align: int
    offset: int
    data: bytes | None = None
    dynamic: bool = False
    """True for `.extern .shared x[]`: it starts where static shared memory ends."""
    register: Register | None = None
    """Of a parameter declared `.reg`: the register that holds it inside the function."""


@dataclass(frozen=True, slots=True)
class Address:
    """``[base + offset]``; base is a register, a variable, or None for an absolute address."""

    base: Register | Variable | None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Label:
    """A branch target, resolved to an index into `Kernel.instructions`."""

    name: str
    target: int


@dataclass(frozen=True, slots=True)
class FunctionName:
    """The callee of a `call`."""

    name: str


@dataclass(frozen=True, slots=True)
class Vector:
    """``{a, b, c, d}``; an element may be None where the source writes `_`."""

    elements: tuple[Operand | None, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """``d|p``: two destinations (setp, shfl, match)."""

    first: Operand | None
    second: Operand | None


@dataclass(frozen=True, slots=True)
class Negated:
    """``!p`` as a source operand."""

    register: Register


@dataclass(frozen=True, slots=True)
class Call:
    """Operands of `call (results), callee, (arguments)`."""

    results: tuple[Operand, ...]
    callee: FunctionName
    arguments: tuple[Operand, ...]


Operand = Register | Immediate | Special | Variable | Address | Label | FunctionName | Vector | Pair | Negated | Call


def registers_in(operand: Operand | None) -> Iterator[Register]:
    """Registers that an operand mentions."""
    match operand:
        case Register():
            yield operand
        case Negated(register=register) | Address(base=Register() as register):
            yield register
        case Vector(elements=elements):
            for element in elements:
                yield from registers_in(element)
        case Pair(first=first, second=second):
            yield from registers_in(first)
            yield from registers_in(second)
        case Call(results=results, arguments=arguments):
            for element in (*results, *arguments):
                yield from registers_in(element)
        case _:
            return


@dataclass(frozen=True, slots=True)
class Guard:
    """``@p`` or ``@!p``."""

    register: Register
    negated: bool


@dataclass(frozen=True, slots=True)
class Location:
    """A `.loc` directive: source file, line and column (1-based); `inlined_at` is the caller of inlined code."""

    file: str
    line: int
    column: int
    inlined_at: Location | None = None

    def own(self) -> Location:
        """The line to show: this one, or for code inlined from outside the kernel's folder (a library) its caller's."""
        frames = [self]
        while frames[-1].inlined_at is not None:
            frames.append(frames[-1].inlined_at)
        home = os.path.dirname(frames[-1].file)
        return next(frame for frame in frames if os.path.dirname(frame.file) == home)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One statement.

    `name` is the part before the first dot (``"add"``, ``"cp"``, ``"mma"``); `modifiers` is everything after it
    without dots, in source order (``("rn", "f32")``).  Destination operands come first, as in PTX.
    """

    name: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Guard | None
    line: int
    column: int
    location: Location | None
    text: str

    @property
    def opcode(self) -> str:
        return ".".join((self.name, *self.modifiers))


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """One `.entry` or `.func`: flat instruction list; a program counter is an index into it.

    `targets` maps label name to instruction index.  The parser ends every body with a `ret` (implied where the text
    has none), so that no program counter runs past the end.
    """

    name: str
    is_entry: bool
    parameters: tuple[Variable, ...]
    results: tuple[Variable, ...]
    registers: tuple[Register, ...]
    variables: tuple[Variable, ...]
    """Variables declared in the body: shared, local, param; offsets are within the frame of each space."""
    instructions: tuple[Instruction, ...]
    targets: dict[str, int] = field(default_factory=dict)
    branch_tables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """`.branchtargets` lists by label, for `brx.idx`."""
    max_threads: tuple[int, int, int] | None = None
    required_threads: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A whole PTX module."""

    version: str
    target: str
    kernels: dict[str, Kernel]
    globals: tuple[Variable, ...]
    """Module-scope variables: .global, .const and .shared."""
    text: str
