"""Tokens that move between experts while the bias of the sign rule moves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference import balancing, routing
from loadsparse.tutorials.views.film import Film

COLUMN, STEP, RADIUS = 70.0, 12.0, 4.5


def tokens_moving(scores: NDArray[Any], rate: float = 0.02, steps: int = 24) -> Film:
    """Scores [T, E], one expert per token: a column of dots per expert, a frame per step; rings moved in that step."""
    tokens, experts = scores.shape
    balancer = balancing.SignBias(rate=rate)
    state = balancer.init(experts)
    biases, routes = [], []
    for _ in range(steps + 1):
        biases.append(np.asarray(state.bias, dtype=float))
        routes.append(routing.top_k(scores, 1, state.bias)[:, 0])
        state = balancer.step(state, routing.loads(routes[-1][:, None], experts))
    captions = []
    for frame, route in enumerate(routes):
        loads = routing.loads(route[:, None], experts)
        moved = int((route != routes[frame - 1]).sum()) if frame else 0
        captions.append(
            f"Step {frame}: loads {', '.join(map(str, loads.tolist()))} (balanced: {tokens / experts:.3g}); "
            f"{moved} token{'' if moved == 1 else 's'} moved; MaxVio {routing.max_violation(loads):.2f}."
        )
    highest = max(int(routing.loads(route[:, None], experts).max()) for route in routes)
    bottom = STEP * (highest + 1)
    alt = (
        f"{experts} columns of dots, one dot per token above its expert, with a line at the balanced load. {captions[0]} "
        f"{captions[-1]}"
    )
    film = Film("Tokens follow the bias", alt, COLUMN * experts + 2, bottom + 2.6 * STEP, captions)
    level = bottom - STEP * tokens / experts - STEP / 2
    film.line([(0, level), (COLUMN * experts, level)])
    for frame, route in enumerate(routes):
        for expert in range(experts):
            for height, token in enumerate(np.flatnonzero(route == expert)):
                fresh = frame > 0 and routes[frame - 1][token] != expert
                film.dot(COLUMN * (expert + 0.5), bottom - STEP * (height + 1), RADIUS, [frame], open_=bool(fresh))
            film.text(COLUMN * (expert + 0.5), bottom + 1.7 * STEP, f"bias {biases[frame][expert]:+.2f}", at=[frame])
    for expert in range(experts):
        film.text(COLUMN * (expert + 0.5), bottom + 0.6 * STEP, f"expert {expert}")
    return film
