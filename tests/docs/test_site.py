"""The site is built from what is there; every link arrives, nothing is loaded from elsewhere, and a browser is content."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser
import pytest

ROOT = Path(__file__).parents[2]
needs_browser = pytest.mark.skipif(browser.BROWSER is None, reason="no Chromium is installed: pages are not clicked")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "site"
    subprocess.run([sys.executable, ROOT / "docs" / "pages.py", folder], check=True)
    assert (folder / "index.html").exists()
    return folder


class Page(HTMLParser):
    """Anchors, links and pictures of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.bare: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        held = {name: value or "" for name, value in attributes}
        self.ids |= {held[name] for name in ("id", "name") if name in held}
        if tag == "a" and "href" in held:
            self.links.append(held["href"])
        if tag in ("img", "script", "iframe", "source") and held.get("src"):
            self.loads.append(held["src"])
        if tag == "link" and held.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "dns-prefetch"):
            self.loads.append(held["href"])
        if tag == "img" and not held.get("alt", "").strip():
            self.bare.append(held.get("src", "?"))
        if tag == "svg" and held.get("role") == "img" and not held.get("aria-label", "").strip():
            self.bare.append("svg")


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_notebook_and_module_has_a_page(site: Path) -> None:
    for notebook in (ROOT / "tutorials").glob("[0-9]*.ipynb"):
        assert (site / "tutorials" / f"{notebook.stem}.html").exists()
    for name in (
        "reference.routing",
        "reference.formats.bitmap",
        "theory.assignment",
        "gpu.compiler",
        "gpu.kernels.lscd",
    ):
        text = (site / "api" / f"loadsparse.{name}.html").read_text(encoding="utf-8")
        assert "doc-function" in text or "doc-class" in text
    assert not (site / "api" / "loadsparse.gpu.simulator.engine.mma.html").exists()
    assert "<math" in (site / "tutorials" / "30_duality_with_three_tokens.html").read_text(encoding="utf-8")


def test_the_code_of_a_first_picture_is_folded(site: Path) -> None:
    text = (site / "tutorials" / "06_one_mma_by_hand.html").read_text(encoding="utf-8")
    before, folded, after = text.partition("<summary>Code of the picture</summary>")
    assert folded
    assert after.index("</code>") < after.index("</details>") < after.index("<img")
    assert before.rindex("<details>") > before.rindex("One instruction multiplies")


def test_every_link_arrives(pages: dict[Path, Page]) -> None:
    lost = []
    for path, page in pages.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or (link.startswith("#") and parts.fragment in ("", *page.ids)):
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if path.name == "404.html":
                continue  # its links are those of the site's root
            if there.is_dir():
                there = there / "index.html"
            if not there.exists() or (parts.fragment and there in pages and parts.fragment not in pages[there].ids):
                lost.append((path.name, link))
    assert not lost


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert not [load for load in page.loads if urlsplit(load).netloc], path.name
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text(encoding="utf-8")


def test_every_picture_has_a_text(pages: dict[Path, Page]) -> None:
    assert not {path.name: page.bare for path, page in pages.items() if page.bare}


def names(site: Path) -> list[str]:
    """All pages but the reference, of which a few stand for all: they come from one template."""
    found = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))]
    modules = [name for name in found if name.startswith("api/")]
    return [name for name in found if not name.startswith("api/") and name != "404.html"] + modules[::25]


@needs_browser
def test_pages_open_without_an_error_and_fit_a_phone(site: Path, tmp_path: Path) -> None:
    script = "const e=d.documentElement;return (e.scrollWidth<=e.clientWidth)+' '+!!d.querySelector('h1')"
    seen = browser.visit(site, names(site), script, tmp_path, width=390)
    assert len(seen) >= 30
    assert {page: told["faults"] for page, told in seen.items() if told["faults"]} == {}
    assert {page: told["result"] for page, told in seen.items() if told["result"] != "true true"} == {}


@needs_browser
def test_the_moving_pictures_move(site: Path, tmp_path: Path) -> None:
    script = """
    const told=[];
    for(const film of d.querySelectorAll("figure.film")){
      const slider=film.querySelector("input"),caption=film.querySelector(".film-now"),
      state=()=>[...film.querySelectorAll(".on,.off")].length+caption.textContent;
      const first=state();film.querySelectorAll("button")[1].click();const second=state(),at=slider.value;
      slider.value=slider.max;slider.dispatchEvent(new w.Event("input"));const last=state();
      film.querySelectorAll("button")[0].click();
      told.push([first!=second,at=="1",last!=second,slider.value==slider.max-1].join(" "));
    }
    return told"""
    told = browser.visit(site, ["views.html"], script, tmp_path)["views.html"]
    assert told["faults"] == []
    assert told["result"] == ["true true true true"] * 5


@needs_browser
def test_an_accessibility_checker_finds_nothing_serious(site: Path, tmp_path: Path) -> None:
    axe = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    (site / "axe.min.js").write_text(axe, encoding="utf-8")
    script = """
    const s=d.createElement("script");s.src="/axe.min.js";d.head.append(s);await new Promise(r=>s.onload=r);
    const found=await w.axe.run(d,{resultTypes:["violations"]});
    return found.violations.filter(v=>["serious","critical"].includes(v.impact)).map(v=>v.id+": "+v.nodes[0].html)"""
    chosen = [
        "index.html",
        "views.html",
        "tutorials/30_duality_with_three_tokens.html",
        "api/loadsparse.reference.routing.html",
    ]
    seen = browser.visit(site, chosen, script, tmp_path)
    os.remove(site / "axe.min.js")
    assert {page: told["result"] or told["faults"] for page, told in seen.items()} == {page: [] for page in chosen}
