"""Top-K, loads and balance figures against Python's own sorting and counting."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Problem, biased_problems, problems

from loadsparse.reference import routing
from loadsparse.reference.balancing import ExpertChoice


@pytest.mark.claim(
    id="top-k",
    phrase="every token activates exactly K of E experts, the largest biased scores, ties to the lower index",
    status="proved",
    assumption="finite scores, 1 <= K <= E",
    function="loadsparse.reference.routing.top_k",
    source="arXiv 2408.15664, Algorithm 1",
)
@given(biased_problems(max_tokens=12, max_experts=9))
def test_top_k_is_the_sorted_head_with_ties_to_the_lower_index(drawn: tuple[Problem, np.ndarray]) -> None:
    problem, bias = drawn
    choices = routing.top_k(problem.scores, problem.k, bias)
    assert choices.shape == (problem.tokens, problem.k)
    for row, chosen in zip(problem.scores.tolist(), choices.tolist(), strict=True):
        ranked = sorted(range(problem.experts), key=lambda e: (-(row[e] + int(bias[e])), e))
        assert chosen == ranked[: problem.k]


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int64", "uint64"])
@given(st.data())
def test_integers_of_every_width_are_compared_exactly_at_their_limits(kind: str, data: st.DataObject) -> None:
    limits = np.iinfo(kind)
    values = st.sampled_from([limits.min, limits.min + 1, limits.max - 1, limits.max, limits.max // 2])
    row = data.draw(st.lists(values, min_size=1, max_size=6))
    ranked = sorted(range(len(row)), key=lambda e: (-row[e], e))
    assert routing.top_k(np.array([row], kind), len(row)).tolist() == [ranked]
    taken = ExpertChoice().assign(np.array(row, kind)[:, None], 1)  # one expert takes every token
    assert taken.all()
    half = np.repeat(np.array(row, kind)[:, None], 2, axis=1)
    if len(row) % 2 == 0:
        taken = ExpertChoice().assign(half, 1)
        assert np.flatnonzero(taken[:, 0]).tolist() == sorted(ranked[: len(row) // 2])


@given(st.lists(st.tuples(st.integers(-128, 127), st.integers(-128, 127)), min_size=1, max_size=6))
def test_narrow_integers_do_not_wrap_when_the_bias_is_added(pairs: list[tuple[int, int]]) -> None:
    scores, bias = (np.array(side, np.int8) for side in zip(*pairs, strict=True))
    ranked = sorted(range(len(pairs)), key=lambda e: (-sum(pairs[e]), e))
    assert routing.top_k(scores[None], len(pairs), bias).tolist() == [ranked]


@given(biased_problems(max_tokens=12))
def test_a_common_offset_of_the_bias_changes_nothing(drawn: tuple[Problem, np.ndarray]) -> None:
    problem, bias = drawn
    first = routing.top_k(problem.scores, problem.k, bias)
    assert (routing.top_k(problem.scores, problem.k, bias + 17) == first).all()
    grouped = problem.scores.repeat(2, axis=1)
    pair = bias.repeat(2)
    some = routing.top_k(grouped, problem.k, pair, groups=problem.experts, top_groups=problem.k, group_best=2)
    same = routing.top_k(grouped, problem.k, pair + 17, groups=problem.experts, top_groups=problem.k, group_best=2)
    assert (some == same).all()


@given(problems(max_tokens=30))
def test_loads_and_figures_against_counting(problem: Problem) -> None:
    choices = routing.top_k(problem.scores, problem.k)
    counts = routing.loads(choices, problem.experts)
    counted = Counter(choices.ravel().tolist())
    assert counts.dtype == np.int64
    assert counts.tolist() == [counted[e] for e in range(problem.experts)]
    figures = routing.balance(counts)
    mean = Fraction(problem.k * problem.tokens, problem.experts)
    assert figures.max_violation == pytest.approx(float((max(counted.values()) - mean) / mean), rel=1e-12, abs=1e-15)
    pairs = sum(abs(a - b) for a in counts.tolist() for b in counts.tolist())
    assert figures.gini == pytest.approx(float(Fraction(pairs) / (2 * problem.experts**2 * mean)), rel=1e-12, abs=1e-15)
    assert figures.idle == problem.experts - len(counted)
    assert figures.utilisation == pytest.approx(float(mean / max(counted.values())))
    assert routing.max_violation(counts) <= problem.experts / problem.k - 1 + 1e-12


@given(problems(max_tokens=12), st.data())
def test_padding_does_not_count(problem: Problem, data: st.DataObject) -> None:
    mask = np.asarray(data.draw(st.lists(st.booleans(), min_size=problem.tokens, max_size=problem.tokens)), dtype=bool)
    choices = routing.top_k(problem.scores, problem.k)
    assert (routing.loads(choices, problem.experts, mask) == routing.loads(choices[mask], problem.experts)).all()


@given(biased_problems(max_tokens=8, kinds=("free", "skew")))
def test_the_bias_never_enters_the_output_weight(drawn: tuple[Problem, np.ndarray]) -> None:
    problem, bias = drawn
    scores = routing.sigmoid(problem.scores / 1000.0)
    choices = routing.top_k(scores, problem.k, bias / 1000.0)
    weights = routing.gate_weights(scores, choices, scale=2.5)
    for row, chosen, weight in zip(scores, choices, weights, strict=True):
        assert weight == pytest.approx(2.5 * row[chosen] / row[chosen].sum(), rel=1e-12)
    assert weights.sum(axis=1) == pytest.approx(2.5)


@given(problems(max_tokens=8, max_experts=4, kinds=("ties", "free")), st.data())
def test_group_limited_choices_lie_in_the_strongest_groups(problem: Problem, data: st.DataObject) -> None:
    scores = np.concatenate([problem.scores, problem.scores[::-1] + 1], axis=1)  # E even: groups of 2
    groups = problem.experts
    kept = data.draw(st.integers((problem.k + 1) // 2, groups))
    choices = routing.top_k(scores, problem.k, groups=groups, top_groups=kept, group_best=2)
    for row, chosen in zip(scores.tolist(), choices.tolist(), strict=True):
        strength = [row[2 * g] + row[2 * g + 1] for g in range(groups)]
        best = sorted(range(groups), key=lambda g: (-strength[g], g))[:kept]
        allowed = [e for e in range(2 * groups) if e // 2 in best]
        assert chosen == sorted(allowed, key=lambda e: (-row[e], e))[: problem.k]


@given(st.lists(st.floats(-700, 700), min_size=2, max_size=8))
def test_gates_stay_in_range_and_keep_the_order(logits: list[float]) -> None:
    x = np.asarray(logits)
    order = np.argsort(x)
    for gate in (routing.sigmoid, routing.softmax, routing.sqrt_softplus):
        y = gate(x)
        assert np.isfinite(y).all()
        assert (y >= 0).all()
        assert (np.diff(y[order]) >= 0).all()
    assert routing.sigmoid(x) + routing.sigmoid(-x) == pytest.approx(np.ones(x.size))
    assert routing.softmax(x).sum() == pytest.approx(1.0)
    assert np.expm1(routing.sqrt_softplus(x) ** 2) == pytest.approx(np.exp(x), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("scores", "k", "bias", "message"),
    [
        ([1.0, 2.0], 1, None, "matrix"),
        ([[1.0, np.nan]], 1, None, r"scores\[0, 1\] is nan"),
        ([[1.0, np.inf]], 1, None, r"scores\[0, 1\] is inf"),
        ([[1.0, 2.0]], 0, None, "between 1"),
        ([[1.0, 2.0]], 3, None, "between 1"),
        ([[1.0, 2.0]], 1, [0.0], "bias must have shape"),
        ([[1.0, 2.0]], 1, [0.0, np.nan], "finite"),
        ([["a", "b"]], 1, None, "dtype"),
        ([[2**62, 1]], 1, [2**62, 0], "do not fit into int64"),
    ],
)
def test_bad_input_is_refused_by_name(scores: object, k: int, bias: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        routing.top_k(scores, k, bias)  # type: ignore[arg-type]


def test_weights_that_sum_to_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="token 1 sum to 0"):
        routing.gate_weights([[0.5, 0.5], [0.0, 0.0]], [[0, 1], [1, 0]])


def test_counts_must_be_integers() -> None:
    with pytest.raises(ValueError, match="integers"):
        routing.max_violation(np.asarray([40840.0, 41000.0]))
    with pytest.raises(ValueError, match="integers"):
        routing.loads(np.asarray([[0.0]]), 2)
    with pytest.raises(ValueError, match=r"lie in 0\.\.1"):
        routing.loads(np.asarray([[2]]), 2)
