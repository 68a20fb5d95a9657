"""Operands of an instruction as functions of a warp: sources give 32 bit patterns, destinations take them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes, mask
from loadsparse.gpu.simulator.interpreter.warp import LANES, WARP, Warp
from loadsparse.gpu.simulator.program import (
    WIDTH,
    Address,
    Immediate,
    Kernel,
    Negated,
    Operand,
    Pair,
    Register,
    Special,
    Variable,
    Vector,
)
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, CONSTANT, GRID_WORKSPACE

Source = Callable[[Warp], Lanes]
ALL = np.ones(WARP, bool)
NONE = np.zeros(WARP, bool)
ZERO = np.zeros(WARP, np.uint64)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a function's registers and frames begin (layout.py), for one launch."""

    kernel: Kernel
    registers: int
    local: int
    param: int
    shared: int
    dynamic_shared: int

    def address(self, variable: Variable) -> int:
        """Window offset of a shared, local or param variable; full address of a global or const one."""
        if variable.dynamic:
            return self.dynamic_shared
        if variable.space in ("global", "const"):
            return (CONSTANT << ALLOCATION_BITS) + variable.offset
        own = any(variable is candidate for candidate in self.kernel.variables)
        frame = {"local": self.local, "param": self.param, "shared": self.shared if own else 0}
        return frame[variable.space] + variable.offset

    def row(self, register: Register) -> int:
        return self.registers + register.index


def width_of(register: Register) -> int:
    return max(16, WIDTH[register.type]) if register.type != "pred" else 1


def literal(immediate: Immediate, kind: str) -> int:
    """Bits of a literal where a `kind` is wanted; a float literal is converted to the width it is used at."""
    width = WIDTH[kind]
    value = immediate.value
    if immediate.float_bits and immediate.float_bits != width and width in (32, 64):
        formats = {32: ("<I", "<f"), 64: ("<Q", "<d")}
        integer, real = formats[immediate.float_bits]
        number = struct.unpack(real, struct.pack(integer, value))[0]
        integer, real = formats[width]
        value = struct.unpack(integer, struct.pack(real, number))[0]
    return value & ((1 << width) - 1)


def source(place: Place, operand: Operand | None, kind: str) -> Source:
    """Reads an operand as bit patterns as wide as `kind`."""
    limit = mask(WIDTH[kind])
    if isinstance(operand, Register):
        row = place.row(operand)
        if width_of(operand) <= WIDTH[kind]:
            return lambda warp: warp.bits[row]
        return lambda warp: warp.bits[row] & limit
    if isinstance(operand, Negated):
        row = place.row(operand.register)
        return lambda warp: warp.bits[row] ^ np.uint64(1)
    if isinstance(operand, Immediate):
        constant = np.full(WARP, literal(operand, kind), np.uint64)
        return lambda warp: constant
    if isinstance(operand, Variable):
        constant = np.full(WARP, place.address(operand), np.uint64) & limit
        return lambda warp: constant
    if isinstance(operand, Address):
        return address(place, operand, WIDTH[kind])
    if isinstance(operand, Special):
        read = special(operand)
        return lambda warp: read(warp) & limit
    if isinstance(operand, Vector):
        part = WIDTH[kind] // len(operand.elements)
        pieces = [source(place, element, f"b{part}") for element in operand.elements]

        def join(warp: Warp) -> Lanes:
            total = np.zeros(WARP, np.uint64)
            for index, piece in enumerate(pieces):
                total |= piece(warp) << np.uint64(index * part)
            return total

        return join
    raise TypeError(f"{operand!r} is no source")


def unknown(place: Place, operand: Operand | None, kind: str) -> Source:
    """The bits of an operand, as wide as `kind`, that are not defined."""
    limit = mask(WIDTH[kind])
    match operand:
        case Register() | Negated(register=Register()):
            row = place.row(operand.register if isinstance(operand, Negated) else operand)
            return lambda warp: warp.unknown[row] & limit
        case Address(base=Register() as register):
            row = place.row(register)
            return lambda warp: np.where(warp.unknown[row] != 0, limit, np.uint64(0))
        case Vector(elements=elements):
            part = WIDTH[kind] // len(elements)
            pieces = [unknown(place, element, f"b{part}") for element in elements]
            return lambda warp: sum((p(warp) << np.uint64(n * part) for n, p in enumerate(pieces)), ZERO)
    return lambda warp: ZERO


def address(place: Place, operand: Address, width: int = 64) -> Source:
    """base + offset; a 32-bit base wraps at 32 bits."""
    if isinstance(operand.base, Register):
        row = place.row(operand.base)
        base_width = min(width_of(operand.base), 64)
        offset = np.uint64(operand.offset & (1 << 64) - 1)
        limit = mask(base_width)
        return lambda warp: (warp.bits[row] + offset) & limit
    start = place.address(operand.base) if isinstance(operand.base, Variable) else 0
    constant = np.full(WARP, (start + operand.offset) & (1 << width) - 1, np.uint64)
    return lambda warp: constant


def rows(place: Place, *operands: Operand | None) -> list[int]:
    """Rows of the register file that operands read, for the AND of their defined bits."""
    found: list[int] = []
    for operand in operands:
        if isinstance(operand, Register):
            found.append(place.row(operand))
        elif isinstance(operand, Negated):
            found.append(place.row(operand.register))
        elif isinstance(operand, Address) and isinstance(operand.base, Register):
            found.append(place.row(operand.base))
        elif isinstance(operand, Vector):
            found += rows(place, *operand.elements)
    return found


def defined(warp: Warp, indices: list[int]) -> Flags:
    """Lanes in which all of these registers are defined."""
    if not indices:
        return ALL
    known: Flags = ~np.logical_or.reduce(warp.unknown[indices] != 0, axis=0)
    return known


class Write(Protocol):
    """Writes results in the given lanes: `known` says where they are defined, `holes` which of their bits are not."""

    def __call__(self, warp: Warp, lanes: Flags, bits: Lanes, known: Flags, holes: Lanes | None = None) -> None: ...


def destination(place: Place, operand: Operand | None, width: int, is_signed: bool = False) -> Write:
    """Writes `width`-bit results in the given lanes, extended or cut to the register; `{a, b}` takes its parts."""
    if operand is None:
        return lambda warp, lanes, bits, known, holes=None: None
    if isinstance(operand, Vector):
        part = width // len(operand.elements)
        writers = [destination(place, element, part) for element in operand.elements]

        def split(warp: Warp, lanes: Flags, bits: Lanes, known: Flags, holes: Lanes | None = None) -> None:
            for index, write in enumerate(writers):
                shift, limit = np.uint64(index * part), mask(part)
                write(warp, lanes, (bits >> shift) & limit, known, None if holes is None else (holes >> shift) & limit)

        return split
    if isinstance(operand, Pair):
        return destination(place, operand.first, width, is_signed)
    if not isinstance(operand, Register):
        raise TypeError(f"{operand!r} is no destination")
    row, limit = place.row(operand), mask(width_of(operand))
    shift = np.int64(64 - width)

    def extend(bits: Lanes) -> Lanes:
        return (((bits.view(np.int64) << shift) >> shift).view(np.uint64) if is_signed else bits) & limit

    def write(warp: Warp, lanes: Flags, bits: Lanes, known: Flags, holes: Lanes | None = None) -> None:
        np.copyto(warp.bits[row], extend(bits), where=lanes)
        np.copyto(warp.unknown[row], np.where(known, ZERO, limit) if holes is None else extend(holes), where=lanes)

    return write


def special(operand: Special) -> Source:
    """Special registers; clocks count the warp's own instructions."""
    name = operand.name
    axis = {"x": 0, "y": 1, "z": 2, "": 0}[operand.component]

    def constant(read: Callable[[Warp], int]) -> Source:
        return lambda warp: np.full(WARP, read(warp), np.uint64)

    if name == "tid":
        return lambda warp: warp.block.coordinates[axis][warp.threads].astype(np.uint64)
    if name == "ntid":
        return constant(lambda warp: warp.block.machine.request.block[axis])
    if name == "ctaid":
        return constant(lambda warp: warp.block.position[axis])
    if name == "nctaid":
        return constant(lambda warp: warp.block.machine.request.grid[axis])
    if name == "laneid":
        return lambda warp: LANES.astype(np.uint64)
    if name == "warpid":
        return constant(lambda warp: warp.index)
    if name == "nwarpid":
        return constant(lambda warp: len(warp.block.warps))
    if name in ("smid", "gridid"):
        return constant(lambda warp: 0)
    if name == "nsmid":
        return constant(lambda warp: 1)
    if name == "WARP_SZ":
        return constant(lambda warp: WARP)
    if name.startswith("lanemask_"):
        one = np.uint64(1) << LANES.astype(np.uint64)
        below = one - np.uint64(1)
        masks = {"eq": one, "lt": below, "le": below | one, "gt": ~(below | one), "ge": ~below}[name[9:]] & mask(32)
        return lambda warp: masks
    if name.startswith("envreg"):
        workspace = GRID_WORKSPACE << ALLOCATION_BITS
        return constant(lambda warp: {"1": workspace >> 32, "2": workspace & 0xFFFFFFFF}.get(name[6:], 0))
    if name in ("clock", "clock64", "globaltimer", "globaltimer_lo"):
        return constant(lambda warp: warp.stepped)
    if name in ("clock_hi", "globaltimer_hi"):
        return constant(lambda warp: warp.stepped >> 32)
    if name == "dynamic_smem_size":
        return constant(lambda warp: warp.block.machine.request.dynamic_shared_bytes)
    if name == "total_smem_size":
        return constant(lambda warp: warp.block.shared.size)
    raise TypeError(f"%{name} is no special register")
