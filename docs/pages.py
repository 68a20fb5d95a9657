"""The pages of the site, written from what the project already has: README, notebooks, notes, docstrings, views.

    python docs/pages.py [FOLDER]     builds the site into FOLDER (default: site)

A link that leads to a file without a page becomes plain text; one to a module leads to its page in the reference.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import yaml

ROOT = Path(__file__).parents[1]
NOTES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "gpu/simulator/SEMANTICS.md": "gpu/simulator/SEMANTICS.md",
    "gpu/kernels/NOTES.md": "gpu/kernels/NOTES.md",
    "theory/README.md": "theory/README.md",
    "reference/spmm/bounds.md": "reference/spmm/bounds.md",
}
INTERNAL = ("gpu/simulator/engine", "gpu/simulator/interpreter", "gpu/simulator/frontend")
LINK = re.compile(r"(?<!!)\[([^\[\]]*(?:\[[^\]]*\][^\[\]]*)*)\]\(([^()\s]+)\)")


def modules() -> dict[str, Path]:
    """The public modules by import name: every file of the package folders that is not internal."""
    found = {}
    for folder in ("reference", "theory", "gpu", "tutorials/views"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT)
            if inside.as_posix().startswith(INTERNAL) or path.name.startswith("__main"):
                continue
            parts = inside.parent.parts if path.name == "__init__.py" else inside.with_suffix("").parts
            if any(part.startswith("_") for part in parts):
                continue
            found[".".join(("loadsparse", *parts))] = path
    return found


def folded(summary: str, text: str) -> str:
    """Markdown that a click unfolds."""
    return f"<details markdown>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


def notebooks() -> list[Path]:
    """The tutorials in reading order."""
    return sorted((ROOT / "tutorials").glob("[0-9]*.ipynb"))


class Site:
    """The pages on their way; `places` knows the page of every file of the project that has one."""

    def __init__(self, pages: Path) -> None:
        self.pages = pages
        self.modules = modules()
        self.places = {ROOT / name: self.pages / page for name, page in NOTES.items()}
        for path in sorted((ROOT / "tutorials").rglob("*.md")):
            self.places[path] = self.pages / path.relative_to(ROOT)
        for path in notebooks():
            page = self.pages / path.relative_to(ROOT).with_suffix(".md")
            self.places |= {path: page, path.with_suffix(".py"): page}
        for name, path in self.modules.items():
            page = self.pages / "api" / f"{name}.md"
            self.places[path] = page
            if path.name == "__init__.py":
                self.places.setdefault(path.parent, page)
        self.places[ROOT / "tutorials"] = self.places.get(ROOT / "tutorials/README.md", self.pages / "index.md")

    def write(self, source: Path, text: str) -> None:
        """The page of a file, with its links and pictures led to where they are now."""
        page = self.places[source]
        page.parent.mkdir(parents=True, exist_ok=True)

        def led(found: re.Match[str]) -> str:
            text, target = found[1], found[2]
            if re.match(r"[a-z]+:|#", target):
                return found[0]
            path, _, anchor = target.partition("#")
            there = self.places.get(Path(os.path.normpath(source.parent / path)))
            if there is None:
                return text
            place = os.path.relpath(there, page.parent).replace(os.sep, "/")
            return f"[{text}]({place}{'#' + anchor if anchor else ''})"

        for name in set(re.findall(r"!\[[^\]]*\]\(([^():\s]+)\)", text)):
            picture = source.parent / name
            if picture.is_file():
                (page.parent / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(picture, page.parent / name)
        pieces = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
        page.write_text("".join(p if p.startswith("```") else LINK.sub(led, p) for p in pieces), encoding="utf-8")

    def notebook(self, path: Path) -> None:
        """A notebook as Markdown, its pictures beside it."""
        page = self.places[path]
        page.parent.mkdir(parents=True, exist_ok=True)
        parts: list[str] = []
        answers = False
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if cell.cell_type == "markdown":
                parts.append(cell.source)
                answers = "<summary>Answers</summary>" in cell.source
            elif cell.cell_type == "code":
                code = f"```python\n{cell.source}\n```"
                results = [self.output(item, page, f"{path.stem}-{number}-{i}") for i, item in enumerate(cell.outputs)]
                if "hide-input" in cell.metadata.get("tags", ()):
                    code = folded("Code of the picture", code)
                parts += [folded("Answers, computed", "\n\n".join([code, *results]))] if answers else [code, *results]
        self.write(path, "\n\n".join(part for part in parts if part))

    def output(self, item: Any, page: Path, name: str) -> str:
        """One output of a cell: a picture, HTML, or text."""
        data = {"text/plain": item.get("text", "")} if item.output_type == "stream" else item.get("data", {})
        if "image/png" in data:
            (page.parent / f"{name}.png").write_bytes(base64.b64decode(data["image/png"]))
            alt = item.get("metadata", {}).get("image/png", {}).get("alt") or data.get("text/plain", "")
            return f"![{' '.join(alt.split())}]({name}.png)"
        if "text/html" in data:
            return f'<div class="output">{"".join(data["text/html"])}</div>'
        text = "".join(data.get("text/plain", ""))
        return f'<div class="output" markdown>\n\n```text\n{text.rstrip()}\n```\n\n</div>' if text.strip() else ""

    def reference(self) -> None:
        """A page per public module, made from its docstrings."""
        lines = [
            "# Reference",
            "",
            "Every public module; types, shapes, units, errors and sources are in the docstrings.",
            "",
        ]
        (self.pages / "api").mkdir(parents=True, exist_ok=True)
        for name, path in self.modules.items():
            (self.pages / "api" / f"{name}.md").write_text(f"# {name}\n\n::: {name}\n", encoding="utf-8")
            summary = (
                path.read_text(encoding="utf-8").split('"""')[1].split("\n")[0] if '"""' in path.read_text() else ""
            )
            lines.append(f"- [{name}]({name}.md): {summary}")
        (self.pages / "api" / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def views(self) -> None:
        """The pictures that move, on one page."""
        from loadsparse.reference import pruning, weights
        from loadsparse.tutorials import views

        rng = np.random.default_rng(0)
        sample = pruning.magnitude(weights.sample()["attn_output"], 0.8)
        scores = 1 / (1 + np.exp(-rng.normal(0, 1, (40, 6)) - np.linspace(-1, 1, 6)))
        pair = np.round(rng.random((12, 2)) + np.array([0.3, 0]), 3)
        films = [
            (views.fragment_lanes(), "[One mma by hand](tutorials/06_one_mma_by_hand.md)"),
            (views.bank_hits(), "[A warp's view](tutorials/07_a_warps_view.md)"),
            (views.tile_unpacked(sample), "[Tiled-CSL by hand](tutorials/05_tiled_csl_by_hand.md)"),
            (views.tokens_moving(scores), "[What the sign rule promises](tutorials/32_what_the_sign_rule_promises.md)"),
            (views.dual_falling(pair), "[Duality with three tokens](tutorials/30_duality_with_three_tokens.md)"),
        ]
        parts = ["# Pictures that move", "Move a slider with the mouse, the arrow keys or the buttons beside it."]
        for film, chapter in films:
            there = re.search(r"\((.*)\)", chapter)
            parts.append(f"## {film.title}")
            parts.append(film.html())
            if there and (self.pages / there[1]).exists():
                parts.append(f"Explained in {chapter}. In a notebook: `loadsparse.tutorials.views`.")
        (self.pages / "views.md").write_text("\n\n".join(parts), encoding="utf-8")

    def navigation(self) -> list[Any]:
        """What the menu shows: two doors, where they meet, and what to look things up in."""

        def pages(first: int, last: int) -> list[str]:
            chosen = [path for path in notebooks() if first <= int(path.name[:2]) <= last]
            return [self.places[path].relative_to(self.pages).as_posix() for path in chosen]

        more = [
            self.places[path].relative_to(self.pages).as_posix()
            for path in sorted((ROOT / "tutorials").rglob("*.md"))
        ]  # fmt: skip
        notes = [page for page in NOTES.values() if page != "index.md"]
        api = [{name.removeprefix("loadsparse."): f"api/{name}.md"} for name in self.modules]
        return [
            {"Home": "index.md"},
            {"Kernels": pages(0, 27)},
            {"Experts": pages(28, 39)},
            {"Together": pages(40, 99)},
            {"Pictures that move": "views.md"},
            {"Course and teaching": more},
            {"Notes": notes},
            {"Reference": ["api/index.md", *api]},
        ]


def main(folder: Path) -> None:
    """Write all pages and the configuration with the menu, and let mkdocs build the site from them."""
    with tempfile.TemporaryDirectory() as place:
        pages = Path(place) / "site-pages"
        pages.mkdir()
        site = Site(pages)
        for source in site.places:
            if source.suffix == ".md":
                site.write(source, source.read_text(encoding="utf-8"))
        for path in notebooks():
            site.notebook(path)
        site.reference()
        site.views()
        shutil.copy(ROOT / "docs" / "extra.css", pages / "extra.css")
        text = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8").replace("../docs/", f"{ROOT / 'docs'}/")
        configuration = yaml.safe_load(text) | {"nav": site.navigation(), "site_dir": str(folder.resolve())}
        written = Path(place) / "mkdocs.yml"
        written.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", str(written)]
        subprocess.run(command, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site"))
