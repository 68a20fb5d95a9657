"""A DeepSeekMoE layer on the grouped kernel equals its oracles: bit for bit stage by stage, and reference.moe by a bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loadsparse.gpu.moe import SparseLayer, activate
from loadsparse.reference import moe, routing, spmm

D, H = 40, 24


def sparse_layer(experts: int, shared: int, k: int, seed: int = 0) -> moe.Layer:
    """Float16 weights, 70% zeros."""
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> Any:
        return np.where(rng.random(shape) < 0.3, rng.standard_normal(shape) / 4, 0).astype(np.float16)

    def expert() -> moe.Expert:
        return moe.Expert(weight(H, D), weight(H, D), weight(D, H))

    router = rng.standard_normal((experts, D))
    return moe.Layer(router, tuple(expert() for _ in range(shared)), tuple(expert() for _ in range(experts)), k, 1.5)


def propagated_bound(layer: moe.Layer, x: Any, output: moe.Output) -> Any:
    """|kernel - reference| <= this [T, D]: the bounds of the three products, carried through silu and the gated sum."""
    bound = np.zeros(output.y.shape)
    everyone = np.arange(len(x))
    owners = [(one, np.flatnonzero(output.gates[:, e]), output.gates[:, e]) for e, one in enumerate(layer.routed)]
    owners += [(one, everyone, np.ones(len(x))) for one in layer.shared]
    for expert, rows, gate in owners:
        if not rows.size:
            continue
        tokens = np.ascontiguousarray(x[rows].T)
        gate_weights, up_weights, down_weights = (np.asarray(w) for w in (expert.gate, expert.up, expert.down))
        a, u = (spmm.dense64(w, tokens) for w in (gate_weights, up_weights))
        da, du = (spmm.error_bound(w, tokens, arch="sm_80") for w in (gate_weights, up_weights))
        swish = a * routing.sigmoid(a)
        dh = 1.1 * da * (np.abs(u) + du) + (np.abs(swish) + 1.1 * da) * du  # |silu'| < 1.1
        h = swish * u
        dh += (2.0**-11 + 2.0**-20) * (np.abs(h) + dh) + 2.0**-25  # float32 steps, then rounding to float16
        near = h.astype(np.float16)
        dh += np.abs(h - near)  # the product below is of the rounded h
        out = np.abs(down_weights.astype(np.float64)) @ dh + 2 * spmm.error_bound(down_weights, near, arch="sm_80")
        out += 2.0**-11 * np.abs(down_weights.astype(np.float64)) @ dh
        bound[rows] += gate[rows, None] * out.T
    return bound * (1 + 2.0**-20)


@pytest.mark.claim(
    id="moe-layer-on-the-kernel",
    source="ours",
    phrase="a DeepSeekMoE layer whose experts run pruned through the grouped kernel equals reference/moe.py",
    assumption="within the bounds of its products carried through the activation; float16 weights and tokens; simulated",
    function="loadsparse.gpu.moe.SparseLayer.forward",
    status="proved",
)
@pytest.mark.parametrize(
    ("kernel", "experts", "shared", "k", "tokens"), [("grouped_lscd", 6, 1, 2, 5), ("grouped_bitmap", 3, 0, 1, 4)]
)
def test_the_layer_equals_its_oracles(kernel: str, experts: int, shared: int, k: int, tokens: int) -> None:
    layer = sparse_layer(experts, shared, k)
    x = np.random.default_rng(1).standard_normal((tokens, D)).astype(np.float16)
    bias = np.zeros(experts)
    bias[0] = -5  # nobody chooses expert 0
    encoded = SparseLayer.encode(layer, kernel)
    run = encoded.forward(x, bias, engine="interpreter")
    reference = moe.forward(layer, x, bias)
    assert all(report.ok for report in run.reports)
    assert np.array_equal(run.choices, reference.choices)
    assert np.array_equal(run.loads, reference.loads)
    assert run.loads[0] == 0
    error, bound = np.abs(run.y - reference.y), propagated_bound(layer, x, reference)
    assert (error <= bound).all()
    assert bound.max() < 0.05 * np.abs(reference.y).max()  # the bound says something

    gates = np.take_along_axis(reference.gates, run.choices, axis=1)
    order, weights, counts = encoded.by_expert(run.choices, gates)
    splits = [[(0, D)]] * len(counts), [[(0, H)]] * len(counts)
    both = spmm.grouped(
        encoded.gate_up.decode(), np.ascontiguousarray(x[order].T), counts, arch="sm_80", splits=splits[0]
    )
    out = spmm.grouped(encoded.down.decode(), activate(both), counts, arch="sm_80", splits=splits[1])
    y = np.zeros((tokens, D))
    np.add.at(y, order, weights[:, None] * out.T.astype(np.float64))
    assert np.array_equal(run.y, y)


def test_one_token_and_none() -> None:
    layer = sparse_layer(2, 0, 1)
    encoded = SparseLayer.encode(layer, "grouped_lscd")
    assert encoded.forward(np.zeros((0, D), np.float16)).y.shape == (0, D)
    with pytest.raises(ValueError, match=r"x is float32 \(2, 40\): expected float16 \(T, 40\)"):
        encoded.forward(np.zeros((2, D), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown grouped kernel 'lscd': known are grouped_bitmap"):
        SparseLayer.encode(layer, "lscd")
