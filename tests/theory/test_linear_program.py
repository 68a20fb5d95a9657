"""HiGHS against enumeration, strong duality, integrality."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import Problem, problems

from loadsparse.theory import lagrangian, linear_program


def enumerated(problem: Problem) -> int:
    """The best value over all assignments with equal loads, by trying every one of them."""
    sets = list(combinations(range(problem.experts), problem.k))
    best = None
    for pick in product(sets, repeat=problem.tokens):
        counts = np.bincount(np.asarray(pick).ravel(), minlength=problem.experts)
        if counts.max() * problem.experts == problem.k * problem.tokens:
            worth = sum(int(problem.scores[i, e]) for i, chosen in enumerate(pick) for e in chosen)
            best = worth if best is None else max(best, worth)
    assert best is not None
    return best


@settings(max_examples=25)
@given(problems(max_tokens=4, max_experts=4, whole=True, kinds=("free", "ties", "skew", "constant")))
def test_the_optimum_is_that_of_enumeration(problem: Problem) -> None:
    found = linear_program.solve(problem.scores, problem.k)
    assert found.value == pytest.approx(enumerated(problem), rel=1e-9, abs=1e-9)


@pytest.mark.claim(
    id="LP",
    phrase="load balancing as a primal-dual method for an assignment problem: strong duality and integrality",
    status="proved",
    assumption="L = K T / E an integer (integrality); none for duality",
    function="loadsparse.theory.linear_program.solve",
    source="own derivation, section 2 of the theory notes; HiGHS",
)
@settings(max_examples=40)
@given(problems(max_tokens=24, whole=True, kinds=("free", "ties", "skew", "correlated", "duplicates")))
def test_strong_duality_and_integrality(problem: Problem) -> None:
    found = linear_program.solve(problem.scores, problem.k)
    scale = max(1.0, float(np.abs(problem.scores).sum()))
    assert float(lagrangian.dual(problem.scores, problem.k, found.prices)) == pytest.approx(
        found.value, abs=1e-9 * scale
    )
    assert found.fractional <= 1e-9
    assert np.abs(found.x.sum(axis=0) - problem.k * problem.tokens / problem.experts).max() <= 1e-6


def test_an_impossible_load_is_refused() -> None:
    with pytest.raises(ValueError, match="no assignment"):
        linear_program.solve(np.zeros((4, 2)), 1, lower=0, upper=1)
