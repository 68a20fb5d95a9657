"""wmma.load, wmma.store and wmma.mma.  `matrices.py` says which lane holds which element."""

from __future__ import annotations

import re

from loadsparse.gpu.simulator.engine import layout, matrices
from loadsparse.gpu.simulator.engine.ir import FULL, lanes, splat, vec
from loadsparse.gpu.simulator.engine.lowering import Lowering, lowers, refuse
from loadsparse.gpu.simulator.engine.memory import (
    address_vector,
    call_helper,
    call_runtime,
    check_bits,
    granule_of,
    helper,
    missing,
    report_undefined,
    space_of,
)
from loadsparse.gpu.simulator.engine.mma import Multiply, variant
from loadsparse.gpu.simulator.engine.products import (
    Operands,
    call_variant,
    elements,
    known_lanes,
    multiply_doubles,
    put_registers,
    take_registers,
    write_results,
)
from loadsparse.gpu.simulator.program import Instruction, Register

BYTES = {"f16": 2, "bf16": 2, "tf32": 4, "f32": 4, "f64": 8, "s32": 4, "s8": 1, "u8": 1}
SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)$")


def _shape(instruction: Instruction) -> tuple[int, int, int]:
    """(M, N, K)"""
    found = next(match for modifier in instruction.modifiers if (match := SHAPE.match(modifier)))
    return int(found[1]), int(found[2]), int(found[3])


@lowers("wmma")
def wmma(x: Lowering, instruction: Instruction) -> None:
    if instruction.guard is not None:
        raise refuse(instruction, "with a guard")
    (_multiply if instruction.modifiers[0] == "mma" else _move)(x, instruction)


def _move(x: Lowering, instruction: Instruction) -> None:
    """One access per element, which the warp counts as one request."""
    code, modifiers, operands = x.code, instruction.modifiers, instruction.operands
    m, n, k = _shape(instruction)
    loads, role, width = modifiers[0] == "load", modifiers[1], BYTES[modifiers[-1]]
    target, source = (operands[0], operands[1]) if loads else (operands[1], operands[0])
    rows, columns = {"a": (m, k), "b": (k, n)}.get(role, (m, n))
    registers = elements(target)
    per_register, whole = max(1, 4 // width), f"i{max(32, 8 * width)}"
    per_lane = len(registers) * per_register
    by_row = "row" in modifiers
    base = address_vector(x, source)
    if len(operands) > 2:
        leading = x.resize(x.get(operands[2], "b32"), "i32", "i64")
    else:
        leading = splat("i64", columns if by_row else rows)
    bad_address = missing(x, x.defined_of(source), x.mask)
    report_undefined(x, "0", bad_address, "0", width)
    counters = code.load("ptr", "%B", layout.B_COUNTERS, 8)
    requests = layout.C_SITE_BYTES * x.frame.index + layout.C_REQUESTS
    before = code.load("i64", counters, requests, 8)
    name, function = ("load", "read") if loads else ("store", "write")
    checked = (space_of(instruction), width, width, granule_of(x, space_of(instruction)), 0, check_bits(x.frame))
    access = helper(x, name, function, *checked)
    element = f"i{8 * width}"
    for number, register in enumerate(registers):
        bits, known = splat(whole, 0), FULL
        values = "" if loads else x.get(register, f"b{whole[1:]}")
        for part in range(per_register):
            cells = [(per_lane * lane + number * per_register + part) % (rows * columns) for lane in range(32)]
            major = [cell // columns if by_row else cell % columns for cell in cells]
            minor = [cell % columns if by_row else cell // columns for cell in cells]
            place = code.op("mul", vec("i64"), leading, lanes("i64", major))
            place = code.op("add", vec("i64"), place, lanes("i64", minor))
            place = code.op("mul", vec("i64"), place, splat("i64", width))
            place = code.op("add", vec("i64"), base, place)
            code.store(vec("i64"), place, "%W", layout.W_ADDRESS, 64)
            shift = splat(whole, 8 * width * part)
            if loads:
                call_helper(x, access)
                value = code.load(vec(element), "%W", layout.W_DATA, 64)
                value = x.resize(value, element, whole)
                value = code.op("shl", vec(whole), value, shift) if part else value
                bits = code.op("or", vec(whole), bits, value)
                known = code.mask_and(known, code.load("i32", "%W", layout.W_DEFINED, 4))
                continue
            value = code.op("lshr", vec(whole), values, shift) if part else values
            code.store(vec(element), x.resize(value, whole, element), "%W", layout.W_DATA, 64)
            defined = x.defined_of(register)
            code.store("i32", defined, "%W", layout.W_DEFINED, 4)
            outside = call_helper(x, access)
            bad = missing(x, defined, x.mask)
            if bad != "0" and space_of(instruction) in (layout.GLOBAL, layout.GENERIC):
                report_undefined(x, "0", "0", code.mask_and(bad, outside), width)
        if loads:
            if not isinstance(register, Register):
                raise refuse(instruction)
            x.put(register, bits, known)
    after = code.load("i64", counters, requests, 8)
    one = code.v(f"zext i1 {code.v(f'icmp ne i64 {before}, {after}')} to i64")
    code.store("i64", code.op("add", "i64", before, one), counters, requests, 8)


def _multiply(x: Lowering, instruction: Instruction) -> None:
    m, n, k = _shape(instruction)
    types = [t for t in instruction.modifiers if t in BYTES]
    d_type, a_type, b_type, c_type = types if len(types) == 4 else (types[0], "f16", "f16", types[-1])
    d, a, b, c = (elements(o) for o in instruction.operands)
    per_a, per_b = (len(r) * max(1, 4 // BYTES[a_type]) for r in (a, b))
    if d_type == "f64":
        values = multiply_doubles(x, a, b, c, lambda k, column: 8 * k + column)
    else:
        for area, registers in ((matrices.WMMA_A, a), (matrices.WMMA_B, b), (matrices.WMMA_C, c)):
            put_registers(x, area, registers)
        if d_type == "s32":
            signs = (int(a_type == "s8"), int(b_type == "s8"), int("satfinite" in instruction.modifiers))
            call_helper(x, helper(x, "wmma_integers", "wmma_integers", m, n, *signs))
        else:
            _tiles(x, m, n, variant(x.frame.arch, (a_type, b_type), k, d_type, c_type), BYTES[a_type], per_a, per_b)
        values = take_registers(x, matrices.WMMA_D, len(d))
    widths = (min(4, BYTES[kind]) for kind in (a_type, c_type, d_type))
    masks = _defined(x, (a, b, c), len(d), (m, n, k, per_a, per_b, *widths))
    write_results(x, instruction, values, masks)


def _defined(x: Lowering, operands: tuple[Operands, ...], count: int, sizes: tuple[int, ...]) -> list[str]:
    """Defined lanes of the registers of D; `sizes` as in `wmma_known`."""
    code, known = x.code, FULL
    for index, registers in enumerate(operands):
        for number, register in enumerate(registers):
            defined = known_lanes(x, (register,))
            known = code.mask_and(known, defined)
            if x.frame.checks.uninitialized:
                code.store("i32", defined, "%W", matrices.WMMA_KNOWN + 64 * index + 4 * number, 4)
    if known == FULL:
        return [FULL] * count
    code.store("<16 x i32>", splat("i32", -1), "%W", matrices.WMMA_KNOWN + 192, 64)
    vague, sure = code.fresh("vague"), code.fresh("sure")
    code.branch(code.v(f"icmp ne i32 {known}, -1"), vague, sure, likely=False)
    code.start(vague)
    call_runtime(x, "wmma_known", "%Wi", *sizes)
    code.goto(sure)
    code.start(sure)
    return [code.load("i32", "%W", matrices.WMMA_KNOWN + 192 + 4 * i, 4) for i in range(count)]


def _tiles(x: Lowering, m: int, n: int, tile: Multiply, width: int, per_a: int, per_b: int) -> None:
    """D tile by tile, each by one m16n8k16 (tf32: m16n8k8)."""
    for row in range(0, m, 16):
        for column in range(0, n, 8):
            fill = (m, n, tile.k, row, column, width, per_a, per_b, int(tile.c_format == "f32"))
            call_helper(x, helper(x, "wmma_fill", "wmma_fill", *fill))
            call_variant(x, tile)
            take = (m, n, row, column, int(tile.d_format == "f32"))
            call_helper(x, helper(x, "wmma_take", "wmma_take", *take))
