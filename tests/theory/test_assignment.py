"""The exact solver against HiGHS and against a min-cost flow; the certificate against wrong results."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Problem, biased_problems, problems, real_scores

from loadsparse.reference import balancing, routing
from loadsparse.theory import assignment, lagrangian, linear_program, selection


def flow_value(scores: np.ndarray, k: int, lower: int, upper: int) -> int:
    """The optimum by OR-tools' min-cost flow: every expert drains `lower` at a bonus and `upper - lower` without
    one."""
    graph = pytest.importorskip("ortools.graph.python.min_cost_flow").SimpleMinCostFlow()
    tokens, experts = scores.shape
    nodes = np.arange(tokens)
    graph.add_arcs_with_capacity_and_unit_cost(
        np.repeat(nodes, experts),
        np.tile(tokens + np.arange(experts), tokens),
        np.ones(scores.size, int),
        -scores.ravel(),
    )
    sink, bonus = tokens + experts, int(np.abs(scores).max()) * 4 * experts + 1
    for e in range(experts):
        graph.add_arc_with_capacity_and_unit_cost(tokens + e, sink, lower, -bonus)
        graph.add_arc_with_capacity_and_unit_cost(tokens + e, sink, upper - lower, 0)
    graph.set_nodes_supplies(np.append(nodes, sink), np.append(np.full(tokens, k), -k * tokens))
    assert graph.solve() == graph.OPTIMAL
    return -graph.optimal_cost() - bonus * lower * experts


@given(biased_problems(max_tokens=200, max_experts=80))
@settings(max_examples=30)
def test_sweep_equals_the_oracle(drawn: tuple[Problem, np.ndarray]) -> None:
    problem, bias = drawn
    p = bias.astype(np.float64)
    scores = problem.scores.astype(np.float64)
    seen = selection.sweep(scores, problem.k, p, window=0.0, gaps=True, choices=True)
    expected = routing.top_k(scores, problem.k, p)
    assert (seen.choices == expected).all()
    assert (seen.loads == routing.loads(expected, problem.experts)).all()
    ranked = -np.sort(-(scores + p), axis=1)
    assert (seen.gaps == ranked[:, problem.k - 1] - ranked[:, problem.k]).all()
    assert seen.pairs.sum() == (seen.gaps <= 0).sum()
    assert (selection.sweep(scores.astype(np.float32), problem.k, p * 0).loads.sum()) == problem.k * problem.tokens


@pytest.mark.parametrize("experts", [33, 40, 64, 100, 256])
def test_a_sweep_sees_experts_that_a_mask_forbids(experts: int) -> None:
    rng = np.random.default_rng(experts)
    scores = rng.random((50, experts))
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[:5, 3:] = -np.inf  # fewer than K allowed: ties at minus infinity, by lower index
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :6]  # the oracle refuses what is not finite
    assert (selection.sweep(scores, 6, np.zeros(experts), choices=True).choices == expected).all()


@pytest.mark.claim(
    id="exact",
    phrase="the balanced assignment is solved exactly, with a certificate",
    status="proved",
    assumption="finite scores; integers below 2^52, or to K T 2^-52 max |s|",
    function="loadsparse.theory.assignment.solve",
    source="own solver; HiGHS and OR-tools as second opinions",
)
@settings(max_examples=60)
@given(problems(max_tokens=40))
def test_equals_the_linear_program_in_integers(problem: Problem) -> None:
    found = assignment.solve(problem.scores, problem.k)
    assignment.certify(problem.scores, problem.k, found)
    worth = lagrangian.value(problem.scores, found.choices)
    assert found.value == worth
    if problem.kind != "extreme":  # HiGHS keeps 1e-7 or so
        low = problem.k * problem.tokens // problem.experts
        high = -(-problem.k * problem.tokens // problem.experts)
        best = linear_program.solve(problem.scores, problem.k, low, high).value
        assert int(worth) == round(best)


@settings(max_examples=20)
@given(problems(max_tokens=600, max_experts=24))
def test_equals_the_min_cost_flow(problem: Problem) -> None:
    found = assignment.solve(problem.scores, problem.k)
    assignment.certify(problem.scores, problem.k, found)
    low = problem.k * problem.tokens // problem.experts
    high = -(-problem.k * problem.tokens // problem.experts)
    assert int(lagrangian.value(problem.scores, found.choices)) == flow_value(problem.scores, problem.k, low, high)


@settings(max_examples=60)
@given(problems(max_tokens=40, max_experts=6), st.data())
def test_capacities(problem: Problem, data: st.DataObject) -> None:
    room = st.integers(0, problem.tokens)
    capacity = np.asarray(data.draw(st.lists(room, min_size=problem.experts, max_size=problem.experts)))
    places = problem.k * problem.tokens
    if np.minimum(capacity, problem.tokens).sum() < places:
        with pytest.raises(ValueError, match="capacities hold"):
            assignment.solve(problem.scores, problem.k, capacity)
        return
    found = assignment.solve(problem.scores, problem.k, capacity)
    assignment.certify(problem.scores, problem.k, found, capacity)
    assert (routing.loads(found.choices, problem.experts) <= capacity).all()
    if problem.kind != "extreme":
        best = linear_program.solve(problem.scores, problem.k, 0, capacity).value
        assert int(lagrangian.value(problem.scores, found.choices)) == round(best)


@settings(max_examples=25)
@given(real_scores(max_tokens=400, max_experts=32))
def test_real_scores_reach_the_optimum_to_1e_9(drawn: tuple[np.ndarray, int]) -> None:
    scores, k = drawn
    found = assignment.solve(scores, k)
    assert abs(assignment.certify(scores, k, found)) <= 1e-12
    assert abs(found.gap) <= 1e-11 * max(1.0, found.value)


@pytest.mark.parametrize("kind", ["constant", "ties", "skew", "huge", "tiny", "negative", "starved"])
def test_hard_matrices(kind: str) -> None:
    rng = np.random.default_rng(11)
    scores = rng.random((3000, 32))
    if kind == "constant":
        scores = np.tile(rng.random(32), (3000, 1))
    elif kind == "ties":
        scores = np.rint(3 * scores)
    elif kind == "skew":
        scores = scores**8 + 5 * np.arange(32)
    elif kind == "huge":
        scores *= 1e300
    elif kind == "tiny":
        scores *= 1e-300
    elif kind == "negative":
        scores -= 1.0
    else:
        scores[:, 5:] -= 100.0
    found = assignment.solve(scores, 4)
    assert abs(assignment.certify(scores, 4, found)) <= 1e-9


def test_the_choices_descend_and_the_prices_support_them() -> None:
    rng = np.random.default_rng(5)
    scores = rng.random((500, 16))
    found = assignment.solve(scores, 3)
    biased = scores + found.prices
    taken = np.take_along_axis(biased, found.choices, axis=1)
    assert (np.diff(taken, axis=1) <= 0).all()
    rest = biased.copy()
    np.put_along_axis(rest, found.choices, -np.inf, axis=1)
    assert (taken[:, -1] >= rest.max(axis=1) - 1e-12).all()


def test_the_auction_of_base_layers_reaches_the_same_optimum() -> None:
    rng = np.random.default_rng(6)
    for _ in range(5):
        scores = rng.integers(0, 200, (30, 5))
        choice = balancing.Auction(epsilon=1 / 31).assign(scores)
        assert scores[np.arange(30), choice].sum() == assignment.solve(scores, 1).value


def test_certify_rejects_what_is_not_optimal() -> None:
    rng = np.random.default_rng(7)
    scores = rng.random((60, 6))
    found = assignment.solve(scores, 2)
    assignment.certify(scores, 2, found)
    other = found.choices.copy()
    other[[0, 1]] = other[[1, 0]]  # the same loads, worse choices
    worse = float(np.take_along_axis(scores, other, axis=1).sum())
    unbalanced = routing.top_k(scores, 2)
    cases = {
        "not proved optimal": replace(found, choices=other, value=worse),
        "value is": replace(found, value=found.value + 1e-6),
        "has load": replace(
            found, choices=unbalanced, value=float(np.take_along_axis(scores, unbalanced, axis=1).sum())
        ),
        "different experts": replace(found, choices=np.zeros_like(found.choices)),
        "must be integers": replace(found, choices=found.choices[:10]),
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            assignment.certify(scores, 2, wrong)
    with pytest.raises(ValueError, match="not proved optimal"):
        assignment.certify(scores, 2, replace(found, prices=found.prices + 0.01 * rng.random(6)))


@pytest.mark.parametrize(
    ("scores", "k", "capacity", "message"),
    [
        (np.zeros((4, 2)), 2, None, "below the number of experts"),
        (np.zeros((4, 2)), 1, 1, "capacities hold 2 of the 4"),
        (np.zeros((4, 2)), 1, 2.5, "capacity must be integers"),
        (np.zeros((4, 2)), 1, [4, 4, 4], "capacity must be integers"),
        (np.asarray([[0.0, np.nan]]), 1, None, r"scores\[0, 1\] is nan"),
        (np.zeros((0, 2)), 1, None, "no tokens"),
        (np.zeros(3), 1, None, "matrix"),
    ],
)
def test_bad_input_is_refused_by_name(scores: np.ndarray, k: int, capacity: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assignment.solve(scores, k, capacity)  # type: ignore[arg-type]
