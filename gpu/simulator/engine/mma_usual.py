"""Tensor Core arithmetic in the usual case, 16 rows to a vector: finite products of moderate size, summed to f32.

Products of nonzero elements with exponents in [-LEAST, LEAST] are exact in f32, their exponents fit a byte, and every
sum fits an int32.  Rows lie along the vector: a column of A times one broadcast element of B, so that nothing but the
operands' layout is shuffled.  `prepare` lays the operands out in a scratch area (A by columns and B as f32, both with
exponent bytes) and refuses special values, unusual exponents and accumulators; then `multiply` sums.  Both return 1
where the complete form must compute instead.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import jit, mma_complete
from loadsparse.gpu.simulator.engine.ir import Code
from loadsparse.gpu.simulator.engine.mma import B_AREA, C_AREA, D_AREA, METADATA_AREA, Multiply

LEAST = 30
ZERO = -115
"""Exponent byte of a zero: with any other, below every exponent that a nonzero sum of this path can have (-85)."""
CLAMP = -100
"""No sum is scaled by more than 2^(F - CLAMP), which is finite."""
C_LEAST = -60
A_FLOATS, B_FLOATS, A_EXPONENTS, B_EXPONENTS, POSITIONS, SCRATCH_BYTES = 0, 1024, 2048, 2304, 2560, 2816
TOP = 0x7F800000
ROWS = "<16 x i32>"
REAL = "<16 x float>"


def rounds_natively() -> bool:
    """True if the host converts int32 to f32 toward zero in one instruction."""
    return "+avx512f" in jit.processor()[1].split(",")


def text(variant: Multiply) -> str:
    """LLVM IR of ``i64 name(ptr area)``."""
    name = variant.name
    if variant.d_format != "f32" or variant.c_format != "f32" or variant.kinds[0] not in ("f16", "bf16", "tf32"):
        return mma_complete.text(variant, name)
    complete = f"{name}_complete"
    prepare = _Usual(variant).prepare(f"{name}_prepare")
    multiply = _Usual(variant).multiply(f"{name}_multiply")
    lines = (mma_complete.text(variant, complete) + prepare + multiply).splitlines()
    declarations = "\n".join(sorted({line for line in lines if line.startswith("declare")}))
    functions = "\n".join(line for line in lines if not line.startswith("declare"))
    return f"""{declarations}
{functions}
define i64 @{name}(ptr %p) nounwind {{
  %s = alloca [{SCRATCH_BYTES} x i8], align 64
  %odd = call i1 @{name}_prepare(ptr %p, ptr %s)
  br i1 %odd, label %unusual, label %usual
usual:
  %late = call i1 @{name}_multiply(ptr %p, ptr %s)
  br i1 %late, label %unusual, label %done
unusual:
  %r = call i64 @{complete}(ptr %p)
  br label %done
done:
  ret i64 0
}}
"""


class _Usual:
    """Emits the two functions of one variant."""

    def __init__(self, variant: Multiply) -> None:
        self.m, self.native = variant, rounds_natively()
        self.code = Code()
        self.kind = variant.kinds[0]
        self.wide = self.kind == "tf32"
        self.step_k = 4 if self.wide else 8
        """K covered by one register of B, and by one pair of registers of A."""
        self.element = "i32" if self.wide else "i16"

    def function(self, name: str, result: str) -> str:
        code = self.code
        head = "\n".join(sorted(code.declared))
        body = "\n".join(code.lines)
        return (
            f"{head}\ndefine internal i1 @{name}(ptr %p, ptr %s) noinline nounwind {{\n{body}\n  ret i1 {result}\n}}\n"
        )

    def shuffle(self, type_: str, count: int, sources: list[str], order: list[int]) -> str:
        index = ", ".join("i32 poison" if i < 0 else f"i32 {i}" for i in order)
        vector = f"<{count} x {type_}>"
        first, second = [*sources, "poison"][:2]
        return self.code.v(f"shufflevector {vector} {first}, {vector} {second}, <{len(order)} x i32> <{index}>")

    def any_of(self, flags: list[str], count: int) -> str:
        code = self.code
        total = flags[0]
        for flag in flags[1:]:
            total = code.op("or", f"<{count} x i1>", total, flag)
        return code.v(f"icmp ne i{count} {code.v(f'bitcast <{count} x i1> {total} to i{count}')}, 0")

    # operands

    def prepare(self, name: str) -> str:
        code, m = self.code, self.m
        odd = []
        for k in range(0, m.products, 2):
            pair = self.two_columns(k)
            exponent, unusual = self.exponents(pair)
            odd.append(unusual)
            code.store("<32 x i8>", exponent, "%s", A_EXPONENTS + 16 * k, 32)
            self.store_floats(pair, A_FLOATS + 64 * k)
        halves = 1 if self.wide else 2
        for index in range(m.k // self.step_k * halves):
            part = code.load(f"<32 x {self.element}>", "%p", B_AREA + index * (128 // halves), 64)
            part = self.clean(part)
            exponent, unusual = self.exponents(part)
            odd.append(unusual)
            code.store("<32 x i8>", exponent, "%s", B_EXPONENTS + 32 * index, 32)
            self.store_floats(part, B_FLOATS + 128 * index)
        if m.sparse:
            self.store_positions()
        special = code.v(f"or i1 {self.any_of(odd, 32)}, {self.unusual_c()}")
        return self.function(name, special)

    def store_positions(self) -> None:
        """Bytes: the place among four neighbours that stored element k of each row has."""
        code = self.code
        word = code.load("<32 x i32>", "%p", METADATA_AREA, 64)
        for k in range(self.m.products):
            lane, shift = self.m.supplier(k)
            place = self.shuffle("i32", 32, [word], [4 * (row % 8) + lane for row in range(16)])
            shifts = ", ".join(f"i32 {shift + row // 8 * 16}" for row in range(16))
            place = code.op("and", ROWS, code.op("lshr", ROWS, place, f"<{shifts}>"), "splat (i32 3)")
            code.store("<16 x i8>", code.v(f"trunc {ROWS} {place} to <16 x i8>"), "%s", POSITIONS + 16 * k, 16)

    def clean(self, bits: str) -> str:
        """tf32 ignores the low 13 bits."""
        return self.code.op("and", "<32 x i32>", bits, "splat (i32 -8192)") if self.wide else bits

    def two_columns(self, k: int) -> str:
        """A[0..15][k] and A[0..15][k + 1]; registers 2j and 2j + 1 are the 8 x step_k row-major upper and lower blocks."""
        code, element = self.code, self.element
        width = self.step_k
        found = []
        for lower in (0, 1):
            place = 128 * (k // width * 2 + lower)
            at = k % width
            parts = [
                code.load(f"<32 x {element}>", "%p", place + offset, 64) for offset in ((0,) if self.wide else (0, 64))
            ]
            order = [-1] * 32
            for row in range(8):
                for column in (0, 1):
                    order[16 * column + 8 * lower + row] = width * row + at + column
            found.append(self.shuffle(element, 32, parts, order))
        blend = [32 + i if i & 8 else i for i in range(32)]
        return self.clean(self.shuffle(element, 32, found, blend))

    def exponents(self, bits: str) -> tuple[str, str]:
        """Exponent bytes (ZERO of a zero), and which elements are special or unusual."""
        code, element = self.code, self.element
        v = f"<32 x {element}>"
        shift, bias = {"f16": (10, 15), "bf16": (7, 127), "tf32": (23, 127)}[self.kind]
        field = code.op(
            "and", v, code.op("lshr", v, bits, f"splat ({element} {shift})"), f"splat ({element} {2 * bias + 1})"
        )
        twice = code.op("shl", v, bits, f"splat ({element} 1)")
        zero = code.v(f"icmp eq {v} {twice}, zeroinitializer")
        if self.kind == "f16":
            unusual = code.v(f"icmp eq {v} {field}, splat ({element} 31)")
            field = code.intrinsic(f"llvm.umax.v32{element}", v, (v, field), (v, f"splat ({element} 1)"))
        exponent = code.op("sub", v, field, f"splat ({element} {bias})")
        if self.kind != "f16":
            moved = code.op("add", v, exponent, f"splat ({element} {LEAST})")
            far = code.v(f"icmp ugt {v} {moved}, splat ({element} {2 * LEAST})")
            unusual = code.v(f"select <32 x i1> {zero}, <32 x i1> zeroinitializer, <32 x i1> {far}")
        exponent = code.v(f"select <32 x i1> {zero}, {v} splat ({element} {ZERO}), {v} {exponent}")
        return code.v(f"trunc {v} {exponent} to <32 x i8>"), unusual

    def store_floats(self, bits: str, place: int) -> None:
        code = self.code
        if self.kind == "f16":
            value = code.v(f"fpext <32 x half> {code.v(f'bitcast <32 x i16> {bits} to <32 x half>')} to <32 x float>")
            return code.store("<32 x float>", value, "%s", place, 64)
        if self.kind == "bf16":
            wide = code.v(f"zext <32 x i16> {bits} to <32 x i32>")
            bits = code.op("shl", "<32 x i32>", wide, "splat (i32 16)")
        return code.store("<32 x i32>", bits, "%s", place, 64)

    def unusual_c(self) -> str:
        """i1: some accumulator is NaN, infinite, or not zero and below 2^C_LEAST."""
        code = self.code
        flags = []
        for register in range(4):
            c = code.load("<32 x i32>", "%p", C_AREA + 128 * register, 64)
            twice = code.op("shl", "<32 x i32>", c, "splat (i32 1)")
            least = 127 + C_LEAST
            moved = code.op("sub", "<32 x i32>", twice, f"splat (i32 {least << 24})")
            far = code.v(f"icmp uge <32 x i32> {moved}, splat (i32 {(255 - least) << 24})")
            some = code.v(f"icmp ne <32 x i32> {twice}, zeroinitializer")
            flags.append(code.v(f"and <32 x i1> {far}, {some}"))
        return self.any_of(flags, 32)

    # sums

    def multiply(self, name: str) -> str:
        code, m = self.code, self.m
        sums = self.accumulators()
        highest_c, overflow = "zeroinitializer", "zeroinitializer"
        for start in range(0, m.products, m.core.block):
            ks = range(start, min(start + m.core.block, m.products))
            columns = {k: code.load(REAL, "%s", A_FLOATS + 64 * k, 64) for k in ks}
            powers = [self.product_exponents(ks, 4 * group) for group in (0, 1)]
            for n in range(8):
                top = code.op("and", ROWS, sums[n], f"splat (i32 {TOP})")
                if start:
                    highest_c = code.intrinsic("llvm.umax.v16i32", ROWS, (ROWS, highest_c), (ROWS, top))
                lane = 16 * (n % 4)
                power = self.shuffle("i8", 64, [powers[n // 4]], list(range(lane, lane + 16)))
                power = code.op("shl", ROWS, code.v(f"sext <16 x i8> {power} to {ROWS}"), "splat (i32 23)")
                top = code.op("sub", ROWS, top, f"splat (i32 {127 << 23})")
                power = code.intrinsic("llvm.smax.v16i32", ROWS, (ROWS, power), (ROWS, top))
                total, over = self.total(ks, columns, n, sums[n], power)
                if over:
                    overflow = code.op("or", ROWS, overflow, over)
                sums[n] = self.rounded(total, power)
        self.results(sums)
        infinite = code.v(f"icmp eq {ROWS} {highest_c}, splat (i32 {TOP})")
        wrapped = code.v(f"icmp slt {ROWS} {overflow}, zeroinitializer")
        return self.function(name, self.any_of([infinite, wrapped], 16))

    def product_exponents(self, ks: range, first: int) -> str:
        """Largest exponent byte of the products of columns first..first+3 of the result: 16 rows each."""
        code, v = self.code, "<64 x i8>"
        highest = f"splat (i8 {CLAMP})"
        for k in ks:
            rows = self.four_times(A_EXPONENTS + 16 * k)
            if self.m.sparse:
                four = [self.column_exponents(k // 2 * 4 + i, first) for i in range(4)]
                column = self.chosen(v, self.places(v, self.four_times(POSITIONS + 16 * k)), four)
            else:
                column = self.column_exponents(k, first)
            both = code.intrinsic("llvm.sadd.sat.v64i8", v, (v, rows), (v, column))
            highest = code.intrinsic("llvm.smax.v64i8", v, (v, highest), (v, both))
        return highest

    def four_times(self, place: int) -> str:
        rows = self.code.load("<16 x i8>", "%s", place, 16)
        return self.shuffle("i8", 16, [rows], [i % 16 for i in range(64)])

    def column_exponents(self, k: int, first: int) -> str:
        """Exponent bytes of B[k][first..first+3], 16 times each."""
        count = 8 * self.step_k
        column = self.code.load(f"<{count} x i8>", "%s", B_EXPONENTS + count * (k // self.step_k), 32)
        order = [self.step_k * (first + i // 16) + k % self.step_k for i in range(64)]
        return self.shuffle("i8", count, [column], order)

    def partner(self, k: int, n: int) -> str:
        """What the stored elements k of all rows of A are multiplied with in column n."""
        if not self.m.sparse:
            return self.spread(k, n)
        positions = self.code.load("<16 x i8>", "%s", POSITIONS + 16 * k, 16)
        return self.chosen(
            REAL, self.places("<16 x i8>", positions), [self.spread(k // 2 * 4 + i, n) for i in range(4)]
        )

    def spread(self, k: int, n: int) -> str:
        """B[k][n] in every row."""
        code = self.code
        place = B_FLOATS + 4 * (8 * self.step_k * (k // self.step_k) + self.step_k * n + k % self.step_k)
        one = code.v(f"insertelement {REAL} poison, float {code.load('float', '%s', place, 4)}, i64 0")
        return code.v(f"shufflevector {REAL} {one}, {REAL} poison, {ROWS} zeroinitializer")

    def places(self, v: str, positions: str) -> list[str]:
        """Flags: the place is 0, 1, 2."""
        return [self.code.v(f"icmp eq {v} {positions}, splat (i8 {i})") for i in range(3)]

    def chosen(self, v: str, places: list[str], four: list[str]) -> str:
        """By lane one of four neighbours."""
        value = four[3]
        for here, other in zip(places, four, strict=False):
            value = self.code.v(f"select {v.split(' x ')[0]} x i1> {here}, {v} {other}, {v} {value}")
        return value

    def scale(self, power: str, sign: int) -> str:
        """2^(sign (F - E)) from E << 23."""
        code = self.code
        bits = f"splat (i32 {(127 + sign * self.m.core.fraction) << 23})"
        bits = code.op("sub", ROWS, bits, power) if sign > 0 else code.op("add", ROWS, bits, power)
        return code.v(f"bitcast {ROWS} {bits} to {REAL}")

    def total(self, ks: range, columns: dict[int, str], n: int, c: str, power: str) -> tuple[str, str]:
        """The aligned sum of a block as int32; for more than 8 products also a word whose sign says that it wrapped."""
        code = self.code
        scale = self.scale(power, 1)
        c_value = code.v(f"bitcast {ROWS} {c} to {REAL}")
        c_term = code.v(f"fptosi {REAL} {code.op('fmul', REAL, c_value, scale)} to {ROWS}")
        groups = []
        for start in range(0, len(ks), 8):
            total = "" if start else c_term
            for k in ks[start : start + 8]:
                product = code.op("fmul", REAL, columns[k], self.partner(k, n))
                product = code.op("fmul", REAL, product, scale)
                term = code.v(f"fptosi {REAL} {product} to {ROWS}")
                total = code.op("add", ROWS, total, term) if total else term
            groups.append(total)
        if len(groups) == 1:
            return groups[0], ""
        total = code.op("add", ROWS, *groups)
        first, second = (code.op("xor", ROWS, total, g) for g in groups)
        return total, code.op("and", ROWS, first, second)

    def rounded(self, total: str, power: str) -> str:
        """total 2^(E - F), truncated to f32."""
        code = self.code
        value = self.natively(total) if self.native else self.portably(total)
        value = code.op("fmul", REAL, value, self.scale(power, -1))
        return code.v(f"bitcast {REAL} {value} to {ROWS}")

    def natively(self, total: str) -> str:
        toward_zero = 11
        name = "llvm.x86.avx512.sitofp.round.v16f32.v16i32"
        return self.code.intrinsic(name, REAL, (ROWS, total), ("i32", str(toward_zero)))

    def portably(self, total: str) -> str:
        """Round to nearest, then step back where that went away from zero."""
        code = self.code
        near = code.v(f"sitofp {ROWS} {total} to {REAL}")
        back = code.v(f"fptosi {REAL} {near} to {ROWS}")
        sizes = [code.intrinsic("llvm.abs.v16i32", ROWS, (ROWS, v), ("i1", "false")) for v in (back, total)]
        away = code.v(f"icmp ugt {ROWS} {sizes[0]}, {sizes[1]}")
        bits = code.v(f"bitcast {REAL} {near} to {ROWS}")
        bits = code.op("add", ROWS, bits, code.v(f"sext <16 x i1> {away} to {ROWS}"))
        return code.v(f"bitcast {ROWS} {bits} to {REAL}")

    # accumulators: register 2h + p of lane 4g + t holds row g + 8h, column 2t + p

    def accumulators(self) -> list[str]:
        """C by columns."""
        code = self.code
        sums = [""] * 8
        for parity in (0, 1):
            upper, lower = (code.load("<32 x i32>", "%p", C_AREA + 128 * (2 * h + parity), 64) for h in (0, 1))
            for t in range(4):
                rows = [4 * g + t for g in range(8)]
                sums[2 * t + parity] = self.shuffle("i32", 32, [upper, lower], rows + [32 + r for r in rows])
        return sums

    def results(self, sums: list[str]) -> None:
        """D from its columns."""
        code = self.code
        for parity in (0, 1):
            pairs = [
                self.shuffle("i32", 16, [sums[4 * i + parity], sums[4 * i + 2 + parity]], list(range(32)))
                for i in (0, 1)
            ]
            for half in (0, 1):
                order = [32 * (t // 2) + 16 * (t % 2) + 8 * half + g for g in range(8) for t in range(4)]
                value = self.shuffle("i32", 32, pairs, order)
                code.store("<32 x i32>", value, "%p", D_AREA + 128 * (2 * half + parity), 64)
