"""What becomes of one mutant: how far it went, and whether anything happened that must not."""

from __future__ import annotations

import copy
import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzzing import mutate
from fuzzing.corpus import Corpus
from loadsparse.gpu import simulator

DOCUMENTED = (simulator.PtxError, simulator.LaunchError)
"""What load and launch may raise, in one line."""


@dataclass(frozen=True)
class Verdict:
    """`stages` says how far the mutant went ("refused", "loaded", "interpreted", "translated", ...); `failure` is what
    must not happen, or None."""

    number: int
    kind: str
    origin: str
    stages: tuple[str, ...]
    failure: str | None = None


class _Failure(Exception):
    """Something that must not happen, in one line."""


def judge(corpus: Corpus, seed: int, number: int, *, launched: bool, native: bool) -> Verdict:
    """Parser and load; if `launched`, a launch in the interpreter; if `native`, three in both engines, which must agree."""
    mutant = mutate.mutant(corpus, seed, number)
    stages: list[str] = []
    try:
        _travel(mutant, stages, launched, native)
    except _Failure as failure:
        return Verdict(number, mutant.kind, mutant.origin, tuple(stages), str(failure))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__} at {place.filename.rpartition('loadsparse/')[2]}:{place.lineno}: {error}"
        return Verdict(number, mutant.kind, mutant.origin, tuple(stages), words[:400])
    return Verdict(number, mutant.kind, mutant.origin, tuple(stages))


def _travel(mutant: mutate.Mutant, stages: list[str], launched: bool, native: bool) -> None:
    try:
        module = simulator.load(mutant.text, mutant.arch)
    except DOCUMENTED as error:
        stages.append("refused")
        if "\n" in str(error):
            raise _Failure(f"a refusal of several lines: {error!r}") from None
        return
    stages.append("loaded")
    for name in module:
        drawn = mutate.launch(mutant.launch, module[name].kernel)
        if native:
            for number in range(mutant.launch, mutant.launch + 3):
                if not _both(module, name, mutate.launch(number, module[name].kernel), stages):
                    break
        elif launched:
            try:
                _run(module, name, drawn, "interpreter")
                stages.append("interpreted")
            except simulator.LaunchError:
                stages.append("launch refused")


def _both(module: simulator.Module, name: str, drawn: mutate.Launch, stages: list[str]) -> bool:
    """A launch in both engines, which must agree; False where the LLVM engine does not translate the kernel."""
    drawn.options.pop("schedule", None)  # the LLVM engine runs the default order
    try:
        slow = _run(module, name, drawn, "interpreter")
        stages.append("interpreted")
        fast = _run(module, name, drawn, "llvm")
    except simulator.LaunchError as error:
        untranslated = "use engine='interpreter'" in str(error)
        stages.append("not translated" if untranslated else "launch refused")
        return not untranslated
    stages.append("native")
    _compare(slow, fast)
    return True


def _run(module: simulator.Module, name: str, drawn: mutate.Launch, engine: Any) -> tuple[Any, list[bytes]]:
    """Report and array bytes of a launch on fresh arrays and module variables as they were."""
    arguments, variables = copy.deepcopy(drawn.arguments), module.variables.data.copy()
    try:
        report = module[name].launch(
            drawn.grid, drawn.block, *arguments, shared_bytes=drawn.shared_bytes, checks=drawn.checks, engine=engine,
            **drawn.options,
        )  # fmt: skip
    finally:
        module.variables.data[:] = variables
    arrays = [getattr(a, "array", a) for a in arguments]
    return report, [a.tobytes() for a in arrays if isinstance(a, np.ndarray)]


def _compare(slow: tuple[Any, list[bytes]], fast: tuple[Any, list[bytes]]) -> None:
    """Every bit, count and hazard; after a launch that was stopped only that both were."""
    a, b = slow[0], fast[0]
    if a.stopped != b.stopped:
        raise _Failure(f"engines disagree: stopped {a.stopped} and {b.stopped}")
    if a.stopped is not None:
        return
    if slow[1] != fast[1]:
        raise _Failure("engines disagree: memory")
    if a.lines != b.lines:
        row = next((x, y) for x, y in zip(a.lines, b.lines, strict=True) if x != y)
        wrong = [key for key in row[0] if row[0][key] != row[1][key]]
        raise _Failure(f"engines disagree: {wrong} of '{row[0]['ptx'][:80]}'")
    if sorted(map(str, a.hazards)) != sorted(map(str, b.hazards)):
        odd = sorted(set(map(str, a.hazards)) ^ set(map(str, b.hazards)))
        raise _Failure(f"engines disagree: hazards {odd[:2]}")
