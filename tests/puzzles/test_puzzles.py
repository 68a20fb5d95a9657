"""Every puzzle: well-formed, solved by a solution of ours at the counts it promises, and no naive wrong answer passes."""

import json
from pathlib import Path

import best
import numpy as np
import pytest
from desk import ENTRIES, HERE, IDS, Here, judged, solution, wrong

from loadsparse.tutorials.judge import check
from loadsparse.tutorials.judge.puzzle import COUNTS, PuzzleError
from loadsparse.tutorials.judge.shelf import FOLDER, Entry, page, shelf

BEST = json.loads((FOLDER / "best.json").read_text())
WRONG = [
    pytest.param(entry, *case, id=f"{entry.number:02}-{case[0]}-{number}")
    for entry in ENTRIES
    for number, case in enumerate(wrong(entry).WRONG)
]

pytestmark = pytest.mark.filterwarnings("ignore")  # wrong answers may warn


def test_numbers_have_no_gaps() -> None:
    assert [entry.number for entry in ENTRIES] == list(range(1, len(ENTRIES) + 1))


@pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
def test_well_formed(entry: Entry) -> None:
    puzzle = entry.load()
    text = page(entry)
    compile(text, entry.file_name, "exec")
    assert len(puzzle.title) <= 60
    assert len(puzzle.text.split()) <= 130, "a puzzle's text is a few sentences"
    assert puzzle.goal.endswith(".")
    assert all(len(line) <= 120 for line in text.splitlines())
    assert "FILL ME IN" in puzzle.template
    for trial in range(puzzle.trials):
        inputs = puzzle.draw(trial, [1])
        expected = puzzle.answer(inputs)
        assert expected.dtype.kind in "biuf"
        other = puzzle.draw(trial, [2])
        same = all(np.array_equal(inputs[name], other[name]) for name in inputs)
        assert same == (trial == 0), "trial 0 is public, the others depend on the seed"
        assert trial == 0 or expected.size < 2 or (expected != expected.flat[0]).any(), "a constant answer is guessed"
    if puzzle.launch is not None:
        arrays = [name for name in puzzle.launch.parameters if name != "out"]
        assert set(arrays) <= set(inputs)
        assert "out" in puzzle.template


def test_one_block_is_never_enough_for_many_blocks() -> None:
    """`launch` returning (1, n) must fail whatever the seed."""
    puzzle = ENTRIES[3].load()
    assert all(max(puzzle.draw(trial, [seed])["n"] for trial in range(puzzle.trials)) > 1024 for seed in range(50))


@pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
def test_our_answers_are_right_and_their_least_counts_are_the_best_known(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = []
    for answer in best.answers(entry):
        verdict = judged(entry, answer.read_text(), tmp_path, monkeypatch)
        assert verdict.ok, str(verdict)
        scores.append({name: int(value["yours"] or 0) for name, value in verdict.score.items()})
    counted = best.least(scores)
    assert counted == BEST.get(entry.path.stem, {}), "run tests/puzzles/best.py"
    assert set(counted) in (set(), set(COUNTS))


@pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
def test_page_alone_is_no_answer(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = judged(entry, page(entry), tmp_path, monkeypatch)
    assert [problem.kind for problem in verdict.problems] == ["placeholder"]


@pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
def test_two_wrong_answers_at_least(entry: Entry) -> None:
    assert len(wrong(entry).WRONG) >= 2


@pytest.mark.claim(
    id="puzzle-wrong-answers",
    phrase="naive wrong answers to every puzzle are refused, with the learner's line and the reason",
    status="proved",
    assumption="the answers in tests/puzzles/wrong, two or more to each puzzle",
    function="loadsparse.tutorials.judge.check.check",
    source="loadsparse, design",
)
@pytest.mark.parametrize(("entry", "kind", "words", "at", "text"), WRONG)
def test_wrong_answer_is_refused_and_taught(
    entry: Entry, kind: str, words: str, at: str | None, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = judged(entry, text, tmp_path, monkeypatch)
    assert not verdict.ok
    first = verdict.problems[0]
    assert first.kind == kind, str(verdict)
    assert words in f"{first.sentence} {first.hint}", str(verdict)
    if at is not None:
        assert first.line is not None, str(verdict)
        assert at in text.splitlines()[first.line - 1], str(verdict)


OTHERWISE = {
    "decorated": (1, "from numba import cuda\n\n\n@cuda.jit\ndef kernel(out, a, b):\n    out[0] = b[0] + a[0]\n"),
    "helpers": (
        2,
        "from numba import cuda, float32\n\nTENTH = float32(0.1)\n\n\n@cuda.jit(device=True)\ndef scaled(x):\n"
        "    return x * TENTH\n\n\ndef kernel(out, a):\n    i = cuda.grid(1)\n    out[i] = scaled(a[i])\n",
    ),
    "other names": (3, "from numba import cuda as c\n\n\ndef kernel(y, x):\n    for i in range(c.threadIdx.x, x.size, 32):\n"
                       "        y[i] = 2 * x[i]\n"),
    "other launch": (4, "from numba import cuda\n\n\ndef launch(n):\n    return (1 + n // 32,), (32, 1)\n\n\n"
                        "def kernel(out, a, b, n):\n    i = cuda.grid(1)\n    if i < n:\n        out[i] = a[i] - b[i]\n"),
    "shuffles down": (9, "from numba import cuda\n\n\ndef kernel(out, a):\n    v = a[cuda.grid(1)]\n"
                         "    for d in (16, 8, 4, 2, 1):\n        v += cuda.shfl_down_sync(0xFFFFFFFF, v, d)\n"
                         "    if cuda.laneid == 0:\n        out[cuda.blockIdx.x] = v\n"),
    "another sort": (19, "import numpy as np\n\n\ndef top_k(s, k):\n    e = np.broadcast_to(np.arange(s.shape[1]), s.shape)\n"
                         "    return np.lexsort((e, -s))[:, :k].astype(np.int32)\n"),
    "a list": (21, "def sign_step(bias, loads, rate):\n    mean = sum(loads) / len(loads)\n"
                   "    return [b - rate * (int(a > mean) - int(a < mean)) for a, b in zip(loads.tolist(), bias.tolist())]\n"),
}  # fmt: skip
"""Right answers that are not ours."""


@pytest.mark.parametrize(("number", "text"), OTHERWISE.values(), ids=OTHERWISE)
def test_right_in_another_way(number: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = judged(ENTRIES[number - 1], text, tmp_path, monkeypatch)
    assert verdict.ok, str(verdict)


def test_a_print_is_shown_and_is_no_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C's printf takes every float as a double, which is nothing that the learner computed with."""
    text = solution(ENTRIES[1]).replace("    out[i]", "    print(i, a[i])\n    out[i]")
    verdict = judged(ENTRIES[1], text, tmp_path, monkeypatch)
    assert verdict.ok, str(verdict)
    first = float(ENTRIES[1].load().draw(0, [1])["a"][0])
    assert verdict.printed[0].split() == ["0", f"{first:.6f}"]
    assert len(verdict.printed) == 32
    many = text.replace("    print(i, a[i])\n", "    print(i, a[i])\n    print(i)\n").replace("float32(0.1)", "0.1")
    verdict = judged(ENTRIES[1], many, tmp_path, monkeypatch)
    assert verdict.problems[0].kind == "float64"
    assert verdict.printed[-1] == "... and 32 more lines"


def test_the_readme_s_puzzle_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher's puzzle is one file: the one in the README."""
    text = (FOLDER / "README.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "01_squares.py").write_text(example)
    entry = shelf(folder)[0]
    assert "def oracle(a):" in page(entry)
    right = page(entry).replace("    ...", "    if i < a.shape[0]:\n        out[i] = a[i] * a[i]")
    assert judged(entry, right, tmp_path, monkeypatch, folder=folder).ok
    unguarded = page(entry).replace("    ...", "    out[i] = a[i] * a[i]")
    problem = judged(entry, unguarded, tmp_path, monkeypatch, folder=folder).problems[0]
    assert (problem.kind, problem.hint) == ("bounds", "There may be fewer elements than threads.")


BAD = [
    ("PUZZLE = 3", "defines no PUZZLE"),
    ("lines=2", "lines=0", "at least one line"),
    ("float32[::1]", "float32[:]", "parameter 'out' is 'float32\\[:\\]'"),
    ('{"bounds":', '{"bound":', "unknown 'bound'"),
    ('{"sectors":', '{"seconds":', "unknown 'seconds'"),
    ('"out":', '"c":', "has no 'out'"),
    ("def kernel", "def squares", "def kernel"),
    ("(32, 1, 20, 7)[trial]", "(32, 1)[trial]", "the inputs of trial 2 failed"),
    ("return a * a", "return a * b", "the oracle failed"),
    ("return a * a", "return a.astype(np.float64)", "'out' is declared float32.*float64"),
    ("return a * a", "return a[:, None]", "'out' is declared .* 2-d"),
    ('"a": rng', '"b": rng', "oracle failed"),
    (".astype(np.float32)}", "}", "is declared float32"),
    ('"a": "float32[::1]"', '"n": "int32"', "takes 'n'"),
    ('"a": "float32[::1]"', '"a": "int32"', "'a' is declared int32, but its value is float32, 1-d"),
]


@pytest.mark.parametrize("change", BAD, ids=[change[-1] for change in BAD])
def test_a_teacher_s_mistake_is_one_line(
    change: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (FOLDER / "README.md").read_text().split("```python\n")[1].split("```")[0]
    text = change[0] if len(change) == 2 else text.replace(change[0], change[1])
    (tmp_path / "01_squares.py").write_text(text)
    (tmp_path / "mine.py").write_text("def kernel(out, a):\n    out[0] = out[0]\n")
    monkeypatch.setattr("loadsparse.gpu.sandbox.Process", Here)
    with pytest.raises(PuzzleError, match=change[-1]) as caught:
        check.check(1, tmp_path / "mine.py", folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_conflicts_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of a 32-wide tile lies in one bank, a column of an 8-wide one in four."""
    text = solution(ENTRIES[9])
    for width, lanes, free, wavefronts in ((32, 32, 31, 32), (40, 8, 28, 8)):
        changed = text.replace("(32, 33)", f"(32, {width})")
        (problem,) = judged(ENTRIES[9], changed, tmp_path, monkeypatch).problems
        assert problem.kind == "conflicts"
        assert f"one warp, {wavefronts} wavefronts" in problem.picture[0]
        assert f"serves {lanes} lanes, one after another; {free} banks have nothing to do" in problem.picture[-1]
        columns = [row.split("|")[1] for row in problem.picture if "|" in row]
        assert {row.count("#") for row in columns} == {32 - free}
        assert len(problem.details) == 32 - free
        assert sorted(int(lane) for row in problem.details for lane in row.split("lanes ")[1].split()) == list(
            range(32)
        )


def test_no_solution_in_the_wheel() -> None:
    assert HERE not in FOLDER.parents
    assert not list(FOLDER.rglob("*solution*"))
