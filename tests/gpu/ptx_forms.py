"""One PTX instruction of every form that the table of opcodes accepts: types x choices, and each further modifier once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from loadsparse.gpu.simulator import opcodes
from loadsparse.gpu.simulator.forms import MMA_VARIANTS, SPARSE_MMA_VARIANTS, problem
from loadsparse.gpu.simulator.opcodes import OPCODES, Opcode
from loadsparse.gpu.simulator.program import WIDTH

PREFIX = {1: "%p", 8: "%h", 16: "%h", 32: "%r", 64: "%rd"}
WORDS = frozenset({"popc", "clz", "bfind"})
"""Their result has 32 bits whatever the source."""


PARAMETER = ("{ .param .align 16 .b8 q[64]; ", " }")


def register(kind: str, number: int) -> str:
    if kind == "b128":
        return f"{{%rd{2 * number}, %rd{2 * number + 1}}}"
    return f"{PREFIX[1 if kind == 'pred' else WIDTH[kind]]}{number}"


def _group(kind: str, count: int, first: int) -> str:
    return "{" + ", ".join(register(kind, first + i) for i in range(count)) + "}"


def _held(kind: str, modifiers: tuple[str, ...], number: int) -> str:
    """A register, or as many as a vector has."""
    vector = next((int(m[1]) for m in modifiers if m in ("v2", "v4", "v8")), 0)
    return _group(kind, vector, number) if vector else register(kind, number)


def _fragments(sizes: list[int], kinds: list[str]) -> list[str]:
    """D, A, B, C of a multiplication: groups of registers that hold so many elements per lane."""
    groups = []
    for n, (size, kind) in enumerate(zip(sizes, kinds, strict=True)):
        count = max(1, size * (WIDTH | opcodes.SUB_BYTE)[kind] // 32 // (2 if kind == "f64" else 1))
        groups.append(_group("b64" if kind == "f64" else "b32", count, 10 * n))
    return groups


def operands_of(row: Opcode, modifiers: tuple[str, ...]) -> list[str]:
    """Operands for a form; names are those of `ptx_text`."""
    kinds = [m for m in modifiers if m in row.types]
    last = kinds[-1] if kinds else "b32"
    count = row.operands[0]
    match row.name:
        case "mma":
            shape = next(m for m in modifiers if m in opcodes.MMA_SHAPES.split())
            m, k = int(shape[1 : shape.index("n")]), int(shape[shape.index("k") + 1 :])
            sparse = any(x.startswith("sp") for x in modifiers)
            sizes = [m * 8 // 32, m * k // 32 // (2 if sparse else 1), k * 8 // 32, m * 8 // 32]
            groups = _fragments(sizes, kinds)
            return [*groups, "%r50", "0"] if sparse else groups
        case "wmma":
            shape = next(m for m in modifiers if m in opcodes.WMMA_SHAPES.split())
            m, n, k = (int(number) for number in re.findall(r"\d+", shape))
            d, a, b, c = kinds if len(kinds) == 4 else (kinds[0], "f16", "f16", kinds[-1])
            twice = 2 if a in ("f16", "bf16") else 1  # every element of A and B is held by two lanes
            sizes = [m * n // 32, twice * m * k // 32, twice * k * n // 32, m * n // 32]
            return _fragments(sizes, [d, a, b, c])
        case "setp":
            return ["%p1", register(last, 2), register(last, 3)]
        case "set":
            return [register(kinds[0], 1), register(last, 2), register(last, 3)]
        case "cvt":
            sources = 2 if kinds[0].endswith("x2") and kinds[1] == "f32" else 1
            return [register(kinds[0], 1), *(register(kinds[1], 2 + i) for i in range(sources))]
        case "ld" | "ldu":
            return [
                _held(last, modifiers, 20),
                "[p0]" if "param" in modifiers or "param::entry" in modifiers else "[%rd1]",
            ]
        case "st":
            return ["[q]" if any(m.startswith("param") for m in modifiers) else "[%rd1]", _held(last, modifiers, 20)]
        case "atom":
            sources = [_held(last, modifiers, 8 * n + 4) for n in range(2 if "cas" in modifiers else 1)]
            return [_held(last, modifiers, 20), "[%rd1]", *sources]
        case "red":
            return ["[%rd1]", _held(last, modifiers, 8)]
        case "mov":
            return [_held(last, modifiers, 1), _held(last, modifiers, 8)]
        case "shfl":
            return ["%r1|%p1", "%r2", "%r3", "%r4", "-1"]
        case "vote":
            return ["%r1" if "ballot" in modifiers else "%p1", "%p2", "-1"]
        case "match":
            return ["%r1" + ("|%p1" if "all" in modifiers else ""), register(last, 2), "-1"]
        case "redux":
            return ["%r1", "%r2", "-1"]
        case "elect":
            return ["%r1|%p1", "-1"]
        case "isspacep":
            return ["%p1", "%rd1"]
        case "testp":
            return ["%p1", register(last, 2)]
        case "selp":
            return [register(last, 1), register(last, 2), register(last, 3), "%p4"]
        case "slct":
            return [register(kinds[0], 1), register(kinds[0], 2), register(kinds[0], 3), register(last, 4)]
        case "lop3":
            choice = {"or", "and"} & set(modifiers)
            return ["%r1|%p1", "%r2", "%r3", "%r4", "0x1b", "%p2"] if choice else ["%r1", "%r2", "%r3", "%r4", "0x1b"]
        case "ldmatrix" | "stmatrix":
            held = _group("b32", next(int(m[1]) for m in modifiers if m in ("x1", "x2", "x4")), 20)
            return [held, "[%rd1]"] if row.name == "ldmatrix" else ["[%rd1]", held]
        case "movmatrix":
            return ["%r1", "%r2"]
        case "cp":
            if "mbarrier" in modifiers:
                return ["[%rd1]"]
            if "wait_group" in modifiers:
                return ["1"]
            return ["[%r1]", "[%rd1]", "16"] if {"ca", "cg"} & set(modifiers) else []
        case "mbarrier":
            place = "[%rd1]"
            by = {"init": [place, "%r1"], "inval": [place], "pending_count": ["%r1", "%rd2"]}
            wait = ["%p1", place, "%r1" if "parity" in modifiers else "%rd2"]
            return by.get(modifiers[0], wait if "wait" in modifiers[0] else ["%rd2", place])
        case "prefetch" | "prefetchu":
            return ["[%rd1]"]
        case "nanosleep":
            return ["%r1"]
        case "bar" | "barrier":
            if "warp" in modifiers:
                return ["-1"]
            if "red" in modifiers:
                return ["%r1" if "popc" in modifiers else "%p1", "0", "%p2"]
            return ["1", "64"] if "arrive" in modifiers else ["0"]
        case "pmevent" | "brkpt" | "trap" | "exit" | "ret" | "membar" | "fence" | "griddepcontrol":
            return ["1"] * count
        case "dp4a" | "dp2a":
            return [f"%r{i}" for i in range(1, 5)]
        case name if name in opcodes.VIDEO:
            has_third = name[-1].isdigit() or name == "vmad" or {"add", "min", "max"} & set(modifiers)
            return [f"%r{i}" for i in range(1, 5 if has_third else 4)]
        case "createpolicy":
            return ["%rd1"]
        case "applypriority":
            return ["[%rd1]", "128"]
        case "activemask":
            return ["%r1"]
    kind = last
    wide = kind
    if "wide" in modifiers:
        wide = {16: "b32", 32: "b64"}.get(WIDTH[kind], "b64")
    result = "b32" if row.name in WORDS else wide
    operands = [register(result, 1), *(register(kind, 2 + i) for i in range(count - 1))]
    if row.name in ("shl", "shr"):
        operands[2] = "%r3"
    if row.name in ("bfe", "bfi", "fns"):
        operands[-2:] = ["%r6", "%r7"]
    if row.name == "mad":
        operands[3] = register(wide, 5)
    return operands


def forms() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """(mnemonic, modifiers, instruction) of everything but branches and calls."""
    for row in OPCODES.values():
        if row.name in ("bra", "brx", "call"):
            continue
        types = [t for n in row.type_counts for t in itertools.product(sorted(row.types), repeat=n)] or [()]
        if row.name == "mma":
            types = sorted({variant[1:] for variant in MMA_VARIANTS | SPARSE_MMA_VARIANTS})
        choices = list(itertools.product(*(sorted(group) for group in row.choices)))
        extras = sorted(row.flags - {m for group in row.choices for m in group})
        pairs = list(itertools.product(choices, types))
        if len(pairs) > 400:
            pairs = [(choices[0], t) for t in types] + [(c, types[-1]) for c in choices[1:]]
        for chosen, kinds in pairs:
            for extra in [(), *((e,) for e in extras)]:
                modifiers = _ordered(row.name, chosen, extra, kinds)
                if len(modifiers) > len({*modifiers} - {*kinds}) + len(kinds):
                    continue
                operands = operands_of(row, modifiers)
                if problem(row.name, modifiers, len(operands)) is None:
                    if "L2::cache_hint" in modifiers and row.name != "cp":
                        operands.append("%rd5")
                    text = f"{'.'.join((row.name, *modifiers))} {', '.join(operands)};"
                    yield row.name, modifiers, text.join(PARAMETER) if "[q]" in operands else text


def _ordered(name: str, chosen: tuple[str, ...], extra: tuple[str, ...], kinds: tuple[str, ...]) -> tuple[str, ...]:
    match name:
        case "mma":
            return (*extra, "sync", "aligned", *chosen, "row", "col", *kinds)
        case "wmma":
            return ("mma", "sync", "aligned", "row", "col", *chosen, *extra, *kinds)
        case "ldmatrix" | "stmatrix" | "movmatrix":
            return ("sync", "aligned", *chosen, *extra, *kinds)
        case "prmt":
            return (*kinds, *chosen, *extra)
        case "cp":
            return ("async", *extra)
    return (*chosen, *extra, *kinds)
