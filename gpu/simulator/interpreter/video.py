"""Video instructions: bytes and half-words of words, added, compared, shifted; one at a time (vadd) or all (vadd2, vadd4).

PTX ISA, "Scalar Video Instructions" and "SIMD Video Instructions".  The parser writes the selectors of operands among
the modifiers: `d.h0` is "d=h0", `a.b3210` is "a=b3210".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.interpreter.numbers import Lanes, Operation, mask, signed, unsigned

U = np.uint64
Numbers = NDArray[np.int64]
COMBINE: dict[str, Callable[[Numbers, Numbers], Numbers]] = {
    "vadd": lambda a, b: a + b,
    "vsub": lambda a, b: a - b,
    "vabsdiff": lambda a, b: np.abs(a - b),
    "vmin": np.minimum,
    "vmax": np.maximum,
}
COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


def _selector(modifiers: tuple[str, ...], operand: str) -> str:
    return next((m[2:] for m in modifiers if m.startswith(f"{operand}=")), "")


def _types(modifiers: tuple[str, ...]) -> list[bool]:
    """Whether each of the types is signed."""
    return [m == "s32" for m in modifiers if m in ("u32", "s32")]


def _field(bits: Lanes, first: int, width: int, is_signed: bool) -> Numbers:
    part = (bits >> U(first)) & mask(width)
    return signed(part, width) if is_signed else part.view(np.int64)


def _part(bits: Lanes, selector: str, is_signed: bool) -> Numbers:
    """A byte (b0 to b3), half-word (h0, h1) or all of a word."""
    width = {"b": 8, "h": 16, "": 32}[selector[:1]]
    return _field(bits, int(selector[1:] or 0) * width, width, is_signed)


def _clamp(value: Numbers, width: int, is_signed: bool) -> Numbers:
    least, most = (-(1 << width - 1), (1 << width - 1) - 1) if is_signed else (0, (1 << width) - 1)
    return np.clip(value, least, most)


def _operation(name: str, modifiers: tuple[str, ...]) -> Callable[[Numbers, Numbers], Numbers]:
    if name == "vset":
        relation = COMPARE[next(m for m in modifiers if m in COMPARE)]
        return lambda a, b: relation(a, b).astype(np.int64)
    if name in COMBINE:
        return COMBINE[name]
    wraps = "wrap" in modifiers

    def shift(a: Numbers, b: Numbers) -> Numbers:
        by = b & 31 if wraps else np.minimum(b, 32)
        return a << by if name == "vshl" else a >> by

    return shift


def scalar(name: str) -> Callable[[tuple[str, ...]], Operation]:
    """vadd, vsub, vabsdiff, vmin, vmax, vshl, vshr, vset: one part of a and of b; then c takes the result in, or is
    combined with it."""

    def build(modifiers: tuple[str, ...]) -> Operation:
        types = _types(modifiers)
        to_signed = types[0] and name != "vset"
        a_signed, b_signed = types[-2:]
        into, combine = _selector(modifiers, "d"), _operation(name, modifiers)
        width = {"b": 8, "h": 16, "": 32}[into[:1]]
        first = int(into[1:] or 0) * width
        second = next((m for m in modifiers if m in ("add", "min", "max")), None)

        def apply(a: Lanes, b: Lanes, c: Lanes | None = None) -> Lanes:
            value = combine(
                _part(a, _selector(modifiers, "a"), a_signed), _part(b, _selector(modifiers, "b"), b_signed)
            )
            if "sat" in modifiers:
                value = _clamp(value, width, to_signed)
            result = unsigned(value, 32)
            if c is None:
                return result
            if second is None:
                field = mask(width) << U(first)
                return ((result << U(first)) & field) | (c & ~field & mask(32))
            if second == "add":
                return (result + c) & mask(32)
            extreme = np.minimum if second == "min" else np.maximum
            return unsigned(extreme(_part(result, "", to_signed), _part(c, "", to_signed)), 32)

        return apply

    return build


def multiply_add(modifiers: tuple[str, ...]) -> Operation:
    """vmad: a b + c (+ 1 with .po), shifted right, clamped; exact before."""
    signs = _types(modifiers)[1:]
    is_signed, shift = any(signs), 7 if "shr7" in modifiers else 15 if "shr15" in modifiers else 0

    def apply(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        x, y = (_part(v, _selector(modifiers, o), s) for v, o, s in zip((a, b), "ab", signs, strict=True))
        more = _part(c, "", is_signed)
        exact = [(int(p) * int(q) + int(r) + ("po" in modifiers)) >> shift for p, q, r in zip(x, y, more, strict=True)]
        if "sat" in modifiers:
            least, most = (-(1 << 31), (1 << 31) - 1) if is_signed else (0, (1 << 32) - 1)
            exact = [min(max(value, least), most) for value in exact]
        return np.array([value & 0xFFFFFFFF for value in exact], U)

    return apply


def simd(name: str) -> Callable[[tuple[str, ...]], Operation]:
    """vadd2, vadd4, ...: every field; d takes those of its mask and c's others, or with .add their sum and c."""
    parts, base = int(name[-1]), name[:-1]
    width = 32 // parts

    def fields(chosen: str, default: int) -> Iterator[int]:
        """Which fields of b:a an operand takes, lowest first."""
        yield from (int(digit) for digit in reversed(chosen[1:])) if chosen else range(default, default + parts)

    def build(modifiers: tuple[str, ...]) -> Operation:
        types = _types(modifiers)
        to_signed = types[0] and base != "vset"
        combine, into = _operation(base, modifiers), _selector(modifiers, "d")
        kept = {int(digit) for digit in into[1:]} if into else set(range(parts))
        pairs = list(zip(fields(_selector(modifiers, "a"), 0), fields(_selector(modifiers, "b"), parts), strict=True))

        def apply(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
            both, total, merged = b << U(32) | a, c, c
            for n, (left, right) in enumerate(pairs):
                if n not in kept:
                    continue
                value = combine(
                    _field(both, left * width, width, types[-2]), _field(both, right * width, width, types[-1])
                )
                value = _clamp(value, width, to_signed) if "sat" in modifiers else value
                total = total + unsigned(value, 32)
                field = mask(width) << U(n * width)
                merged = (merged & ~field) | ((unsigned(value, 32) << U(n * width)) & field)
            return (total if "add" in modifiers else merged) & mask(32)

        return apply

    return build


BUILDERS = {
    **{name: scalar(name) for name in (*COMBINE, "vshl", "vshr", "vset")},
    "vmad": multiply_add,
    **{f"{name}{n}": simd(f"{name}{n}") for name in (*COMBINE, "vset") for n in (2, 4)},
}
