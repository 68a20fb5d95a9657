"""The judge: a learner's file in, a verdict out.

    check(1, "puzzle_01_one_thread_adds.py")

The file is never imported here.  Its own process turns it into PTX or arrays (ask.py); only when that process has ended
are the oracle's answers computed, and PTX is run on inputs that never were in that process.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsparse.tutorials.judge import compare, mistakes
from loadsparse.tutorials.judge.ask import MEMORY, SECONDS, Asking, Compiled, Computed, printable
from loadsparse.tutorials.judge.problem import Problem, hint
from loadsparse.tutorials.judge.puzzle import COUNTS, Inputs, Launch, Puzzle, PuzzleError
from loadsparse.tutorials.judge.shelf import FOLDER, Entry, get
from loadsparse.tutorials.judge.verdict import Verdict

if TYPE_CHECKING:
    from loadsparse.tutorials.judge.launching import Run

ROOT = Path(__file__).resolve().parents[2]
PRINTED = 32
"""Lines of a kernel's own output that a verdict keeps: one for each thread of a warp."""
_PASSED_ON = re.compile(r"(@!?%p\d+ )?(cvt\.f64\.[fsu]\d+|(ld|st)\.(local|param)|mov)\b")
"""float64 that is made and handed on, as `print` does with every float, but not computed with."""
Judged = tuple[list[Problem], dict[str, dict[str, int | None]], tuple[str, ...]]
ORACLES = tuple(ROOT / name for name in ("reference", "theory"))
"""Where answers to NumPy puzzles can be read; the learner's process may not."""


def check(
    which: str | int,
    file: str | Path | None = None,
    *,
    seed: str = "",
    folder: Path = FOLDER,
    seconds: float = SECONDS,
    memory: int = MEMORY,
) -> Verdict:
    """Judge the learner's file of a puzzle; by default the one that `start` writes, in the current folder.

    seed: a student's name or number.  It varies the secret inputs together with fresh entropy; the verdict's own `seed`,
    given here, repeats them.  seconds, memory (bytes): limits of the learner's process.
    Raises PuzzleError for an unknown puzzle or a missing file; whatever is wrong inside the file is the verdict.
    """
    entry = get(which, folder)
    path = Path(file) if file is not None else Path(entry.file_name)
    puzzle = entry.load()
    student, _, entropy = seed.partition(":")
    seed = f"{student}:{entropy or secrets.token_hex(8)}"
    trials = draw(puzzle, seed)
    sealed = (entry.path, entry.path.parent / "__pycache__", *(ORACLES if puzzle.launch is None else ()))
    verdict = Verdict(entry.number, entry.name, puzzle.title, path.name, seed, trials=puzzle.trials)
    try:
        with Asking(puzzle, path, trials, sealed, seconds=seconds, memory=memory) as asking:
            if puzzle.launch is not None:
                _warm_up()
            answer = asking.result()
    except mistakes.Fault as fault:
        return replace(verdict, problems=(mistakes.problem(fault, puzzle.hints),))
    problems, score, printed = judge(puzzle, entry, answer, trials, path)
    return replace(verdict, problems=tuple(map(_readable, problems)), score=score, printed=printed)


def _readable(problem: Problem) -> Problem:
    """The problem without control characters, which names in PTX could carry to a terminal."""
    details = tuple(printable(line) for line in problem.details)
    return replace(problem, sentence=printable(problem.sentence), details=details)


def draw(puzzle: Puzzle, seed: str) -> list[dict[str, Any]]:
    """The inputs of every trial, and of one more like trial 0.

    A NumPy puzzle meets the same inputs again, so that what it keeps between calls is seen; for a kernel they are secret,
    so that a score can be told from knowledge of the public input.
    """
    words = list(hashlib.sha256(seed.encode()).digest())
    found = [puzzle.draw(trial, words) for trial in range(puzzle.trials)]
    return [*found, puzzle.draw(0, words, secret=puzzle.launch is not None)]


def _warm_up() -> None:
    """Import the simulator while the learner's process compiles."""
    import loadsparse.tutorials.judge.launching  # noqa: F401


def judge(
    puzzle: Puzzle, entry: Entry, answer: Compiled | Computed, trials: list[dict[str, Any]], path: Path
) -> Judged:
    """Problems, none if the answer is right, the score of a right kernel, and what the kernel printed on trial 0."""
    if isinstance(answer, Computed):
        return _judge_arrays(puzzle, answer, trials), {}, ()
    if puzzle.launch is None:
        raise PuzzleError("a kernel was handed over for a NumPy puzzle")
    return _judge_kernel(puzzle, puzzle.launch, entry, answer, trials, path)


def _judge_arrays(puzzle: Puzzle, answer: Computed, trials: list[dict[str, Any]]) -> list[Problem]:
    own = puzzle.hints
    for trial, (inputs, got) in enumerate(zip(trials, answer.arrays, strict=True)):
        if changed := [name for name in inputs if name in answer.changed[trial]]:
            return [Problem("overwritten", f"the function changed its input `{changed[0]}`", hint("overwritten", own))]
        again = trial == len(trials) - 1
        if (problem := compare.problem(puzzle, inputs, got, puzzle.answer(inputs), trial)) is not None:
            if again:
                said = "the same inputs gave another answer than the first time"
                return [Problem("drift", said, hint("drift", own), trial=0)]
            return [problem]
    return []


def _judge_kernel(
    puzzle: Puzzle, launch: Launch, entry: Entry, answer: Compiled, trials: list[dict[str, Any]], path: Path
) -> Judged:
    from loadsparse.gpu.simulator import LaunchError, PtxError
    from loadsparse.tutorials.judge import launching, score

    best = entry.best()
    first: Run | None = None
    for trial, inputs in enumerate(trials):
        twin = trial == puzzle.trials
        if (
            first is not None
            and twin
            and not any(own < best.get(name, 0) for name, own in score.counts(first.report).items())
        ):
            continue  # nothing that would be worth knowing the input for
        expected = puzzle.answer(inputs)
        try:
            last = trial == puzzle.trials - 1
            done = launching.run(launch, answer, trial, inputs, expected, best.get("instructions", 1000), trial, last)
        except (PtxError, LaunchError) as error:
            kind = "ptx" if isinstance(error, PtxError) else "launch"
            return [Problem(kind, str(error), hint(kind, puzzle.hints), trial=trial)], {}, ()
        first = first or done
        if problems := list(_wrong(puzzle, launch, done, inputs, expected, trial, path)):
            return problems, {}, _printed(first.report.printed)
        if twin and (known := list(_recognised(score.counts(first.report), score.counts(done.report)))):
            return known, {}, _printed(first.report.printed)
    assert first is not None
    own = score.counts(first.report)
    costly = list(_costly(puzzle, first, own, trials[0], path))
    return costly, score.compared(own, best), _printed(first.report.printed)


def _recognised(public: Mapping[str, int], secret: Mapping[str, int]) -> Iterable[Problem]:
    """A score on the public input that does not hold on other data of its kind."""
    for name, own in public.items():
        if secret[name] > 1.25 * own + 8:  # what data alone may change, where work depends on them
            said = f"it costs {own} {name} on the public input, but {secret[name]} on other data of the same size"
            yield Problem("drift", said, "A score has to come from the work, not from knowing the input.", trial=0)


def _printed(text: str) -> tuple[str, ...]:
    """The first lines, without what a terminal would obey."""
    lines = text.splitlines()
    more = (f"... and {len(lines) - PRINTED} more lines",) if len(lines) > PRINTED else ()
    return (*(printable(line)[:200] for line in lines[:PRINTED]), *more)


def _wrong(
    puzzle: Puzzle, launch: Launch, done: Run, inputs: Inputs, expected: Any, trial: int, path: Path
) -> Iterable[Problem]:
    """What is wrong with one run: hazards first, for they explain the rest."""
    from loadsparse.tutorials.judge import hazards

    own = puzzle.hints
    found = hazards.problems(done.report, path, done.args, done.memory, own, trial)
    yield from found
    if not launch.float64 and trial == 0:
        for row in done.report.lines:
            if ".f64" in row["ptx"] and not _PASSED_ON.match(row["ptx"]):
                line = hazards.source_line(done.report, row["line"], path)
                yield Problem("float64", "a float64 crept in", hint("float64", own), line, trial, details=(row["ptx"],))
                break
    for name in done.changed:
        yield Problem("overwritten", f"the kernel wrote to its input `{name}`", hint("overwritten", own), trial=trial)
    wrong = None if found else compare.problem(puzzle, inputs, done.out, expected, trial)
    if not found and done.unwritten.any():
        at = np.argwhere(done.unwritten)[0].tolist()
        said = f"{int(done.unwritten.sum())} of {done.unwritten.size} elements were never written; the first is out{at}"
        yield Problem("unwritten", said, hint("unwritten", own), trial=trial)
    elif wrong is not None:
        yield _written(wrong, done, inputs, path)


def _written(wrong: Problem, done: Run, inputs: Inputs, path: Path) -> Problem:
    """The problem with the line and the thread that stored the first wrong element."""
    from loadsparse.tutorials.judge import hazards
    from loadsparse.tutorials.judge.writer import writer

    by = writer(done, inputs, wrong.element) if wrong.element is not None else None
    if by is None:
        return wrong
    line = hazards.source_line(done.report, by[0], path)
    who = f"thread {hazards.point(by[2], done.report.block)} of block {hazards.point(by[1], done.report.grid)}"
    return replace(wrong, line=line, sentence=f"{wrong.sentence}; stored by {who}")


def _costly(puzzle: Puzzle, done: Run, own: Mapping[str, int], inputs: Inputs, path: Path) -> Iterable[Problem]:
    """Limits of a puzzle whose point is a count; conflicts come with their heat map."""
    from loadsparse.tutorials.judge import hazards, heat_map

    for name in reversed(COUNTS):
        most = puzzle.limits.get(name)
        if most is None or own[name] <= most:
            continue
        said = f"right, but it costs {own[name]} {name}, and this puzzle allows {most}"
        if name not in ("conflicts", "wavefronts"):
            yield Problem("costly", said, hint("costly", puzzle.hints), trial=0)
            continue
        worst = max(done.report.lines, key=lambda row: (row["wavefronts"] - row["ideal_wavefronts"], row["wavefronts"]))
        access = heat_map.worst(done, inputs, worst["line"])
        line = hazards.source_line(done.report, worst["line"], path)
        pictures = (heat_map.bars(access), heat_map.table(access)) if access is not None else ((), ())
        yield Problem("conflicts", said, hint("conflicts", puzzle.hints), line, 0, *pictures)
