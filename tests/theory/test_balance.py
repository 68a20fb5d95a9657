"""D4, D5, D6 and D10 in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import Problem, problems

from loadsparse.reference import routing
from loadsparse.theory import assignment, balance, lagrangian, limits, linear_program, score_laws


@st.composite
def runs(draw: st.DrawFn, **options: object) -> tuple[Problem, int]:
    """A problem and an integer rate u, from far below the range of the scores up to above it."""
    problem = draw(
        problems(max_tokens=20, max_experts=6, kinds=("free", "ties", "skew", "duplicates", "correlated"), **options)
    )
    reach = int(problem.scores.max() - problem.scores.min()) + 1
    return problem, max(1, reach // draw(st.integers(1, 60)))


@pytest.mark.claim(
    id="D4",
    phrase="bounded duals without projection: max p - min p <= 2R + 2u at every step",
    status="proved",
    assumption="fixed scores, p0 = 0; sign rule (R + 2u if K = 1) or proportional rule (2R + eps T)",
    function="loadsparse.theory.balance.spread_bound",
    source="own derivation, D4",
)
@settings(max_examples=80)
@given(runs())
def test_d4_sign_spread(drawn: tuple[Problem, int]) -> None:
    problem, u = drawn
    run = balance.trajectory(problem.scores, problem.k, 80, u=u)
    assert run.biases.dtype == np.int64
    assert run.spreads.max() <= balance.spread_bound(problem.scores, problem.k, u=u)


@settings(max_examples=60)
@given(runs(), st.floats(0.01, 3))
def test_d4_proportional_spread(drawn: tuple[Problem, int], factor: float) -> None:
    problem, _ = drawn
    eps = factor * (1 + float(np.ptp(problem.scores))) / problem.tokens
    run = balance.trajectory(problem.scores, problem.k, 60, eps=eps)
    assert run.spreads.max() <= balance.spread_bound(problem.scores, problem.k, eps=eps) * (1 + 1e-9)


@settings(max_examples=60)
@given(problems(max_tokens=24, max_experts=6, whole=True, kinds=("free", "ties", "skew", "correlated")))
def test_d4_optimal_prices(problem: Problem) -> None:
    rounding = 1e-6 * (1 + float(np.abs(problem.scores).max()))
    bound = balance.spread_bound(problem.scores, problem.k) + rounding
    for prices in (
        linear_program.solve(problem.scores, problem.k).prices,
        assignment.solve(problem.scores, problem.k).prices,
    ):
        assert prices.max() - prices.min() <= bound


@pytest.mark.claim(
    id="D5",
    phrase="an approximate-balancing guarantee: every load enters the band |A_k - L| <= m_k(u) and stays",
    status="proved",
    assumption="fixed scores, sign rule, p0 = 0, after N0 = ceil((E-1)(R+2u)/(2u)) + 1 steps",
    function="loadsparse.theory.balance.bands",
    source="own derivation, D5; arXiv 2512.03915, abstract",
)
@settings(max_examples=80)
@given(runs())
def test_d5_bands_absorb_and_are_reached(drawn: tuple[Problem, int]) -> None:
    problem, u = drawn
    first = balance.entry_steps(problem.scores, u)
    assume(first <= 400)
    run = balance.trajectory(problem.scores, problem.k, first + 20, u=u)
    away = balance.imbalance(run.loads)
    band = problem.experts * balance.bands(problem.scores, u)
    levels = np.maximum(away, band)
    assert (np.diff(levels, axis=0) <= 0).all()
    assert (away[first:] <= band).all()


@pytest.mark.claim(
    id="idle-experts",
    phrase="balancing leaves no expert idle: after N0 steps every load is at least L - m_k(u), above 0 once m_k(u) < L",
    status="proved",
    assumption="as D5, and the band below the mean load L; without balancing experts do stay idle (a test shows it)",
    function="loadsparse.theory.balance.bands",
    source="consequence of D5",
)
@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_no_expert_is_idle_once_the_band_is_below_the_mean(seed: int, experts: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 400, (60, experts)) + 700 * (np.arange(experts) == 0)  # everybody's favourite
    assert routing.balance(routing.loads(routing.top_k(scores, 1), experts)).idle == experts - 1
    u = int(rng.integers(1, 4))
    assume((balance.bands(scores, u) * experts < 60).all())
    cycle = balance.limit_cycle(scores, 1, u, most=balance.entry_steps(scores, u) + 5000)
    assert (cycle.loads > 0).all()


@pytest.mark.claim(
    id="D5-tokens",
    phrase="every load is within E - 1 tokens of the mean after N0 steps",
    status="proved",
    assumption="as D5, and 2u below the separation of the scores",
    function="loadsparse.theory.balance.separation",
    source="own derivation, D5 (iii)",
)
@settings(max_examples=30)
@given(problems(max_tokens=12, max_experts=4, kinds=("free", "skew")), st.integers(0, 2**31))
def test_d5_generic_scores_are_within_e_minus_1_tokens(problem: Problem, seed: int) -> None:
    assume(problem.tokens >= 2)
    # distinct differences: few, widely spaced values
    scores = np.random.default_rng(seed).integers(0, 400, problem.scores.shape)
    delta = balance.separation(scores)
    assume(delta >= 3)
    u = int((delta - 1) // 2)
    assert (balance.bands(scores, u) <= problem.experts - 1).all()
    first = balance.entry_steps(scores, u)
    run = balance.trajectory(scores, problem.k, first + 10, u=u)
    assert (balance.imbalance(run.loads[first:]) <= problem.experts * (problem.experts - 1)).all()


@settings(max_examples=60)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=20), st.integers(0, 30))
def test_windows_against_counting(values: list[int], width: int) -> None:
    most = max(sum(start <= v <= start + width for v in values) for start in values)
    assert balance.most_in_window(values, width) == most


@pytest.mark.claim(
    id="D4-cycle",
    phrase="constant u on fixed scores ends in a limit cycle",
    status="proved",
    assumption="fixed scores and u commensurable (integers)",
    function="loadsparse.theory.balance.limit_cycle",
    source="own derivation, corollary of D4",
)
@settings(max_examples=40)
@given(runs())
def test_limit_cycles_repeat(drawn: tuple[Problem, int]) -> None:
    problem, u = drawn
    assume(np.ptp(problem.scores) // u <= 40)
    cycle = balance.limit_cycle(problem.scores, problem.k, u)
    run = balance.trajectory(problem.scores, problem.k, cycle.start + 2 * cycle.period, u=u)
    again = run.loads[cycle.start :]
    assert (again[: cycle.period] == again[cycle.period : 2 * cycle.period]).all()
    assert (again[: cycle.period] == cycle.loads).all()
    if cycle.period == 1:
        assert balance.imbalance(cycle.loads).max() == 0  # the sign rule rests only at exact balance


def test_the_counterexample_of_d2_cycles_with_period_2() -> None:
    scores, _ = lagrangian.non_monotone_example(100, 4, 10)
    cycle = balance.limit_cycle(scores, 1, 10)
    assert (cycle.start, cycle.period) == (0, 2)
    assert cycle.loads.tolist() == [[100, 0], [0, 100]]
    run = balance.trajectory(scores, 1, 4, u=10)
    duals = [lagrangian.dual(scores, 1, p) for p in run.biases]
    assert duals == [400, 1000, 400, 1000, 400]


@pytest.mark.claim(
    id="D6",
    phrase="at optimal prices at most E - 1 tokens are tied, and any tie-break is within E - 1 tokens of balance",
    status="proved",
    assumption="generic scores",
    function="loadsparse.theory.balance.ties",
    source="own derivation, D6",
)
@settings(max_examples=80)
@given(st.integers(2, 8), st.integers(1, 60), st.data())
def test_d6_ties_at_the_optimum(experts: int, tokens: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, experts - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(0, 2**45, (tokens, experts))  # ties of differences have probability < 2^-20 per example
    whole = k * tokens % experts == 0
    found = assignment.solve(scores, k)
    prices = np.rint(found.prices).astype(np.int64)
    assert (prices == found.prices).all()  # integer scores have integer optimal prices
    tied = balance.ties(scores, k, prices)
    assert tied.slots <= experts - 1
    mean = Fraction(k * tokens, experts)
    if whole:
        assert (tied.lowest <= mean).all()
        assert (tied.highest >= mean).all()
        assert (tied.highest - tied.lowest <= experts - 1).all()
        counts = routing.loads(routing.top_k(scores, k, prices), experts)
        assert max(abs(int(a) - mean) for a in counts) <= experts - 1


def test_d6_ties_are_counted() -> None:
    tied = balance.ties([[2, 2, 0], [5, 0, 0]], 1, np.zeros(3, int))
    assert tied.tokens.tolist() == [0]
    assert tied.slots == 1
    assert tied.lowest.tolist() == [1, 0, 0]
    assert tied.highest.tolist() == [2, 1, 0]


@pytest.mark.claim(
    id="D10",
    phrase="the preference rule under group-limited routing",
    status="false without condition",
    assumption="plain top-K; with groups chosen first it is violated",
    function="loadsparse.theory.limits.grouped_sign_rule",
    source="own counterexample, D10",
)
def test_d10_group_limited_routing_breaks_the_preference_rule() -> None:
    scores = score_laws.skewed(16).sample(np.random.default_rng(0), 300)
    broken = limits.grouped_sign_rule(scores, 4, 0.01, 30, groups=4, top_groups=2)
    assert broken.broken > 0
    plain = limits.grouped_sign_rule(scores, 4, 0.01, 30, groups=4, top_groups=4)
    assert plain.switching > 0
    assert plain.broken == 0
    assert plain.rises == 0


def test_d10_moving_scores_break_the_preference_rule() -> None:
    first, later = np.asarray([[9.0, 0], [9, 0], [0, 9]]), np.asarray([[9.0, 0], [9, 0], [9, 0]])
    assert limits.moving_scores(first, later, 1, 1.0).all()
    assert not limits.moving_scores(first, first, 1, 1.0).any()


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="either u"):
        balance.trajectory(np.zeros((2, 2), int), 1, 3)
    with pytest.raises(ValueError, match="integers"):
        balance.limit_cycle(np.zeros((2, 2)), 1, 1)
    with pytest.raises(ValueError, match="two"):
        balance.separation(np.zeros((1, 2)))
    with pytest.raises(RuntimeError, match="no cycle"):
        balance.limit_cycle(np.asarray([[0, 1000], [3, 900]]), 1, 1, most=5)
