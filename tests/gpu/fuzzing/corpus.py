"""The kernels that mutants descend from, one entry a module, and the pools of tokens and statements drawn from them."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from loadsparse.gpu import simulator

DATA = Path(__file__).parents[1] / "data"
_TOP = re.compile(r"(?m)^(?=(?:\.visible |\.weak |\.extern )*\.(?:entry|func)\b)")
_ENTRY = re.compile(r"^[^\n(]*\.entry\s+([\w$.]+)")
_DECLARED = re.compile(r"\.reg\s+\.(\w+)\s+(%[A-Za-z_$]+)<(\d+)>")
STATEMENT = re.compile(
    r"(?m)^[ \t]*((?:@!?%\w+\s+)?[a-z][a-z0-9]*(?:[.:][\w:]+)*[ \t][^;{}\n]*(?:\{[^}\n]*\}[^;{}\n]*)*;)"
)
REGISTER = re.compile(r"%[A-Za-z_$]+\d+\b")
_VARIABLE = re.compile(r"(\.\w+ )*\.(global|const|shared) .*;$")
_KEPT = (".reg", ".shared", ".local", ".extern")
TOKEN = re.compile(r"%?[\w$.:]+|[^\s\w]")


@dataclass(frozen=True)
class Seed:
    """One module with one entry; `producer` says which compiler wrote it."""

    producer: str
    arch: str
    text: str

    @cached_property
    def statements(self) -> list[tuple[int, int]]:
        """Where each instruction begins and ends in the text."""
        return [match.span(1) for match in STATEMENT.finditer(self.text)]

    @cached_property
    def tokens(self) -> list[tuple[int, int]]:
        """Where each token begins and ends."""
        return [match.span() for match in TOKEN.finditer(self.text)]

    @cached_property
    def types(self) -> dict[str, str]:
        """Type by register prefix."""
        return {prefix: kind for kind, prefix, _ in _DECLARED.findall(self.text)}

    @cached_property
    def registers(self) -> dict[str, list[str]]:
        """Declared registers by type."""
        found: dict[str, list[str]] = defaultdict(list)
        for kind, prefix, count in _DECLARED.findall(self.text):
            found[kind] += [f"{prefix}{number}" for number in range(int(count))]
        return dict(found)


@dataclass(frozen=True)
class Corpus:
    """Seeds, and what can be taken from them."""

    seeds: tuple[Seed, ...]
    lines: tuple[tuple[Seed, str], ...] = field(init=False, repr=False)
    """Every instruction with the module it comes from."""
    free: tuple[tuple[Seed, str], ...] = field(init=False, repr=False)
    """Those of them that name nothing but registers: they are at home in any module."""
    words: tuple[str, ...] = field(init=False, repr=False)
    """Every different token."""

    def __post_init__(self) -> None:
        lines = [(seed, seed.text[a:b]) for seed in self.seeds for a, b in seed.statements]
        different = {re.sub(r"\d+", "0", line): (seed, line) for seed, line in lines}
        words = {seed.text[a:b] for seed in self.seeds for a, b in seed.tokens}
        object.__setattr__(self, "lines", tuple(different.values()))
        object.__setattr__(self, "free", tuple((seed, line) for seed, line in self.lines if _is_free(seed, line)))
        object.__setattr__(self, "words", tuple(sorted(words)))


def _is_free(seed: Seed, line: str) -> bool:
    """Whether a statement names only registers of known type and special registers."""
    guard, _, rest = line.partition(" ") if line.startswith("@") else ("", "", line)
    operands = rest.strip().partition(" ")[2] or rest.partition("\t")[2]
    names = re.findall(r"(?<![\w.$])%?[A-Za-z_$][\w$]*", f"{guard} {operands}")
    special = ("%tid", "%ntid", "%ctaid", "%nctaid", "%laneid", "%warpid", "%clock", "%clock64")
    return all(name in special or name.rstrip("0123456789") in seed.types for name in names)


def split(text: str, producer: str, arch: str) -> list[Seed]:
    """One seed per entry; device functions stay with each entry that names them."""
    text = re.sub(r"(?m)^[ \t]*//.*\n", "", text)
    head, *parts = _TOP.split(text)
    functions = [part for part in parts if _ENTRY.match(part) is None]
    seeds = []
    for part in parts:
        if _ENTRY.match(part) is not None:
            own = [
                f
                for f in functions
                if any(name in part for name in re.findall(r"\b([A-Za-z_$][\w$]{3,})\s*\(?\n?", f)[:8])
            ]
            seeds.append(Seed(producer, arch, head + "".join(own or functions) + part))
    return seeds


def excerpts(seed: Seed, length: int = 24) -> list[Seed]:
    """Stretches of a long kernel under its own declarations, each a module that loads: short mutants are judged fast."""
    begin = seed.text.index("{", seed.text.index(".entry"))
    first = next(number for number, (start, _) in enumerate(seed.statements) if start > begin)
    entry = seed.text.rfind("\n", 0, seed.text.index(".entry")) + 1
    declared = "".join(f"{line}\n" for line in seed.text[begin + 1 :].split("\n") if line.strip().startswith(_KEPT))
    spans = seed.statements[first:]
    found = []
    for start in range(0, len(spans) - length, length):
        stretch = seed.text[spans[start][0] : spans[start + length - 1][1]]
        labels = set(re.findall(r"(?m)^([\w$]+):", stretch))
        body = re.sub(r"(?m)^\s*\.(loc|file|section|param)[^\n]*$", "", stretch)
        inside = "|".join(map(re.escape, sorted(labels))) or "$^"
        body = re.sub(rf"(@!?%\w+\s+)?bra(\.uni)?\s+(?!(?:{inside});)[\w$]+;", "", body)
        depth = body.count("{") - body.count("}")
        body = "{" * -depth + body + "}" * depth
        named = set(re.findall(r"[\w$]+", body))
        head = "".join(
            f"{line}\n" for line in seed.text[:entry].split("\n")
            if line.startswith((".version", ".target", ".address"))
            or (_VARIABLE.match(line) and set(re.findall(r"[\w$]+", line[:400])) & named)
        )  # fmt: skip
        text = f"{head}{seed.text[entry : begin + 1]}\n{declared}{body}\nret;\n}}\n"
        try:
            simulator.load(text, seed.arch)
        except ValueError:
            continue
        found.append(Seed(seed.producer, seed.arch, text))
    return found


def recorded() -> Corpus:
    """The corpus of the recorded PTX beside the tests: Numba and NVRTC."""
    seeds: list[Seed] = []
    for path in sorted(DATA.glob("*.ptx")):
        producer, arch = path.stem.partition("_")[0], path.stem[-5:]
        seeds += split(path.read_text(encoding="utf-8"), f"{producer}:{path.stem}", arch)
    return _with_excerpts(seeds)


def _with_excerpts(seeds: list[Seed]) -> Corpus:
    return Corpus((*seeds, *(part for seed in seeds for part in excerpts(seed))))


def everything() -> Corpus:
    """The recorded corpus and this project's own kernels, compiled now."""
    import numpy as np

    from loadsparse.gpu import kernels
    from loadsparse.reference import pruning

    rng = np.random.default_rng(0)
    a = pruning.magnitude(rng.standard_normal((128, 128)).astype(np.float16), 0.5)
    b = rng.standard_normal((128, 8)).astype(np.float16)
    seeds: list[Seed] = []
    for name in kernels.names():
        kernel = kernels.get(name)
        for step in kernel.plan(kernel.encode(a), b, arch="sm_80").steps:
            seeds += split(step.ptx, f"loadsparse:{name}", "sm_80")
    return Corpus((*recorded().seeds, *_with_excerpts(seeds).seeds))
