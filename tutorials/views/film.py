"""A film: one SVG drawing whose parts are marked or shown at some frames, a caption per frame, and a slider."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

SHRINK = 0.74
"""A drawing gets no smaller than this on a narrow screen, where its text would be too small; then it scrolls."""

STYLE = """
.film{margin:1em 0;max-width:100%;color:inherit}
.film .film-drawing{overflow-x:auto}
.film svg{width:100%;height:auto;display:block}
.film svg text{fill:currentColor;font:10px sans-serif;text-anchor:middle;dominant-baseline:central}
.film .part{fill:none;stroke:currentColor;stroke-width:.4;stroke-opacity:.5}
.film .part.on{fill:#e69f00;fill-opacity:.35;stroke-width:2;stroke-opacity:1}
.film .solid{fill:currentColor;stroke:none}
.film .line{fill:none;stroke:currentColor;stroke-width:1.5}
.film svg text.left{text-anchor:start}
.film .off{display:none}
.film .film-controls{display:flex;gap:.5em;align-items:center;margin:.3em 0}
.film .film-controls input{flex:1;min-width:6em}
.film .film-controls button{font:inherit;color:inherit;background:none;border:1px solid;border-radius:4px;padding:.1em .6em}
.film figcaption{min-height:2.6em}
"""

SCRIPT = """
(function(){
var film=document.getElementById("ID"),slider=film.querySelector("input"),caption=film.querySelector(".film-now"),
captions=CAPTIONS;
function has(element,name,frame){return (" "+element.getAttribute(name)+" ").indexOf(" "+frame+" ")>=0}
function show(){var frame=slider.value;
film.querySelectorAll("[data-on]").forEach(function(e){e.classList.toggle("on",has(e,"data-on",frame))});
film.querySelectorAll("[data-at]").forEach(function(e){e.classList.toggle("off",!has(e,"data-at",frame))});
caption.textContent=captions[frame];slider.setAttribute("aria-valuetext",captions[frame])}
slider.addEventListener("input",show);
film.querySelectorAll("button").forEach(function(button){button.addEventListener("click",function(){
slider.value=Number(slider.value)+Number(button.value);show()})});
})();
"""


def _frames(frames: Iterable[int]) -> str:
    return " ".join(map(str, sorted(set(frames))))


@dataclass
class Film:
    """A drawing of `width` x `height` under construction; add parts, then show it.

    title: what the film shows. alt: the drawing in words, for who cannot see it. captions: one per frame.
    """

    title: str
    alt: str
    width: float
    height: float
    captions: Sequence[str]
    parts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.alt.strip() or not self.captions:
            raise ValueError("a film needs alternative text and at least one frame with a caption")

    def box(self, x: float, y: float, w: float, h: float, on: Iterable[int] = (), text: str = "") -> None:
        """A rectangle with a text inside, marked at the frames `on`."""
        marked = _frames(on)
        classes = "part on" if "0" in marked.split() else "part"
        at = f' data-on="{marked}"' if marked else ""
        self.parts.append(f'<rect class="{classes}"{at} x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}"/>')
        if text:
            self.text(x + w / 2, y + h / 2, text)

    def text(self, x: float, y: float, text: str, at: Iterable[int] | None = None, left: bool = False) -> None:
        """A text centred on a point, or to the right of it; only at the frames `at` where given."""
        classes = ["left"] if left else []
        self.parts.append(f'<text{self._at(at, classes)} x="{x:g}" y="{y:g}">{escape(text)}</text>')

    def dot(self, x: float, y: float, radius: float, at: Iterable[int] | None = None, open_: bool = False) -> None:
        """A disc, or a ring."""
        classes = ["line" if open_ else "solid"]
        self.parts.append(f'<circle{self._at(at, classes)} cx="{x:g}" cy="{y:g}" r="{radius:g}"/>')

    def line(self, points: Iterable[tuple[float, float]], at: Iterable[int] | None = None) -> None:
        """A polygonal line through the points."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(f'<polyline{self._at(at, ["line"])} points="{path}"/>')

    def _at(self, at: Iterable[int] | None, classes: list[str]) -> str:
        if at is not None:
            shown = _frames(at)
            classes = classes if "0" in shown.split() else [*classes, "off"]
        kind = f' class="{" ".join(classes)}"' if classes else ""
        return kind if at is None else f'{kind} data-at="{shown}"'

    def html(self) -> str:
        """The film as one piece of HTML: style, figure and script, without anything loaded from elsewhere."""
        drawing = "".join(self.parts)
        name = "film-" + hashlib.sha256((self.title + drawing).encode()).hexdigest()[:12]
        texts = "[" + ",".join(_literal(caption) for caption in self.captions) + "]"
        script = SCRIPT.replace("ID", name).replace("CAPTIONS", texts)
        last = len(self.captions) - 1
        return (
            f'<style>{STYLE}</style><figure class="film" id="{name}">'
            f'<div class="film-drawing" tabindex="0"><svg viewBox="0 0 {self.width:g} {self.height:g}" '
            f'style="max-width:{self.width:g}px;min-width:{SHRINK * self.width:g}px" role="img" '
            f'aria-label="{escape(self.alt)}">{drawing}</svg></div>'
            f'<div class="film-controls"><button type="button" value="-1" aria-label="previous frame">&larr;</button>'
            f'<input type="range" min="0" max="{last}" value="0" aria-label="{escape(self.title)}: frame">'
            f'<button type="button" value="1" aria-label="next frame">&rarr;</button></div>'
            f"<figcaption><strong>{escape(self.title)}.</strong> "
            f'<span class="film-now" aria-live="polite">{escape(self.captions[0])}</span></figcaption></figure>'
            f"<script>{script}</script>"
        )

    def _repr_html_(self) -> str:
        return self.html()


def _literal(text: str) -> str:
    """A JavaScript string that cannot end the script."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return '"' + plain.replace("<", "\\u003c").replace(">", "\\u003e") + '"'
