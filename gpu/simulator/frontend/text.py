"""PTX text as a list of top-level statements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

NAME = r"[A-Za-z_$%.][\w$]*"
_FUNCTION = re.compile(rf"\.(?:func|entry)\s*(?:\([^()]*\)\s*)?({NAME})")
_VARIABLE = re.compile(rf"({NAME})\s*(?:\[[^\]]*\]\s*)*(?:=|;)")
_TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/|\"[^\"\n]*\"|[{};]|\n", re.DOTALL)
_LINE_DIRECTIVE = re.compile(r"\s*\.(?:version|target|address_size|file|pragma)\b")


@dataclass(frozen=True, slots=True)
class Statement:
    """One top-level PTX statement; `name` is empty for directives that define nothing."""

    text: str
    name: str
    linkage: str
    """One of ``visible weak common extern static``, or empty."""


def statements(ptx: str) -> Iterator[Statement]:
    """Split a module into its top-level statements, comments between them dropped."""
    start, depth, assigned = 0, 0, False
    for token in _TOKEN.finditer(ptx):
        text, chunk = token.group(), ptx[start : token.start()]
        if text.startswith(("//", "/*")):
            if depth == 0 and not chunk.strip():
                start = token.end()
            continue
        if depth == 0 and "=" in chunk:
            assigned = True
        if text == "{":
            depth += 1
        elif text == "}":
            depth -= 1
        ends = (
            (text == ";" and depth == 0)
            or (text == "}" and depth == 0 and not assigned)
            or (text == "\n" and depth == 0 and _LINE_DIRECTIVE.match(chunk) is not None)
        )
        if ends:
            body = ptx[start : token.end()].strip()
            start, assigned = token.end(), False
            if body and body != ";":
                yield _classify(body)
    if ptx[start:].strip():
        yield _classify(ptx[start:].strip())


def _classify(text: str) -> Statement:
    if _LINE_DIRECTIVE.match(text) or text.startswith((".section", "@@")):
        return Statement(text, "", "")
    found = _FUNCTION.search(text) if re.search(r"\.(func|entry)\b", text.split("{")[0]) else _VARIABLE.search(text)
    head = text.split("(")[0]
    for linkage in ("visible", "weak", "common", "extern"):
        if re.match(rf"\s*\.{linkage}\b", head):
            break
    else:
        linkage = "static"
    return Statement(text, found.group(1) if found else "", linkage)


def rename(text: str, renames: dict[str, str]) -> str:
    """Replace whole names."""
    if not renames:
        return text
    pattern = re.compile(r"(?<![\w$%.])(" + "|".join(re.escape(name) for name in renames) + r")(?![\w$])")
    return pattern.sub(lambda found: renames[found.group(1)], text)
