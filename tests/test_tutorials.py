"""Every tutorial follows the frame, runs from the first cell to the last, and its committed notebook is that run."""

import functools
import math
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import course_ptx
import glossary
import nbformat
import notebooks
import pytest

from loadsparse.tutorials import compiled

SCRIPTS = notebooks.scripts()
FRAME = (
    "You will learn",
    "The idea in ten lines of NumPy",
    "Build it",
    "Check it against the oracle",
    "Numbers",
    "Exercises",
    "Summary",
)
PACKAGES = ("reference", "theory", "gpu", "gpu.simulator", "gpu.simulator.interpreter")
NUMBER = re.compile(r"[-+]?(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?")

NO_CUDA_SOURCES = """
from loadsparse.gpu import compiler

def cuda(source, *options, **named):
    raise compiler.NoCompilerError("hidden by the test")

compiler.cuda = cuda
"""

each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def markdown(script: Path) -> list[str]:
    return [cell.source for cell in notebooks.source(script).cells if cell.cell_type == "markdown"]


def sections(text: str) -> dict[str, str]:
    """Heading of the second level -> the text under it."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def numbered(text: str) -> int:
    return len(re.findall(r"^\d+\. ", text, re.MULTILINE))


def resolves(name: str) -> bool:
    """Does a dotted name, such as `routing.max_violation`, belong to loadsparse?"""
    path = name.removeprefix("loadsparse.").split(".")
    for package in ("", *(f".{p}" for p in PACKAGES)):
        found: Any = import_module(f"loadsparse{package}") if package else None
        rest = path
        while rest:
            below = f"{found.__name__}.{rest[0]}" if found is not None else f"loadsparse.{rest[0]}"
            if found is not None and hasattr(found, rest[0]):
                found = getattr(found, rest[0])
            else:
                try:
                    found = import_module(below)
                except (ImportError, AttributeError, TypeError):
                    break
            rest = rest[1:]
            if not isinstance(found, ModuleType):
                break
        if found is not None and (not rest or _attributes(found, rest)):
            return True
    return False


def _attributes(found: Any, names: list[str]) -> bool:
    return (
        not isinstance(found, ModuleType)
        and functools.reduce(lambda at, name: getattr(at, name, None), names, found) is not None
    )


def complaints(script: Path) -> Iterator[str]:
    """What the tutorial lacks of the frame, one sentence each."""
    cells = notebooks.source(script).cells
    texts = markdown(script)
    text = "\n".join(texts)
    parts = sections(text)
    if not re.match(r"# .+\n\n\*[^*]+\?\*$", texts[0].split("\n\n|")[0].strip()):
        yield "it opens with a title and a question in italics"
    if cells[1].cell_type != "code" or "show(" not in cells[1].source:
        yield "the question is followed by a picture"
    elif "hide-input" not in cells[1].metadata.get("tags", []):
        yield "the code of the first picture is folded away (tag hide-input)"
    minutes = re.search(r"^\| Time \| (\d+) minutes", text, re.MULTILINE)
    if not minutes or not 20 <= int(minutes[1]) <= 40:
        yield "it states a time of 20 to 40 minutes"
    if not re.search(r"^\| Prerequisites \| \S", text, re.MULTILINE):
        yield "it states prerequisites"
    if not re.search(r'^\| A common misconception \| ".+[.?!]" .{20,}\|$', text, re.MULTILINE):
        yield "it quotes one common misconception and corrects it"
    if [heading for heading in parts if heading in FRAME] != list(FRAME):
        yield f"its sections are {', '.join(FRAME)}"
        return
    if numbered(parts["You will learn"]) != 3:
        yield "it has three objectives"
    tasks, _, answers = parts["Exercises"].partition("<details><summary>Answers</summary>")
    if numbered(tasks) < 3 or numbered(answers) != numbered(tasks) or "</details>" not in answers:
        yield "it has three exercises or more, and a collapsed answer for each"
    if not re.search(r"\d", re.sub(r"^\d+\. ", "", answers, flags=re.MULTILINE)):
        yield "some answer is a number"
    following = re.search(r"(?:Next|Read next)\b.*\]\((?!glossary)[^)]+\)", parts["Summary"], re.DOTALL)
    if not following:
        yield "the summary says what to read next, with a link"
    for cell in texts:
        if "$$" in cell and not any(resolves(name) for name in re.findall(r"`([A-Za-z_]\w*(?:\.\w+)+)`", cell)):
            yield f"a formula names the function that computes it: {cell.split('$$')[1].strip()[:60]}"
    for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", text):
        if not alt.strip():
            yield f"the picture {target} needs alternative text"
    if re.search(r"urllib|requests\.|urlopen|!pip|%pip|wget", "\n".join(cell.source for cell in cells)):
        yield "it needs no network"


@each
def test_frame(script: Path) -> None:
    assert not list(complaints(script))


@each
def test_glossary_is_linked_at_first_use(script: Path) -> None:
    """`python tests/glossary.py` sets the links."""
    text = script.read_text()
    assert glossary.linked(text, glossary.terms()) == text


def images(notebook: nbformat.NotebookNode) -> Iterator[tuple[int, str]]:
    """(cell, alternative text) of every picture in the outputs, "" where it has none."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            for kind in ("image/png", "image/jpeg"):
                if kind in data:
                    yield number, output.metadata.get(kind, {}).get("alt", "")
            for svg in re.findall(
                r"<svg.*?</svg>", str(data.get("image/svg+xml", "")) + str(data.get("text/html", "")), re.DOTALL
            ):
                title = re.search(r"<title[^>]*>([^<]*)</title>|aria-label=\"([^\"]*)\"|aria-hidden=\"true\"", svg)
                yield number, (title[0] if title else "")
            for tag in re.findall(r"<img[^>]*>", str(data.get("text/html", ""))):
                alt = re.search(r"alt=\"([^\"]*)\"", tag)
                yield number, (alt[1] if alt else "")


def text_outputs(notebook: nbformat.NotebookNode) -> list[str]:
    """The text of every code cell that is not tagged `varies` (times of this computer), and of every picture."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and "varies" not in cell.metadata.get("tags", []):
            parts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
            found.append("".join(part for part in parts if not part.startswith("<IPython")))
    return found + [alt for _, alt in images(notebook)]


def same(left: str, right: str) -> bool:
    """Equal text; numbers may differ by 2%, or by 1e-9: the last digits belong to the processor that ran it."""
    if NUMBER.sub("#", left).split() != NUMBER.sub("#", right).split():
        return False
    pairs = zip(NUMBER.findall(left), NUMBER.findall(right), strict=True)
    return all(math.isclose(*(float(x.replace(",", "")) for x in pair), rel_tol=0.02, abs_tol=1e-9) for pair in pairs)


@pytest.mark.claim(
    id="course-runs",
    source="ours",
    phrase="every notebook follows one frame, runs from the first cell to the last, and prints what its committed copy says",
    assumption="numbers may differ by 2% between processors; cells that measure this computer's time are not compared",
    function="loadsparse.tutorials.learn.copy",
    status="counted",
)
@pytest.mark.filterwarnings("ignore")  # the Jupyter client's sockets and event loops warn on some platforms
@each
def test_tutorial_runs(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs; every picture has alternative text; the committed outputs are these (`make notebooks` writes them).

    Chapters in CUDA C++ run without the compiler that reads it: their kernels come compiled.
    """
    if script in course_ptx.chapters():
        (tmp_path / "sitecustomize.py").write_text(NO_CUDA_SOURCES)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    notebook = notebooks.execute(script)
    assert any(cell.cell_type == "code" and "assert" in cell.source for cell in notebook.cells)
    pictures = list(images(notebook))
    assert 1 in [number for number, _ in pictures], "the first code cell shows a picture"
    assert all(alt.strip() for _, alt in pictures), "a picture needs alternative text"
    committed = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    for fresh, kept in zip(text_outputs(notebook), text_outputs(committed), strict=True):
        assert same(fresh, kept), f"the committed notebook says {kept!r}, this run {fresh!r}: run `make notebooks`"


def test_the_packaged_ptx_of_the_course_is_what_the_compiler_makes() -> None:
    """tutorials/compiled.zip; `make shelf` fills it, and that no source is missing is seen where the chapters run."""
    assert compiled.packaged()
    for source, ptx in compiled.packaged().items():
        assert course_ptx.fresh(source) == ptx, f"make shelf: {source[:80]}"


@each
def test_committed_notebook_is_current(script: Path) -> None:
    """The cells are the script's and each was executed without error: `make notebooks` writes it anew."""
    committed = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    expected = notebooks.source(script)
    assert [(c.cell_type, c.source) for c in committed.cells] == [(c.cell_type, c.source) for c in expected.cells]
    executed = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert executed == list(range(1, len(executed) + 1))


def test_the_checks_find_what_is_missing(tmp_path: Path) -> None:
    """A tutorial without a frame, an unlinked term, a picture without text, a number that changed: each is noticed."""
    bare = tmp_path / "99_bare.py"
    bare.write_text("# %% [markdown]\n# # Bare\n#\n# No question.\n\n# %%\nx = 1\n")
    assert len(list(complaints(bare))) >= 5
    good = SCRIPTS[0].read_text()
    for old, new in (
        ("| Time | 20", "| Time | 90"),
        ("</summary>", "</summary>\n#\n# 1. One more"),
        ("\n# 3. to", "\n# to"),
        ("## Numbers", "## Figures"),
    ):
        bare.write_text(good.replace(old, new, 1))
        assert len(list(complaints(bare))) == 1, old
    entries = glossary.terms("### bank conflict\n### bank\n### top K, best K\n")
    assert [term.anchor for term in entries] == ["bank-conflict", "top-k-best-k", "bank"]
    script = "# %% [markdown]\n# # A bank\n#\n# Has `bank` and $bank$ banks; bank conflicts.\n# The best K of a bank.\n"
    once = glossary.linked(script, entries)
    assert once == (
        "# %% [markdown]\n# # A bank\n#\n# Has `bank` and $bank$ [banks](glossary.md#bank); "
        "[bank conflicts](glossary.md#bank-conflict).\n# The [best K](glossary.md#top-k-best-k) of a bank.\n"
    )
    assert glossary.linked(once, entries) == once
    wrapped = (
        "# %% [markdown]\n# See [why a bank\n# and another bank](03_x.ipynb), or a bank.\n"  # a link over two lines
    )
    assert glossary.linked(wrapped, entries) == wrapped.replace("or a bank", "or a [bank](glossary.md#bank)")
    silent = nbformat.v4.new_output("display_data", {"image/png": ""})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[silent])])
    assert list(images(notebook)) == [(0, "")]
    assert same("a 1,000.0 b", "a 1,001.0 b")
    assert not same("a 1,000 b", "a 1,100 b")
    assert not same("3 hazards", "3 errors")
    assert resolves("routing.max_violation")
    assert not resolves("routing.nothing")
