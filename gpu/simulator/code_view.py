"""Source, PTX and machine code side by side: a row of one view names the rows of the others that belong to it."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from typing import Any

from loadsparse.gpu import sass
from loadsparse.gpu.simulator import hot

escape = html.escape
Rows = Sequence[Mapping[str, Any]]
NEAR = 6
"""Source lines shown around those a kernel came from."""


def base(file: str | None) -> str:
    """The name of a file without its folders."""
    return os.path.basename((file or "").replace("\\", "/"))


def anchor(file: str | None, line: int | None) -> str:
    """The id of a source line within its kernel's section."""
    return f"s-{''.join(c if c.isalnum() else '-' for c in base(file))}-{line}"


def source_link(key: str, file: str | None, line: int | None) -> str:
    """A link to a source line."""
    return f'<a href="#{key}-{escape(anchor(file, line))}">{escape(f"{base(file)}:{line}")}</a>' if file else ""


def source_text(sources: Mapping[str, str], file: str | None) -> str | None:
    """The text of a source file where it is known."""
    return sources.get(file or "") or sources.get(base(file))


def bar(value: float, most: float) -> str:
    """A share as a bar."""
    share = 100 * value / most if most else 0
    return f"<span class=bar style='--share:{share:.1f}%'></span>"


def views(
    key: str, rows: Rows, machine: Sequence[sass.Instruction], sources: Mapping[str, str], wrong: set[Any]
) -> str:
    """The section; `wrong` are PTX lines that a hazard names."""
    lines = _by_line(rows)
    shown = [_sources(key, rows, sources), _ptx(key, lines, wrong), _sass(key, lines, machine)]
    spoken = ""
    if machine:
        known, became = {row["line"] for row in lines}, set(sass.by_line(machine))
        spoken = (
            f" {len(machine):,} SASS instructions (compiled; not executed here) come from {len(known & became):,} of "
            f"{len(known):,} PTX lines: the assembler's line table names one PTX line for each, also where it serves several; "
            "PTX lines without any were merged, folded or removed."
        )
    return (
        "<h3>Source, PTX and machine code</h3><p class=note>Choose a row: what belongs to it is marked in the other views. "
        f"Arrow keys move within a view.{spoken}</p><p class=chosen role=status></p>"
        f"<div class=views>{''.join(view for view in shown if view)}</div>"
    )


def _by_line(rows: Rows) -> list[dict[str, Any]]:
    """One row per PTX line, in order: statements may share a line."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        held = found.setdefault(row["line"], {**row, "ptx": [], "cost": 0})
        held["ptx"].append(row["ptx"])
        held["cost"] += hot.cost(row)
        held["executions"] = max(held["executions"], row["executions"])
    return list(found.values())


def _view(name: str, content: str) -> str:
    label = escape(name)
    region = f"<div class=scroll tabindex=0 role=region aria-label='{label}'>{content}</div>"
    return f"<div class=view><h4>{label}</h4>{region}</div>"


def _ptx(key: str, lines: Rows, wrong: set[Any]) -> str:
    most = max((row["cost"] for row in lines), default=1)
    body = "".join(
        f"<tr id={key}-p{r['line']} class='{'wrong' if r['line'] in wrong else ''}' data-p={r['line']} "
        f"data-s='{escape(anchor(r['file'], r['source_line']))}'><td>{r['line']}</td><td>{bar(r['cost'], most)}</td>"
        f"<td>{r['executions']:,}</td><td class=code>{escape('; '.join(r['ptx']))}</td></tr>"
        for r in lines
    )
    head = "<thead><tr><th>line<th>issues<th>executed<th class=code>PTX</tr></thead>"
    return _view("PTX", f"<table class=listing>{head}<tbody>{body}</tbody></table>")


def _sass(key: str, lines: Rows, machine: Sequence[sass.Instruction]) -> str:
    if not machine:
        return ""
    places = {row["line"]: anchor(row["file"], row["source_line"]) for row in lines}
    body = "".join(
        f"<tr data-p={m.line or 0} data-s='{escape(places.get(m.line or 0, ''))}'><td>{m.offset:04x}</td>"
        f"<td>{m.line or ''}</td><td class=code>{escape(f'{m.label}: ' if m.label else '')}{escape(m.text)}</td></tr>"
        for m in machine
    )
    head = "<thead><tr><th>offset<th>PTX<th class=code>SASS</tr></thead>"
    return _view("SASS", f"<table class=listing>{head}<tbody>{body}</tbody></table>")


def _sources(key: str, rows: Rows, sources: Mapping[str, str]) -> str:
    """Every file that is known, in the stretches that the kernel came from."""
    costs: dict[str, dict[int, int]] = {}
    for row in rows:
        if row["file"] is not None:
            held = costs.setdefault(row["file"], {})
            held[row["source_line"]] = held.get(row["source_line"], 0) + hot.cost(row)
    known = [(file, held, text) for file, held in costs.items() if (text := source_text(sources, file)) is not None]
    most = max((cost for _, held, _ in known for cost in held.values()), default=1)
    return _view("Source", "".join(_file(key, file, text, held, most) for file, held, text in known)) if known else ""


def _file(key: str, file: str, text: str, costs: Mapping[int, int], most: int) -> str:
    rows, last = [], 0
    for number, line in enumerate(text.splitlines(), 1):
        if not any(abs(number - used) <= NEAR for used in costs):
            continue
        gap = "<tr class=gap><td colspan=3>...</td></tr>" if number > last + 1 else ""
        place = escape(anchor(file, number))
        rows.append(
            f"{gap}<tr id='{key}-{place}' data-s='{place}'><td>{number}</td><td>{bar(costs.get(number, 0), most)}</td>"
            f"<td class=code>{escape(line)}</td></tr>"
        )
        last = number
    head = f"<thead><tr><th>line<th>issues<th class=code>{escape(base(file))}</tr></thead>"
    return f"<table class=listing>{head}<tbody>{''.join(rows)}</tbody></table>"
