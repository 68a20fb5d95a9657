"""A DeepSeekMoE layer: shared and routed experts, biased top-K routing, forward and hand-written backward.

    y_i = sum_shared F(x_i) + sum_{k chosen} g_ik F_k(x_i),   F(x) = W2 (silu(W1 x) * (W3 x)),
    s_ik = sigmoid(x_i . r_k),   chosen = topK(s_i + p),   g_ik = scale s_ik / sum_{chosen} s_ij  (no bias in g).

Everything is float64. A weight is an array or anything with `.decode()` (a sparse format): its gradient is then zero
where nothing is stored, so a pruned layer stays pruned. The residual connection belongs to the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing

Floats = npt.NDArray[np.float64]


class Sparse(Protocol):
    """A sparse format of this package."""

    def decode(self) -> npt.NDArray[Any]:
        """The dense matrix."""


Weight = npt.NDArray[Any] | Sparse


def dense(weight: Weight) -> Floats:
    """The weight as a dense float64 matrix."""
    return np.asarray(weight if isinstance(weight, np.ndarray) else weight.decode(), dtype=np.float64)


def masked(gradient: Floats, weight: Weight) -> Floats:
    """The gradient of a dense weight, or that of a sparse one: zero where the weight is."""
    return gradient if isinstance(weight, np.ndarray) else np.where(dense(weight) != 0, gradient, 0.0)


@dataclass(frozen=True)
class Expert:
    """One feed-forward network: gate W1 [H, D], up W3 [H, D], down W2 [D, H]."""

    gate: Weight
    up: Weight
    down: Weight


@dataclass(frozen=True)
class Layer:
    """router [E, D]; shared experts, always on; E routed experts; K chosen per token; scale of the routed sum."""

    router: npt.NDArray[Any]
    shared: tuple[Expert, ...]
    routed: tuple[Expert, ...]
    k: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.router.ndim != 2 or self.router.shape[0] != len(self.routed):
            raise ValueError(
                f"router has shape {self.router.shape}, expected ({len(self.routed)}, D): one row per expert"
            )
        if not 1 <= self.k <= len(self.routed):
            raise ValueError(f"k must lie between 1 and the number of routed experts {len(self.routed)}, got {self.k}")


@dataclass(frozen=True)
class Output:
    """y [T, D]; choices [T, K] in descending biased score; loads int64 [E]; scores and gates for the backward pass."""

    y: Floats
    choices: npt.NDArray[np.int64]
    loads: npt.NDArray[np.int64]
    scores: Floats
    gates: Floats  # [T, E], zero where not chosen


@dataclass(frozen=True)
class Gradients:
    """d loss / d each input of the layer; experts as (gate, up, down)."""

    x: Floats
    router: Floats
    shared: tuple[tuple[Floats, Floats, Floats], ...]
    routed: tuple[tuple[Floats, Floats, Floats], ...]


def network(x: Floats, expert: Expert) -> Floats:
    """F(x) for x [n, D]: the expert's batch n is the N of its skinny products."""
    a = x @ dense(expert.gate).T
    return np.asarray((a * routing.sigmoid(a) * (x @ dense(expert.up).T)) @ dense(expert.down).T, dtype=np.float64)


def network_backward(x: Floats, expert: Expert, dy: Floats) -> tuple[Floats, tuple[Floats, Floats, Floats]]:
    """(dx, (dW1, dW3, dW2)) of sum(dy * F(x))."""
    gate, up, down = dense(expert.gate), dense(expert.up), dense(expert.down)
    a, b = x @ gate.T, x @ up.T
    open_ = routing.sigmoid(a)
    swish = a * open_
    dh = dy @ down
    da = dh * b * (open_ + swish * (1 - open_))  # silu' = sigmoid (1 + a (1 - sigmoid))
    db = dh * swish
    weights = (
        masked(np.asarray(da.T @ x), expert.gate),
        masked(np.asarray(db.T @ x), expert.up),
        masked(np.asarray(dy.T @ (swish * b)), expert.down),
    )
    return np.asarray(da @ gate + db @ up), weights


def forward(layer: Layer, x: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> Output:
    """The layer on tokens x [T, D] with selection bias [E]; ValueError on a wrong shape or non-finite scores.

    Source: DeepSeekMoE; sigmoid gate and bias as in arXiv 2412.19437.
    """
    tokens = np.asarray(x, dtype=np.float64)
    if tokens.ndim != 2 or tokens.shape[1] != layer.router.shape[1]:
        raise ValueError(f"x has shape {tokens.shape}, expected (T, {layer.router.shape[1]})")
    scores = routing.sigmoid(tokens @ np.asarray(layer.router, dtype=np.float64).T)
    choices = routing.top_k(scores, layer.k, bias)
    gates = np.zeros_like(scores)
    np.put_along_axis(gates, choices, routing.gate_weights(scores, choices, scale=layer.scale), axis=1)
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, choices, True, axis=1)
    y = np.zeros_like(tokens)
    for expert in layer.shared:
        y += network(tokens, expert)
    for k, expert in enumerate(layer.routed):
        rows = np.flatnonzero(chosen[:, k])
        y[rows] += gates[rows, k, None] * network(tokens[rows], expert)
    return Output(y, choices, routing.loads(choices, scores.shape[1]), scores, gates)


def backward(layer: Layer, x: npt.ArrayLike, output: Output, dy: npt.ArrayLike) -> Gradients:
    """Gradients of sum(dy * y). The choice itself is piecewise constant: no gradient passes through it or into the
    bias."""
    tokens, grad = np.asarray(x, dtype=np.float64), np.asarray(dy, dtype=np.float64)
    dx, dgates = np.zeros_like(tokens), np.zeros_like(output.scores)
    shared, routed = [], []
    for expert in layer.shared:
        part, weights = network_backward(tokens, expert, grad)
        dx += part
        shared.append(weights)
    chosen = np.zeros(output.scores.shape, dtype=bool)
    np.put_along_axis(chosen, output.choices, True, axis=1)
    for k, expert in enumerate(layer.routed):
        rows = np.flatnonzero(chosen[:, k])
        dgates[rows, k] = (grad[rows] * network(tokens[rows], expert)).sum(axis=1)
        part, weights = network_backward(tokens[rows], expert, output.gates[rows, k, None] * grad[rows])
        dx[rows] += part
        routed.append(weights)
    # g = scale s / sum s over the chosen
    total = np.where(chosen, output.scores, 0.0).sum(axis=1, keepdims=True)
    share = output.gates / layer.scale
    dscores = np.where(
        chosen, (layer.scale * dgates - layer.scale * (share * dgates).sum(axis=1, keepdims=True)) / total, 0.0
    )
    dlogits = dscores * output.scores * (1 - output.scores)
    router = np.asarray(layer.router, dtype=np.float64)
    return Gradients(dx + dlogits @ router, np.asarray(dlogits.T @ tokens), tuple(shared), tuple(routed))
