"""D1, D2 and D7 in exact arithmetic, with the linear program as the source of OPT."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Problem, biased_problems, integer_vectors, problems, real_scores

from loadsparse.reference import routing
from loadsparse.reference.balancing import SignBias
from loadsparse.theory import lagrangian, linear_program


@st.composite
def steps(draw: st.DrawFn) -> tuple[Problem, np.ndarray, np.ndarray, str]:
    """A problem, a bias, and a change: the sign rule's, the proportional rule's, a diagonal one's, or anything."""
    problem, bias = draw(biased_problems())
    rule = draw(st.sampled_from(["sign", "proportional", "diagonal", "free"]))
    counts = routing.loads(routing.top_k(problem.scores, problem.k, bias), problem.experts)
    excess = problem.experts * counts - counts.sum()  # E (A - L)
    scale = int(problem.scores.max() - problem.scores.min()) + 1
    if rule == "sign":
        change = lagrangian.sign_change(counts, draw(st.integers(1, scale)))
    elif rule == "proportional":
        change = -draw(st.integers(1, max(1, scale // 8))) * excess
    elif rule == "diagonal":
        change = -np.abs(draw(integer_vectors(problem.experts, 20))) * excess
    else:
        change = draw(integer_vectors(problem.experts, scale))
    return problem, bias, np.asarray(change, dtype=np.int64), rule


@given(biased_problems(max_tokens=6, max_experts=5))
def test_dual_is_the_largest_lagrangian(drawn: tuple[Problem, np.ndarray]) -> None:
    problem, bias = drawn
    best = lagrangian.dual(problem.scores, problem.k, bias)
    head = [sorted((int(s) + int(p) for s, p in zip(row, bias, strict=True)), reverse=True) for row in problem.scores]
    mean = Fraction(problem.k * problem.tokens, problem.experts)
    assert best == sum(sum(row[: problem.k]) for row in head) - mean * int(bias.sum())
    rng = np.random.default_rng(problem.tokens)
    for _ in range(5):
        other = rng.permuted(np.tile(np.arange(problem.experts), (problem.tokens, 1)), axis=1)[:, : problem.k]
        assert lagrangian.lagrangian(problem.scores, other, bias) <= best


@pytest.mark.claim(
    id="D1",
    phrase="the exact change of the Lagrangian dual in one step: D(p+) - D(p) = <A - L, Delta> + S with S >= 0",
    status="proved",
    assumption="fixed scores; none on the step",
    function="loadsparse.theory.lagrangian.step",
    source="own derivation, D1",
)
@settings(max_examples=300)
@given(steps())
def test_d1_identity_and_sandwich(drawn: tuple[Problem, np.ndarray, np.ndarray, str]) -> None:
    problem, bias, change, rule = drawn
    s = lagrangian.step(problem.scores, problem.k, bias, change)
    assert isinstance(s.before, Fraction)
    assert s.after - s.before == s.slope + s.switching
    assert s.switching >= 0
    assert s.slope <= s.after - s.before <= s.next_slope
    assert s.before == lagrangian.dual(problem.scores, problem.k, bias)
    assert s.after == lagrangian.dual(problem.scores, problem.k, bias + change)
    if rule == "sign" and change.any():
        u = int(np.abs(change).max())
        mean = Fraction(problem.k * problem.tokens, problem.experts)
        assert s.slope == -u * sum(abs(int(a) - mean) for a in s.loads)


@pytest.mark.claim(
    id="D2",
    phrase="a monotonic improvement condition: D falls exactly where the switching term stays below sum eps g^2",
    status="proved",
    assumption="(a) no net overshoot, or (b) few switches; each suffices",
    function="loadsparse.theory.lagrangian.step",
    source="own derivation, D2",
)
@settings(max_examples=300)
@given(steps())
def test_d2_either_condition_forbids_a_rise(drawn: tuple[Problem, np.ndarray, np.ndarray, str]) -> None:
    problem, bias, change, rule = drawn
    s = lagrangian.step(problem.scores, problem.k, bias, change)
    assert (s.after <= s.before) == (s.switching <= -s.slope)
    if s.keeps_direction or s.few_switches:
        assert s.after <= s.before
    assert s.switching <= s.vacated * s.spread
    if rule == "sign":
        excess = Fraction(
            sum(abs(int(a) * problem.experts - problem.k * problem.tokens) for a in s.loads), problem.experts
        )
        if s.vacated <= excess / 2:
            assert s.few_switches


@settings(max_examples=20)
@given(problems(max_tokens=20, max_experts=5, kinds=("free", "ties", "skew", "correlated")), st.integers(1, 200))
def test_d1_and_d2_never_pass_below_the_linear_program(problem: Problem, u: int) -> None:
    """Along the sign rule: D(p) >= OPT of HiGHS always, and what D1 subtracts is never more than D(p) - OPT."""
    opt = linear_program.solve(problem.scores, problem.k).value
    rounding = 1e-9 * max(1.0, float(np.abs(problem.scores).sum()))
    p = np.zeros(problem.experts, dtype=np.int64)
    for _ in range(12):
        counts = routing.loads(routing.top_k(problem.scores, problem.k, p), problem.experts)
        s = lagrangian.step(problem.scores, problem.k, p, lagrangian.sign_change(counts, u))
        assert float(s.after) >= opt - rounding
        assert float(s.slope + s.switching) >= opt - float(s.before) - rounding
        p = p + lagrangian.sign_change(counts, u)


@pytest.mark.claim(
    id="D2-naive",
    phrase="a monotonic improvement of a Lagrangian objective",
    status="false without condition",
    assumption="none: E = 2, all tokens with one margin a < u make the dual rise by T(u - a)",
    function="loadsparse.theory.lagrangian.non_monotone_example",
    source="arXiv 2512.03915, abstract of v1; own counterexample, D2",
)
@given(st.integers(1, 200), st.integers(1, 999), st.integers(1, 1000))
def test_d2_counterexample_to_unconditional_monotonicity(tokens: int, margin: int, extra: int) -> None:
    u = margin + extra
    scores, rise = lagrangian.non_monotone_example(tokens, margin, u)
    counts = routing.loads(routing.top_k(scores, 1), 2)
    s = lagrangian.step(scores, 1, np.zeros(2, dtype=np.int64), lagrangian.sign_change(counts, u))
    assert s.after - s.before == rise == tokens * extra > 0
    assert not s.keeps_direction
    assert not s.few_switches


def test_d2_counterexample_in_the_units_of_the_paper() -> None:
    scores, _ = lagrangian.non_monotone_example(100, 4e-4, 1e-3)
    balancer = SignBias(rate=1e-3)
    state = balancer.init(2)
    after = balancer.step(state, routing.loads(routing.top_k(scores, 1, state.bias), 2))
    rise = lagrangian.dual(scores, 1, after.bias) - lagrangian.dual(scores, 1, state.bias)
    assert rise == pytest.approx(0.06, rel=1e-9)


@given(real_scores(max_tokens=24), st.floats(1e-4, 0.2))
def test_d1_in_floating_point_within_rounding(drawn: tuple[np.ndarray, int], u: float) -> None:
    scores, k = drawn
    p = np.zeros(scores.shape[1])
    for _ in range(3):
        counts = routing.loads(routing.top_k(scores, k, p), scores.shape[1])
        s = lagrangian.step(scores, k, p, lagrangian.sign_change(counts, u))
        # every one of the <= 4 T K terms carries a few roundings of numbers below 1 + |p| + u
        rounding = 16 * scores.size * (1 + np.abs(p).max() + u) * np.finfo(float).eps
        assert abs(s.after - s.before - s.slope - s.switching) <= rounding
        assert s.slope - rounding <= s.after - s.before <= s.next_slope + rounding
        p = p + lagrangian.sign_change(counts, u)


@pytest.mark.claim(
    id="D7",
    phrase="approximate optimality: score kept >= OPT - (1/2) spread(p) ||A - L||_1",
    status="proved",
    assumption="fixed scores; OPT from the linear program",
    function="loadsparse.theory.lagrangian.primal_quality",
    source="own derivation, D7",
)
@settings(max_examples=60)
@given(biased_problems(max_tokens=24, max_experts=6, kinds=("free", "ties", "skew", "correlated", "constant")))
def test_d7_primal_quality(drawn: tuple[Problem, np.ndarray]) -> None:
    problem, bias = drawn
    opt = linear_program.solve(problem.scores, problem.k).value
    rounding = 1e-9 * max(1.0, float(np.abs(problem.scores).sum()))
    q = lagrangian.primal_quality(problem.scores, problem.k, bias)
    assert q.value == q.dual - q.pairing
    assert float(q.dual) >= opt - rounding
    assert float(q.value) >= opt - float(q.bound) - rounding


@settings(max_examples=30)
@given(problems(max_tokens=24, max_experts=5, kinds=("free", "ties", "skew")), st.floats(1e-3, 30))
def test_d7_subgradient_rate(problem: Problem, eps: float) -> None:
    found = linear_program.solve(problem.scores, problem.k)
    distance = float(np.linalg.norm(found.prices - found.prices.mean()))
    p, best = np.zeros(problem.experts), np.inf
    rates = eps / np.sqrt(np.arange(1, 26))
    for rate in rates:
        best = min(best, float(lagrangian.dual(problem.scores, problem.k, p)))
        counts = routing.loads(routing.top_k(problem.scores, problem.k, p), problem.experts)
        p = p + rate * (counts.mean() - counts)
    bound = lagrangian.subgradient_bound(distance, rates, problem.scores, problem.k)
    assert best - found.value <= bound * (1 + 1e-9) + 1e-6
