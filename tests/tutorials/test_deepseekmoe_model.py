"""The JAX model against the NumPy layer, layer for layer and gradient for gradient, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deepseekmoe import model
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.reference import balancing, moe

CLOSE = {"rtol": 1e-11, "atol": 1e-12}  # float64 sums of some hundred terms in another order


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def small(experts: int, k: int, shared: int, rows: int) -> model.Config:
    return model.Config(
        width=8, heads=2, hidden=5, routed=experts, shared=shared, k=k, layers=2, sequence=9, block=rows
    )


def to_reference(block: model.Weights, k: int) -> moe.Layer:
    """The same layer as the oracle takes it."""

    def experts(stacked: model.Weights) -> tuple[moe.Expert, ...]:
        parts = [np.asarray(stacked[name]) for name in ("gate", "up", "down")]
        return tuple(moe.Expert(*(part[e] for part in parts)) for e in range(len(parts[0])))

    return moe.Layer(np.asarray(block["router"]), experts(block["shared"]), experts(block["routed"]), k)


@pytest.mark.claim(
    id="moe-training-layer",
    source="ours",
    phrase="the trainer's MoE layer equals reference/moe.py: outputs, choices, loads and the gradient of every weight",
    assumption="in float64, up to the rounding of sums in another order",
    function="deepseekmoe.model.moe",
    status="proved",
)
# one row per block; blocks that no expert fills; K = 1; every expert chosen
@pytest.mark.parametrize(("experts", "k", "shared", "rows"), [(8, 3, 2, 4), (5, 1, 1, 1), (3, 3, 1, 64)])
def test_a_layer_equals_the_oracle(experts: int, k: int, shared: int, rows: int) -> None:
    rng = np.random.default_rng(experts)
    config = small(experts, k, shared, rows)
    block = model.init(config, 1, np.float64)["blocks"][1]
    block["router"] = block["router"] * 5
    x, dy = rng.normal(size=(23, 8)), rng.normal(size=(23, 8))

    @jax.jit
    def both(x: Any, block: Any, bias: Any, dy: Any) -> Any:
        y, back, routing = jax.vjp(lambda x, block: model.moe(x, block, bias, config), x, block, has_aux=True)
        return y, routing, back(dy)

    for bias in (np.zeros(experts), rng.normal(size=experts), np.eye(experts)[0] * 9.0):  # the last starves or floods
        y, routing, (dx, dblock) = both(x, block, bias, dy)
        layer = to_reference(block, k)
        out = moe.forward(layer, x, bias)
        np.testing.assert_array_equal(routing.choices, out.choices)
        np.testing.assert_array_equal(routing.loads, out.loads)
        np.testing.assert_allclose(routing.scores, out.scores, **CLOSE)
        np.testing.assert_allclose(y, out.y, **CLOSE)
        found = moe.backward(layer, x, out, dy)
        np.testing.assert_allclose(dx, found.x, **CLOSE)
        np.testing.assert_allclose(dblock["router"], found.router, **CLOSE)
        for group in ("shared", "routed"):
            for part, name in enumerate(("gate", "up", "down")):
                expected = np.stack([expert[part] for expert in getattr(found, group)])
                np.testing.assert_allclose(dblock[group][name], expected, **CLOSE)


def test_equal_scores_go_to_the_lower_index() -> None:
    config = small(6, 2, 1, 4)
    block = model.init(config, 0, np.float64)["blocks"][1]
    block["router"] = jnp.zeros_like(block["router"])
    _, routing = jax.jit(lambda x, p: model.moe(x, block, p, config))(
        jnp.ones((3, 8)), jnp.asarray([0.0, 0, 0, 1, 0, 0])
    )
    assert routing.choices.tolist() == [[3, 0]] * 3


def test_every_layer_of_the_model_equals_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the decoder feeds to its MoE layers, and what comes out of them, seen from outside."""
    seen: list[Any] = []
    real = model.moe

    def watched(x: Any, block: Any, bias: Any, config: model.Config) -> Any:
        y, routing = real(x, block, bias, config)
        seen.append((x, y, routing))
        return y, routing

    monkeypatch.setattr(model, "moe", watched)
    config, rng = small(8, 2, 1, 4), np.random.default_rng(0)
    weights, biases = model.init(config, 3, np.float64), rng.normal(size=(2, 8)) * 0.1
    text = jnp.asarray(rng.integers(0, 256, (2, 9)), jnp.uint8)
    layers = jax.jit(lambda w, p: (model.forward(w, text, p, config), seen)[1])(weights, biases)
    assert len(layers) == 2
    for block, bias, (x, y, routing) in zip(weights["blocks"][1:], biases, layers, strict=True):
        out = moe.forward(to_reference(block, 2), x, bias)
        np.testing.assert_allclose(y, out.y, **CLOSE)
        np.testing.assert_array_equal(routing.choices, out.choices)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.floats(0, 5))
def test_no_pair_is_lost(seed: int, skew: float) -> None:
    """Each pair (token, expert) has a row of its own, in a block of its expert; other rows are empty."""
    rng = np.random.default_rng(seed)
    scores = rng.random((17, 7)) + skew * np.arange(7)
    choices = np.argsort(-scores, axis=1)[:, :3]
    owner, tokens, row = (np.asarray(part) for part in PLAN(jnp.asarray(choices)))
    assert np.unique(row).size == row.size
    np.testing.assert_array_equal(owner[row // 4], choices)
    np.testing.assert_array_equal(tokens.ravel()[row], np.repeat(np.arange(17)[:, None], 3, axis=1))
    assert (np.delete(tokens.ravel(), row.ravel()) == 17).all()
    assert (np.diff(owner) >= 0).all()  # as the gather promises


PLAN = jax.jit(lambda choices: model.plan(choices, 7, 4))


def test_the_auxiliary_loss_equals_the_reference() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((11, 5))
    choices = np.argsort(-scores, axis=1)[:, :2]
    loads = np.bincount(choices.ravel(), minlength=5)

    def penalty(scores: Any) -> Any:
        return model.auxiliary(model.Routing(None, scores, jnp.asarray(choices), jnp.asarray(loads)))

    value, gradient = jax.value_and_grad(penalty)(jnp.asarray(scores))
    total = scores.sum(axis=1, keepdims=True)
    expected = balancing.switch_loss(scores / total, choices, alpha=1.0)
    assert float(value) == pytest.approx(expected.value, rel=1e-13)
    by_share = expected.gradient  # d(s_k / sum s) = (ds_k - share_k sum ds) / sum s
    through = (by_share - (by_share * scores / total).sum(axis=1, keepdims=True)) / total
    np.testing.assert_allclose(gradient, through, **CLOSE)


def test_the_decoder_is_causal_and_its_gradient_is_the_slope() -> None:
    config, rng = replace(small(8, 2, 1, 4), layers=1), np.random.default_rng(5)
    weights, biases = model.init(config, 0, np.float64), jnp.zeros((1, 8))
    text = rng.integers(0, 256, (2, 10)).astype(np.uint8)
    run = jax.jit(lambda w, t: model.forward(w, t, biases, config)[0])
    other = text.copy()
    other[:, 6] ^= 1
    before, after = run(weights, text[:, :-1]), run(weights, other[:, :-1])
    np.testing.assert_allclose(before[:, :6], after[:, :6], **CLOSE)  # an expert's batch is summed in another order
    assert not np.allclose(before[:, 6], after[:, 6])

    loss = jax.jit(jax.value_and_grad(lambda w: model.loss(w, text, biases, 0.1, config)[0]))
    _, gradient = loss(weights)
    way = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), weights)
    h = 1e-4  # JAX's attention takes its softmax in float32: smaller steps drown in its rounding
    ends = [loss(jax.tree.map(lambda x, d, s=sign: x + s * h * d, weights, way))[0] for sign in (1, -1)]
    slope = sum(float((g * d).sum()) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(way), strict=True))
    assert (float(ends[0]) - float(ends[1])) / (2 * h) == pytest.approx(slope, rel=1e-3)
