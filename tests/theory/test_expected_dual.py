"""D8: quadrature against sampling, finite differences, closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.reference import routing
from loadsparse.theory import expected_dual, lagrangian, online
from loadsparse.theory.score_laws import Law, LogitNormal, Uniform, skewed


@st.composite
def cases(draw: st.DrawFn, most: int = 6) -> tuple[Law, int, np.ndarray]:
    experts = draw(st.integers(2, most))
    k = draw(st.integers(1, experts - 1))
    law: Law = Uniform(experts)
    if draw(st.booleans()):
        law = LogitNormal(tuple(draw(st.floats(-1, 1)) for _ in range(experts)), draw(st.floats(0.7, 1.3)))
    return law, k, np.asarray([draw(st.floats(-0.3, 0.3)) for _ in range(experts)])


@settings(max_examples=30)
@given(cases())
def test_gradient_is_the_derivative_of_the_value(case: tuple[Law, int, np.ndarray]) -> None:
    law, k, p = case
    gradient = expected_dual.selected(law, k, p) - k / law.experts
    assert gradient.sum() == pytest.approx(0, abs=1e-6)
    for e in range(law.experts):
        h = 1e-4 * np.eye(law.experts)[e]
        slope = (expected_dual.value(law, k, p + h) - expected_dual.value(law, k, p - h)) / 2e-4
        assert gradient[e] == pytest.approx(slope, abs=2e-5)
    assert expected_dual.values(law, k, p[None, :])[0] == pytest.approx(expected_dual.value(law, k, p), abs=1e-4)


@pytest.mark.claim(
    id="D8",
    phrase="the Hessian of the expected dual is a weighted graph Laplacian; strong convexity is its lambda_2",
    status="proved",
    assumption="fresh independent tokens, independent scores with continuous densities; local in p",
    function="loadsparse.theory.expected_dual.curvature",
    source="own derivation, D8; arXiv 2512.03915, abstract",
)
@settings(max_examples=20)
@given(cases(most=5))
def test_d8_hessian_is_the_laplacian(case: tuple[Law, int, np.ndarray]) -> None:
    law, k, p = case
    if isinstance(law, Uniform):  # densities jump at the ends: stay clear of coinciding kinks
        p = p + np.linspace(0, 0.05, law.experts)
    weights = expected_dual.edge_weights(law, k, p)
    assert (weights >= 0).all()
    assert (weights == weights.T).all()
    hessian = expected_dual.laplacian(weights)
    h = 1e-4
    for e in range(law.experts):
        step = h * np.eye(law.experts)[e]
        slope = (expected_dual.selected(law, k, p + step) - expected_dual.selected(law, k, p - step)) / (2 * h)
        assert hessian[:, e] == pytest.approx(slope, abs=2e-3)
    found = expected_dual.curvature(law, k, p)
    off = weights[~np.eye(law.experts, dtype=bool)]
    assert law.experts * off.min() - 1e-9 <= found.mu <= found.beta <= 2 * weights.sum(axis=1).max() + 1e-9
    v = np.random.default_rng(0).standard_normal(law.experts)
    pairs = sum(weights[a, b] * (v[a] - v[b]) ** 2 for a in range(law.experts) for b in range(a))
    assert v @ hessian @ v == pytest.approx(pairs)


@pytest.mark.parametrize(("experts", "k", "mu"), [(64, 1, 0.372), (64, 2, 0.571), (64, 6, 0.995)])
def test_d8_closed_form_of_equal_scores(experts: int, k: int, mu: float) -> None:
    law = skewed(experts, 0.0)
    found = expected_dual.curvature(law, k, np.zeros(experts))
    assert found.mu == pytest.approx(experts * expected_dual.equal_weight(law, k), rel=1e-9)
    assert found.mu == pytest.approx(mu, abs=1e-3)  # three printed digits
    assert found.beta == pytest.approx(found.mu, rel=1e-9)


@given(st.integers(2, 12), st.data())
@settings(max_examples=15)
def test_d8_uniform_scores_have_mu_e_over_e_minus_1(experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, experts - 1))
    found = expected_dual.curvature(Uniform(experts), k, np.zeros(experts))
    assert found.mu == pytest.approx(experts / (experts - 1), rel=1e-8)
    assert found.beta == pytest.approx(experts / (experts - 1), rel=1e-8)
    assert expected_dual.equal_weight(Uniform(experts), k) == pytest.approx(1 / (experts - 1), rel=1e-8)


def test_d8_is_only_local() -> None:
    """Bounded scores: biases further apart than the range decouple the experts; f is not strongly convex on all of
    R^E."""
    far = np.asarray([0.0, 1.5])
    assert expected_dual.curvature(Uniform(2), 1, far).mu == pytest.approx(0, abs=1e-12)
    near = expected_dual.curvature(Uniform(2), 1, np.asarray([0.0, 0.5]))
    assert near.mu == pytest.approx(2 * (1 - 0.5), rel=1e-9)


def test_sampling_agrees_with_quadrature() -> None:
    """200,000 tokens: each load share within 5 standard errors; false alarm below 8 * 6e-7 = 5e-6, seed fixed."""
    law, p, tokens = skewed(8), np.linspace(-0.1, 0.1, 8), 200_000
    scores = law.sample(np.random.default_rng(1), tokens)
    share = expected_dual.sampled_load(scores, 2, p)
    chance = expected_dual.selected(law, 2, p)
    assert (np.abs(share - chance) <= 5 * np.sqrt(chance * (1 - chance) / tokens)).all()
    sampled = np.sort(scores + p, axis=1)[:, -2:].sum(axis=1) - 2 / 8 * p.sum()
    error = 5 * sampled.std() / np.sqrt(tokens)
    assert expected_dual.value(law, 2, p) == pytest.approx(float(sampled.mean()), abs=error)
    assert float(lagrangian.dual(scores[:500], 2, p)) / 500 == pytest.approx(float(sampled[:500].mean()), abs=1e-12)


def test_hessian_of_correlated_scores_by_sampling() -> None:
    """One-factor Gaussian scores: with the common factor the Laplacian of the independent parts is exact, as it
    cancels.

    False alarm below 1e-5 per entry (5 standard errors of 4 x 10^5 common random numbers), seed fixed.
    """
    law, k, tokens, h = LogitNormal((0.0, 0.2, -0.1, 0.1)), 2, 400_000, 0.02
    scores = law.sample(np.random.default_rng(2), tokens)
    common = np.random.default_rng(3).standard_normal((tokens, 1))
    hessian = expected_dual.laplacian(expected_dual.edge_weights(law, k, np.zeros(4)))
    for e in range(4):
        step = h * np.eye(4)[e]
        up, down = (routing.top_k(scores + common, k, sign * step) for sign in (1, -1))
        moved = (routing.loads(up, 4) - routing.loads(down, 4)) / tokens / (2 * h)
        error = 5 * np.sqrt(np.abs(hessian[:, e]) / (2 * h * tokens)) + 0.02
        assert (np.abs(moved - hessian[:, e]) <= error).all()


@given(st.floats(-1, 1))
def test_the_exact_law_of_two_experts(difference: float) -> None:
    p = np.asarray([difference / 2, -difference / 2])
    assert online.two_expert_dual(difference) == pytest.approx(expected_dual.value(Uniform(2), 1, p), abs=1e-9)
    if abs(difference) < 0.99:
        assert expected_dual.curvature(Uniform(2), 1, p).mu == pytest.approx(2 * (1 - abs(difference)), abs=1e-8)


def test_minimiser_balances() -> None:
    law = skewed(8, 0.8)
    p = expected_dual.minimiser(law, 2)
    assert expected_dual.selected(law, 2, p) == pytest.approx(np.full(8, 0.25), abs=1e-7)
    assert np.ptp(p) == pytest.approx(0.336, abs=5e-4)
    found = expected_dual.curvature(law, 2, p)
    assert (found.mu, found.beta) == pytest.approx((1.373, 1.969), abs=1e-3)
