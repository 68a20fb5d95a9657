"""Documents stay true: links lead somewhere, words are spelt, symbols exist, the teacher's answers are computed."""

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import glossary
import nbformat
import notebooks
import pytest
from test_tutorials import markdown, resolves, sections

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "tutorials"
APART = {"build", "dist", "site", "wheelhouse", "node_modules"}


def documents() -> list[Path]:
    """Every Markdown file and notebook of the project."""
    files = [*ROOT.rglob("*.md"), *TUTORIALS.glob("*.ipynb")]
    inside = [path.relative_to(ROOT).parts for path in files]
    return sorted(ROOT.joinpath(*p) for p in inside if not APART & set(p) and not any(x.startswith(".") for x in p))


def prose(path: Path) -> str:
    """The text of a document; of a notebook its Markdown cells."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def broken(path: Path, text: str) -> Iterator[str]:
    """Links of a document that lead to no file, or to no heading of it."""
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^()\s]+(?:\([^()\s]*\))?)\)", plain):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, heading = target.partition("#")
        file = path if not name else path.parent / name
        headings = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE) if heading and file.exists() else []
        if not file.exists() or (heading and heading not in map(glossary.anchor, headings)):
            yield target


def test_links_lead_somewhere() -> None:
    found = {str(path.relative_to(ROOT)): list(broken(path, prose(path))) for path in documents()}
    assert not {name: links for name, links in found.items() if links}


def test_a_broken_link_is_found() -> None:
    here = TUTORIALS / "README.md"
    text = "[a](glossary.md#warp) [b](nowhere.md) [c](glossary.md#wrap) `[d](x)` [e](https://example.org) [f](#no)"
    assert list(broken(here, text)) == ["nowhere.md", "glossary.md#wrap", "#no"]


def test_pictures_say_what_they_show() -> None:
    silent = re.compile(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")[^>]*>")
    assert silent.search("![](a.png)")
    assert silent.search('<img src="a.png">')
    assert not silent.search('![a lane](a.png) <img src="a.png" alt="a lane">')
    assert not [path.name for path in documents() if silent.search(prose(path))]


def misspelt(*paths: Path) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "codespell_lib",
        "--ignore-words-list",
        "bu,fro,olt,optin",  # PTX suffixes, to and fro, a field of the CUDA driver
        "--",
        *map(str, paths),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 65), done.stderr
    return done.stdout.splitlines()


def test_words_are_spelt() -> None:
    folders = ("reference", "gpu", "theory", "cli", "tutorials", "tests")
    code = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    texts = [path for path in documents() if path.suffix == ".md"]  # a notebook's words are its script's
    assert not misspelt(*code, *texts)


def test_a_misspelt_word_is_found(tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text("Shared " + "meme" + "ory.\n")  # apart, so that this file is spelt right
    assert len(misspelt(tmp_path / "note.md")) == 1


def rows(path: Path) -> list[list[str]]:
    """The cells of every table row."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_symbols_exist() -> None:
    names = [name for row in rows(TUTORIALS / "symbols.md") for name in re.findall(r"`([\w.]+)`", row[3])]
    assert len(names) > 20
    assert not [name for name in names if not resolves(name)]


def test_the_map_lists_every_chapter() -> None:
    """In reading order, with the chapter's own minutes."""
    listed = {}
    for row in rows(TUTORIALS / "README.md"):
        if link := re.search(r"\(([0-9]\w+)\.ipynb\)", row[1]):
            listed[link[1]] = (row[0], row[3])
    assert list(listed) == [script.stem for script in notebooks.scripts()]
    for script in notebooks.scripts():
        number, minutes = listed[script.stem]
        stated = re.search(r"^\| Time \| (\d+) minutes", "\n".join(markdown(script)), re.MULTILINE)
        assert stated is not None
        assert (number, minutes) == (script.stem[:2], stated[1])


def puzzles() -> set[int]:
    """Numbers of the puzzles that exist."""
    return {int(path.name[:2]) for path in (TUTORIALS / "puzzles").glob("[0-9][0-9]_*.py")}


def numbers(text: str) -> set[int]:
    """ "1 to 3, 5" -> {1, 2, 3, 5}"""
    found = set()
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def test_every_puzzle_has_a_chapter() -> None:
    listed = [n for row in rows(TUTORIALS / "README.md") if len(row) == 5 and row[0].isdigit() for n in numbers(row[4])]
    assert sorted(listed) == sorted(puzzles())


def test_plans_name_what_exists() -> None:
    """The teacher's weeks cover every chapter and every puzzle once (ten weeks), and nothing that is not there."""
    parts = sections((TUTORIALS / "teaching.md").read_text())
    chapters = {int(script.stem[:2]) for script in notebooks.scripts()}
    for name, complete in (("Four weeks", False), ("Ten weeks", True)):
        weeks = [line.strip("|").split("|") for line in parts[name].splitlines() if re.match(r"\| \d", line)]
        read = [n for week in weeks for n in numbers(week[1])]
        solved = [
            n for week in weeks for phrase in re.findall(r"puzzles ([\d, to]+)", week[2]) for n in numbers(phrase)
        ]
        assert len(read) == len(set(read))
        assert set(read) <= chapters
        assert set(solved) <= puzzles()
        for week in weeks:
            for phrase in re.findall(r"puzzles? ([\d, toand]+)", week[3]):
                assert numbers(phrase) <= puzzles()
        if complete:
            assert set(read) == chapters
            assert sorted(solved) == sorted(puzzles())


@pytest.fixture(scope="module")
def class_room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two submissions, marked by the shell script of teaching.md."""
    folder = tmp_path_factory.mktemp("class")
    answers = {"ann": "out[0] = a[0] + b[0]", "bob": "out[0] = a[0] - b[0]"}
    for student, line in answers.items():
        (folder / "submissions" / student).mkdir(parents=True)
        file = folder / "submissions" / student / "puzzle_01_one_thread_adds.py"
        file.write_text(f"def kernel(out, a, b):\n    {line}\n")
    (script,) = re.findall(r"```sh\n(.*?)```", (TUTORIALS / "teaching.md").read_text(), re.DOTALL)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(["sh", "-ec", script], cwd=folder, check=True, env={**os.environ, "PATH": path}, timeout=120)
    return folder


@pytest.mark.claim(
    id="course-answers",
    source="ours",
    phrase="the exam's answers are computed, and the autograding script marks a right and a wrong submission",
    assumption="answers in words are not judged",
    function="loadsparse.tutorials.judge.check.check",
    status="counted",
)
def test_answers_are_computed(class_room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of teaching.md, in order, in one namespace, gives what it says."""
    monkeypatch.chdir(class_room)
    blocks = re.findall(r"```python\n(.*?)```", (TUTORIALS / "teaching.md").read_text(), re.DOTALL)
    runner, parser, names = doctest.DocTestRunner(), doctest.DocTestParser(), {}
    report: list[str] = []
    for number, block in enumerate(blocks):
        test = parser.get_doctest(block, names, f"teaching.md, block {number}", None, 0)
        assert test.examples, "a block of teaching.md is a doctest"
        runner.run(test, out=report.append, clear_globs=False)
        names = test.globs
    assert not report, "".join(report)
    assert runner.summarize(verbose=False).attempted > 20


def test_every_exam_question_has_an_answer() -> None:
    exam = sections((TUTORIALS / "teaching.md").read_text())["Exam questions"]
    questions = re.findall(r"^\*\*(\d+)\. .*\*\* \*\(\d+ points\)\*$", exam, re.MULTILINE)
    assert questions == [str(n) for n in range(1, len(questions) + 1)]
    assert len(questions) >= 12
    assert exam.count("<details><summary>Answer</summary>") == exam.count("</details>") == len(questions)
