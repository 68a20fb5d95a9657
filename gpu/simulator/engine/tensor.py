"""mma.sync: operands to the exchange area, one call of the variant's arithmetic, defined bits by row and column."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout, runtime
from loadsparse.gpu.simulator.engine.ir import FULL, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.engine.mma import A_AREA, B_AREA, C_AREA, D_AREA, Multiply, tensor_core
from loadsparse.gpu.simulator.engine.wmma import elements, multiply_integers
from loadsparse.gpu.simulator.program import Instruction, Operand, Register


def variant_of(instruction: Instruction, arch: str) -> Multiply:
    """The arithmetic an instruction asks for."""
    modifiers = instruction.modifiers
    shape = next((m for m in modifiers if m.startswith("m16n8k")), "")
    types = [m for m in modifiers if m in ("f16", "bf16", "tf32", "f32", "s32", "s8", "u8")]
    if (
        not shape
        or len(types) != 4
        or types[1] not in ("f16", "bf16", "tf32")
        or any(m.startswith("sp") for m in modifiers)
    ):
        raise refuse(instruction)
    return Multiply(types[1], int(shape[6:]), types[0], types[3], tensor_core(arch))


@lowers("mma")
def multiply(x: Lowering, instruction: Instruction) -> None:
    if "sync" not in instruction.modifiers:
        raise refuse(instruction)
    code = x.code
    target, a, b, c = (elements(o) for o in instruction.operands[:4])
    shape = next((m for m in instruction.modifiers if "n8k" in m), "")
    kinds = [m for m in instruction.modifiers if m in ("s8", "u8")]
    if len(kinds) == 2:
        multiply_integers(x, instruction, shape, (kinds[0], kinds[1]))
    else:
        _multiply_floats(x, variant_of(instruction, x.frame.arch), a, b, c)
    masks = _defined(x, a, b, c, len(target), int(shape[1 : shape.index("n")]) // 8)
    for index, register in enumerate(target):
        if not isinstance(register, Register):
            raise refuse(instruction)
        value = code.load(vec("i32"), "%W", layout.W_MMA + D_AREA + 128 * index, 64)
        x.put(register, value, masks[index])


def _multiply_floats(
    x: Lowering,
    variant: Multiply,
    a: tuple[Operand | None, ...],
    b: tuple[Operand | None, ...],
    c: tuple[Operand | None, ...],
) -> None:
    x.frame.multiplies[variant.name] = variant
    code = x.code
    for area, registers in ((A_AREA, a), (B_AREA, b), (C_AREA, c)):
        for index, register in enumerate(registers):
            value = x.of_group("i32", x.get(register, "b32"))
            code.store(vec("i32"), value, "%W", layout.W_MMA + area + 128 * index, 64)
    place = code.at("%W", layout.W_MMA)
    code.declared.add(f"declare i64 @{runtime.prefix()}{variant.name}(ptr)")
    code.call(runtime.prefix() + variant.name, "i64", ("ptr", place))


def _quads(x: Lowering, mask: str) -> str:
    """Bit l: all four lanes of the quad of lane l are set."""
    code = x.code
    pairs = code.v(f"and i32 {mask}, {code.v(f'lshr i32 {mask}, 1')}")
    fours = code.v(f"and i32 {pairs}, {code.v(f'lshr i32 {pairs}, 2')}")
    first = code.v(f"and i32 {fours}, {0x11111111}")
    return code.v(f"mul i32 {first}, 15")


def _known(x: Lowering, registers: tuple[Operand | None, ...]) -> str:
    """Lanes whose registers are all defined; those that have exited or never started hold zeros."""
    mask = x.defined_of(*registers)
    if FULL in (mask, x.group_mask):
        return mask
    return x.code.v(f"or i32 {mask}, {x.code.v(f'xor i32 {x.group_mask}, -1')}")


def _defined(
    x: Lowering,
    a: tuple[Operand | None, ...],
    b: tuple[Operand | None, ...],
    c: tuple[Operand | None, ...],
    results: int,
    halves: int,
) -> list[str]:
    """Element (row, column) of D is defined iff row of A, column of B and the element of C are."""
    code = x.code
    rows = []
    for half in range(halves):
        mask = _known(x, a[half::halves])
        rows.append(mask if mask == FULL else _quads(x, mask))
    columns = [FULL, FULL]
    b_mask = _known(x, b)
    if b_mask != FULL:
        quads = _quads(x, b_mask)
        for parity in (0, 1):
            # lane 4g + t holds column 2t + parity: quad 2t + parity of B
            mask = "0"
            for t in range(4):
                bit = code.v(f"and i32 {code.v(f'lshr i32 {quads}, {4 * (2 * t + parity)}')}, 1")
                spread = code.v(f"mul i32 {bit}, {0x11111111 << t & 0xFFFFFFFF}")
                mask = spread if mask == "0" else code.v(f"or i32 {mask}, {spread}")
            columns[parity] = mask
    masks = []
    for index in range(results):
        if results == 2 * halves:
            mask = code.mask_and(rows[index >> 1], columns[index & 1])
            masks.append(
                code.mask_and(
                    mask,
                    x.defined_of(*(c[index : index + 1] if len(c) == 2 * halves else c[index >> 1 : (index >> 1) + 1])),
                )
            )
        else:
            mask = code.mask_and(rows[index], code.mask_and(*columns))
            known = c[index : index + 1] if len(c) == 2 else c[2 * index : 2 * index + 2]
            masks.append(code.mask_and(mask, x.defined_of(*known)))
    return masks
