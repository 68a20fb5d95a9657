"""Everything that maps registers to registers, lane by lane: which function, which operand types, which result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loadsparse.gpu.simulator.interpreter import bits, conversions, floats, holes, integers, video
from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes, Operation, mask
from loadsparse.gpu.simulator.interpreter.operands import ALL, Place, defined, destination, rows, source, unknown
from loadsparse.gpu.simulator.interpreter.warp import WARP, Warp
from loadsparse.gpu.simulator.program import WIDTH, Instruction, Pair, Register, Vector
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, LOCAL, PARAM, SHARED

Modifiers = tuple[str, ...]
Build = Callable[[Modifiers], Operation]
U = np.uint64

BOTH: dict[str, tuple[Build, Build]] = {
    "add": (integers.add, floats.add),
    "sub": (integers.sub, floats.sub),
    "mul": (integers.mul, floats.mul),
    "mad": (integers.mad, floats.fma),
    "div": (integers.div, floats.div),
    "min": (integers.minimum, floats.extreme("min")),
    "max": (integers.maximum, floats.extreme("max")),
    "abs": (integers.absolute, floats.absolute),
    "neg": (integers.negate, floats.negate),
}
ONE: dict[str, Build] = {
    "fma": floats.fma,
    "rcp": floats.rcp,
    "sqrt": floats.sqrt,
    "rsqrt": floats.approximate(lambda x: 1.0 / np.sqrt(x)),
    "sin": floats.approximate(np.sin),
    "cos": floats.approximate(np.cos),
    "lg2": floats.approximate(np.log2),
    "ex2": floats.approximate(np.exp2),
    "tanh": floats.approximate(np.tanh),
    "copysign": floats.copysign,
    "testp": floats.testp,
    "cvt": conversions.convert,
    "mul24": integers.mul24,
    "mad24": integers.mad24,
    "rem": integers.rem,
    "sad": integers.sad,
    **video.BUILDERS,
    "dp4a": integers.dp4a,
    "dp2a": integers.dp2a,
    "and": bits.bitwise("and"),
    "or": bits.bitwise("or"),
    "xor": bits.bitwise("xor"),
    "not": bits.invert,
    "cnot": bits.cnot,
    "shl": bits.shl,
    "shr": bits.shr,
    "shf": bits.shf,
    "prmt": bits.prmt,
    "popc": bits.popc,
    "clz": bits.clz,
    "bfind": bits.bfind,
    "fns": lambda modifiers: bits.fns,
    "brev": bits.brev,
    "bfe": bits.bfe,
    "bfi": bits.bfi,
    "bmsk": bits.bmsk,
    "szext": bits.szext,
    "mov": lambda modifiers: lambda a: a,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Types of the sources, and width and signedness of the result."""

    sources: tuple[str, ...]
    width: int
    is_signed: bool = False


def shape(name: str, modifiers: Modifiers, count: int) -> Shape:
    """Operand types of `name` with `count` sources."""
    kind = "b32" if name == "prmt" or name in video.BUILDERS else modifiers[-1]
    width = WIDTH[kind]
    if name in ("shl", "shr"):
        return Shape((kind, "b32"), width, kind.startswith("s"))
    if name in ("mul", "mad") and "wide" in modifiers:
        return Shape((kind, kind, f"b{2 * width}")[:count], 2 * width)
    if name == "bfe":
        return Shape((kind, "b32", "b32"), width)
    if name == "bfi":
        return Shape((kind, kind, "b32", "b32"), width)
    if name in ("popc", "clz", "bfind"):
        return Shape((kind,), 32)
    if name == "testp":
        return Shape((kind,), 1)
    if name == "cvt":
        target = modifiers[-2]
        return Shape((kind,) * count, WIDTH[target], target.startswith("s"))
    return Shape((kind,) * count, width)


def is_float(kind: str) -> bool:
    return kind.startswith(("f", "bf", "tf"))


def build(place: Place, instruction: Instruction) -> Callable[[Warp, Flags], None]:
    """The function that executes an arithmetic instruction for the active lanes."""
    name, modifiers, operands = instruction.name, instruction.modifiers, instruction.operands
    if name == "mov" and (modifiers[-1] == "b128" or len(modifiers) > 1):
        return _move(place, instruction)
    if name in SPECIAL:
        return SPECIAL[name](place, instruction)
    if "cc" in modifiers or name in ("addc", "subc", "madc"):
        return _carry(place, instruction)
    packed = name == "cvt" and modifiers[-2].endswith("x2") and not modifiers[-1].endswith("x2")
    three = name in ("min", "max") and modifiers[-1] == "f32" and len(operands) == 4
    if name in ("cvt", "min", "max") and not three and len(operands) != (3 if packed or name != "cvt" else 2):
        raise TypeError(f"{len(operands)} operands")
    function = BOTH[name][is_float(modifiers[-1])] if name in BOTH else ONE[name]
    if modifiers[-1] in ("s16x2", "u16x2"):
        function = integers.of_pairs(function)
    operation = function(modifiers)
    form = shape(name, modifiers, len(operands) - 1)
    read = [source(place, operand, kind) for operand, kind in zip(operands[1:], form.sources, strict=True)]
    write = destination(place, operands[0], form.width, form.is_signed)
    missing = [unknown(place, operand, kind) for operand, kind in zip(operands[1:], form.sources, strict=True)]
    spread = holes.rule(name, modifiers, form.width, operation)
    if name in ("xor", "sub") and isinstance(operands[1], Register) and operands[1] == operands[2]:
        missing = []

    def execute(warp: Warp, lanes: Flags) -> None:
        values, gaps = [take(warp) for take in read], [take(warp) for take in missing]
        if not np.any(gaps):
            write(warp, lanes, operation(*values), ALL)
        elif spread is None:
            write(warp, lanes, operation(*values), holes.sum_of(gaps) == 0)
        else:
            write(warp, lanes, operation(*values), ALL, spread(values, gaps))

    return execute


def _compare(place: Place, instruction: Instruction) -> Callable[[Warp, Flags], None]:
    """setp d|q, a, b{, c}: d = (a cmp b) op c and q = !(a cmp b) op c; set writes all ones or 1.0."""
    modifiers, operands = instruction.modifiers, instruction.operands
    how, kind = modifiers[0], modifiers[-1]
    packed = kind.endswith("x2")
    scalar = kind.removesuffix("x2")
    relation = floats.compare(how, scalar, "ftz" in modifiers) if is_float(kind) else integers.compare(how, kind)
    a, b = source(place, operands[1], kind), source(place, operands[2], kind)
    c = source(place, operands[3], "pred") if len(operands) > 3 else None
    boolean = next((m for m in modifiers[1:] if m in ("and", "or", "xor")), "and")
    combine = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[boolean]
    target = operands[0]
    missing = [unknown(place, operand, k) for operand, k in zip(operands[1:], (kind, kind, "pred"), strict=False)]
    is_set = instruction.name == "set"
    result_kind = modifiers[-2] if is_set else "pred"
    first = destination(place, target.first if isinstance(target, Pair) else target, WIDTH[result_kind])
    second = destination(place, target.second, 1) if isinstance(target, Pair) else None

    def results(warp: Warp) -> tuple[Flags, Flags]:
        x, y = a(warp), b(warp)
        if packed:
            low = relation(x & mask(16), y & mask(16))
            return low, relation((x >> U(16)) & mask(16), (y >> U(16)) & mask(16))
        flags = relation(x, y)
        return flags, ~flags

    def execute(warp: Warp, lanes: Flags) -> None:
        sides = [flags.astype(U) for flags in results(warp)]
        gaps = holes.sum_of([take(warp) for take in missing[:2]])
        lost = [(gap != 0).astype(U) for gap in ((gaps & mask(16), gaps >> U(16)) if packed else (gaps, gaps))]
        if c is not None:
            third, unsure = c(warp), missing[2](warp)
            lost = [
                holes.LOGIC[boolean](pair, (gap, unsure)) & U(1)
                for pair, gap in zip(((s, third) for s in sides), lost, strict=True)
            ]
            sides = [combine(side, third) for side in sides]
        if is_set:
            spread = (
                lost[0] * mask(16) | lost[1] * (mask(16) << U(16)) if packed else lost[0] * mask(WIDTH[result_kind])
            )
            first(warp, lanes, _truth(sides[0] != 0, sides[1] != 0, result_kind, packed), ALL, spread)
            return
        first(warp, lanes, sides[0], ALL, lost[0])
        if second is not None:
            second(warp, lanes, sides[1], ALL, lost[1])

    return execute


def _truth(flags: Flags, others: Flags, kind: str, packed: bool) -> Lanes:
    """What `set` writes: 1.0 for float destinations, all ones for integers; packed: one per half."""
    ones = {"f16": 0x3C00, "bf16": 0x3F80, "f32": 0x3F800000}
    if packed:
        one = U(ones.get(kind.removesuffix("x2"), 0xFFFF))
        both: Lanes = np.where(flags, one, U(0)) | (np.where(others, one, U(0)) << U(16))
        return both
    return np.where(flags, U(ones.get(kind, (1 << WIDTH[kind]) - 1)), U(0))


def _select(place: Place, instruction: Instruction) -> Callable[[Warp, Flags], None]:
    """selp d, a, b, p: a where p; slct d, a, b, c: a where c >= 0."""
    operands, modifiers = instruction.operands, instruction.modifiers
    by_sign = instruction.name == "slct"
    kind = modifiers[-2] if by_sign else modifiers[-1]
    a, b = source(place, operands[1], kind), source(place, operands[2], kind)
    c = source(place, operands[3], modifiers[-1] if by_sign else "pred")
    write = destination(place, operands[0], WIDTH[kind])
    missing = [unknown(place, operand, kind) for operand in operands[1:3]]
    c_rows = rows(place, operands[3])

    def execute(warp: Warp, lanes: Flags) -> None:
        test = c(warp)
        if not by_sign:
            chosen = test != 0
        elif modifiers[-1] == "f32":
            chosen = floats.compare("ge", "f32", "ftz" in modifiers)(test, np.zeros(WARP, U))
        else:
            chosen = test >> U(31) == 0
        gaps = np.where(defined(warp, c_rows), np.where(chosen, *(take(warp) for take in missing)), mask(WIDTH[kind]))
        write(warp, lanes, np.where(chosen, a(warp), b(warp)), ALL, gaps)

    return execute


def _lop3(place: Place, instruction: Instruction) -> Callable[[Warp, Flags], None]:
    """lop3 d, a, b, c, table; lop3.or/.and d|p, a, b, c, table, q: p = (d != 0) op q."""
    operands, modifiers = instruction.operands, instruction.modifiers
    read = [source(place, operand, "b32") for operand in operands[1:5]]
    target = operands[0]
    write = destination(place, target, 32)
    missing = [unknown(place, operand, "b32") for operand in operands[1:4]]
    flag = destination(place, target.second, 1) if isinstance(target, Pair) else None
    q = source(place, operands[5], "pred") if len(operands) > 5 else None
    q_rows = rows(place, *operands[5:])

    def execute(warp: Warp, lanes: Flags) -> None:
        values = [take(warp) for take in read]
        result, gaps = bits.lop3(*values), holes.lop3(values, [take(warp) for take in missing])
        if flag is not None and q is not None:
            combine = np.logical_or if "or" in modifiers else np.logical_and
            known = (gaps == 0) & defined(warp, q_rows)
            flag(warp, lanes, combine(result != 0, q(warp) != 0).astype(U), known)
        write(warp, lanes, result, ALL, gaps)

    return execute


def _cvta(place: Place, instruction: Instruction) -> Callable[[Warp, Flags], None]:
    """Generic address = window base + offset, and back."""
    modifiers, operands = instruction.modifiers, instruction.operands
    space = next(
        m.partition("::")[0]
        for m in modifiers
        if m.partition("::")[0] in ("global", "shared", "local", "const", "param")
    )
    window = {"shared": SHARED, "local": LOCAL, "param": PARAM}.get(space, 0) << ALLOCATION_BITS
    step = U((-window if "to" in modifiers else window) & (1 << 64) - 1)
    width = WIDTH[modifiers[-1]]
    read, write = source(place, operands[1], modifiers[-1]), destination(place, operands[0], width)
    used = rows(place, operands[1])
    return lambda warp, lanes: write(warp, lanes, (read(warp) + step) & mask(width), defined(warp, used))


def _isspacep(place: Place, instruction: Instruction) -> Callable[[Warp, Flags], None]:
    """Which window an address lies in; module globals and constants count as global."""
    space = instruction.modifiers[0].partition("::")[0]
    window = {"shared": SHARED, "local": LOCAL, "param": PARAM}.get(space)
    read, write = source(place, instruction.operands[1], "b64"), destination(place, instruction.operands[0], 1)
    used = rows(place, instruction.operands[1])

    def execute(warp: Warp, lanes: Flags) -> None:
        number = read(warp) >> U(ALLOCATION_BITS)
        if window is not None:
            flags = number == U(window)
        else:
            flags = (number != U(SHARED)) & (number != U(LOCAL)) & (number != U(PARAM)) & (number != 0)
            flags &= space == "global"
        write(warp, lanes, flags.astype(U), defined(warp, used))

    return execute


def _carry(place: Place, instruction: Instruction) -> Callable[[Warp, Flags], None]:
    """add.cc, addc, sub.cc, subc, mad.cc, madc: the carry flag of each lane; a - b is a + ~b + 1, and carries so."""
    name, modifiers, operands = instruction.name, instruction.modifiers, instruction.operands
    kind = modifiers[-1]
    width = WIDTH[kind]
    top = 1 << width
    read = [source(place, operand, kind) for operand in operands[1:]]
    write = destination(place, operands[0], width)
    used = rows(place, *operands[1:])
    takes, gives = name.endswith("c"), "cc" in modifiers
    product = integers.mul(tuple(m for m in modifiers if m != "cc")) if name.startswith("mad") else None

    def execute(warp: Warp, lanes: Flags) -> None:
        values = [take(warp) for take in read]
        if product is not None:
            values = [product(values[0], values[1]), values[2]]
        minus = name.startswith("sub")
        result = np.zeros(WARP, U)
        for lane in np.flatnonzero(lanes).tolist():
            carry = int(warp.carry[lane]) if takes else int(minus)
            x, y = int(values[0][lane]), int(values[1][lane])
            total = x + (top - 1 - y if minus else y) + carry
            result[lane] = total % top
            if gives:
                warp.carry[lane] = total >= top
        write(warp, lanes, result, defined(warp, used))

    return execute


def _move(place: Place, instruction: Instruction) -> Callable[[Warp, Flags], None]:
    """mov of a vector to a vector, element by element: mov.v4, mov.b128."""
    target, origin = instruction.operands
    if not (isinstance(target, Vector) and isinstance(origin, Vector) and len(target.elements) == len(origin.elements)):
        raise TypeError("a vector is moved to one of its length")
    kind = instruction.modifiers[-1]
    kind = f"b{128 // len(target.elements)}" if kind == "b128" else kind
    read = [(source(place, element, kind), unknown(place, element, kind)) for element in origin.elements]
    writers = [destination(place, element, WIDTH[kind]) for element in target.elements]

    def execute(warp: Warp, lanes: Flags) -> None:
        values = [(take(warp).copy(), missing(warp).copy()) for take, missing in read]
        for write, (value, gaps) in zip(writers, values, strict=True):
            write(warp, lanes, value, ALL, gaps)

    return execute


SPECIAL: dict[str, Callable[[Place, Instruction], Callable[[Warp, Flags], None]]] = {
    "setp": _compare,
    "set": _compare,
    "selp": _select,
    "slct": _select,
    "lop3": _lop3,
    "cvta": _cvta,
    "isspacep": _isspacep,
}
