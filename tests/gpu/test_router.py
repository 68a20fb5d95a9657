"""The fused router equals routing.top_k, routing.loads and SignBias bit for bit; a fused gate differs only within its margin."""

from typing import Any

import numpy as np
import pytest

from loadsparse.gpu import compiler
from loadsparse.gpu.kernels import router
from loadsparse.reference import balancing, routing
from loadsparse.reference.balancing import State

RATE = 1e-3


def scores(rng: np.random.Generator, tokens: int, experts: int, kind: str) -> Any:
    if kind == "ties":  # few values, both zeros among them
        return rng.choice(np.float32([-0.0, 0.0, 0.25, 0.5, -0.5]), (tokens, experts))
    if kind == "equal":
        return np.full((tokens, experts), 0.5, np.float32)
    if kind == "extreme":
        tiny = np.float32([1e-45, -1e-45, 3.4e38, -3.4e38, 0.0, -0.0, 1.0])
        return rng.choice(tiny, (tokens, experts))
    return rng.standard_normal((tokens, experts)).astype(np.float32)


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "extreme"])
@pytest.mark.parametrize(("tokens", "experts", "k", "blocks"), [(27, 64, 6, 2), (9, 3, 2, None), (3, 500, 16, 2)])
def test_equals_oracle(kind: str, tokens: int, experts: int, k: int, blocks: int | None) -> None:
    rng = np.random.default_rng([tokens, experts, k])
    x = scores(rng, tokens, experts, kind)
    bias = np.round(rng.standard_normal(experts) * 2) / 4  # multiples of 1/4: sums tie, too
    routed, report = router.route(x, bias, k, rate=RATE, blocks=blocks)
    assert report.ok, report.hazards
    choices = routing.top_k(x, k, bias)
    assert np.array_equal(routed.choices, choices)
    assert np.array_equal(routed.scores.view(np.uint32), np.take_along_axis(x, choices, 1).view(np.uint32))
    loads = routing.loads(choices, experts)
    assert np.array_equal(routed.loads, loads)
    moved = balancing.SignBias(rate=RATE).step(State(bias), loads)
    assert np.array_equal(routed.bias.view(np.uint64), moved.bias.view(np.uint64))


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
def test_fused_gate_differs_only_within_its_margin(gate: Any) -> None:
    rng = np.random.default_rng(5)
    tokens, experts, k = 40, 64, 6
    logits = (3 * rng.standard_normal((tokens, experts))).astype(np.float32)
    bias = 0.1 * rng.standard_normal(experts)
    # pairs of experts a few float64 units apart, so that float32 does reverse some of them
    logits[:, 1::2] = logits[:, ::2] + rng.integers(-2, 3, (tokens, experts // 2)).astype(np.float32) * np.float32(2e-7)
    bias[1::2] = bias[::2]
    routed, report = router.route(logits, bias, k, gate=gate)
    assert report.ok, report.hazards
    exact = getattr(routing, gate)(logits)
    chosen = routing.top_k(exact, k, bias)
    differs = chosen != routed.choices
    assert differs.any()
    biased = exact + bias
    margin = np.take_along_axis(biased, chosen, 1) - np.take_along_axis(biased, routed.choices.astype(np.int64), 1)
    bound = router.margin_bound(gate, experts, largest_bias=float(np.abs(bias).max()))
    assert np.abs(margin).max() <= bound
    kept = np.take_along_axis(exact, routed.choices.astype(np.int64), 1)
    assert np.abs(routed.scores - kept).max() <= bound / 2
    assert np.array_equal(routed.loads, routing.loads(routed.choices, experts))


def test_the_margin_knows_how_coarse_biased_scores_are() -> None:
    """Beside 2^34 float64 has steps of 2^-18: scores that float32 puts on the other side of a half step go a step apart."""
    bias, step = np.array([2.0**34, 2.0**34 + 2.0**-18]), 2.0**-18
    half_steps = (np.arange(1, 2**17, 401) + 0.5) * step + 0.5
    near = np.log(half_steps / (1 - half_steps)).astype(np.float32)
    logits = np.stack([near, np.log((half_steps - step / 2) / (1 - half_steps + step / 2)).astype(np.float32)], axis=1)
    routed, report = router.route(logits, bias, 1, gate="sigmoid")
    assert report.ok, report.hazards
    biased = routing.sigmoid(logits) + bias
    chosen = routing.top_k(routing.sigmoid(logits), 1, bias)
    margin = np.take_along_axis(biased, chosen, 1) - np.take_along_axis(biased, routed.choices.astype(np.int64), 1)
    assert margin.max() > router.margin_bound("sigmoid", 2)
    assert margin.max() <= router.margin_bound("sigmoid", 2, largest_bias=float(bias.max()))


def test_a_balanced_expert_has_nought_added_to_its_bias() -> None:
    """-0 + u sign(0) is +0, as in the oracle."""
    bias = np.array([-0.0, 0.0])
    routed, _ = router.route(np.float32([[1, 0], [0, 1]]), bias, 1, rate=RATE)
    moved = balancing.SignBias(rate=RATE).step(State(bias), routed.loads)
    assert np.array_equal(routed.bias.view(np.uint64), moved.bias.view(np.uint64))


def test_without_a_rate_the_bias_stays() -> None:
    bias = np.array([0.25, -0.0, 3.0])
    routed, _ = router.route(np.float32([[1, 2, 3]]), bias, 1)
    assert np.array_equal(routed.bias, bias)


@pytest.mark.parametrize(("per_lane", "k", "arch"), [(2, 6, "sm_80"), (16, 16, "sm_80"), (8, 8, "sm_90")])
def test_nothing_spills(per_lane: int, k: int, arch: str) -> None:
    needs = compiler.resources(router.compiled(per_lane, k, "sigmoid", arch), arch)
    assert needs["spill_bytes"] == needs["stack_bytes"] == 0
    assert "LDL" not in needs["sass"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 513), np.float32), "bias": np.zeros(513)}, "up to 512 experts, got 513"),
        ({"k": 17, "x": np.zeros((2, 64), np.float32), "bias": np.zeros(64)}, "K from 1 to 16"),
        ({"k": 5}, "K from 1 to 4"),
        ({"k": 2.0}, r"K from 1 to 4 for 4 experts, got 2\.0"),
        ({"x": np.zeros((2, 4))}, "float32 matrix"),
        ({"x": np.zeros((0, 4), np.float32)}, "one of each or more"),
        ({"rate": float("nan")}, "finite number >= 0, got nan"),
        ({"rate": -1.0}, "finite number >= 0"),
        ({"x": np.float32([[0, np.nan, 0, 0]])}, "NaN or an infinity"),
        ({"bias": np.zeros(3)}, r"shape \(4,\)"),
        ({"gate": "tanh"}, "unknown gate 'tanh'"),
        ({"arch": "sm_75"}, "needs sm_80"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    arguments = {"x": np.zeros((2, 4), np.float32), "bias": np.zeros(4), "k": 2} | change
    with pytest.raises(ValueError, match=message):
        router.route(**arguments)
