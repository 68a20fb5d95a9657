"""The strategies reach the cases they promise."""

import numpy as np
import pytest
from hypothesis import find, given
from strategies import KINDS, Problem, problems


@given(problems(whole=True))
def test_whole_problems_have_an_integer_balanced_load(problem: Problem) -> None:
    assert problem.k * problem.tokens % problem.experts == 0
    assert 1 <= problem.k < problem.experts
    assert problem.scores.dtype == np.int64


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn(kind: str) -> None:
    find(problems(), lambda p: p.kind == kind and p.tokens > 1)


def test_ties_duplicates_and_fractions_are_found() -> None:
    find(problems(), lambda p: any(len(set(row)) < p.experts for row in p.scores.tolist()))
    find(problems(), lambda p: p.tokens > 1 and len(np.unique(p.scores, axis=0)) < p.tokens)
    find(problems(), lambda p: p.k * p.tokens % p.experts != 0)
    find(problems(), lambda p: int(p.scores.max() - p.scores.min()) > 2**38)
