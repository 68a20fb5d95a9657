"""The dual of the balanced assignment falling, and rising again, under the sign rule with a constant step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference import balancing, routing
from loadsparse.theory import lagrangian
from loadsparse.tutorials.views.film import Film

WIDTH, HEIGHT, EDGE = 520.0, 260.0, 40.0


def dual_falling(scores: NDArray[Any], rate: float = 0.05, steps: int = 20) -> Film:
    """Scores [T, 2], one expert per token: D against p_0 - p_1 as a line, and where each step of the sign rule stands.

    Raises ValueError unless there are two experts.
    """
    if scores.ndim != 2 or scores.shape[1] != 2:
        raise ValueError(f"the dual is drawn for two experts, scores [T, 2], not {list(scores.shape)}")
    balancer = balancing.SignBias(rate=rate)
    state = balancer.init(2)
    gaps, values = [], []
    for _ in range(steps + 1):
        gaps.append(float(state.bias[0] - state.bias[1]))
        values.append(float(lagrangian.dual(scores, 1, np.asarray(state.bias))))
        state = balancer.step(state, routing.loads(routing.top_k(scores, 1, state.bias), 2))
    margins = scores[:, 1] - scores[:, 0]
    kinks = np.unique(np.concatenate([margins, gaps, [min(gaps) - rate, max(gaps) + rate]]))
    kinks = kinks[(kinks >= min(gaps) - rate) & (kinks <= max(gaps) + rate)]
    curve = [float(lagrangian.dual(scores, 1, np.array([gap / 2, -gap / 2]))) for gap in kinks]
    least = min(float(lagrangian.dual(scores, 1, np.array([gap, 0.0]))) for gap in margins)
    low, high = min(curve), max(max(curve), *values)

    def place(gap: float, value: float) -> tuple[float, float]:
        across = (gap - kinks[0]) / (kinks[-1] - kinks[0])
        return EDGE + across * (WIDTH - 2 * EDGE), HEIGHT - EDGE - (value - low) / (high - low) * (HEIGHT - 2 * EDGE)

    captions = []
    for step, (gap, value) in enumerate(zip(gaps, values, strict=True)):
        change = "" if not step else f", {'down' if value < values[step - 1] else 'up'} from {values[step - 1]:.4f}"
        captions.append(f"Step {step}: p0 - p1 = {gap:+.3f}, D = {value:.4f}{change}; its least value is {least:.4f}.")
    alt = f"A convex line of straight pieces, D against p0 - p1, and a dot on it. {captions[0]} {captions[-1]}"
    film = Film("The dual under the sign rule", alt, WIDTH, HEIGHT, captions)
    film.line([place(gap, value) for gap, value in zip(kinks.tolist(), curve, strict=True)])
    film.text(WIDTH / 2, HEIGHT - EDGE / 3, "p0 - p1")
    film.text(4, EDGE / 2, "D", left=True)
    for step, (gap, value) in enumerate(zip(gaps, values, strict=True)):
        x, y = place(gap, value)
        film.dot(x, y, 6, at=[step])
        film.dot(x, y, 3, at=range(step + 1, len(gaps)), open_=True)
    return film
