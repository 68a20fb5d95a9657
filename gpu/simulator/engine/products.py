"""What mma and wmma share: operands into the exchange area, and products of each kind of element."""

from __future__ import annotations

from collections.abc import Callable

from loadsparse.gpu.simulator.engine import layout, runtime
from loadsparse.gpu.simulator.engine.floats import Floats
from loadsparse.gpu.simulator.engine.ir import FULL, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, refuse
from loadsparse.gpu.simulator.engine.memory import call_helper, helper
from loadsparse.gpu.simulator.engine.mma import Multiply
from loadsparse.gpu.simulator.program import Instruction, Operand, Register, Vector

Operands = tuple[Operand | None, ...]


def elements(operand: Operand | None) -> Operands:
    return operand.elements if isinstance(operand, Vector) else (operand,)


def put_registers(x: Lowering, area: int, registers: Operands) -> None:
    """32-bit registers to the exchange area, one after the other."""
    for index, register in enumerate(registers):
        value = x.of_group("i32", x.get(register, "b32"))
        x.code.store(vec("i32"), value, "%W", area + 128 * index, 64)


def take_registers(x: Lowering, area: int, count: int) -> list[str]:
    return [x.code.load(vec("i32"), "%W", area + 128 * index, 64) for index in range(count)]


def known_lanes(x: Lowering, registers: Operands) -> str:
    """Lanes whose registers are all defined; those that have exited or never started hold zeros."""
    mask = x.defined_of(*registers)
    if FULL in (mask, x.group_mask):
        return mask
    return x.code.v(f"or i32 {mask}, {x.code.v(f'xor i32 {x.group_mask}, -1')}")


def write_results(x: Lowering, instruction: Instruction, values: list[str], masks: list[str]) -> None:
    """The registers of the first operand, with their defined lanes."""
    for register, value, mask in zip(elements(instruction.operands[0]), values, masks, strict=True):
        if not isinstance(register, Register):
            raise refuse(instruction)
        x.put(register, value, mask)


def call_variant(x: Lowering, variant: Multiply) -> None:
    """One Tensor Core instruction on the operands in the exchange area."""
    x.frame.multiplies[variant.name] = variant
    function = runtime.prefix() + variant.name
    x.code.declared.add(f"declare i64 @{function}(ptr)")
    x.code.call(function, "i64", ("ptr", x.code.at("%W", layout.W_MMA)))


def multiply_doubles(
    x: Lowering, a: Operands, b: Operands, c: Operands, b_lane: Callable[[int, int], int]
) -> list[str]:
    """Registers of D (f64): for every element one fused multiply-add after the other, k ascending.

    A and C lie as in mma.sync; `b_lane` gives the lane that holds (k mod 4, column) of B.
    """
    floats = Floats(x.code, "f64", 32)
    vector = floats.vector("double")

    def values(registers: Operands) -> list[str]:
        return [floats.widen(x.of_group("i64", x.get(register, "b64")))[0] for register in registers]

    def shuffle(value: str, order: list[int]) -> str:
        index = ", ".join(f"i32 {i}" for i in order)
        return x.code.v(f"shufflevector {vector} {value}, {vector} poison, {vec('i32')} <{index}>")

    left, right, totals = values(a), values(b), values(c)
    halves = len(totals) // 2
    for index, total in enumerate(totals):
        half, parity = divmod(index, 2)
        for k in range(4 * len(right)):
            row = shuffle(left[k // 4 * halves + half], [lane // 4 * 4 + k % 4 for lane in range(32)])
            column = shuffle(right[k // 4], [b_lane(k % 4, 2 * (lane % 4) + parity) for lane in range(32)])
            total = floats.intrinsic("fma", "double", row, column, total)
        totals[index] = floats.narrow(total, "double")
    return totals


def multiply_integers(x: Lowering, rows: int, depth: int, kinds: tuple[str, str], saturates: bool) -> None:
    """D = A B + C of mma.sync on 8-bit integers in the exchange area."""
    signs = (int(kinds[0] == "s8"), int(kinds[1] == "s8"), int(saturates))
    call_helper(x, helper(x, "mma_integers", "mma_integers", rows, depth, *signs))
