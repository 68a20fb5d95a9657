"""A report as one self-contained page without a network: what it says reads without its script, which marks the rows of
source, PTX and machine code that belong together.  The policy in its head admits that one script, by its hash."""

from __future__ import annotations

import html
import os
import tempfile
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from loadsparse.gpu import sass
from loadsparse.gpu.simulator import code_view, hot, pictures
from loadsparse.gpu.simulator.code_view import bar, source_link
from loadsparse.gpu.simulator.heat import Heat
from loadsparse.gpu.simulator.occupancy import Occupancy
from loadsparse.gpu.simulator.report import Finding, Report
from loadsparse.gpu.simulator.roofline import ROOFS, point
from loadsparse.gpu.simulator.timeline import Timeline

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src '{hash}'; base-uri 'none'; form-action 'none'"
HOT = 12
SASS = 4
"""SASS instructions shown beside a hot line."""
escape = html.escape


@dataclass(frozen=True, slots=True)
class Panel:
    """One kernel of a page.  metrics: (name, value, unit, source of the number); sources: text by file name."""

    report: Report
    metrics: Sequence[tuple[str, float, str, str]] = ()
    occupancy: Occupancy | None = None
    machine: Sequence[sass.Instruction] = ()
    note: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    heat: Sequence[Heat] = ()
    timeline: Timeline | None = None


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
    folder = files("loadsparse.gpu.simulator")
    style = (folder / "html.css").read_text(encoding="utf-8")
    script = (folder / "html.js").read_text(encoding="utf-8")
    policy = POLICY.format(hash=f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}")
    links = [f'<a href="#k{n}">{escape(panel.report.kernel[:40])}</a>' for n, panel in enumerate(panels)]
    body = [
        f"<header><h1>{escape(name[:120])} <span class='state {'bad' if hazards else 'good'}'>{state}</span></h1>",
        f"<nav aria-label='Kernels'>{' '.join(links)}</nav>" if len(panels) > 1 else "",
        *(f"<p>{escape(remark)}</p>" for remark in remarks),
        "</header><main>",
        *(_panel(number, panel) for number, panel in enumerate(panels)),
        "</main><footer>Counted: exact, by executing every instruction on the CPU. Compiled: reported by NVIDIA's compiler. "
        "Derived: rules or quotients of those. Modelled: an idealised cache. None of it is a time.</footer>",
    ]
    return (
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta http-equiv=Content-Security-Policy "
        f'content="{policy}"><meta name=viewport content="width=device-width, initial-scale=1">'
        f"<meta name=color-scheme content='light dark'><title>{escape(name[:80])}: profile</title>"
        f"<style>{style}</style></head><body>\n{''.join(body)}\n<script>{script}</script></body></html>\n"
    )


def _panel(number: int, panel: Panel) -> str:
    report, key = panel.report, f"k{number}"
    wrong = {line for finding in report.hazards for line in (finding.line, finding.other_line)}
    summary = (
        f"{escape(report.arch)}, grid {_times(report.grid)}, block {_times(report.block)}, executed in "
        f"{report.seconds['execute']:.3f} s by the {escape(report.engine)} engine"
    )
    parts = [
        f"<section id={key}><h2>{escape(report.kernel[:120])}</h2><p class=note>{summary}.</p>",
        f"<p class=note>{escape(panel.note)}</p>" if panel.note else "",
        _tiles(panel),
        _hazards(key, report.hazards),
        _hot(key, panel),
        code_view.views(key, report.lines, panel.machine, panel.sources, wrong),
        _timeline(key, panel),
        _heat(key, panel),
        f"<div class=pair>{_roofline(report)}{_occupancy(panel.occupancy)}</div>",
        _metrics(panel),
        "</section>",
    ]
    return "".join(parts)


def _times(size: Iterable[int]) -> str:
    return " x ".join(str(part) for part in size)


def _tiles(panel: Panel) -> str:
    """The numbers that one looks for first."""
    report, metrics = panel.report, {name: (value, source) for name, value, _, source in panel.metrics}
    lanes = report.thread_instructions / (32 * report.instructions) if report.instructions else 0.0
    tiles = [("warp instructions", f"{report.instructions:,}", "counted"), ("active lanes", f"{lanes:.1%}", "derived")]
    for name, shown in (
        ("l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio", "sectors per global load"),
        ("l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio", "sectors per global store"),
        ("launch__registers_per_thread", "registers per thread"),
        ("launch__spill_bytes", "bytes spilled"),
    ):
        if name in metrics:
            tiles.append((shown, f"{metrics[name][0]:,.4g}", metrics[name][1]))
    counts = report.metrics
    if any(row["wavefronts"] for row in report.lines):
        conflicts = sum(value for name, value in counts.items() if "bank_conflicts" in name)
        tiles.append(("bank conflicts", f"{conflicts:,}", "counted"))
    if panel.occupancy is not None:
        tiles.append(("occupancy", f"{panel.occupancy.fraction:.0%}", "derived"))
    body = "".join(
        f"<div><strong>{value}</strong><span>{escape(name)}</span><i>{kind}</i></div>" for name, value, kind in tiles
    )
    return f"<div class=tiles>{body}</div>"


def _hazards(key: str, hazards: Sequence[Finding]) -> str:
    if not hazards:
        return "<h3>Hazards</h3><p class=good>None was found.</p>"
    items = []
    for finding in hazards:
        other = (
            f', <a href="#{key}-p{finding.other_line}">PTX line {finding.other_line}</a>' if finding.other_line else ""
        )
        source = source_link(key, finding.file, finding.source_line)
        times = f" ({finding.count:,} times)" if finding.count > 1 else ""
        items.append(
            f'<li><strong>{escape(finding.kind)}</strong> at <a href="#{key}-p{finding.line}">PTX line {finding.line}</a>'
            f"{other}{', ' + source if source else ''}: {escape(finding.message)}; first in block "
            f"{finding.block}, thread {finding.thread}{times}</li>"
        )
    return f"<h3>Hazards</h3><ol class=hazards>{''.join(items)}</ol>"


def _hot(key: str, panel: Panel) -> str:
    report, machine = panel.report, sass.by_line(panel.machine)
    rows = hot.ptx(report.lines, HOT)
    total = sum(hot.cost(row) for row in report.lines) or 1

    def code(row: Mapping[str, Any]) -> str:
        text = code_view.source_text(panel.sources, row["file"])
        lines = text.splitlines() if text is not None else []
        line = lines[row["source_line"] - 1].strip() if 0 < (row["source_line"] or 0) <= len(lines) else ""
        made = [m.text for m in machine.get(row["line"], [])]
        more = [f"and {len(made) - SASS} more"] if len(made) > SASS else []
        shown = "<br>".join(escape(text) for text in made[:SASS] + more)
        return (
            f"<td class=code>{source_link(key, row['file'], row['source_line'])} {escape(line[:70])}</td>"
            f'<td class=code><a href="#{key}-p{row["line"]}">{row["line"]}</a> {escape(row["ptx"][:70])}</td>'
            f"<td class=code>{shown}</td>"
        )

    body = "".join(
        f"<tr><td>{bar(hot.cost(r), hot.cost(rows[0]))} {100 * hot.cost(r) / total:.1f} %</td>{code(r)}"
        f"<td>{r['executions']:,}</td><td class=words>{_ways(r)}</td></tr>"
        for r in rows
    )
    return (
        "<h3>Hot lines</h3><p class=note>Share of issues (counted): warp instructions, and every wavefront and sector "
        "beyond the first of each. SASS as the compiler made it.</p><div class=wide><table class=hot><thead><tr><th>share"
        f"<th class=code>source<th class=code>PTX<th class=code>SASS<th>executed<th class=words>memory</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _ways(row: Mapping[str, Any]) -> str:
    texts = []
    if row["requests"]:
        texts.append(f"{row['sectors'] / row['requests']:.1f} sectors per request")
    if row["wavefronts"]:
        extra = row["wavefronts"] - row["ideal_wavefronts"]
        texts.append(f"{row['wavefronts']:,} wavefronts, {extra:,} of them conflicts")
    return escape("; ".join(texts))


def _timeline(key: str, panel: Panel) -> str:
    found = panel.timeline
    if found is None or not found.tracks:
        return ""
    texts = {row["line"]: row["ptx"] for row in panel.report.lines}
    shown = min(len(found.tracks), pictures.WARPS)
    cut = (
        "" if found.whole and found.steps <= pictures.STEPS else f" Only the first {pictures.STEPS:,} steps are drawn."
    )
    return (
        f"<h3>Timeline of block 0</h3><p class=note>Modelled: {shown} of {len(found.tracks)} warps, one instruction each a step; "
        "a barrier opens when its last warp has arrived; copies fly from their cp.async to the wait that lands them. This is "
        f"the simulator's order, not a time: no latency, no stall, no issue limit is in it.{cut}</p>{pictures.legend()}"
        f"<div class=wide tabindex=0 role=region aria-label='Timeline'>{pictures.timeline(found, key, texts)}</div>"
        f"{pictures.timeline_table(found)}"
    )


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
        f"<table class=even><thead><tr><th>limit by<th>blocks</tr></thead><tbody>{rows}</tbody></table></div>"
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
    return f"<figure><h3>Roofline</h3>{pictures.roofline(roof, here)}<figcaption>{escape(text)}</figcaption></figure>"


def _heat(key: str, panel: Panel) -> str:
    if not panel.heat:
        return ""
    figures, rows = [], {row["line"]: row for row in panel.report.lines}
    for heat in panel.heat:
        across = (
            "bank of its first word" if heat.space == "shared" else "32-byte sector, counted from the warp's lowest"
        )
        figures.append(
            f"<figure>{pictures.heat(heat)}<figcaption>"
            f'<a href="#{key}-p{heat.line}">PTX line {heat.line}</a> <span class=code>{escape(heat.ptx[:70])}</span><br>'
            f"{heat.space}, {heat.size} bytes a lane, {heat.executions} executions; {across}: "
            f"{_cost(heat.space, rows[heat.line])}</figcaption></figure>"
        )
    return (
        "<h3>Where the lanes go</h3><p class=note>Bank conflicts and coalescing, lane by lane, counted over block 0: a column "
        f"hit by many lanes at once is a conflict in shared memory and good in global memory.</p><div class=maps>"
        f"{''.join(figures)}</div>"
    )


def _cost(space: str, row: Mapping[str, Any]) -> str:
    """What an access costs on average, and the least its bytes could cost."""
    if space == "shared" and row["wavefronts"]:
        per, least = row["wavefronts"] / row["executions"], row["ideal_wavefronts"] / row["executions"]
        return f"{per:.3g} wavefronts an execution, {least:.3g} without conflicts"
    if space == "global" and row["requests"]:
        per, least = row["sectors"] / row["requests"], row["bytes"] / (32 * row["requests"])
        return f"{per:.3g} sectors a request for {least:.3g} sectors of bytes asked for"
    return "nothing was moved"


def _metrics(panel: Panel) -> str:
    rows = panel.metrics or [(name, value, "", "counted") for name, value in panel.report.metrics.items()]
    body = "".join(
        f"<tr><td class=code>{escape(name)}</td><td>{value:,}</td><td>{escape(unit)}</td><td>{escape(source)}</td></tr>"
        for name, value, unit, source in rows
    )
    return (
        "<h3>Metrics</h3><details open><summary>Names as in Nsight Compute where it has one</summary><div class=wide>"
        f"<table class=even><thead><tr><th class=code>metric<th>value<th>unit<th>from</tr></thead><tbody>{body}</tbody>"
        "</table></div></details>"
    )


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
