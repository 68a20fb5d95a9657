"""PTX text -> `Program`: the grammar of ptx.lark, then names resolved scope by scope."""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from loadsparse.gpu.simulator.declarations import Statement, integer
from loadsparse.gpu.simulator.parsed_module import Module
from loadsparse.gpu.simulator.program import (
    Immediate,
    Program,
    PtxError,
)

MAXIMUM_TEXT = 64 << 20
"""Longest PTX text accepted, in characters."""

REMEMBERED_TEXT = 1 << 20
"""The programs of the latest texts up to this length are kept, so that loading one again costs nothing."""

_TERMINALS = {"NAME": "a name", "INT": "a number", "FLOAT": "a number", "SEMICOLON": "';'", "COMMA": "','"}


@v_args(inline=True)
class _Shape(Transformer[Token, Any]):
    """Turns instructions into `Statement`s while the parser runs, so that no tree is built for them."""

    def integer(self, token: Token) -> Immediate:
        value = integer(token)
        if not -(1 << 63) <= value < 1 << 64:
            raise PtxError(f"'{token[:40]}' has more than 64 bits", token.line or 0, token.column or 0)
        return Immediate(value)

    def float(self, token: Token) -> Immediate:
        if token[:2] in ("0f", "0F"):
            return Immediate(int(token[2:], 16), 32)
        if token[:2] in ("0d", "0D"):
            return Immediate(int(token[2:], 16), 64)
        return Immediate(struct.unpack("<Q", struct.pack("<d", float(token)))[0], 64)

    def instruction(self, *parts: Any) -> Statement:
        guard = parts[0] if isinstance(parts[0], tuple) else None
        start = 1 if parts[0] is None or guard else 0
        opcode = parts[start]
        operands = [part for part in parts[start + 1 :] if part is not None]
        return Statement(opcode, guard, operands, opcode.end_pos or 0)

    def guard(self, *parts: Token | None) -> tuple[Token, bool]:
        return cast(Token, parts[-1]), len(parts) == 2 and parts[0] is not None


@lru_cache(maxsize=1)
def _lark() -> Lark:
    grammar = Path(__file__).with_name("ptx.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", transformer=_Shape(), maybe_placeholders=True)


def parse(text: str) -> Program:
    """The typed program of a PTX module.

    Raises `PtxError`, naming line and column, for text that is not PTX, an opcode or modifier that is not in
    `opcodes.OPCODES`, an undeclared or twice declared name, and a recursive entry.  Newer `.version` lines are accepted.
    """
    if len(text) > MAXIMUM_TEXT:
        raise PtxError(f"{len(text)} characters of PTX; at most {MAXIMUM_TEXT} are accepted")
    return _remembered(text) if len(text) <= REMEMBERED_TEXT else _parse(text)


def _parse(text: str) -> Program:
    text = text.rstrip("\0 \n") + "\n"
    try:
        return Module(text).build(_lark().parse(text))
    except UnexpectedToken as error:
        raise _syntax_error(text, error.token, error.accepts or error.expected) from None
    except UnexpectedCharacters as error:
        raise PtxError(f"unexpected {error.char!r} in '{_line(text, error.line)}'", error.line, error.column) from None
    except UnexpectedEOF:
        raise PtxError("the text ends inside a statement", text.count("\n") + 1, 1) from None
    except RecursionError:
        raise PtxError("nesting is too deep") from None


_remembered = lru_cache(maxsize=32)(_parse)


def _line(text: str, line: int) -> str:
    lines = text.splitlines()
    return lines[line - 1].strip()[:80] if 0 < line <= len(lines) else ""


def _syntax_error(text: str, token: Token, expected: set[str]) -> PtxError:
    if token.type == "$END":
        return PtxError("the text ends inside a statement", text.count("\n") + 1, 1)
    wanted = sorted({_TERMINALS.get(name, name.lower()) for name in expected})
    hint = f"; expected {' or '.join(wanted)}" if 0 < len(wanted) <= 4 else ""
    shown = " ".join(str(token).split())[:40]
    return PtxError(
        f"unexpected '{shown}' in '{_line(text, token.line or 0)}'{hint}", token.line or 0, token.column or 0
    )
