"""Inputs for grouped kernels, and the judge of their product: every expert's columns against the expert's own oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loadsparse.gpu.verify.inputs import Case, Matrix
from loadsparse.gpu.verify.judge import Judgement, judge
from loadsparse.reference import traces
from loadsparse.reference.spmm import expert_columns

EXPERTS = 4


@dataclass(frozen=True)
class ExpertCase(Case):
    """`a` [E, M, K] and `b` [K, N] whose columns are sorted by expert, counts[e] of each."""

    counts: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, K) of one expert's rows and all tokens."""
        return int(self.a.shape[1]), int(self.b.shape[1]), int(self.a.shape[2])


def deal(case: Case, seed: int, experts: int = EXPERTS) -> ExpertCase:
    """Cut the rows of a case into `experts` matrices (fewer where there are fewer rows) and deal its columns to them.

    The counts follow the loads of a trained router (`reference.traces`), and one expert of two or more gets none.
    """
    m, n, k = case.shape
    experts = min(experts, m)
    rows = m // experts
    rng = np.random.default_rng([seed, 5])
    shares = rng.choice(traces.get("none/2").loads, experts) + 1.0  # an expert that nobody chose may be drawn
    if experts > 1:
        shares[rng.integers(experts)] = 0
    counts = tuple(int(count) for count in rng.multinomial(n, shares / shares.sum()))
    note = f"{case.note}; cut into {experts} experts of {rows} x {k} with {', '.join(map(str, counts))} tokens"
    cut = np.ascontiguousarray(case.a[: experts * rows]).reshape(experts, rows, k)
    return ExpertCase(case.name, cut, case.b, case.dtype, note, counts)


def judge_experts(
    c: Matrix,
    experts: Sequence[Matrix] | Matrix,
    b: Matrix,
    counts: Sequence[int],
    *,
    splits: Sequence[Sequence[tuple[int, int]]] | None = None,
    **how: Any,
) -> Judgement:
    """As `judge`, for C[M, N] whose columns belong to experts in turn; splits[e]: of expert e; `how` goes to `judge`."""
    found: list[Judgement] = []
    ranges: Sequence[Sequence[tuple[int, int]] | None] = splits if splits is not None else [None] * len(experts)
    for number, (a, own, declared) in enumerate(zip(experts, expert_columns(counts, b.shape[1]), ranges, strict=True)):
        if own.start == own.stop:
            continue
        one = judge(c[:, own], a, b[:, own], splits=declared, **how)
        first = one.first and replace(one.first, column=one.first.column + own.start)
        notes = tuple(f"expert {number}: {note}" for note in one.notes)
        found.append(replace(one, first=first, notes=notes))
    return Judgement(
        None if any(one.exact is None for one in found) else all(one.exact for one in found),
        all(one.accurate for one in found),
        sum(one.mismatches for one in found),
        next((one.first for one in found if one.first is not None), None),
        max(one.worst for one in found),
        min(one.rows_exact for one in found),
        tuple(note for one in found for note in one.notes),
    )
