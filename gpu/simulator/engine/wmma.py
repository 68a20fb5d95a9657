"""wmma.load, wmma.store and wmma.mma; mma.sync of 8-bit integers.  `matrices.py` says which lane holds which element."""

from __future__ import annotations

import re

from loadsparse.gpu.simulator.engine import layout, matrices, runtime
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
from loadsparse.gpu.simulator.engine.mma import Multiply, tensor_core
from loadsparse.gpu.simulator.program import Instruction, Operand, Register, Vector

BYTES = {"f16": 2, "bf16": 2, "f32": 4, "s32": 4, "s8": 1, "u8": 1}
SHAPE = re.compile(r"m(\d+)n(\d+)k16$")


def elements(operand: Operand | None) -> tuple[Operand | None, ...]:
    return operand.elements if isinstance(operand, Vector) else (operand,)


def _shape(instruction: Instruction) -> tuple[int, int]:
    """(M, N) of a shape with K = 16."""
    for modifier in instruction.modifiers:
        if found := SHAPE.match(modifier):
            return int(found[1]), int(found[2])
    raise refuse(instruction)


@lowers("wmma")
def wmma(x: Lowering, instruction: Instruction) -> None:
    if instruction.guard is not None:
        raise refuse(instruction, "with a guard")
    (_multiply if instruction.modifiers[0] == "mma" else _move)(x, instruction)


def _move(x: Lowering, instruction: Instruction) -> None:
    """One access per element, which the warp counts as one request."""
    code, modifiers, operands = x.code, instruction.modifiers, instruction.operands
    m, n = _shape(instruction)
    loads, role, width = modifiers[0] == "load", modifiers[1], BYTES[modifiers[-1]]
    target, source = (operands[0], operands[1]) if loads else (operands[1], operands[0])
    rows, columns = {"a": (m, 16), "b": (16, n)}.get(role, (m, n))
    registers = elements(target)
    per_register = 4 // width
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
        bits, known = splat("i32", 0), FULL
        values = "" if loads else x.get(register, "b32")
        for part in range(per_register):
            cells = [(per_lane * lane + number * per_register + part) % (rows * columns) for lane in range(32)]
            major = [cell // columns if by_row else cell % columns for cell in cells]
            minor = [cell % columns if by_row else cell // columns for cell in cells]
            place = code.op("mul", vec("i64"), leading, lanes("i64", major))
            place = code.op("add", vec("i64"), place, lanes("i64", minor))
            place = code.op("mul", vec("i64"), place, splat("i64", width))
            place = code.op("add", vec("i64"), base, place)
            code.store(vec("i64"), place, "%W", layout.W_ADDRESS, 64)
            shift = splat("i32", 8 * width * part)
            if loads:
                call_helper(x, access)
                value = code.load(vec(element), "%W", layout.W_DATA, 64)
                value = x.resize(value, element, "i32")
                value = code.op("shl", vec("i32"), value, shift) if part else value
                bits = code.op("or", vec("i32"), bits, value)
                known = code.mask_and(known, code.load("i32", "%W", layout.W_DEFINED, 4))
                continue
            value = code.op("lshr", vec("i32"), values, shift) if part else values
            code.store(vec(element), x.resize(value, "i32", element), "%W", layout.W_DATA, 64)
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


def _put(x: Lowering, area: int, masks: int, registers: tuple[Operand | None, ...]) -> str:
    """Stores registers, and their defined masks at `masks` (0: nowhere); returns the AND of these."""
    code, known = x.code, FULL
    for index, register in enumerate(registers):
        value = x.of_group("i32", x.get(register, "b32"))
        code.store(vec("i32"), value, "%W", area + 128 * index, 64)
        defined = x.defined_of(register)
        known = code.mask_and(known, defined)
        if masks:
            code.store("i32", defined, "%W", masks + 4 * index, 4)
    return known


def _multiply(x: Lowering, instruction: Instruction) -> None:
    code, modifiers = x.code, instruction.modifiers
    m, n = _shape(instruction)
    types = [t for t in modifiers if t in BYTES]
    d_type, a_type, b_type, c_type = types if len(types) == 4 else (types[0], "f16", "f16", types[-1])
    d, a, b, c = (elements(o) for o in instruction.operands)
    areas = (matrices.WMMA_A, matrices.WMMA_B, matrices.WMMA_C)
    known = FULL
    for index, (area, registers) in enumerate(zip(areas, (a, b, c), strict=True)):
        masks = matrices.WMMA_KNOWN + 64 * index if x.frame.checks.uninitialized else 0
        known = code.mask_and(known, _put(x, area, masks, registers))
    per_a, per_b = (len(r) * 4 // BYTES[a_type] for r in (a, b))
    if d_type == "s32":
        signs = (int(a_type == "s8"), int(b_type == "s8"), int("satfinite" in modifiers))
        call_helper(x, helper(x, "wmma_integers", "wmma_integers", m, n, *signs))
    else:
        _tiles(x, m, n, Multiply(a_type, 16, d_type, c_type, tensor_core(x.frame.arch)), per_a, per_b)
    if known == FULL:
        masks_of_d = [FULL] * len(d)
    else:
        sizes = (m, n, per_a, per_b, BYTES[a_type], BYTES[c_type], BYTES[d_type])
        code.store("<16 x i32>", splat("i32", -1), "%W", matrices.WMMA_KNOWN + 192, 64)
        vague, sure = code.fresh("vague"), code.fresh("sure")
        code.branch(code.v(f"icmp ne i32 {known}, -1"), vague, sure, likely=False)
        code.start(vague)
        call_runtime(x, "wmma_known", "%Wi", *sizes)
        code.goto(sure)
        code.start(sure)
        masks_of_d = [code.load("i32", "%W", matrices.WMMA_KNOWN + 192 + 4 * i, 4) for i in range(len(d))]
    for index, register in enumerate(d):
        if not isinstance(register, Register):
            raise refuse(instruction)
        x.put(register, code.load(vec("i32"), "%W", matrices.WMMA_D + 128 * index, 64), masks_of_d[index])


def _tiles(x: Lowering, m: int, n: int, variant: Multiply, per_a: int, per_b: int) -> None:
    """D tile by tile, each by one m16n8k16."""
    code = x.code
    x.frame.multiplies[variant.name] = variant
    function = runtime.prefix() + variant.name
    code.declared.add(f"declare i64 @{function}(ptr)")
    for row in range(0, m, 16):
        for column in range(0, n, 8):
            fill = (m, n, row, column, per_a, per_b, int(variant.c_format == "f32"))
            call_helper(x, helper(x, "wmma_fill", "wmma_fill", *fill))
            code.call(function, "i64", ("ptr", code.at("%W", layout.W_MMA)))
            take = (m, n, row, column, int(variant.d_format == "f32"))
            call_helper(x, helper(x, "wmma_take", "wmma_take", *take))


def multiply_integers(x: Lowering, instruction: Instruction, shape: str, kinds: tuple[str, str]) -> None:
    """mma.sync.m8n8k16, m16n8k16 or m16n8k32 of s8 and u8."""
    m, depth = int(shape[1 : shape.index("n")]), int(shape[shape.index("k") + 1 :])
    a, b, c = (elements(o) for o in instruction.operands[1:4])
    for area, registers in ((matrices.A_AREA, a), (matrices.B_AREA, b), (matrices.C_AREA, c)):
        _put(x, area, 0, registers)
    signs = (int(kinds[0] == "s8"), int(kinds[1] == "s8"), int("satfinite" in instruction.modifiers))
    call_helper(x, helper(x, "mma_integers", "mma_integers", m, depth, *signs))
