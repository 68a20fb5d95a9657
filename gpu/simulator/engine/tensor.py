"""mma.sync and mma.sp: operands to the exchange area, one call of the variant's arithmetic, defined bits by row and column."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.ir import FULL, lanes, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.engine.matrices import A_AREA, B_AREA, C_AREA, D_AREA, METADATA_AREA
from loadsparse.gpu.simulator.engine.mma import variant
from loadsparse.gpu.simulator.engine.products import (
    Operands,
    call_variant,
    elements,
    known_lanes,
    multiply_doubles,
    multiply_integers,
    put_registers,
    take_registers,
    write_results,
)
from loadsparse.gpu.simulator.program import WIDTH, Immediate, Instruction


@lowers("mma")
def multiply(x: Lowering, instruction: Instruction) -> None:
    modifiers, operands = instruction.modifiers, instruction.operands
    target, a, b, c = (elements(o) for o in operands[:4])
    shape = next(m for m in modifiers if m.startswith("m") and "n8k" in m)
    rows, k = int(shape[1 : shape.index("n")]), int(shape[shape.index("k") + 1 :])
    d_kind, a_kind, b_kind, c_kind = (m for m in modifiers if m in WIDTH)
    suppliers = FULL
    if d_kind == "f64":
        values = multiply_doubles(x, a, b, c, lambda k, column: 4 * column + k)
    else:
        for area, registers in ((A_AREA, a), (B_AREA, b), (C_AREA, c)):
            put_registers(x, area, registers)
        if sparse := len(operands) > 4:
            suppliers = _put_metadata(x, instruction, k // 16)
        if d_kind == "s32":
            multiply_integers(x, rows, k, (a_kind, b_kind), "satfinite" in modifiers)
        else:
            call_variant(x, variant(x.frame.arch, (a_kind, b_kind), k, d_kind, c_kind, sparse))
        values = take_registers(x, D_AREA, len(target))
    write_results(x, instruction, values, _defined(x, a, b, c, len(target), rows // 8, suppliers))


def _put_metadata(x: Lowering, instruction: Instruction, suppliers: int) -> str:
    """Metadata of the selected lanes (so many in each quad) to the first ones; the quads of which it is defined."""
    code, metadata, selector = x.code, instruction.operands[4], instruction.operands[5]
    if not isinstance(selector, Immediate) or not 0 <= selector.value < 4 // suppliers:
        raise refuse(instruction, f"a selector that is no number below {4 // suppliers}")
    first = selector.value * suppliers
    words = x.of_group("i32", x.get(metadata, "b32"))
    order = lanes("i32", [lane & ~3 | (lane + first) & 3 for lane in range(32)])
    words = code.v(f"shufflevector {vec('i32')} {words}, {vec('i32')} poison, {vec('i32')} {order}")
    code.store(vec("i32"), words, "%W", METADATA_AREA, 64)
    known = known_lanes(x, (metadata,))
    if known == FULL:
        return known
    others = ~(((1 << suppliers) - 1) << first) & 15
    return _quads(x, code.v(f"or i32 {known}, {others * 0x11111111}"))


def _quads(x: Lowering, mask: str) -> str:
    """Bit l: all four lanes of the quad of lane l are set."""
    code = x.code
    pairs = code.v(f"and i32 {mask}, {code.v(f'lshr i32 {mask}, 1')}")
    fours = code.v(f"and i32 {pairs}, {code.v(f'lshr i32 {pairs}, 2')}")
    first = code.v(f"and i32 {fours}, {0x11111111}")
    return code.v(f"mul i32 {first}, 15")


def _defined(
    x: Lowering,
    a: Operands,
    b: Operands,
    c: Operands,
    results: int,
    halves: int,
    suppliers: str,
) -> list[str]:
    """Element (row, column) of D is defined iff row of A, column of B and the element of C are, and of mma.sp the quad
    that supplies the row's metadata."""
    code = x.code
    rows = []
    for half in range(halves):
        mask = known_lanes(x, a[half::halves])
        rows.append(code.mask_and(suppliers, mask if mask == FULL else _quads(x, mask)))
    columns = [FULL, FULL]
    b_mask = known_lanes(x, b)
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
