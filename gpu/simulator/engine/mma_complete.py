"""Tensor Core arithmetic, bit for bit, 16 outputs to a vector, for whatever the operands hold.

A block of K_b products and c is summed exactly as hardware does it: E is the largest exponent among the products
(ea + eb, not renormalised) and c; every term is truncated toward zero to F fraction bits under 2^E; the integers are
added; the sum is truncated (f32) or rounded to nearest even (f16).  Here float multiplication does the aligning: with
x = a * b exact (f32 holds products of f16 and 8-bit floats, f64 those of bf16 and tf32) and s = 2^(F - E), the term is
the float-to-integer conversion of x * s, which truncates; and 2^(ea + eb) is itself the product of two powers of two.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.ir import Code
from loadsparse.gpu.simulator.engine.mma import A_AREA, B_AREA, C_AREA, D_AREA, METADATA_AREA, Multiply

LEAST = {"f16": -14, "bf16": -126, "tf32": -126, "e4m3": -6, "e5m2": -14}
"""Exponent of a format's subnormals."""
Element = tuple[str, str]
"""Vectors of values, and of the powers of two of their exponents (0 of a zero)."""


def text(variant: Multiply, name: str) -> str:
    """LLVM IR of ``i64 name(ptr area)``."""
    return _Emitter(variant).run(name)


class _Emitter:
    """Straight-line code for one variant; a vector holds the outputs of 16 lanes."""

    def __init__(self, variant: Multiply) -> None:
        self.m = variant
        self.code = Code()
        wide = variant.kinds[0] in ("bf16", "tf32")
        self.element, self.integer = ("double", "i64") if wide else ("float", "i32")
        self.mantissa, self.bias = (52, 1023) if wide else (23, 127)

    def vector(self, element: str, count: int = 16) -> str:
        return f"<{count} x {element}>"

    def constant(self, power: int) -> str:
        """Splat of 2**power as a float."""
        bits = (power + 1023) << 52
        return f"splat ({self.element} 0x{bits:016X})"

    def run(self, name: str) -> str:
        code, m = self.code, self.m
        block, groups = m.core.block, 4 * m.per_register
        a, a_special = self.decode(m.kinds[0], A_AREA, 2 * -(-m.products // groups))
        b, b_special = self.decode(m.kinds[1], B_AREA, -(-m.k // groups))
        special = self.any_special([*a_special, *b_special])
        columns = {(parity, k): self.column(b, parity, k) for parity in (0, 1) for k in range(m.k)}
        for half in (0, 1):
            for row_half in (0, 1):
                rows = [self.row(a, half, row_half, k) for k in range(m.products)]
                places = self.positions(half, row_half) if m.sparse else {}
                for parity in (0, 1):
                    c = self.accumulator(half, row_half, parity)
                    for start in range(0, m.products, block):
                        ks = range(start, min(start + block, m.products))
                        terms = [(rows[k], self.partner(columns, places, parity, k)) for k in ks]
                        c = self.step(terms, c, special)
                    self.result(c, half, row_half, parity)
        declarations = "\n".join(sorted(code.declared))
        body = "\n".join(code.lines)
        return f"{declarations}\ndefine i64 @{name}(ptr %p) nounwind {{\nentry:\n{body}\n  ret i64 0\n}}\n"

    # decoding

    def decode(self, kind: str, area: int, registers: int) -> tuple[list[Element], list[str]]:
        """The elements of every part of every register, <32 x float or double>; and which of them are special."""
        code, per = self.code, self.m.per_register
        elements, special = [], []
        for register in range(registers):
            word = code.load("<32 x i32>", "%p", area + 128 * register, 64)
            for part in range(per):
                bits = code.op("lshr", "<32 x i32>", word, f"splat (i32 {32 // per * part})") if part else word
                value, odd = self.number(kind, bits)
                elements.append((value, self.power(value, kind)))
                special.append(odd)
        return elements, special

    def number(self, kind: str, bits: str) -> tuple[str, str]:
        """Values of the low bits of i32 lanes; and which are NaN or infinite."""
        code, v = self.code, "<32 x i32>"
        if kind == "tf32":
            bits = code.op("and", v, bits, "splat (i32 -8192)")
            return self.widen(bits), self.special_bits(bits, 0x7F800000)
        if kind == "bf16":
            bits = code.op("shl", v, bits, "splat (i32 16)")
            return self.widen(bits), self.special_bits(bits, 0x7F800000)
        if kind == "f16":
            return self.half(bits), self.special_bits(bits, 0x7C00)
        bits = code.op("shl", v, bits, "splat (i32 8)")
        if kind == "e5m2":
            return self.half(bits), self.special_bits(bits, 0x7C00)
        # e4m3: moved into a half, whose bias is 8 more
        sign = code.op("and", v, bits, "splat (i32 32768)")
        size = code.op("and", v, code.op("lshr", v, bits, "splat (i32 1)"), f"splat (i32 {0x3F80})")
        value = self.half(code.op("or", v, sign, size))
        value = code.op("fmul", "<32 x float>", value, "splat (float 256.0)")
        nan = code.v(f"icmp eq {v} {size}, splat (i32 {0x3F80})")
        quiet = "splat (float 0x7FF8000000000000)"
        return code.v(f"select <32 x i1> {nan}, <32 x float> {quiet}, <32 x float> {value}"), nan

    def half(self, bits: str) -> str:
        """Bits of halves in i32 lanes -> float."""
        small = self.code.v(f"trunc <32 x i32> {bits} to <32 x i16>")
        value = self.code.v(f"bitcast <32 x i16> {small} to <32 x half>")
        return self.code.v(f"fpext <32 x half> {value} to <32 x float>")

    def widen(self, bits: str) -> str:
        value = self.code.v(f"bitcast <32 x i32> {bits} to <32 x float>")
        return self.code.v(f"fpext <32 x float> {value} to <32 x double>")

    def special_bits(self, bits: str, exponent: int) -> str:
        code = self.code
        masked = code.op("and", "<32 x i32>", bits, f"splat (i32 {exponent})")
        return code.v(f"icmp eq <32 x i32> {masked}, splat (i32 {exponent})")

    def any_special(self, parts: list[str]) -> str:
        """i1: some element of A or B is NaN or infinite."""
        flags = parts[0]
        for more in parts[1:]:
            flags = self.code.op("or", "<32 x i1>", flags, more)
        mask = self.code.v(f"bitcast <32 x i1> {flags} to i32")
        return self.code.v(f"icmp ne i32 {mask}, 0")

    def shuffle(self, value: str, indices: list[int]) -> str:
        order = ", ".join(f"i32 {i}" for i in indices)
        e = self.element
        return self.code.v(f"shufflevector <32 x {e}> {value}, <32 x {e}> poison, <{len(indices)} x i32> <{order}>")

    def power(self, value: str, kind: str) -> str:
        """2^exponent of every lane, or 0: subnormals keep the format's minimum exponent."""
        code = self.code
        vector, integer = f"<32 x {self.element}>", f"<32 x {self.integer}>"
        bits = code.v(f"bitcast {vector} {value} to {integer}")
        top = ((2 * self.bias + 1) << self.mantissa) & ((1 << (self.mantissa + 12)) - 1)
        power = code.op("and", integer, bits, f"splat ({self.integer} {top})")
        power = code.v(f"bitcast {integer} {power} to {vector}")
        least = self.constant(LEAST[kind])
        small = code.v(f"fcmp olt {vector} {power}, {least}")
        zero = code.v(f"fcmp oeq {vector} {value}, zeroinitializer")
        power = code.v(f"select <32 x i1> {small}, {vector} {least}, {vector} {power}")
        return code.v(f"select <32 x i1> {zero}, {vector} zeroinitializer, {vector} {power}")

    def row(self, a: list[Element], half: int, row_half: int, k: int) -> Element:
        """A[g + 8 row_half][k] for the lanes of one half warp: each quad broadcasts one of its lanes."""
        register, part, lane = self.m.place("A", row_half, k)
        value, power = a[register * self.m.per_register + part]
        order = [16 * half + 4 * (i // 4) + lane for i in range(16)]
        return self.shuffle(value, order), self.shuffle(power, order)

    def column(self, b: list[Element], parity: int, k: int) -> Element:
        """B[k][2t + parity]: the same for every quad."""
        register, part, lane = self.m.place("B", 0, k)
        value, power = b[register * self.m.per_register + part]
        order = [4 * (2 * (i % 4) + parity) + lane for i in range(16)]
        return self.shuffle(value, order), self.shuffle(power, order)

    def positions(self, half: int, row_half: int) -> dict[int, list[str]]:
        """For every stored element of the rows of A: where its place among four neighbours is 0, 1 and 2."""
        code, v = self.code, "<16 x i32>"
        word = code.load("<32 x i32>", "%p", METADATA_AREA, 64)
        found = {}
        for k in range(self.m.products):
            lane, shift = self.m.supplier(k)
            order = ", ".join(f"i32 {16 * half + 4 * (i // 4) + lane}" for i in range(16))
            own = code.v(f"shufflevector <32 x i32> {word}, <32 x i32> poison, <16 x i32> <{order}>")
            place = code.op("lshr", v, own, f"splat (i32 {16 * row_half + shift})")
            place = code.op("and", v, place, "splat (i32 3)")
            found[k] = [code.v(f"icmp eq {v} {place}, splat (i32 {i})") for i in range(3)]
        return found

    def partner(
        self, columns: dict[tuple[int, int], Element], places: dict[int, list[str]], parity: int, k: int
    ) -> Element:
        """The elements of B that element k of each row of A is multiplied with."""
        if not places:
            return columns[parity, k]
        first = k // 2 * 4
        value, power = columns[parity, first + 3]
        for i, here in enumerate(places[k]):
            other_value, other_power = columns[parity, first + i]
            value, power = (self.choose(here, *pair) for pair in ((other_value, value), (other_power, power)))
        return value, power

    def choose(self, flags: str, yes: str, no: str) -> str:
        vector = self.vector(self.element)
        return self.code.v(f"select {self.vector('i1')} {flags}, {vector} {yes}, {vector} {no}")

    # accumulation

    def accumulator(self, half: int, row_half: int, parity: int) -> str:
        """c as <16 x i32> of f32 bit patterns (f16 accumulators are widened exactly)."""
        code = self.code
        if self.m.c_format == "f32":
            return code.load("<16 x i32>", "%p", C_AREA + 128 * (2 * row_half + parity) + 64 * half, 64)
        word = code.load("<16 x i32>", "%p", C_AREA + 128 * row_half + 64 * half, 64)
        word = code.op("lshr", "<16 x i32>", word, "splat (i32 16)") if parity else word
        return self.half_to_float(code.v(f"trunc <16 x i32> {word} to <16 x i16>"))

    def half_to_float(self, bits: str) -> str:
        value = self.code.v(f"bitcast <16 x i16> {bits} to <16 x half>")
        value = self.code.v(f"fpext <16 x half> {value} to <16 x float>")
        return self.code.v(f"bitcast <16 x float> {value} to <16 x i32>")

    def step(self, terms: list[tuple[Element, Element]], c_bits: str, special: str) -> str:
        """One hardware block: sum of products and c -> f32 bits of the result in the result format."""
        code = self.code
        vector, integer = self.vector(self.element), self.vector(self.integer)
        f = self.m.core.fraction
        c = code.v(f"bitcast <16 x i32> {c_bits} to <16 x float>")
        wide_c = c if self.element == "float" else code.v(f"fpext <16 x float> {c} to <16 x double>")
        c_power = code.op("and", "<16 x i32>", c_bits, "splat (i32 2139095040)")
        c_power = code.v(f"bitcast <16 x i32> {c_power} to <16 x float>")
        if self.element == "double":
            c_power = code.v(f"fpext <16 x float> {c_power} to <16 x double>")
        if self.element == "double" or self.m.d_format == "f16":
            c_power = self.c_floor(c_power, wide_c)
        highest = self.highest([code.op("fmul", vector, a[1], b[1]) for a, b in terms])
        no_product = code.v(f"fcmp oeq {vector} {highest}, zeroinitializer")
        highest = self.maximum(highest, c_power)
        clamp = self.m.core.clamp_f16 if self.m.d_format == "f16" else self.m.core.clamp_f32
        floor = max(clamp, -60 if self.element == "float" else -300)
        highest = self.maximum(highest, self.constant(floor))
        scale_bits = code.v(f"bitcast {vector} {highest} to {integer}")
        top = (2 * self.bias + f) << self.mantissa
        scale = code.op("sub", integer, f"splat ({self.integer} {top})", scale_bits)
        scale = code.v(f"bitcast {integer} {scale} to {vector}")
        pieces = []
        for a, b in terms:
            product = code.op("fmul", vector, code.op("fmul", vector, a[0], b[0]), scale)
            pieces.append(code.v(f"fptosi {vector} {product} to <16 x i32>"))
        c_term = code.op("fmul", vector, wide_c, scale)
        c_term = code.v(f"fptosi {vector} {c_term} to <16 x i32>")
        total = self.exact_sum(pieces, c_term)
        result = self.round(total, highest, c_bits, no_product)
        return self.patch_special(result, terms, c, special)

    def c_floor(self, power: str, c: str) -> str:
        """A subnormal c keeps exponent -126 (-14 where c came from f16); zero has none."""
        code, vector = self.code, self.vector(self.element)
        least = self.constant(-14 if self.m.d_format == "f16" and self.m.c_format == "f16" else -126)
        power = self.maximum(power, least)
        zero = code.v(f"fcmp oeq {vector} {c}, zeroinitializer")
        return code.v(f"select {self.vector('i1')} {zero}, {vector} zeroinitializer, {vector} {power}")

    def maximum(self, a: str, b: str) -> str:
        vector = self.vector(self.element)
        return self.choose(self.code.v(f"fcmp ogt {vector} {a}, {b}"), a, b)

    def highest(self, values: list[str]) -> str:
        while len(values) > 1:
            pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
            values = [self.maximum(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        return values[0]

    def add_all(self, values: list[str]) -> str:
        total = values[0]
        for value in values[1:]:
            total = self.code.op("add", "<16 x i32>", total, value)
        return total

    def exact_sum(self, pieces: list[str], c_term: str) -> str:
        """Exact sum as <16 x double>; 17 terms of F = 25 need 33 bits, so at most 8 products share an integer."""
        code = self.code
        groups = [pieces[i : i + 8] for i in range(0, len(pieces), 8)]
        groups[-1] = [*groups[-1], c_term]
        totals = [code.v(f"sitofp <16 x i32> {self.add_all(g)} to <16 x double>") for g in groups]
        total = totals[0]
        for more in totals[1:]:
            total = code.op("fadd", "<16 x double>", total, more)
        return total

    def round(self, total: str, highest: str, c_bits: str, no_product: str) -> str:
        """total * 2^(E - F) in the result format, as f32 bits."""
        code = self.code
        unit = f"splat (double 0x{(1023 - self.m.core.fraction) << 52:016X})"
        if self.element == "float":
            highest = code.v(f"fpext <16 x float> {highest} to <16 x double>")
        scale = code.op("fmul", "<16 x double>", highest, unit)
        if self.m.d_format == "f16":
            return self.round_half(code.op("fmul", "<16 x double>", total, scale))
        bits = code.v(f"bitcast <16 x double> {total} to <16 x i64>")
        kept = self.m.core.kept
        bits = code.op("and", "<16 x i64>", bits, f"splat (i64 {-1 << (52 - kept)})")
        value = code.v(f"bitcast <16 x i64> {bits} to <16 x double>")
        value = code.op("fmul", "<16 x double>", value, scale)
        if self.element == "double":
            value = self.truncate_subnormal(value)
        narrow = code.v(f"fptrunc <16 x double> {value} to <16 x float>")
        result = code.v(f"bitcast <16 x float> {narrow} to <16 x i32>")
        if self.element == "float":
            # only c: nothing is aligned away, and -0 becomes +0
            if kept < 23:
                c_bits = code.op("and", "<16 x i32>", c_bits, f"splat (i32 {-1 << (23 - kept)})")
            value = code.v(f"bitcast <16 x i32> {c_bits} to <16 x float>")
            value = code.op("fadd", "<16 x float>", value, "zeroinitializer")
            alone = code.v(f"bitcast <16 x float> {value} to <16 x i32>")
            result = code.v(f"select <16 x i1> {no_product}, <16 x i32> {alone}, <16 x i32> {result}")
        return result

    def truncate_subnormal(self, value: str) -> str:
        """Below 2^-126 an f32 has steps of 2^-149.  What is cut to nothing keeps its sign; an exact zero sum is +0 already."""
        code = self.code
        up, down = (f"splat (double 0x{(1023 + p) << 52:016X})" for p in (149, -149))
        steps = code.op("fmul", "<16 x double>", value, up)
        steps = code.intrinsic("llvm.trunc.v16f64", "<16 x double>", ("<16 x double>", steps))
        small = code.op("fmul", "<16 x double>", steps, down)
        size = code.intrinsic("llvm.fabs.v16f64", "<16 x double>", ("<16 x double>", value))
        least = f"splat (double 0x{(1023 - 126) << 52:016X})"
        flag = code.v(f"fcmp olt <16 x double> {size}, {least}")
        return code.v(f"select <16 x i1> {flag}, <16 x double> {small}, <16 x double> {value}")

    def round_half(self, value: str) -> str:
        """double -> nearest even f16 -> its f32 bits (through f32 rounded to odd)."""
        code = self.code
        narrow = code.v(f"fptrunc <16 x double> {value} to <16 x float>")
        back = code.v(f"fpext <16 x float> {narrow} to <16 x double>")
        bits = code.v(f"bitcast <16 x float> {narrow} to <16 x i32>")
        size = code.intrinsic("llvm.fabs.v16f64", "<16 x double>", ("<16 x double>", value))
        back_size = code.intrinsic("llvm.fabs.v16f64", "<16 x double>", ("<16 x double>", back))
        above = code.v(f"fcmp ogt <16 x double> {back_size}, {size}")
        bits = code.op("sub", "<16 x i32>", bits, code.v(f"zext <16 x i1> {above} to <16 x i32>"))
        lost = code.v(f"fcmp one <16 x double> {back_size}, {size}")
        bits = code.op("or", "<16 x i32>", bits, code.v(f"zext <16 x i1> {lost} to <16 x i32>"))
        odd = code.v(f"bitcast <16 x i32> {bits} to <16 x float>")
        half = code.v(f"fptrunc <16 x float> {odd} to <16 x half>")
        return self.half_to_float(code.v(f"bitcast <16 x half> {half} to <16 x i16>"))

    def patch_special(self, result: str, terms: list[tuple[Element, Element]], c: str, special: str) -> str:
        """NaN and infinities by IEEE on the inputs; the rare path is a branch."""
        code = self.code
        c_size = code.intrinsic("llvm.fabs.v16f32", "<16 x float>", ("<16 x float>", c))
        c_odd = code.v(f"fcmp uge <16 x float> {c_size}, splat (float 0x7FF0000000000000)")
        c_mask = code.v(f"bitcast <16 x i1> {c_odd} to i16")
        c_any = code.v(f"icmp ne i16 {c_mask}, 0")
        any_ = code.v(f"or i1 {c_any}, {special}")
        before, rare, after = code.fresh("plain"), code.fresh("special"), code.fresh("joined")
        code.label(before)
        code.branch(any_, rare, after)
        code.start(rare)
        total = code.v(f"fpext <16 x float> {c} to <16 x double>")
        for a, b in terms:
            factors = [a[0], b[0]]
            if self.element == "float":
                factors = [code.v(f"fpext <16 x float> {v} to <16 x double>") for v in factors]
            total = code.op("fadd", "<16 x double>", total, code.op("fmul", "<16 x double>", *factors))
        nan = code.v(f"fcmp uno <16 x double> {total}, zeroinitializer")
        size = code.intrinsic("llvm.fabs.v16f64", "<16 x double>", ("<16 x double>", total))
        infinite = code.v(f"fcmp oeq <16 x double> {size}, splat (double 0x7FF0000000000000)")
        value = code.v(f"fptrunc <16 x double> {total} to <16 x float>")
        value = code.v(f"bitcast <16 x float> {value} to <16 x i32>")
        chosen = code.v(f"select <16 x i1> {infinite}, <16 x i32> {value}, <16 x i32> {result}")
        chosen = code.v(f"select <16 x i1> {nan}, <16 x i32> splat (i32 2147483647), <16 x i32> {chosen}")
        code.goto(after)
        code.start(after)
        return code.v(f"phi <16 x i32> [ {result}, %{before} ], [ {chosen}, %{rare} ]")

    def result(self, bits: str, half: int, row_half: int, parity: int) -> None:
        code = self.code
        if self.m.d_format == "f32":
            return code.store("<16 x i32>", bits, "%p", D_AREA + 128 * (2 * row_half + parity) + 64 * half, 64)
        value = code.v(f"bitcast <16 x i32> {bits} to <16 x float>")
        value = code.v(f"fptrunc <16 x float> {value} to <16 x half>")
        small = code.v(f"bitcast <16 x half> {value} to <16 x i16>")
        nan = code.v(f"fcmp uno <16 x half> {code.v(f'bitcast <16 x i16> {small} to <16 x half>')}, zeroinitializer")
        small = code.v(f"select <16 x i1> {nan}, <16 x i16> splat (i16 32767), <16 x i16> {small}")
        wide = code.v(f"zext <16 x i16> {small} to <16 x i32>")
        place = D_AREA + 128 * row_half + 64 * half
        if parity:
            low = code.load("<16 x i32>", "%p", place, 64)
            wide = code.op("or", "<16 x i32>", low, code.op("shl", "<16 x i32>", wide, "splat (i32 16)"))
        return code.store("<16 x i32>", wide, "%p", place, 64)
