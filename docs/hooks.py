"""Formulas become MathML while the site is built: browsers draw it by themselves, and screen readers read it."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_INSTALLED = re.compile(r"build/__editable__[^/<]*/loadsparse/")  # where an editable install keeps its links


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page."""

    def drawn(found: re.Match[str]) -> str:
        if page.file.src_uri.startswith("api/"):
            return f"${found[3]}$"  # docstrings hold plain formulas; a dollar there is a dollar
        tex = html.unescape(found[3]).strip()
        return convert(tex, display="block" if found[2] == "[" else "inline")

    return _INSTALLED.sub("", _FORMULA.sub(drawn, content))
