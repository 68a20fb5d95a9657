"""Random programs, seeded: both engines must agree in every bit, count and hazard."""

import random

import numpy as np
import pytest
from ptx_text import entry
from test_engine import HEAD, WORDS, agree, request

TWO = [
    "add.u32",
    "sub.s32",
    "mul.lo.u32",
    "mul.hi.s32",
    "mul.hi.u32",
    "and.b32",
    "or.b32",
    "xor.b32",
    "shl.b32",
    "shr.u32",
    "shr.s32",
    "min.s32",
    "max.u32",
    "div.u32",
    "rem.s32",
    "div.s32",
]
FLOAT = [
    "add.rn.f32",
    "sub.f32",
    "mul.rn.f32",
    "mul.rz.f32",
    "add.rm.f32",
    "min.f32",
    "max.f32",
    "add.ftz.f32",
    "mul.sat.f32",
    "add.rp.f32",
    "max.NaN.f32",
    "div.rn.f32",
]
HALF = ["add.rn.f16x2", "mul.rn.f16x2", "sub.rn.bf16x2", "add.f16x2"]
ONE = ["not.b32", "brev.b32", "popc.b32", "clz.b32", "abs.s32", "neg.s32", "bfind.u32", "cnot.b32"]
CONVERT = [
    "cvt.rn.f32.s32",
    "cvt.rzi.s32.f32",
    "cvt.rn.f32.u32",
    "cvt.rni.u32.f32",
    "cvt.u32.u8",
    "cvt.s32.s16",
    "cvt.sat.s8.s32",
    "cvt.rz.f32.s32",
    "cvt.rmi.f32.f32",
]
COMPARE = ["lt.s32", "ge.u32", "eq.b32", "ne.b32", "lo.u32", "gt.f32", "ltu.f32", "nan.f32"]
SHARED = ".shared .align 16 .b8 s[1024];\n"


class Program:
    """Registers %r2, %r10..%r25 hold words; predicates %p1..%p7; branches only go forward, loops count in %r40."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.lines = []
        self.labels = 0
        self.depth = 0

    def word(self):
        choice = self.random
        if choice.random() < 0.15:
            return str(choice.choice([0, 1, 31, 255, 0x7FFFFFFF, 0x80000000, 0x3F800000]))
        return f"%r{choice.choice([1, 2, 3, *range(10, 26)])}"

    def register(self):
        return f"%r{self.random.randrange(10, 26)}"

    def guard(self):
        draw = self.random.random()
        return "" if draw < 0.8 else f"@{'!' if draw < 0.9 else ''}%p{self.random.randrange(1, 8)} "

    def emit(self, text):
        self.lines.append(text)

    def statement(self):
        pick = self.random.randrange(22)
        if self.depth and 17 <= pick <= 19 and self.random.random() < 0.9:
            pick = 0
        choice = self.random.choice
        if pick < 5:
            self.emit(f"{self.guard()}{choice(TWO)} {self.register()}, {self.word()}, {self.word()};")
        elif pick < 7:
            self.emit(f"{self.guard()}{choice(ONE)} {self.register()}, {self.word()};")
        elif pick < 9:
            self.floats()
        elif pick == 9:
            name = choice(
                ["mad.lo.u32", "bfe.s32", "bfe.u32", "prmt.b32", "shf.l.wrap.b32", "shf.r.clamp.b32", "sad.s32"]
            )
            self.emit(f"{self.guard()}{name} {self.register()}, {self.word()}, {self.word()}, {self.word()};")
        elif pick == 10:
            table = self.random.randrange(256)
            self.emit(f"lop3.b32 {self.register()}, {self.word()}, {self.word()}, {self.word()}, {table};")
        elif pick == 11:
            self.convert()
        elif pick == 12:
            p, q = self.random.sample(range(1, 8), 2)
            self.emit(f"setp.{choice(COMPARE)} %p{p}|%p{q}, {self.word_register()}, {self.word_register()};")
        elif pick == 13:
            self.emit(f"selp.b32 {self.register()}, {self.word()}, {self.word()}, %p{self.random.randrange(1, 8)};")
        elif pick < 17:
            self.memory()
        elif pick == 17:
            mode = choice(["down", "up", "bfly", "idx"])
            control = choice(["31", "0x1c03", "0"])
            r = self.register()
            self.emit(f"shfl.sync.{mode}.b32 {r}, {self.word_register()}, {self.random.randrange(32)}, {control}, -1;")
        elif pick == 18:
            self.emit(choice(["bar.sync 0;", "bar.warp.sync -1;"]))
        elif pick == 19:
            self.emit(f"vote.sync.ballot.b32 {self.register()}, %p{self.random.randrange(1, 8)}, -1;")
        elif self.depth < 3:
            self.branch() if pick == 20 else self.loop()

    def word_register(self):
        return f"%r{self.random.choice([1, 2, 3, *range(10, 26)])}"

    def floats(self):
        choice = self.random.choice
        if self.random.random() < 0.3:
            names = ["fma.rn.f32", "fma.rz.f32", "fma.rn.f16x2"]
            name, count = choice(names), 3
        else:
            name, count = choice(FLOAT + HALF), 2
        if "x2" in name:
            operands = [self.word_register() for _ in range(count)]
            self.emit(f"{self.guard()}{name} {self.register()}, {', '.join(operands)};")
            return
        for n in range(count):
            self.emit(f"mov.b32 %f{n + 1}, {self.word_register()};")
        operands = ", ".join(f"%f{n + 1}" for n in range(count))
        self.emit(f"{name} %f5, {operands}; mov.b32 {self.register()}, %f5;")

    def convert(self):
        name = self.random.choice(CONVERT)
        _, *parts = name.split(".")
        source, target = parts[-1], parts[-2]
        if source == "f32":
            self.emit(f"mov.b32 %f1, {self.word_register()};")
        from_ = "%f1" if source == "f32" else self.word_register()
        if target == "f32":
            self.emit(f"{name} %f2, {from_}; mov.b32 {self.register()}, %f2;")
        else:
            self.emit(f"{name} {self.register()}, {from_};")

    def memory(self):
        width = self.random.choice([2, 4, 4, 8, 16])
        self.emit(f"and.b32 %r50, {self.word_register()}, {1024 - width if self.random.random() < 0.95 else 1020};")
        a, b, c, d = (self.register() for _ in range(4))
        store = self.random.random() < 0.5
        kind, values = {
            2: ("u16", "%h1"), 4: ("u32", a), 8: ("v2.u32", f"{{{a}, {b}}}"), 16: ("v4.u32", f"{{{a}, {b}, {c}, {d}}}"),
        }[width]  # fmt: skip
        if width == 2:
            self.emit(f"cvt.u16.u32 %h1, {a};")
        if store:
            self.emit(f"{self.guard()}st.shared.{kind} [%r50], {values};")
        else:
            names = dict.fromkeys([a, b, c, d])
            if width in (2, 4) or len(names) == 4:
                self.emit(f"{self.guard()}ld.shared.{kind} {values}, [%r50];")
        if width == 4 and self.random.random() < 0.3:
            self.emit(
                f"and.b32 %r51, {self.word_register()}, 284; cvt.u64.u32 %rd10, %r51; add.u64 %rd10, %rd1, %rd10;"
            )
            self.emit(f"ld.global.u32 {b}, [%rd10]; atom.global.add.u32 {c}, [%rd10], 1;")

    def branch(self):
        self.labels += 1
        label = f"L{self.labels}"
        self.emit(f"@%p{self.random.randrange(1, 8)} bra {label};")
        self.depth += 1
        for _ in range(self.random.randrange(1, 5)):
            self.statement()
        self.depth -= 1
        self.emit(f"{label}:")

    def loop(self):
        self.labels += 1
        label, counter = f"L{self.labels}", f"%r{40 + self.depth}"
        self.emit(f"and.b32 {counter}, {self.word_register()}, 3; {label}:")
        self.depth += 1
        for _ in range(self.random.randrange(1, 4)):
            self.statement()
        self.depth -= 1
        predicate = f"%p{10 + self.depth}"
        self.emit(f"sub.u32 {counter}, {counter}, 1; setp.gt.s32 {predicate}, {counter}, 0; @{predicate} bra {label};")

    def text(self, length):
        for _ in range(length):
            self.statement()
        start = "".join(f"mad.lo.u32 %r{n}, %r2, {2 * n + 1}, %r1; " for n in range(10, 22))
        start += "".join(f"setp.gt.u32 %p{n}, %r{n + 10}, {n << 28}; " for n in range(1, 7))
        total = "; ".join(f"xor.b32 %r2, %r2, %r{n}" for n in range(10, 26))
        return entry(SHARED + HEAD + start + "\n".join(self.lines) + f"\n{total}; st.global.u32 [%rd4], %r2;", WORDS)


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_agree(seed):
    words = np.random.default_rng(seed).integers(0, 2**32, 80, dtype=np.uint32)
    words[::7] %= 64
    text = Program(seed).text(30)
    threads = (32, 64, 45)[seed % 3]
    agree(request(text, (2, 1, 1), (threads, 1, 1), [words, words[::-1].copy()], budget=2**30))
