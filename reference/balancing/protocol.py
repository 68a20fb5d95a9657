"""What every bias balancer is: frozen hyper-parameters, `init(experts) -> state`, `step(state, seen) -> state`,
`state.bias`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing

Schedule = Literal["constant", "1/n", "1/sqrt(n)"]


@dataclass(frozen=True)
class State:
    """Bias p [E] in the unit of the scores, and the number of steps taken.

    `init` gives float64. The rules that step from loads also keep a float32 bias, as training does:
    `State(np.zeros(experts, np.float32))`. They compute in float64 and round once per step. A float32 bias above 2^15
    no longer feels steps of 0.001 or less (half of its spacing there): centre it, or keep float64.
    """

    bias: npt.NDArray[Any]
    steps: int = 0


class Balancer(Protocol):
    """A rule that changes the bias after each global batch, from that batch only (causal)."""

    @property
    def needs(self) -> Literal["loads", "scores"]:
        """What `step` sees: integer loads [E], or the scores [T, E]."""

    def init(self, experts: int) -> State:
        """The state before the first batch."""

    def step(self, state: State, seen: npt.ArrayLike) -> State:
        """The state after one batch; the given state is not changed."""


def zero_state(experts: int) -> State:
    """Bias 0 for every expert, no step taken; ValueError for fewer than two experts."""
    if experts < 2:
        raise ValueError(f"balancing needs at least 2 experts, got {experts}")
    return State(np.zeros(experts))


def rate_at(rate: float, schedule: Schedule, offset: float, steps: int) -> float:
    """Rate of the step after `steps` steps: rate / (n + offset)^a with n = steps + 1 and a = 0, 1 or 1/2."""
    power = {"constant": 0.0, "1/n": 1.0, "1/sqrt(n)": 0.5}[schedule]
    return float(rate / (steps + 1 + offset) ** power)


def check_rate(rate: float, schedule: str, offset: float) -> None:
    """ValueError unless rate > 0, offset >= 0 and the schedule is known."""
    if not rate > 0 or not np.isfinite(rate):
        raise ValueError(f"rate must be a finite number > 0, got {rate}")
    if not offset >= 0:
        raise ValueError(f"offset must be >= 0, got {offset}")
    if schedule not in ("constant", "1/n", "1/sqrt(n)"):
        raise ValueError(f"schedule must be 'constant', '1/n' or '1/sqrt(n)', got {schedule!r}")


def total_loads(parts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Loads of one global batch: the integer sum of the micro-batches' loads [M, E] (or [E] as it is).

    One step per global batch: stepping after every micro-batch would multiply the rate by M and follow noise.
    """
    counts = np.asarray(parts)
    return routing.checked_loads(counts.sum(axis=0) if counts.ndim == 2 else counts)


def moved(state: State, change: npt.NDArray[np.float64], centred: bool) -> State:
    """p + change in float64, minus its mean if `centred` (no effect on the selection: only differences of biases
    matter), in the type of p."""
    bias = state.bias + change
    kept = bias - bias.mean() if centred else bias
    return State(kept.astype(state.bias.dtype), state.steps + 1)
