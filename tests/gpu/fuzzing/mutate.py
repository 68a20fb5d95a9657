"""Mutant number n of seed s, always the same: the text of a module and a small launch."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzzing.corpus import REGISTER, Corpus, Seed
from loadsparse.gpu import simulator
from loadsparse.gpu.simulator.opcodes import OPCODES, Opcode
from loadsparse.gpu.simulator.program import Kernel

ODD_NUMBERS = (0, 1, -1, 2, 3, 7, 31, 32, 33, 63, 64, 255, 256, 4095, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
               2**36, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30)  # fmt: skip
BUDGET = 4_000
"""Thread instructions of a launch."""


@dataclass(frozen=True)
class Mutant:
    """A module's text, how it came to be, for which architecture, and the numbers of its launch."""

    kind: str
    origin: str
    arch: str
    text: str
    launch: int


@dataclass(frozen=True)
class Launch:
    """One drawn launch of a loaded kernel."""

    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    arguments: tuple[Any, ...]
    checks: simulator.Checks
    options: dict[str, Any]


def _bytes(draw: random.Random, seed: Seed, corpus: Corpus) -> str:
    text = bytearray(seed.text.encode())
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(text))
        match draw.randrange(4):
            case 0:
                text[at] = draw.choice(b"{}()[];,.<>@!%|_0123456789abcdefx \n\0\"'/*\xff")
            case 1:
                del text[at : at + draw.choice((1, 2, 8, 64))]
            case 2:
                text[at:at] = text[at : at + draw.choice((1, 4, 32, 400))]
            case _:
                other = min(at ^ 1, len(text) - 1)
                text[other], text[at] = text[at], text[other]
    return text.decode("utf-8", "replace")


def _token(draw: random.Random, seed: Seed, corpus: Corpus) -> str:
    text = seed.text
    for begin, end in sorted(draw.sample(seed.tokens, draw.choice((1, 1, 1, 2, 4))), reverse=True):
        old = text[begin:end]
        if old[0].isdigit() or (old[0] == "." and draw.random() < 0.1):
            new = str(draw.choice(ODD_NUMBERS))
        elif "." in old and old[0] != "." and draw.random() < 0.6:
            parts = old.split(".")
            parts[draw.randrange(len(parts))] = draw.choice(draw.choice(corpus.words).split("."))
            new = ".".join(parts)
        else:
            new = draw.choice(corpus.words)
        text = text[:begin] + new + text[end:]
    return text


def _number(draw: random.Random, seed: Seed, corpus: Corpus) -> str:
    places = [span for span in seed.tokens if seed.text[span[0]].isdigit()]
    text = seed.text
    for begin, end in sorted(draw.sample(places, min(len(places), draw.choice((1, 2, 3)))), reverse=True):
        text = text[:begin] + str(draw.choice(ODD_NUMBERS)) + text[end:]
    return text


def _register(draw: random.Random, seed: Seed, corpus: Corpus) -> str:
    places = [match.span() for a, b in seed.statements for match in REGISTER.finditer(seed.text, a, b)]
    text = seed.text
    for begin, end in sorted(draw.sample(places, min(len(places), draw.choice((1, 1, 2, 4, 9)))), reverse=True):
        kind = seed.types.get(text[begin:end].rstrip("0123456789"), "")
        others = seed.registers.get(kind) or [text[begin:end]]
        text = text[:begin] + draw.choice(others) + text[end:]
    return text


def rename(draw: random.Random, line: str, donor: Seed, registers: dict[str, list[str]]) -> str:
    """A statement of another module with registers of the same types that are declared here."""

    def here(match: re.Match[str]) -> str:
        kind = donor.types.get(match[0].rstrip("0123456789"), "")
        return draw.choice(registers.get(kind) or [match[0]])

    return REGISTER.sub(here, line)


def _statement(draw: random.Random, seed: Seed, corpus: Corpus) -> str:
    text = seed.text
    for begin, end in sorted(draw.sample(seed.statements, draw.choice((1, 1, 2, 3))), reverse=True):
        match draw.randrange(5):
            case 0:
                new = ""
            case 1:
                new = text[begin:end] + "\n" + text[begin:end]
            case 2:
                a, b = draw.choice(seed.statements)
                new = seed.text[a:b]
            case _:
                donor, line = draw.choice(corpus.lines)
                new = rename(draw, line, donor, seed.registers)
                if draw.random() < 0.5:
                    new = f"{text[begin:end]}\n{new}"
        text = text[:begin] + new + text[end:]
    return text


def _modifier(draw: random.Random, seed: Seed, corpus: Corpus) -> str:
    begin, end = draw.choice(seed.statements)
    line = seed.text[begin:end]
    match = re.match(r"(@!?%\w+\s+)?([a-z][a-z0-9]*)((?:[.:][\w:]+)*)", line)
    row = OPCODES.get(match[2]) if match else None
    if match is None or row is None:
        return _statement(draw, seed, corpus)
    parts = match[3].lstrip(".").split(".") if match[3] else []
    pool = sorted(row.types | row.flags) or ["u32"]
    match draw.randrange(4):
        case 0 if parts:
            del parts[draw.randrange(len(parts))]
        case 1:
            parts.insert(draw.randrange(len(parts) + 1), draw.choice(pool))
        case _ if parts:
            parts[draw.randrange(len(parts))] = draw.choice(pool)
        case _:
            parts = [draw.choice(pool)]
    opcode = ".".join((match[2], *parts))
    return seed.text[:begin] + (match[1] or "") + opcode + line[match.end() :] + seed.text[end:]


PREFIXES = {"pred": "%p", "b16": "%h", "b32": "%r", "b64": "%rd", "f32": "%f", "f64": "%fd"}
COUNT = 12
SKELETON = (
    ".version 8.0\n.target {arch}\n.address_size 64\n.visible .entry k(.param .u64 p0, .param .u64 p1, .param .u32 p2)\n{{\n"
    + "".join(f".reg .{kind} {prefix}<{COUNT}>;\n" for kind, prefix in PREFIXES.items())
    + ".shared .align 16 .b8 s[512];\n.local .align 16 .b8 l[64];\nld.param.u64 %rd0, [p0];\nld.param.u64 %rd1, [p1];\n"
    "ld.param.u32 %r0, [p2];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\nadd.u64 %rd3, %rd0, %rd2;\n"
    "shl.b32 %r2, %r1, 2;\n{body}\nret;\n}}\n"
)


def _program(draw: random.Random, seed: Seed, corpus: Corpus) -> str:
    """A random program: statements of every producer with random registers, statements drawn from the opcode table,
    and branches to random labels."""
    registers = {kind: [f"{prefix}{n}" for n in range(COUNT)] for kind, prefix in PREFIXES.items()}
    lines, labels = [], draw.randrange(1, 5)
    for number in range(draw.randrange(3, 20)):
        if number < labels:
            lines.append(f"L{number}:")
        pick = draw.random()
        if pick < 0.5:
            donor, line = draw.choice(corpus.free if draw.random() < 0.98 else corpus.lines)
            lines.append(rename(draw, line, donor, {**registers, **{k: registers[s] for k, s in SAME.items()}}))
        elif pick < 0.9:
            lines.append(statement(draw, draw.choice(tuple(OPCODES.values()))))
        else:
            guard = draw.choice(("", "@%p1 ", "@!%p2 ", "@%p3 "))
            lines.append(f"{guard}bra{draw.choice(('', '', '.uni'))} L{draw.randrange(labels)};")
    lines += [f"L{number}:" for number in range(labels) if f"L{number}:" not in lines]
    return SKELETON.format(arch=seed.arch, body="\n".join(lines))


SAME = {"u16": "b16", "s16": "b16", "f16": "b16", "u32": "b32", "s32": "b32", "u64": "b64", "s64": "b64"}
_PREFIX = {"8": "%r", "16": "%h", "32": "%r", "64": "%rd"}


def _operand(draw: random.Random, kind: str) -> str:
    if kind == "pred":
        return f"%p{draw.randrange(COUNT)}"
    if draw.random() < 0.1:
        return str(draw.choice(ODD_NUMBERS[:16]))
    if kind in ("f32", "f64"):
        return f"{'%f' if kind == 'f32' else '%fd'}{draw.randrange(COUNT)}"
    width = re.sub(r"\D", "", kind.removesuffix("x2")) or "32"
    width = "32" if kind.endswith("x2") else width
    return f"{_PREFIX.get(width, '%r')}{draw.randrange(COUNT)}"


def _address(draw: random.Random) -> str:
    base = draw.choice(("%rd0", "%rd1", "%rd3", "%rd3", "%r2", "s", "l", f"%rd{draw.randrange(COUNT)}"))
    return f"[{base}+{draw.choice((0, 0, 0, 4, 16, 60, -4, 2, 511, 1024, 2**31 - 1))}]"


def statement(draw: random.Random, row: Opcode) -> str:
    """An instruction drawn from a row of the opcode table; most are well typed, some are not."""
    kinds = draw.sample(sorted(row.types), min(len(row.types), draw.choice(row.type_counts)))
    flags = [draw.choice(sorted(group)) for group in row.choices]
    others = sorted(row.flags.difference(*row.choices))
    flags += [flag for flag in draw.sample(others, min(len(others), 3)) if draw.random() < 0.08]
    if {"shfl", "vote", "match", "redux"} & {row.name}:
        flags.insert(0, "sync")
    kind = kinds[-1] if kinds else draw.choice(("b32", "b64"))
    operands = [_operand(draw, kind) for _ in range(draw.choice(row.operands))]
    if row.name in ("ld", "ldu", "atom"):
        flags.insert(0, draw.choice(("global", "shared", "local", "param")) if row.name == "ld" else "global")
        operands[1:2] = [_address(draw)]
    elif row.name in ("st", "red"):
        flags.insert(0, draw.choice(("global", "shared", "local")) if row.name == "st" else "global")
        operands[0:1] = [_address(draw)]
    elif row.name == "setp":
        operands[0] = _operand(draw, "pred")
    elif row.name == "selp":
        operands[3] = _operand(draw, "pred")
    elif row.name in ("shl", "shr"):
        operands[2] = _operand(draw, "b32")
    elif row.name == "cvt" and len(kinds) == 2:
        operands = [_operand(draw, kinds[0]), _operand(draw, kinds[1])]
    elif row.name == "bar":
        flags, kinds, operands = ["sync"], [], [str(draw.choice((0, 0, 0, 1, 15, 16)))]
    guard = draw.choice(("", "", "", "@%p1 ", "@!%p2 "))
    return f"{guard}{'.'.join((row.name, *flags, *kinds))} {', '.join(operands)};"


KINDS: tuple[tuple[str, int, Callable[[random.Random, Seed, Corpus], str]], ...] = (
    ("bytes", 10, _bytes),
    ("tokens", 14, _token),
    ("numbers", 10, _number),
    ("registers", 14, _register),
    ("statements", 18, _statement),
    ("modifiers", 14, _modifier),
    ("program", 20, _program),
)
"""Name, weight and maker of each kind of mutant."""


def mutant(corpus: Corpus, seed: int, number: int) -> Mutant:
    """Mutant `number`: shorter seeds are drawn more often, because a mutant's cost grows with its length."""
    draw = random.Random(f"{seed}:{number}")
    weights = [(400 + len(origin.text)) ** -1.5 for origin in corpus.seeds]
    origin = draw.choices(corpus.seeds, weights)[0]
    kind, _, make = draw.choices(KINDS, [weight for _, weight, _ in KINDS])[0]
    return Mutant(kind, origin.producer, origin.arch, make(draw, origin, corpus), draw.getrandbits(48))


def launch(number: int, kernel: Kernel) -> Launch:
    """A launch drawn for a kernel's parameters; the number decides everything."""
    draw = random.Random(number)
    values = np.random.default_rng(number)
    arguments: list[Any] = []
    for parameter in kernel.parameters:
        if parameter.type == "b8":
            arguments.append(values.bytes(parameter.size))
        elif parameter.type in ("u64", "s64", "b64") and draw.random() < 0.9:
            words = values.integers(0, 1 << draw.choice((2, 8, 32)), draw.choice((1, 7, 64, 256, 1024)), np.uint32)
            arguments.append(simulator.empty(words) if draw.random() < 0.2 else words)
        elif parameter.type[0] == "f":
            arguments.append(float(draw.choice((0, 1, -2.5, 1e30))))
        else:
            arguments.append(draw.choice((0, 1, 3, 8, 16, 64, 127)))
    switches = [draw.random() < 0.9 for _ in range(6)] if draw.random() < 0.4 else [True] * 6
    options: dict[str, Any] = {"seed": draw.randrange(5), "budget": draw.choice((1, 100, BUDGET, BUDGET, BUDGET))}
    if draw.random() < 0.15:
        options["schedule"] = "adversarial"
    if draw.random() < 0.15:
        options["cp_async"] = "eager"
    return Launch(
        draw.choice(((1,), (1,), (2,), (1, 2), (2, 1, 2))),
        draw.choice(((1,), (32,), (32,), (33,), (64,), (8, 4), (4, 4, 4), (96,), (1025,), (0,))),
        draw.choice((0, 0, 64, 1024, 16384)),
        tuple(arguments),
        simulator.Checks(*switches),
        options,
    )
