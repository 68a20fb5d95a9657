"""The pictures of a report, as SVG: roofline, heat maps by lane, and the timeline of a block's warps."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from math import log10
from typing import Any

from loadsparse.gpu.simulator.heat import COLUMNS, Heat
from loadsparse.gpu.simulator.roofline import Point, Roof
from loadsparse.gpu.simulator.timeline import Issue, Span, Timeline, Track

escape = html.escape

CLASSES = {"tensor": "tensor", "lsu": "memory", "barrier": "control", "branch": "control", "special": "control"}
"""Colour class by pipe; every other pipe is "math"."""
WORDS = {
    "tensor": "Tensor Cores",
    "memory": "loads and stores",
    "math": "arithmetic",
    "control": "branches, barriers",
    "wait": "waits at a barrier",
    "copy": "cp.async in flight",
}
WARPS, STEPS = 8, 2000
"""Most warps and steps that are drawn."""
_LEFT, _ROW = 62, 40
"""Width of the labels and height of a warp, in pixels."""


def roofline(roof: Roof, here: Point) -> str:
    """Log-log: intensity 0.01 to 10,000 FLOP/byte, 1e9 to 1e15 FLOP/s; the dot lies on the roof, where the launch is bound."""

    def x(value: float) -> float:
        return 56 + 58 * (log10(min(max(value, 1e-2), 1e4)) + 2)

    def y(value: float) -> float:
        return 200 - 30 * (log10(min(max(value, 1e9), 1e15)) - 9)

    lines = "".join(f"<path class=grid d='M{x(10.0**e):.0f} 20V200'/>" for e in range(-1, 5))
    lines += "".join(f"<path class=grid d='M56 {y(10.0**e):.0f}H404'/>" for e in range(10, 16))
    ticks = "".join(f"<text x={x(10.0**e):.0f} y=214 text-anchor=middle>{_power(e)}</text>" for e in range(-2, 5))
    marks = "".join(
        f"<text x=50 y={y(10.0**e) + 4:.0f} text-anchor=end>{name}</text>"
        for e, name in ((9, "1 G"), (12, "1 T"), (15, "1 P"))
    )
    roofs = ""
    for name, peak, used in (("Tensor Cores", roof.tensor, here.tensor_flop > 0), ("FP32", roof.plain, True)):
        ridge = peak / roof.bandwidth
        slope = f"M{x(0.01):.1f} {y(roof.bandwidth * 0.01):.1f}L{x(ridge):.1f} {y(peak):.1f}"
        roofs += f"<path class='roof{'' if used else ' unused'}' d='{slope}H404'/>"
        roofs += f"<text x=402 y={y(peak) - 5:.0f} text-anchor=end>{name} {peak / 1e12:g} TFLOP/s</text>"
    px, py = x(here.intensity), y(here.ceiling(roof))
    label = (
        f"Roofline of an {roof.gpu}: at {here.intensity:.2f} FLOP per byte the launch lies under its "
        f"{here.bound(roof)} roof, at most {here.ceiling(roof) / 1e12:.3g} TFLOP/s"
    )
    return (
        f"<svg viewBox='0 0 420 236' role=img aria-label='{escape(label)}'>{lines}"
        f"<path class=axis d='M56 20V200H404'/>{roofs}"
        f"<path class=drop d='M{px:.1f} {py:.1f}V200'/><circle cx={px:.1f} cy={py:.1f} r=5 />{ticks}{marks}"
        f"<text x=230 y=232 text-anchor=middle>FLOP per byte between L1 and L2</text><text x=56 y=13>FLOP/s</text></svg>"
    )


def _power(exponent: int) -> str:
    return {-2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100", 3: "1 k", 4: "10 k"}[exponent]


def heat(found: Heat) -> str:
    """Lanes down, banks or sectors across; the darker a cell, the oftener the lane hit it."""
    most = int(found.counts.max()) or 1
    cells = "".join(
        f"<rect x={column * 8} y={lane * 8} width=8 height=8 fill-opacity={max(count / most, 0.15):.2g} />"
        for lane, line in enumerate(found.counts.tolist())
        for column, count in enumerate(line)
        if count
    )
    last = f"{COLUMNS - 1}" if found.space == "shared" else f"{COLUMNS - 1}+"
    across = "bank" if found.space == "shared" else "sector"
    ticks = "".join(f"<text x=-4 y={8 * lane + 8} text-anchor=end>{lane}</text>" for lane in (0, 8, 16, 24, 31))
    ticks += "".join(
        f"<text x={8 * column + 4} y=268 text-anchor=middle>{last if column == COLUMNS - 1 else column}</text>"
        for column in (0, 8, 16, 24, COLUMNS - 1)
    )
    label = (
        f"PTX line {found.line}: lanes (down) against the {across} they start in (across), over {found.executions} "
        f"executions in block 0; {int((found.counts > 0).any(axis=0).sum())} {across}s are touched"
    )
    return (
        f"<svg class=heat viewBox='-34 -14 304 300' role=img aria-label='{escape(label)}'>"
        f"<rect class=frame x=-1 y=-1 width=258 height=258 />{cells}{ticks}"
        f"<text x=128 y=282 text-anchor=middle>{across}</text><text x=-34 y=-4>lane</text></svg>"
    )


def timeline(found: Timeline, key: str, texts: Mapping[int, str]) -> str:
    """Each warp a row: instructions by kind, waits hatched, copies in flight below; `texts` are PTX texts by line."""
    tracks, steps = found.tracks[:WARPS], min(found.steps, STEPS)
    scale = min(max(1060 / max(steps, 1), 1.5), 16.0)
    width, height = max(_LEFT + steps * scale + 12, 420), len(tracks) * _ROW + 34
    rows = "".join(_track(track, number, steps, scale, key, texts) for number, track in enumerate(tracks))
    tick = next(t for t in (10, 20, 50, 100, 200, 500, 1000) if t * scale >= 60 or t == 1000)
    axis = "".join(
        f"<path class=grid d='M{_LEFT + t * scale:.1f} 0V{height - 32}'/>"
        f"<text x={_LEFT + t * scale:.1f} y={height - 18} text-anchor=middle>{t}</text>"
        for t in range(0, steps + 1, tick)
    )
    label = f"Timeline of {len(tracks)} warps of block 0 over {steps} steps; the table below says the same in numbers"
    return (
        f"<svg class=timeline viewBox='0 0 {width:.0f} {height}' style='width:{width:.0f}px' role=img "
        f"aria-label='{escape(label)}'><defs><pattern id={key}-hatch width=6 height=6 patternUnits=userSpaceOnUse "
        f"patternTransform='rotate(45)'><path class=hatch d='M0 0V6'/></pattern></defs>{axis}{rows}"
        f"<text x={_LEFT} y={height - 3}>step: each warp issues one instruction a step (an order, not a time)</text></svg>"
    )


def _track(track: Track, number: int, steps: int, scale: float, key: str, texts: Mapping[int, str]) -> str:
    top = number * _ROW + 6

    def box(kind: str, begin: int, end: int, y: int, height: int, words: str, line: int) -> str:
        fill = f" style='fill:url(#{key}-hatch)'" if kind == "wait" else ""
        return (
            f"<a href='#{key}-p{line}' tabindex=-1><rect class={kind}{fill} x={_LEFT + begin * scale:.1f} y={y} "
            f"width={max((min(end, steps) - begin) * scale, 0.8):.1f} height={height}><title>{escape(words)}</title></rect></a>"
        )

    parts = [f"<text x={_LEFT - 8} y={top + 14} text-anchor=end>warp {track.warp}</text>"]
    for kind, run in _runs(track.issues):
        if (begin := run[0].step) >= steps:
            break
        where = texts.get(run[0].line, "")[:70]
        count = f"{len(run)} x {WORDS[kind]}" if len(run) > 1 else WORDS[kind]
        words = f"step {begin}: {count}, from PTX line {run[0].line}: {where}"
        parts.append(box(kind, begin, run[-1].step + 1, top, 18, words, run[0].line))
    for wait in track.waits:
        if wait.begin < steps:
            words = f"steps {wait.begin} to {wait.end}: waits at the barrier in PTX line {wait.line}"
            parts.append(box("wait", wait.begin, wait.end, top, 18, words, wait.line))
    for copy in _merged(track.copies):
        if copy.begin < steps:
            words = (
                f"steps {copy.begin} to {copy.end}: {copy.size} bytes of cp.async in flight, from PTX line {copy.line}"
            )
            parts.append(box("copy", copy.begin, copy.end, top + 21, 7, words, copy.line))
    return "".join(parts)


def _runs(issues: Iterable[Issue]) -> Iterator[tuple[str, list[Issue]]]:
    """Stretches of consecutive steps of one kind."""
    numbered = ((issue.step - number, CLASSES.get(issue.pipe, "math"), issue) for number, issue in enumerate(issues))
    for (_, kind), run in groupby(numbered, key=lambda item: item[:2]):
        yield kind, [issue for _, _, issue in run]


def _merged(copies: Iterable[Span]) -> list[Span]:
    """Copies that land together as one span."""
    landed: dict[int, Span] = {}
    for copy in copies:
        held = landed.get(copy.end)
        landed[copy.end] = copy if held is None else Span(held.begin, copy.end, held.line, held.size + copy.size)
    return list(landed.values())


def legend() -> str:
    """What the colours of a timeline mean."""
    return "<p class=legend>" + " ".join(f"<span><i class={k}></i>{w}</span>" for k, w in WORDS.items()) + "</p>"


def timeline_table(found: Timeline) -> str:
    """The timeline in numbers."""

    def row(track: Track) -> Iterator[Any]:
        yield track.warp
        yield len(track.issues)
        yield sum(CLASSES.get(issue.pipe) == "tensor" for issue in track.issues)
        yield len(track.waits)
        yield sum(span.end - span.begin for span in track.waits)
        yield sum(span.size for span in track.copies)
        covered = {step for span in track.copies for step in range(span.begin, span.end)}
        mma = [issue for issue in track.issues if issue.pipe == "tensor"]
        yield f"{100 * sum(i.step in covered for i in mma) / len(mma):.0f} %" if mma else "-"

    body = "".join(f"<tr>{''.join(f'<td>{value}</td>' for value in row(track))}</tr>" for track in found.tracks[:WARPS])
    head = (
        "warp",
        "instructions",
        "on Tensor Cores",
        "barrier waits",
        "steps waited",
        "bytes copied",
        "mma under copies",
    )
    names = "".join(f"<th>{name}" for name in head)
    return f"<div class=wide><table class=even><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>"
