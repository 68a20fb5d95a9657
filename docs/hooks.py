"""Formulas become MathML while the site is built: browsers draw it by themselves, and screen readers read it.

The theme's search dialogue gets the name that it lacks.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page."""

    def drawn(found: re.Match[str]) -> str:
        if page.file.src_uri.startswith("api/"):
            return f"${found[3]}$"  # docstrings hold plain formulas; a dollar there is a dollar
        tex = html.unescape(found[3]).strip()
        return convert(tex, display="block" if found[2] == "[" else "inline")

    return _FORMULA.sub(drawn, content)


def on_post_page(output: str, **_: Any) -> str:
    """Called by mkdocs with each whole page."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
