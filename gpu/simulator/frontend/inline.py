"""Puts the bodies of device functions in the place of their calls: what runs without calls runs on the fast engine.

Text in, text out.  A function with shared variables of its own, a recursive one and a guarded call stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from loadsparse.gpu.simulator.frontend.text import Statement, rename, statements

LIMIT = 4 << 20
"""Characters beyond which nothing more is put in place."""

_CALL = re.compile(
    r"(@!?[\w$%]+\s+)?\bcall(?:\.uni)?\s+(?:\(([^()]*)\)\s*,)?\s*([A-Za-z_$][\w$]*)\s*(?:,\s*\(([^()]*)\))?\s*;"
)
_HEAD = re.compile(r"\.func\s*(?:\(([^()]*)\)\s*)?([\w$]+)\s*(?:\(([^()]*)\))?[^{;]*\{", re.DOTALL)
_NAME_LAST = re.compile(r"([\w$%]+)\s*(?:\[\d*\])?\s*$")
_LABEL = re.compile(r"(?m)^\s*([A-Za-z_$][\w$]*)\s*:(?!:)")
_VARIABLE = re.compile(r"\.(?:param|local)\s+[^;{}()]*?([\w$]+)\s*(?:\[[^\]]*\])?\s*;")
_LOCAL = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.[busf](\d+)\s+([\w$]+)(\[[^\]]*\])?\s*;")
_ACCESS = re.compile(r"\b(ld|st)\.param((?:\.\w+)+)\s+([^;]*);")
_PLACE = re.compile(r"\[\s*([\w$]+)\s*(?:\+\s*(\d+)\s*)?\]")
_TOKEN = re.compile(
    r"//[^\n]*|[{}]|(?P<before>\.param\s+[^;{}()]*?)(?P<declared>[\w$]+)(?P<after>\s*(?:\[[^\]]*\])?\s*;)"
    r"|(?<![\w$%.])(?P<name>[A-Za-z_$][\w$]*)"
)
_REGISTERS = re.compile(r"\.reg\s+\.[busf](\d+)\s+([^;]+);")
_RETURN = re.compile(r"\bret(?:\.uni)?\s*;")
_PLAIN = re.compile(r"[A-Za-z_$][\w$]*")


@dataclass(frozen=True, slots=True)
class _Function:
    formals: tuple[str, ...]
    """Results, then parameters."""
    body: str


def inline_calls(ptx: str) -> str:
    """The same module without calls of functions that it defines; text without any comes back unchanged."""
    parts = list(statements(ptx))
    functions = {s.name: f for s in parts if (f := _function(s)) is not None}
    if not any(found[3] in functions for found in _CALL.finditer(ptx)):
        return ptx
    numbers = count()
    parts = [replace(s, text=_apart(s.text, numbers)) if ".param" in s.text else s for s in parts]
    functions = {s.name: f for s in parts if (f := _function(s)) is not None}
    done: dict[str, str] = {}
    size = len(ptx)

    def expand(text: str, path: tuple[str, ...]) -> str:
        def place(found: re.Match[str]) -> str:
            nonlocal size
            guard, name = found[1], found[3]
            actuals = [*_listed(found[2]), *_listed(found[4])]
            function = functions.get(name)
            if function is None or guard or name in path or len(actuals) != len(function.formals):
                return found[0]
            if not all(_PLAIN.fullmatch(actual) for actual in actuals):
                return found[0]
            if name not in done:
                done[name] = expand(function.body, (*path, name))
            body = done[name]
            if size + len(body) > LIMIT:
                return found[0]
            size += len(body)
            return _instance(body, function.formals, actuals, f"$i{next(numbers)}")

        return _CALL.sub(place, text)

    kernels = {s.name for s in parts if ".entry" in s.text.split("(")[0]}
    texts = (_in_registers(expand(s.text, ())) if s.name in kernels else s.text for s in parts)
    return "\n".join(texts) + "\n"


def _function(statement: Statement) -> _Function | None:
    head = _HEAD.search(statement.text)
    if head is None or not re.match(r"\s*(\.\w+\s+)*\.func\b", statement.text):
        return None
    body = statement.text[head.end() : statement.text.rindex("}")]
    if re.search(r"\.shared\s+\.", body):
        return None
    names = [_NAME_LAST.search(item) for item in [*_listed(head[1]), *_listed(head[3])]]
    return _Function(tuple(name[1] for name in names if name), body)


def _listed(text: str | None) -> list[str]:
    return [item.strip() for item in (text or "").split(",") if item.strip()]


def _instance(body: str, formals: tuple[str, ...], actuals: list[str], suffix: str) -> str:
    own = {*_LABEL.findall(body), *_VARIABLE.findall(body)}
    names = {name: name + suffix for name in own} | dict(zip(formals, actuals, strict=True))
    end = f"$return{suffix}"
    return "{\n" + rename(_RETURN.sub(f"bra {end};", body), names) + f"\n}}\n{end}:\n"


def _apart(text: str, numbers: Iterator[int]) -> str:
    """The same function with a name of its own for every argument variable of its body."""
    scopes: list[dict[str, str]] = []

    def token(found: re.Match[str]) -> str:
        whole = found[0]
        if whole == "{":
            scopes.append({})
        elif whole == "}" and scopes:
            scopes.pop()
        elif found["declared"] and scopes:
            unique = scopes[-1][found["declared"]] = f"{found['declared']}$p{next(numbers)}"
            return found["before"] + unique + found["after"]
        elif found["name"]:
            return next((scope[whole] for scope in reversed(scopes) if whole in scope), whole)
        return whole

    return _TOKEN.sub(token, text)


def _in_registers(text: str) -> str:
    """A kernel without calls whose argument variables become registers; as it was if one of them is no plain scalar."""
    sizes: dict[str, set[str]] = {}
    for found in _LOCAL.finditer(text):
        sizes.setdefault(found[2], set()).add("array" if found[3] else found[1])
    if not sizes or _CALL.search(text) or any(len(one) > 1 or "array" in one for one in sizes.values()):
        return text
    widths = _register_widths(text)
    whole = True

    def move(found: re.Match[str]) -> str:
        nonlocal whole
        place = _PLACE.search(found[3])
        if place is None or place[1] not in sizes:
            return found[0]
        before, after = found[3][: place.start()], found[3][place.end() :]
        other = (before + after).strip(" ,\t")
        opcode = None
        if found[2].lstrip(".")[1:] in sizes[place[1]] and int(place[2] or 0) == 0:
            opcode = _transfer(found[1], found[2].lstrip("."), widths.get(other.rstrip("0123456789")), other)
        whole &= opcode is not None
        return f"{opcode} {before}{place[1]}{after};"

    # registers have no 8 bits
    moved = _LOCAL.sub(lambda local: f".reg .b{max(int(local[1]), 16)} {local[2]};", _ACCESS.sub(move, text))
    return moved if whole else text


def _register_widths(text: str) -> dict[str, int | None]:
    """Bits of the registers by name, without the number at its end; None where it has several."""
    widths: dict[str, int | None] = {}
    for bits, names in _REGISTERS.findall(text):
        for name in _listed(names):
            stem = name.partition("<")[0].strip().rstrip("0123456789")
            widths[stem] = int(bits) if widths.get(stem, int(bits)) == int(bits) else None
    return widths


def _transfer(direction: str, kind: str, width: int | None, other: str) -> str | None:
    """What moves a value between an argument variable of type `kind` and a register of `width` bits, as ld and st do it.

    A load extends and a store cuts where the register is wider.
    """
    size = int(kind[1:])
    if width is None:
        return None if other.startswith("%") or size == 8 else f"mov.b{size}"  # a number
    if width == size:
        return f"mov.{'f' if kind[0] == 'f' else 'b'}{size}"
    if width < size or kind[0] == "f":
        return None
    sign = "s" if kind[0] == "s" else "u"
    return f"cvt.{sign}{width}.{sign}{size}" if direction == "ld" else f"cvt.u{max(size, 16)}.u{width}"
