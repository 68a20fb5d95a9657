"""atom and red: lanes one after the other, in ascending order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.gpu.simulator.interpreter import bits, floats, integers, memory
from loadsparse.gpu.simulator.interpreter.loads import (
    check_address,
    elements,
    is_wide,
    location,
    order,
    report_values,
)
from loadsparse.gpu.simulator.interpreter.numbers import Flags, Lanes, Operation, mask
from loadsparse.gpu.simulator.interpreter.operands import Place, defined, destination, rows, source
from loadsparse.gpu.simulator.interpreter.races import Strength
from loadsparse.gpu.simulator.interpreter.warp import WARP, Warp
from loadsparse.gpu.simulator.interpreter.widths import vector_length
from loadsparse.gpu.simulator.program import WIDTH, Instruction
from loadsparse.gpu.simulator.request import DEFINED

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.machine import Machine

Execute = Callable[[Warp, Flags], None]
U = np.uint64
NAMES = ("add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas")


def operation(name: str, kind: str, space: str) -> Operation:
    """(old, b, c) -> new.  f32 sums flush subnormals in global memory only."""
    is_float = kind.startswith(("f", "bf"))
    typed = (kind,)
    if name in ("add", "min", "max"):
        if is_float and name == "add":
            plain = floats.add(("rn", "ftz", kind) if kind == "f32" and space == "global" else ("rn", kind))
        elif is_float:
            plain = floats.extreme(name)(typed)
        else:
            plain = {"add": integers.add, "min": integers.minimum, "max": integers.maximum}[name](typed)
        return lambda old, b, c: plain(old, b)
    if name in ("and", "or", "xor"):
        logic = bits.bitwise(name)(typed)
        return lambda old, b, c: logic(old, b)
    if name == "inc":
        return lambda old, b, c: np.where(old >= b, U(0), old + U(1))
    if name == "dec":
        return lambda old, b, c: np.where((old == 0) | (old > b), b, old - U(1))
    if name == "exch":
        return lambda old, b, c: b
    return _swap


def _swap(old: Lanes, b: Lanes, c: Lanes) -> Lanes:
    return np.where(old == b, c, old)


def _build(machine: Machine, place: Place, instruction: Instruction, index: int) -> Execute:
    modifiers, operands = instruction.modifiers, instruction.operands
    returns = instruction.name == "atom"
    kind, count = modifiers[-1], vector_length(modifiers)
    if kind == "b128":
        kind, count = "b64", 2
    width, space = WIDTH[kind], memory.space_of(modifiers)
    step = width // 8
    size = step * count
    name = next(m for m in modifiers if m in NAMES)
    where, used = location(place, operands[1 if returns else 0])
    values = operands[2:] if returns else operands[1:]
    if len(values) != (2 if name == "cas" else 1):
        raise TypeError(f"{name} takes {2 if name == 'cas' else 1} values")
    read = [[source(place, element, kind) for element in elements(value, count)] for value in values]
    value_rows = rows(place, *values)
    targets = elements(operands[0], count) if returns else (None,) * count
    writers = [destination(place, target, width) for target in targets]
    combine = {where: operation(name, kind, where) for where in ("global", "shared")}
    acquire, release = bool({"acquire", "acq_rel"} & set(modifiers)), bool({"release", "acq_rel"} & set(modifiers))
    strength = Strength(True, is_wide(modifiers))

    def execute(warp: Warp, lanes: Flags) -> None:
        check_address(machine, warp, index, lanes, used)
        addresses = where(warp)
        operand_known = defined(warp, value_rows)
        numbers = [[take(warp) for take in part] for part in read]
        b, c = numbers[0], numbers[-1]
        old, known = np.zeros((count, WARP), U), np.ones(WARP, bool)
        order(machine, warp, lanes, addresses, space, acquire, release, True, True, strength.wide)
        for part in memory.access(machine, warp, index, lanes, addresses, size, space):
            memory.count(machine, index, part, addresses, size, part.window.space)
            window = part.window
            apply = combine["global" if window.space == "global" else "shared"]
            if window.space == "global":
                leaked = part.lanes & ~operand_known
                report_values(machine, warp, index, leaked, addresses, size)
            for lane in np.flatnonzero(part.lanes).tolist():
                start = int(window.start[lane] + part.offsets[lane])
                cells = slice(start, start + size)
                old[:, lane] = np.frombuffer(window.data[cells].tobytes(), f"<u{step}")
                known[lane] = window.defined is None or bool((window.defined[cells] == DEFINED).all())
                at = slice(lane, lane + 1)
                new = [int(apply(old[e, at], b[e][at], c[e][at])[0]) & int(mask(width)) for e in range(count)]
                if name == "cas" and any(old[e, lane] != b[e][lane] for e in range(count)):
                    new = old[:, lane].tolist()
                data = np.frombuffer(b"".join(word.to_bytes(step, "little") for word in new), np.uint8)
                if window.space in ("shared", "global"):
                    one = memory.Part(window, _only(lane), part.offsets)
                    spread = np.zeros((WARP, size), np.uint8)
                    spread[lane] = data
                    memory.watch_write(machine, warp, index, one, spread, addresses, strength)
                window.data[cells] = data
                if window.defined is not None:
                    sure = operand_known[lane] and (name == "exch" or known[lane])
                    window.defined[cells] = DEFINED * (window.space == "global" or sure)
        for write, value in zip(writers, old, strict=True):
            write(warp, lanes, value, known)

    return execute


def _only(lane: int) -> Flags:
    flags = np.zeros(WARP, bool)
    flags[lane] = True
    return flags


BUILDERS: dict[str, Any] = {"atom": _build, "red": _build}
