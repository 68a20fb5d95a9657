"""Docstrings as Markdown: examples become code blocks, so that `>>>` is not read as a quotation."""

from __future__ import annotations

from typing import Any

from griffe import Extension, Object


def fenced(text: str) -> str:
    """The docstring with every run of lines from `>>>` to the next blank line inside of a fence."""
    lines, inside = [], False
    for line in text.splitlines():
        if line.lstrip().startswith(">>>") and not inside:
            lines += ["", "```pycon"]
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line.lstrip() if inside else line)
    return "\n".join([*lines, "```"] if inside else lines)


class Examples(Extension):
    """Called by griffe for every object it has read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
