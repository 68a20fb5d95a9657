"""A builder of LLVM IR text, and the vector types of a warp: one value per lane, 32 lanes."""

from __future__ import annotations

LANES = 32
FULL = "-1"
"""The i32 mask of a full warp."""


class Unsupported(NotImplementedError):
    """The engine cannot translate this kernel; the interpreter may."""


def vec(element: str) -> str:
    """``<32 x element>``."""
    return f"<{LANES} x {element}>"


def splat(element: str, value: int | str) -> str:
    """A constant vector whose lanes all hold `value`."""
    if value in (0, "0"):
        return "zeroinitializer"
    if element == "i1":
        return f"splat (i1 {'true' if value in (1, -1, '1', '-1') else 'false'})"
    return f"splat ({element} {value})"


def lanes(element: str, values: list[int]) -> str:
    """A constant vector with the given lanes."""
    return "<" + ", ".join(f"{element} {v}" for v in values) + ">"


class Code:
    """The body of one function under construction; values are names, types are given where they are needed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counter = 0
        self.declared: set[str] = set()
        self.closed = False

    def fresh(self, stem: str = "t") -> str:
        self.counter += 1
        return f"{stem}.{self.counter}"

    def emit(self, text: str) -> None:
        self.lines.append("  " + text)

    def v(self, text: str) -> str:
        """Emits ``%new = text`` and returns the new name."""
        self.counter += 1
        self.lines.append(f"  %t.{self.counter} = {text}")
        return f"%t.{self.counter}"

    def label(self, name: str) -> None:
        if not self.closed:
            self.lines.append(f"  br label %{name}")
        self.lines.append(f"{name}:")
        self.closed = False

    def start(self, name: str) -> None:
        """Opens a block that nothing falls into."""
        self.lines.append(f"{name}:")
        self.closed = False

    def close(self, text: str) -> None:
        """Emits a terminator."""
        self.lines.append("  " + text)
        self.closed = True

    def goto(self, name: str) -> None:
        self.close(f"br label %{name}")

    def branch(self, flag: str, yes: str, no: str, likely: bool | None = None) -> None:
        weight = "" if likely is None else f", !prof !{0 if likely else 1}"
        self.close(f"br i1 {flag}, label %{yes}, label %{no}{weight}")

    def op(self, name: str, type_: str, *operands: str) -> str:
        return self.v(f"{name} {type_} {', '.join(operands)}")

    def cast(self, kind: str, value: str, source: str, target: str) -> str:
        return value if source == target else self.v(f"{kind} {source} {value} to {target}")

    def intrinsic(self, name: str, result: str, *arguments: tuple[str, str]) -> str:
        """Calls ``@llvm.name``; arguments are (type, value)."""
        self.declared.add(f"declare {result} @{name}({', '.join(t for t, _ in arguments)})")
        return self.v(f"call {result} @{name}({', '.join(f'{t} {v}' for t, v in arguments)})")

    def call(self, name: str, result: str, *arguments: tuple[str, str]) -> str:
        passed = ", ".join(f"{t} {v}" for t, v in arguments)
        if result == "void":
            self.emit(f"call void @{name}({passed})")
            return ""
        return self.v(f"call {result} @{name}({passed})")

    def select(self, flags: str, element: str, yes: str, no: str) -> str:
        """Lane-wise choice; `flags` is <32 x i1>."""
        return self.v(f"select {vec('i1')} {flags}, {vec(element)} {yes}, {vec(element)} {no}")

    def bits(self, flags: str) -> str:
        """<32 x i1> -> i32 mask."""
        return self.v(f"bitcast {vec('i1')} {flags} to i32")

    def flags(self, mask: str) -> str:
        """i32 mask -> <32 x i1>."""
        if mask == FULL:
            return splat("i1", 1)
        return self.v(f"bitcast i32 {mask} to {vec('i1')}")

    def broadcast(self, element: str, value: str) -> str:
        """Scalar -> all lanes."""
        one = self.v(f"insertelement {vec(element)} poison, {element} {value}, i64 0")
        return self.v(f"shufflevector {vec(element)} {one}, {vec(element)} poison, {vec('i32')} zeroinitializer")

    def at(self, base: str, offset: int) -> str:
        """Address `offset` bytes after the pointer `base`."""
        return self.v(f"getelementptr i8, ptr {base}, i64 {offset}") if offset else base

    def load(self, type_: str, base: str, offset: int, align: int) -> str:
        return self.v(f"load {type_}, ptr {self.at(base, offset)}, align {align}")

    def store(self, type_: str, value: str, base: str, offset: int, align: int) -> None:
        self.emit(f"store {type_} {value}, ptr {self.at(base, offset)}, align {align}")

    def mask_and(self, a: str, b: str) -> str:
        """AND of two i32 masks, folding constants."""
        if a in (FULL, b):
            return b
        if b == FULL:
            return a
        return self.v(f"and i32 {a}, {b}")

    def mask_blend(self, mask: str, new: str, old: str) -> str:
        """Bits of `new` where `mask` is set, of `old` elsewhere."""
        if mask == FULL or new == old:
            return new
        changed = self.v(f"xor i32 {new}, {old}")
        changed = self.v(f"and i32 {changed}, {mask}")
        return self.v(f"xor i32 {changed}, {old}")
