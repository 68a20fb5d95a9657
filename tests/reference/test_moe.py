"""The layer against a token-by-token loop, its gradients against finite differences."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.reference import moe, routing


@dataclass(frozen=True)
class Stored:
    """A sparse weight: anything that decodes."""

    matrix: np.ndarray

    def decode(self) -> np.ndarray:
        return self.matrix


def layer(
    rng: np.random.Generator, experts: int, k: int, width: int, hidden: int, shared: int, sparse: bool
) -> moe.Layer:
    def expert() -> moe.Expert:
        parts = [rng.normal(size=s) for s in ((hidden, width), (hidden, width), (width, hidden))]
        if sparse:
            return moe.Expert(*[Stored(np.where(rng.random(p.shape) < 0.5, p, 0.0)) for p in parts])
        return moe.Expert(*parts)

    router = rng.normal(size=(experts, width))
    return moe.Layer(router, tuple(expert() for _ in range(shared)), tuple(expert() for _ in range(experts)), k, 1.7)


def by_hand(a_layer: moe.Layer, x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Scalar loops, no batching."""
    y = np.zeros_like(x)

    def net(v: np.ndarray, e: moe.Expert) -> np.ndarray:
        hidden = [
            (g @ v) / (1 + np.exp(-(g @ v))) * (u @ v) for g, u in zip(moe.dense(e.gate), moe.dense(e.up), strict=True)
        ]
        return moe.dense(e.down) @ np.asarray(hidden)

    for i, v in enumerate(x):
        s = [1 / (1 + np.exp(-(r @ v))) for r in a_layer.router]
        chosen = sorted(range(len(s)), key=lambda e: (-(s[e] + bias[e]), e))[: a_layer.k]
        for e in a_layer.shared:
            y[i] += net(v, e)
        for e in chosen:
            y[i] += a_layer.scale * s[e] / sum(s[j] for j in chosen) * net(v, a_layer.routed[e])
    return y


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(0, 2), st.booleans())
def test_forward_equals_the_loop(seed: int, k: int, shared: int, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    a_layer = layer(rng, 5, k, 4, 3, shared, sparse)
    x, bias = rng.normal(size=(7, 4)), rng.normal(size=5)
    out = moe.forward(a_layer, x, bias)
    assert out.y == pytest.approx(by_hand(a_layer, x, bias), rel=1e-12, abs=1e-12)
    assert (out.loads == routing.loads(out.choices, 5)).all()


@settings(max_examples=8)
@given(st.integers(0, 2**31), st.booleans())
def test_backward_equals_finite_differences(seed: int, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    a_layer = layer(rng, 4, 2, 3, 2, 1, sparse)
    x, bias, dy = rng.normal(size=(6, 3)), 0.1 * rng.normal(size=4), rng.normal(size=(6, 3))
    out = moe.forward(a_layer, x, bias)
    found = moe.backward(a_layer, x, out, dy)
    h = 1e-6

    def slope(change: tuple[moe.Layer, np.ndarray], back: tuple[moe.Layer, np.ndarray]) -> float:
        plus, minus = moe.forward(*change, bias), moe.forward(*back, bias)
        if not (plus.choices == out.choices).all() or not (minus.choices == out.choices).all():
            return np.nan  # a switch: the layer is not differentiable there
        return float((dy * (plus.y - minus.y)).sum() / (2 * h))

    def bump(a: np.ndarray, at: tuple[int, ...], d: float) -> np.ndarray:
        b = a.copy()
        b[at] += d
        return b

    def compare(gradient: np.ndarray, slopes: np.ndarray) -> None:
        known = ~np.isnan(slopes)
        assert known.mean() > 0.8
        assert gradient[known] == pytest.approx(slopes[known], rel=2e-5, abs=2e-6)

    compare(
        found.x,
        np.asarray(
            [slope((a_layer, bump(x, at, h)), (a_layer, bump(x, at, -h))) for at in np.ndindex(x.shape)]
        ).reshape(x.shape),
    )
    r = a_layer.router
    routers = [
        slope((replace(a_layer, router=bump(r, at, h)), x), (replace(a_layer, router=bump(r, at, -h)), x))
        for at in np.ndindex(r.shape)
    ]
    compare(found.router, np.asarray(routers).reshape(r.shape))
    for group, gradients in (("shared", found.shared), ("routed", found.routed)):
        experts = getattr(a_layer, group)
        for e, expert in enumerate(experts):
            for part, gradient in zip(("gate", "up", "down"), gradients[e], strict=True):
                weight = getattr(expert, part)
                matrix = moe.dense(weight)

                def changed(at: tuple[int, ...], d: float) -> tuple[moe.Layer, np.ndarray]:
                    new = bump(matrix, at, d)  # noqa: B023
                    swapped = replace(expert, **{part: Stored(new) if sparse else new})  # noqa: B023
                    listed = [swapped if i == e else old for i, old in enumerate(experts)]  # noqa: B023
                    return replace(a_layer, **{group: tuple(listed)}), x  # noqa: B023

                slopes = np.asarray([slope(changed(at, h), changed(at, -h)) for at in np.ndindex(matrix.shape)])
                slopes = slopes.reshape(matrix.shape)
                if sparse:
                    assert (gradient[matrix == 0] == 0).all()
                    slopes = np.where(matrix == 0, 0.0, slopes)
                compare(gradient, slopes)


def test_shapes_are_checked() -> None:
    rng = np.random.default_rng(0)
    a_layer = layer(rng, 4, 2, 3, 2, 1, False)
    with pytest.raises(ValueError, match="expected"):
        moe.forward(a_layer, np.zeros((2, 5)))
    with pytest.raises(ValueError, match="one row per expert"):
        replace(a_layer, router=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="k must lie"):
        replace(a_layer, k=5)
