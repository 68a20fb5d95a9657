"""Every balancer against its own formula, written a second time in plain Python."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Problem, problems

from loadsparse.reference import balancing, routing
from loadsparse.reference.balancing import sinkhorn

COUNTS = st.lists(st.integers(0, 2**40), min_size=2, max_size=9).filter(any)


@given(COUNTS, st.sampled_from(["constant", "1/n", "1/sqrt(n)"]), st.booleans())
def test_sign_steps(counts: list[int], schedule: str, centred: bool) -> None:
    balancer = balancing.SignBias(rate=0.25, schedule=schedule, offset=1, centred=centred)
    state = balancer.step(balancer.step(balancer.init(len(counts)), counts), counts)
    mean = Fraction(sum(counts), len(counts))
    power = {"constant": 0, "1/n": 1, "1/sqrt(n)": 0.5}[schedule]
    walked = sum(0.25 / (n + 1) ** power for n in (1, 2))
    expected = [walked * ((mean > c) - (mean < c)) for c in counts]
    if centred:
        expected = [e - sum(expected) / len(expected) for e in expected]
    assert state.bias == pytest.approx(expected)
    assert state.bias.dtype == np.float64
    assert state.steps == 2


def test_sign_needs_integer_counts() -> None:
    """A count of 40,840 kept in bf16 rounds to 40,704 or 41,216 and can turn the sign: floats are refused."""
    with pytest.raises(ValueError, match="integers"):
        balancing.SignBias().step(balancing.SignBias().init(2), [40704.0, 41216.0])
    state = balancing.SignBias(rate=1.0).step(balancing.SignBias().init(2), [2**53 + 1, 2**53 - 1])
    assert state.bias.tolist() == [-1, 1]  # float64 means could not tell


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("rule", [balancing.SignBias, balancing.ProportionalBias])
def test_a_float32_bias_stays_one_and_rounds_once_a_step(rule: type, centred: bool) -> None:
    balancer = rule(centred=centred)
    narrow = balancing.State(np.array([0.1, -0.3, 0.7], np.float32))
    wide = balancing.State(narrow.bias.astype(np.float64))
    for counts in ([9, 1, 2], [3, 5, 4], [0, 0, 1]):
        narrow, exact = balancer.step(narrow, counts), balancer.step(wide, counts).bias
        assert narrow.bias.dtype == np.float32
        assert np.array_equal(narrow.bias, exact.astype(np.float32))
        wide = balancing.State(narrow.bias.astype(np.float64), narrow.steps)
    stuck = balancing.State(np.full(2, 50_000, np.float32))  # its neighbours are 0.0039 away: 0.001 is lost
    assert np.ptp(balancing.SignBias().step(stuck, [2, 0]).bias) == 0


@given(COUNTS, st.integers(1, 8))
def test_proportional_units_differ_as_stated(counts: list[int], k: int) -> None:
    mean = sum(counts) / len(counts)
    steps = {}
    for unit in ("counts", "violation", "fraction"):
        balancer = balancing.ProportionalBias(rate=0.5, unit=unit, k=k)
        steps[unit] = balancer.step(balancer.init(len(counts)), counts).bias
    assert steps["counts"] == pytest.approx([0.5 * (mean - c) for c in counts], rel=1e-9, abs=1e-6 * mean)
    tokens = sum(counts) / k
    assert steps["fraction"] * tokens == pytest.approx(steps["counts"], rel=1e-9)
    assert steps["violation"] * mean == pytest.approx(steps["counts"], rel=1e-9)


@pytest.mark.parametrize("balancer", [balancing.SignBias(rate=0.5), balancing.ProportionalBias(rate=0.5)])
def test_micro_batches_make_one_step(balancer: balancing.Balancer) -> None:
    parts = [[5, 1, 0], [0, 1, 8], [1, 1, 1]]
    once = balancer.step(balancer.init(3), parts)
    assert once.bias.tolist() == balancer.step(balancer.init(3), [6, 3, 9]).bias.tolist()
    assert once.steps == 1


@settings(max_examples=50)
@given(problems(max_tokens=16, kinds=("free", "skew", "correlated", "ties")))
def test_quantile_sweep_is_the_stated_order_statistic(problem: Problem) -> None:
    balancer = balancing.QuantileBalancing(k=problem.k)
    state = balancer.init(problem.experts)
    rows = problem.scores.tolist()
    beta = [0.0] * problem.experts
    for _ in range(2):
        state = balancer.step(state, problem.scores)
        alpha = [sorted((s - b for s, b in zip(row, beta, strict=True)), reverse=True)[problem.k] for row in rows]
        rank = min(problem.k * problem.tokens // problem.experts, problem.tokens - 1)
        beta = [
            sorted((row[e] - a for row, a in zip(rows, alpha, strict=True)), reverse=True)[rank]
            for e in range(problem.experts)
        ]
        mean = sum(beta) / len(beta)
        assert state.bias == pytest.approx([mean - b for b in beta], abs=1e-6 * (1 + max(map(abs, beta))))
        beta = [-b for b in state.bias]


def test_quantile_balances_in_a_few_sweeps() -> None:
    rng = np.random.default_rng(1)
    scores = routing.sigmoid(rng.normal(size=(4096, 64)) + rng.normal(size=64))
    balancer = balancing.QuantileBalancing(k=6)
    state = balancer.init(64)
    for _ in range(6):
        state = balancer.step(state, scores)
    assert routing.max_violation(routing.loads(routing.top_k(scores, 6, state.bias), 64)) <= 0.05


@settings(max_examples=30)
@given(problems(max_tokens=12, max_experts=6, kinds=("free", "skew", "ties")), st.floats(0.3, 3))
def test_sinkhorn_plan_has_the_stated_sums(problem: Problem, temperature: float) -> None:
    logits = problem.scores / 1000.0 / temperature
    plan, log_a, log_b = sinkhorn.scale(logits, tolerance=1e-8, iterations=20000)
    assert plan.sum(axis=1) == pytest.approx(1 / problem.tokens)
    assert plan.sum(axis=0) == pytest.approx(1 / problem.experts, rel=1e-7)
    assert plan == pytest.approx(np.exp(logits) * np.exp(log_a)[:, None] * np.exp(log_b))
    balancer = balancing.Sinkhorn(temperature=1000.0 * temperature, tolerance=1e-8, iterations=20000)
    rows = [sorted(range(problem.experts), key=lambda e: -p[e])[: problem.k] for p in plan]
    values = np.take_along_axis(plan, balancer.assign(problem.scores, problem.k), axis=1).sum(axis=1)
    assert values == pytest.approx([sum(p[e] for e in row) for p, row in zip(plan, rows, strict=True)])


@settings(max_examples=30)
@given(problems(max_tokens=15, max_experts=5, whole=True, kinds=("free", "ties", "skew", "duplicates")))
def test_auction_is_within_its_promise(problem: Problem) -> None:
    scores = problem.scores[: problem.tokens // problem.experts * problem.experts]
    tokens = scores.shape[0]
    choice = balancing.Auction(epsilon=1 / (tokens + 1)).assign(scores)
    assert (np.bincount(choice, minlength=problem.experts) == tokens // problem.experts).all()
    # no pair of tokens gains by swapping: necessary for the optimum, exact in integers
    own = scores[np.arange(tokens), choice]
    swapped = scores[:, choice]  # [i, j]: token i at j's expert
    assert ((swapped + swapped.T) <= own[:, None] + own[None, :]).all()


@given(problems(max_tokens=16, whole=True))
def test_expert_choice_is_balanced_by_construction(problem: Problem) -> None:
    taken = balancing.ExpertChoice().assign(problem.scores, problem.k)
    assert (taken.sum(axis=0) * problem.experts == problem.k * problem.tokens).all()


@pytest.mark.claim(
    id="causal",
    phrase="expert choice leaks future tokens, a bias from past batches does not",
    status="proved",
    assumption="none: changing a later token changes what an earlier one gets",
    function="loadsparse.reference.balancing.ExpertChoice.assign",
    source="arXiv 2408.15664",
)
def test_expert_choice_sees_the_future_and_the_bias_does_not() -> None:
    early = np.asarray([[0.6, 0.5]])
    weak, strong = np.asarray([[0.1, 0.9]]), np.asarray([[0.9, 0.1]])
    first, second = np.concatenate([early, weak]), np.concatenate([early, strong])
    assert balancing.ExpertChoice().assign(first, 1)[0].tolist() == [True, False]
    assert balancing.ExpertChoice().assign(second, 1)[0].tolist() == [False, True]
    bias = balancing.SignBias().init(2).bias
    assert routing.top_k(first, 1, bias)[0] == routing.top_k(second, 1, bias)[0]


def slope(function: object, at: np.ndarray) -> np.ndarray:
    h, out = 1e-6, np.empty_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += h
        down[index] -= h
        out[index] = (function(up) - function(down)) / (2 * h)  # type: ignore[operator]
    return out


def test_losses_have_the_right_gradient() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(8, 4))
    scores, prob = routing.sigmoid(logits), routing.softmax(logits)
    choices = routing.top_k(prob, 2)
    found = balancing.switch_loss(prob, choices, alpha=0.3)
    f = routing.loads(choices, 4) / 16
    assert found.value == pytest.approx(0.3 * 4 * (f * prob.mean(axis=0)).sum())
    assert found.gradient == pytest.approx(slope(lambda p: balancing.switch_loss(p, choices, 0.3).value, prob))
    everyone = balancing.switch_loss(prob, choices, counts=[5, 5, 5, 5], alpha=1.0)
    assert everyone.value == pytest.approx(prob.sum() / 8)
    found = balancing.sequence_loss(scores, 2, sequences=2, alpha=0.3)
    assert found.gradient == pytest.approx(
        slope(lambda s: balancing.sequence_loss(s, 2, 2, 0.3).value, scores), abs=1e-8
    )
    halves = [
        balancing.sequence_loss(scores[:4], 2, alpha=0.3).value,
        balancing.sequence_loss(scores[4:], 2, alpha=0.3).value,
    ]
    assert found.value == pytest.approx(sum(halves) / 2)
    found = balancing.z_loss(logits, 0.7)
    assert found.value == pytest.approx(0.7 * np.mean(np.log(np.exp(logits).sum(axis=1)) ** 2))
    assert found.gradient == pytest.approx(slope(lambda x: balancing.z_loss(x, 0.7).value, logits), abs=1e-8)


@pytest.mark.parametrize("name", list(balancing.BALANCERS))
def test_every_registered_balancer_runs_and_keeps_its_state(name: str) -> None:
    rng = np.random.default_rng(4)
    scores = rng.random((64, 8))
    balancer = balancing.get(name, 2)
    state = balancer.init(8)
    seen = scores if balancer.needs == "scores" else routing.loads(routing.top_k(scores, 2), 8)
    after = balancer.step(state, seen)
    assert state.bias.tolist() == [0.0] * 8
    assert after.steps == 1
    assert after.bias.shape == (8,)
    assert np.isfinite(after.bias).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: balancing.SignBias(rate=0), "rate"),
        (lambda: balancing.SignBias(schedule="daily"), "schedule"),
        (lambda: balancing.ProportionalBias(unit="fraction"), "needs k"),
        (lambda: balancing.QuantileBalancing().step(balancing.SignBias().init(2), [[1.0, 2.0]]), "needs k"),
        (lambda: balancing.Auction().assign([[1.0, 2.0]]), "do not divide"),
        (lambda: balancing.ExpertChoice().assign([[1.0, 2.0]], 1), "integer"),
        (lambda: balancing.SignBias().init(1), "at least 2"),
        (lambda: balancing.get("magic", 1), "unknown balancer"),
    ],
)
def test_bad_settings_are_refused_by_name(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
