"""What a PTX declaration says: names in scopes, bytes in frames, attributes and dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from lark import Token, Tree

from loadsparse.gpu.simulator.program import (
    WIDTH,
    PtxError,
    Space,
)

MAXIMUM_VARIABLES = 1 << 30
"""Bytes of a module's .global and .const variables together."""


@dataclass(slots=True)
class Statement:
    """An instruction before its names are resolved."""

    opcode: Token
    guard: tuple[Token, bool] | None
    operands: list[Any]
    end: int


def integer(token: str) -> int:
    """The value of an integer token.  Raises PtxError for one of more than 64 digits."""
    if len(token) > 66:
        raise PtxError(
            f"'{token[:20]}...' has {len(token)} digits",
            getattr(token, "line", 0) or 0,
            getattr(token, "column", 0) or 0,
        )
    digits = token.rstrip("U").replace(" ", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
        return sign * int(digits, 8) if set(digits) <= set("01234567") else sign * int(digits)
    return sign * int(digits, 0)


@dataclass(slots=True)
class Scope:
    """Names of one pair of braces; `families` holds `%r<10>` as (type, count)."""

    outer: Scope | None = None
    names: dict[str, Any] = field(default_factory=dict)
    families: dict[str, tuple[str, int]] = field(default_factory=dict)
    labels: dict[str, tuple[str, int]] = field(default_factory=dict)

    def declare(self, name: Token, value: Any) -> None:
        if name in self.names:
            raise PtxError(f"'{name}' is declared twice", name.line or 0, name.column or 0)
        self.names[str(name)] = value


@dataclass(slots=True)
class Frame:
    """Bytes laid out so far in one state space."""

    size: int = 0

    def place(self, size: int, align: int) -> int:
        offset = -(-self.size // align) * align
        self.size = offset + size
        return offset


@dataclass(slots=True)
class Declared:
    """One declarator: everything that is known without the frame it goes into."""

    name: Token
    space: Space
    type: str
    size: int
    align: int
    family: int | None
    initial: Any
    dynamic: bool


def flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, Tree) and value.data == "initials":
        for child in value.children:
            if child is not None:
                yield from flatten(child)
    else:
        yield value


def attributes(parts: list[Any]) -> tuple[str, int, int]:
    """(element type, alignment in bytes or 0, vector length) from the attributes of a declaration."""
    kind, align, vector, pointer = "b8", 0, 1, False
    for part in parts:
        if not (isinstance(part, Tree) and part.data == "attribute"):
            continue
        token = cast(Token, part.children[0])
        if token.type == "ALIGN":
            align = align if pointer else int(token.split()[1])
        elif token == ".ptr":
            pointer = True
        elif token in (".v2", ".v4"):
            vector = int(token[2:])
        elif token.type == "ATTRIBUTE" and token[1:] in WIDTH:
            kind = token[1:]
        elif token.type == "ATTRIBUTE" and not token.startswith(".attribute"):
            raise PtxError(f"unknown type or attribute '{token}'", token.line or 0, token.column or 0)
    return kind, align, vector


def dimensions(parts: list[Any]) -> int | None:
    """Product of the array dimensions; None when one is left open; 1 without any."""
    count: int | None = 1
    for part in parts:
        if isinstance(part, Tree) and part.data == "dimension":
            size = cast("Token | None", part.children[0])
            if size is not None and integer(size) < 0:
                raise PtxError(f"an array of {size} elements", size.line or 0, size.column or 0)
            count = None if size is None or count is None else count * integer(size)
    return count


def declarators(tree: Tree[Token]) -> Iterator[Declared]:
    linkage, space, *rest = tree.children
    kind, align, vector = attributes(rest)
    extern = isinstance(linkage, Tree) and ".extern" in linkage.children
    for part in rest:
        if not (isinstance(part, Tree) and part.data == "declarator"):
            continue
        name = cast(Token, part.children[0])
        family = next((c for c in part.children if isinstance(c, Tree) and c.data == "family"), None)
        initial = part.children[-1] if len(part.children) > 1 else None
        if isinstance(initial, Tree) and initial.data in ("family", "dimension"):
            initial = None
        element = max(1, WIDTH[kind] // 8) * vector
        count = dimensions(part.children)
        dynamic = False
        if count is None:
            dynamic = initial is None and extern
            count = 0 if initial is None else len(list(flatten(initial)))
        size = element * count
        if size > MAXIMUM_VARIABLES:
            reason = f"'{name}' takes {size} bytes; at most {MAXIMUM_VARIABLES} are simulated"
            raise PtxError(reason, name.line or 0, name.column or 0)
        if align & (align - 1):
            raise PtxError(f"alignment {align} of '{name}' is not a power of two", name.line or 0, name.column or 0)
        yield Declared(
            name,
            cast(Space, str(space)[1:]),
            kind,
            size,
            align or element,
            integer(cast(Token, family.children[0])) if family else None,
            initial,
            dynamic,
        )


def heading(function: Tree[Token]) -> tuple[Token, Tree[Token] | None, Tree[Token] | None]:
    """(name, results, parameters) of a function."""
    _, kind, first, name, second = function.children[:5]
    if kind == ".entry" and first is not None:
        raise PtxError("an .entry returns nothing", cast(Token, name).line or 0, cast(Token, name).column or 0)
    return cast(Token, name), cast("Tree[Token] | None", first), cast("Tree[Token] | None", second)
