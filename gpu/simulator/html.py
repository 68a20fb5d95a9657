"""A report as one self-contained page: no script, no network; links jump from a hazard or hot line to its PTX line."""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from math import log10
from pathlib import Path
from typing import Any

from loadsparse.gpu.simulator import hot
from loadsparse.gpu.simulator.heat import Heat
from loadsparse.gpu.simulator.occupancy import Occupancy
from loadsparse.gpu.simulator.report import Finding, Report
from loadsparse.gpu.simulator.roofline import ROOFS, Point, Roof, point

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
HOT = 12
escape = html.escape


@dataclass(frozen=True, slots=True)
class Panel:
    """One kernel of a page.  metrics: (name, value, unit, source of the number); sources: text by file name."""

    report: Report
    metrics: Sequence[tuple[str, float, str, str]] = ()
    occupancy: Occupancy | None = None
    sass: str = ""
    note: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    heat: Sequence[Heat] = ()


def write(path: str | os.PathLike[str], panels: Sequence[Panel], title: str = "", remarks: Sequence[str] = ()) -> None:
    """Writes the page, by a temporary file that is then renamed."""
    target = Path(path)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, suffix=".part", delete=False) as file:
        file.write(page(panels, title, remarks))
    os.replace(file.name, target)


def page(panels: Sequence[Panel], title: str = "", remarks: Sequence[str] = ()) -> str:
    """The page as text; `remarks` are lines for its head (schedules explored, for example)."""
    name = title or panels[0].report.kernel
    hazards = sum(len(panel.report.hazards) for panel in panels)
    state = f"{hazards} hazard{'s' if hazards != 1 else ''}" if hazards else "no hazard"
    style = (files("loadsparse.gpu.simulator") / "html.css").read_text(encoding="utf-8")
    links = [f'<a href="#k{n}">{escape(panel.report.kernel[:40])}</a>' for n, panel in enumerate(panels)]
    body = [
        f"<header><h1>{escape(name[:120])}</h1><p class={'bad' if hazards else 'good'}>{state}</p>"
        f"<nav aria-label='Kernels'>{' '.join(links)}</nav>",
        *(f"<p>{escape(remark)}</p>" for remark in remarks),
        "</header>",
        *(_panel(number, panel) for number, panel in enumerate(panels)),
        "<footer>Counted: exact, by executing every instruction on the CPU. Compiled: reported by NVIDIA's compiler. "
        "Derived: rules or quotients of those. Modelled: an idealised cache. None of it is a time.</footer>",
    ]
    return (
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta http-equiv=Content-Security-Policy "
        f'content="{POLICY}"><meta name=viewport content="width=device-width, initial-scale=1">'
        f"<meta name=color-scheme content='light dark'><title>{escape(name[:80])}: profile</title>"
        f"<style>{style}</style></head><body>\n{''.join(body)}\n</body></html>\n"
    )


def _panel(number: int, panel: Panel) -> str:
    report, key = panel.report, f"k{number}"
    summary = (
        f"{escape(report.arch)}, grid {_times(report.grid)}, block {_times(report.block)}: "
        f"{report.instructions:,} warp instructions, executed in {report.seconds['execute']:.3f} s by the "
        f"{escape(report.engine)} engine"
    )
    parts = [
        f"<section id={key}><h2>{escape(report.kernel[:120])}</h2><p>{summary}.</p>",
        f"<p class=note>{escape(panel.note)}</p>" if panel.note else "",
        _hazards(key, report.hazards),
        _hot(key, report),
        f"<div class=pair>{_occupancy(panel.occupancy)}{_roofline(report)}</div>",
        _heat(key, panel.heat),
        _metrics(panel),
        _listings(key, panel),
        "</section>",
    ]
    return "".join(parts)


def _times(size: Iterable[int]) -> str:
    return " x ".join(str(part) for part in size)


def _where(file: str | None, line: int | None) -> str:
    return f"{os.path.basename(file.replace(chr(92), '/'))}:{line}" if file else ""


def _source_link(key: str, file: str | None, line: int | None) -> str:
    text = escape(_where(file, line))
    return f'<a href="#{key}-{escape(_anchor(file, line))}">{text}</a>' if file else ""


def _anchor(file: str | None, line: int | None) -> str:
    name = os.path.basename((file or "").replace("\\", "/"))
    return f"s-{''.join(c if c.isalnum() else '-' for c in name)}-{line}"


def _hazards(key: str, hazards: Sequence[Finding]) -> str:
    if not hazards:
        return "<h3>Hazards</h3><p class=good>None was found.</p>"
    items = []
    for finding in hazards:
        other = (
            f', <a href="#{key}-p{finding.other_line}">PTX line {finding.other_line}</a>' if finding.other_line else ""
        )
        source = _source_link(key, finding.file, finding.source_line)
        times = f" ({finding.count} times)" if finding.count > 1 else ""
        items.append(
            f'<li><strong>{escape(finding.kind)}</strong> at <a href="#{key}-p{finding.line}">PTX line {finding.line}</a>'
            f"{other}{', ' + source if source else ''}: {escape(finding.message)}; first in block "
            f"{finding.block}, thread {finding.thread}{times}</li>"
        )
    return f"<h3>Hazards</h3><ol class=hazards>{''.join(items)}</ol>"


def _bar(value: float, most: float) -> str:
    share = 100 * value / most if most else 0
    return f"<span class=bar style='--share:{share:.1f}%'></span>"


def _hot(key: str, report: Report) -> str:
    rows = hot.ptx(report.lines, HOT)
    total = sum(hot.cost(row) for row in report.lines) or 1
    body = "".join(
        f'<tr><td>{_bar(hot.cost(r), hot.cost(rows[0]))} {100 * hot.cost(r) / total:.1f} %</td><td><a href="#{key}-p{r["line"]}">'
        f"{r['line']}</a></td><td>{_source_link(key, r['file'], r['source_line'])}</td>"
        f"<td class=code>{escape(r['ptx'])}</td><td>{r['executions']:,}</td><td>{_ways(r)}</td></tr>"
        for r in rows
    )
    return (
        "<h3>Hot lines</h3><p class=note>Share of issues: warp instructions, and every wavefront and sector beyond the "
        "first of each.</p><div class=wide><table><thead><tr><th>share<th>PTX line<th>source<th class=code>instruction<th>"
        f"executions<th>memory</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _ways(row: Mapping[str, Any]) -> str:
    texts = []
    if row["requests"]:
        texts.append(f"{row['sectors'] / row['requests']:.1f} sectors per request")
    if row["wavefronts"]:
        extra = row["wavefronts"] - row["ideal_wavefronts"]
        texts.append(f"{row['wavefronts']:,} wavefronts, {extra:,} of them conflicts")
    return escape("; ".join(texts))


def _occupancy(found: Occupancy | None) -> str:
    if found is None:
        return ""
    rows = "".join(
        f"<tr class='{'binds' if name in found.limiter else ''}'><td>{name}</td><td>{'no limit' if v is None else v}</td></tr>"
        for name, v in found.limits.items()
    )
    return (
        f"<div><h3>Occupancy</h3><p>{found.warps} of {found.maximum_warps} warps ({100 * found.fraction:.0f} %), "
        f"{found.blocks} blocks per multiprocessor; limited by {escape(' and '.join(found.limiter))} (derived).</p>"
        f"<table><thead><tr><th>limit by<th>blocks</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _roofline(report: Report) -> str:
    roof, here = ROOFS.get(report.arch), point(report.lines)
    if roof is None or not here.bytes or not here.tensor_flop + here.plain_flop:
        return ""
    text = (
        f"{here.tensor_flop + here.plain_flop:,} FLOP over {here.bytes:,} bytes between L1 and L2 (counted): "
        f"{here.intensity:.2f} FLOP per byte. Under the roof of an {roof.gpu} (data sheet) {here.bound(roof)} is "
        f"reached first."
    )
    return f"<figure><h3>Roofline</h3>{_roof_picture(roof, here)}<figcaption>{escape(text)}</figcaption></figure>"


def _roof_picture(roof: Roof, here: Point) -> str:
    """Log-log: intensity 0.01 to 10,000 FLOP/byte, 1e9 to 1e15 FLOP/s."""

    def x(value: float) -> float:
        return 40 + 60 * (log10(min(max(value, 1e-2), 1e4)) + 2)

    def y(value: float) -> float:
        return 200 - 30 * (log10(min(max(value, 1e9), 1e15)) - 9)

    peak = roof.tensor if here.tensor_flop else roof.plain
    ridge = peak / roof.bandwidth
    line = f"M{x(0.01):.1f} {y(roof.bandwidth * 0.01):.1f} L{x(ridge):.1f} {y(peak):.1f} L{x(1e4):.1f} {y(peak):.1f}"
    ticks = "".join(f"<text x={x(10.0**e):.0f} y=216>1e{e}</text>" for e in (-2, 0, 2, 4))
    marks = "".join(f"<text x=2 y={y(10.0**e) + 4:.0f}>1e{e}</text>" for e in (9, 12, 15))
    px, py = x(here.intensity), y(here.ceiling(roof))
    return (
        "<svg viewBox='0 0 420 225' role=img aria-label='Roofline: the dot is this launch under the roof'>"
        f"<path class=axis d='M40 20 V200 H400'/><path class=roof d='{line}'/>"
        f"<path class=drop d='M{px:.1f} {py:.1f} V200'/><circle cx={px:.1f} cy={py:.1f} r=5 />{ticks}{marks}"
        "<text x=300 y=190>FLOP/byte</text><text x=46 y=18>FLOP/s</text></svg>"
    )


def _heat(key: str, maps: Sequence[Heat]) -> str:
    if not maps:
        return ""
    pictures = []
    for heat in maps:
        most = int(heat.counts.max()) or 1
        cells = "".join(
            f"<rect x={column * 8} y={lane * 8} width=8 height=8 fill-opacity={count / most:.2f} />"
            for lane, line in enumerate(heat.counts.tolist())
            for column, count in enumerate(line)
            if count
        )
        across = "bank of its first word" if heat.space == "shared" else "32-byte sector, from the warp's lowest"
        label = f"PTX line {heat.line}: lanes (down) against {across} (across), {heat.executions} executions of block 0"
        pictures.append(
            f"<figure><svg class=heat viewBox='-1 -1 258 258' role=img aria-label='{escape(label)}'>"
            f"<rect class=frame x=-1 y=-1 width=258 height=258 />{cells}</svg><figcaption>"
            f'<a href="#{key}-p{heat.line}">PTX line {heat.line}</a> <span class=code>{escape(heat.ptx[:70])}</span><br>'
            f"{heat.space}, {heat.size} bytes a lane; lane downwards, {across} across; {heat.executions} executions of "
            f"block 0</figcaption></figure>"
        )
    return f"<h3>Where the lanes go</h3><div class=maps>{''.join(pictures)}</div>"


def _metrics(panel: Panel) -> str:
    rows = panel.metrics or [(name, value, "", "counted") for name, value in panel.report.metrics.items()]
    body = "".join(
        f"<tr><td class=code>{escape(name)}</td><td>{value:,}</td><td>{escape(unit)}</td><td>{escape(source)}</td></tr>"
        for name, value, unit, source in rows
    )
    return (
        "<h3>Metrics</h3><details open><summary>Names as in Nsight Compute where it has one</summary><div class=wide>"
        f"<table><thead><tr><th class=code>metric<th>value<th>unit<th>from</tr></thead><tbody>{body}</tbody>"
        "</table></div></details>"
    )


def _listings(key: str, panel: Panel) -> str:
    """PTX, source and SASS side by side, each scrolling by itself."""
    lines = panel.report.lines
    most = max((hot.cost(row) for row in lines), default=1) or 1
    wrong = {line for finding in panel.report.hazards for line in (finding.line, finding.other_line)}
    body = "".join(
        f"<tr id={key}-p{r['line']} class='{'wrong' if r['line'] in wrong else ''}'><td>{r['line']}</td>"
        f"<td>{_bar(hot.cost(r), most)}</td><td>{r['executions']:,}</td><td class=code>{escape(r['ptx'])}</td>"
        f"<td>{_source_link(key, r['file'], r['source_line'])}</td></tr>"
        for r in _one_per_line(lines)
    )
    views = [_view("PTX", f"<table class=listing><tbody>{body}</tbody></table>")]
    used: dict[str, dict[int, int]] = {}
    for row in lines:
        if row["file"] is not None:
            held = used.setdefault(row["file"], {})
            held[row["source_line"]] = held.get(row["source_line"], 0) + hot.cost(row)
    for file, costs in used.items():
        text = panel.sources.get(file) or panel.sources.get(os.path.basename(file.replace("\\", "/")))
        if text is not None:
            views.append(_view(os.path.basename(file.replace("\\", "/")), _source(key, file, text, costs)))
    if panel.sass:
        views.append(_view("SASS", f"<pre>{escape(panel.sass)}</pre>"))
    return f"<h3>PTX, source and machine code</h3><div class=views>{''.join(views)}</div>"


def _one_per_line(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows whose PTX line is new: an id may appear once (several statements may share a line)."""
    return list({row["line"]: row for row in reversed(lines)}.values())[::-1]


def _view(name: str, content: str) -> str:
    label = escape(name)
    region = f"<div class=scroll tabindex=0 role=region aria-label='{label}'>{content}</div>"
    return f"<div class=view><h4>{label}</h4>{region}</div>"


def _source(key: str, file: str, text: str, costs: Mapping[int, int]) -> str:
    most = max(costs.values())
    rows = "".join(
        f"<tr id='{key}-{escape(_anchor(file, number))}'><td>{number}</td><td>{_bar(costs.get(number, 0), most)}</td>"
        f"<td class=code>{escape(line)}</td></tr>"
        for number, line in enumerate(text.splitlines(), 1)
    )
    return f"<table class=listing><tbody>{rows}</tbody></table>"


def slider(texts: Sequence[str], title: str) -> str:
    """A fragment for notebooks: texts behind a slider that works with mouse and keyboard."""
    if not texts:
        return "<p>No steps.</p>"
    items = "".join(
        f"<pre style='display:{'none' if n else 'block'}'>{escape(text)}</pre>" for n, text in enumerate(texts)
    )
    show = (
        "for(const p of this.parentNode.querySelectorAll('pre'))p.style.display='none';"
        "this.parentNode.querySelectorAll('pre')[this.value].style.display='block'"
    )
    return (
        f"<div><label>{escape(title)}: step </label><input type=range min=0 max={len(texts) - 1} value=0 "
        f"style='width:70%' aria-label='step' oninput=\"{show}\">{items}</div>"
    )
