"""D3 in exact arithmetic."""

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from strategies import Problem, biased_problems, integer_vectors

from loadsparse.reference import routing
from loadsparse.theory import lagrangian, preference


@st.composite
def moves(draw: st.DrawFn, rules: tuple[str, ...]) -> tuple[Problem, np.ndarray, np.ndarray]:
    problem, bias = draw(biased_problems())
    counts = routing.loads(routing.top_k(problem.scores, problem.k, bias), problem.experts)
    scale = int(problem.scores.max() - problem.scores.min()) + 1
    rule = draw(st.sampled_from(rules))
    if rule == "sign":
        return problem, bias, lagrangian.sign_change(counts, draw(st.integers(1, scale)))
    if rule == "proportional":
        return problem, bias, -draw(st.integers(1, 50)) * (problem.experts * counts - counts.sum())
    return problem, bias, draw(integer_vectors(problem.experts, scale))


def judged(drawn: tuple[Problem, np.ndarray, np.ndarray]) -> tuple[preference.Switches, np.ndarray, np.ndarray]:
    problem, bias, change = drawn
    before = routing.top_k(problem.scores, problem.k, bias)
    after = routing.top_k(problem.scores, problem.k, bias + change)
    found = preference.switches(problem.scores, bias, change, before, after)
    return found, routing.loads(before, problem.experts), routing.loads(after, problem.experts)


@pytest.mark.claim(
    id="D3",
    phrase="a preference rule: tokens move only towards the larger bias change, by at most that much margin",
    status="proved",
    assumption="the same tokens re-routed by plain top-K",
    function="loadsparse.theory.preference.switches",
    source="own derivation, D3",
)
@settings(max_examples=300)
@given(moves(rules=("sign", "proportional", "free")))
def test_d3_every_switching_pair_obeys(drawn: tuple[Problem, np.ndarray, np.ndarray]) -> None:
    found, _, _ = judged(drawn)
    assert found.obey.all()


@pytest.mark.claim(
    id="D3-loads",
    phrase="a preference rule that moves tokens from overloaded to underloaded experts",
    status="proved",
    assumption="sign or proportional rule, the same tokens re-routed by plain top-K",
    function="loadsparse.theory.preference.wrong_way",
    source="own derivation, D3; arXiv 2512.03915, abstract",
)
@settings(max_examples=200)
@given(moves(rules=("sign",)))
def test_d3_no_overloaded_expert_gains_and_no_underloaded_loses(drawn: tuple[Problem, np.ndarray, np.ndarray]) -> None:
    found, before, after = judged(drawn)
    assert not preference.wrong_way(before, after).any()
    excess = before.size * before - before.sum()
    down, up = excess[found.dropped], excess[found.picked]
    assert (((up < 0) & (down >= 0)) | ((down > 0) & (up <= 0))).all()


@settings(max_examples=100)
@given(moves(rules=("proportional",)))
def test_d3_proportional_moves_only_from_fuller_to_emptier(drawn: tuple[Problem, np.ndarray, np.ndarray]) -> None:
    found, before, _ = judged(drawn)
    assert (before[found.dropped] > before[found.picked]).all()


def test_d3_has_something_to_judge() -> None:
    drawn = find(moves(rules=("sign",)), lambda d: judged(d)[0].token.size >= 3)
    assert judged(drawn)[0].obey.all()


def test_d3_rejects_a_wrong_move() -> None:
    scores = np.asarray([[5, 3], [5, 3]])
    wrong = preference.switches(scores, np.zeros(2, int), np.asarray([1, 0]), [[0], [0]], [[1], [0]])
    assert not wrong.obey.any()
    assert preference.wrong_way([2, 0], [2, 0]).sum() == 0
    assert preference.wrong_way([3, 1], [4, 0]).tolist() == [True, True]


def test_d3_is_false_across_different_batches() -> None:
    """A fresh batch may send more tokens to an overloaded expert, whatever the step was."""
    first, second = np.asarray([[9, 0], [9, 0], [0, 9]]), np.asarray([[9, 0], [9, 0], [9, 0]])
    before = routing.loads(routing.top_k(first, 1), 2)
    after = routing.loads(routing.top_k(second, 1, lagrangian.sign_change(before, 1)), 2)
    assert preference.wrong_way(before, after).all()
