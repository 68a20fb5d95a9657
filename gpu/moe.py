"""The experts of a DeepSeekMoE layer on the grouped kernel: gather by expert, three products in two launches, scatter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loadsparse.gpu import kernels
from loadsparse.gpu.kernels.grouped import ExpertWeights, Grouped
from loadsparse.gpu.launch import LaunchReport
from loadsparse.reference import moe, routing

Halves = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """y [T, D]; choices [T, K]; loads int64 [E] of the routed experts; one report per launch (gate and up; down)."""

    y: Floats
    choices: npt.NDArray[np.int64]
    loads: npt.NDArray[np.int64]
    reports: tuple[LaunchReport, ...]


@dataclass(frozen=True)
class SparseLayer:
    """A `reference.moe.Layer` whose experts, routed and shared, are encoded in float16 for a grouped kernel.

    A shared expert is one that every token chose, with gate 1, so all experts share the launches: they need one width.

    >>> rng = np.random.default_rng(0)
    >>> def expert():
    ...     return moe.Expert(*(rng.standard_normal(s) * (rng.random(s) < 0.2) for s in ((16, 8), (16, 8), (8, 16))))
    >>> layer = moe.Layer(rng.standard_normal((4, 8)), (expert(),), tuple(expert() for _ in range(4)), k=2)
    >>> x = rng.standard_normal((3, 8)).astype(np.float16)
    >>> run = SparseLayer.encode(layer, "grouped_lscd").forward(x, engine="interpreter")
    >>> np.abs(run.y - moe.forward(layer, x).y).max() < 0.05 * np.abs(run.y).max()
    np.True_
    """

    router: npt.NDArray[Any]
    gate_up: ExpertWeights
    down: ExpertWeights
    routed: int
    k: int
    scale: float
    kernel: Grouped

    @classmethod
    def encode(cls, layer: moe.Layer, kernel: str = "grouped_bitmap") -> SparseLayer:
        """Round the experts to float16 and encode them; gate [H, D] and up [H, D] become one matrix [2H, D].

        Raises ValueError for experts of different shapes or an unknown kernel.
        """
        if kernel not in kernels.GROUPED:
            raise ValueError(f"unknown grouped kernel {kernel!r}: known are {', '.join(kernels.GROUPED)}")
        found: Grouped = kernels.get(kernel)  # type: ignore[assignment]
        experts = (*layer.routed, *layer.shared)
        first = [np.concatenate([_half(one.gate), _half(one.up)]) for one in experts]
        second = [_half(one.down) for one in experts]
        return cls(
            layer.router, found.encode(first), found.encode(second), len(layer.routed), layer.k, layer.scale, found
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all experts."""
        return self.gate_up.nbytes + self.down.nbytes

    def forward(self, x: Halves, bias: npt.ArrayLike | None = None, arch: str = "sm_80", engine: str = "auto") -> Run:
        """The layer on tokens x [T, D] with selection bias [E], executed by the simulator.

        Scores and gates are those of `reference.moe.forward`; silu(gate) * up is rounded to float16; the gated sum is
        float64.  Raises ValueError for a wrong shape or type.
        """
        width = self.router.shape[1]
        if x.ndim != 2 or x.shape[1] != width or x.dtype != np.float16:
            raise ValueError(f"x is {x.dtype} {x.shape}: expected float16 (T, {width})")
        scores = routing.sigmoid(x.astype(np.float64) @ np.asarray(self.router, np.float64).T)
        choices = routing.top_k(scores, self.k, bias)
        gates = routing.gate_weights(scores, choices, scale=self.scale)
        loads = routing.loads(choices, self.routed)
        if not len(x):
            return Run(np.zeros((0, width)), choices, loads, ())

        tokens, weights, counts = self.by_expert(choices, gates)
        first = self.kernel.plan(self.gate_up, np.ascontiguousarray(x[tokens].T), counts, arch)
        both, one = first.run(engine)
        hidden = activate(both)
        second = self.kernel.plan(self.down, hidden, counts, arch)
        out, two = second.run(engine)
        y = np.zeros((len(x), width))
        np.add.at(y, tokens, weights[:, None] * out.T.astype(np.float64))
        return Run(y, choices, loads, (one, two))

    def by_expert(
        self, choices: npt.NDArray[np.int64], gates: Floats
    ) -> tuple[npt.NDArray[np.int64], Floats, npt.NDArray[np.int64]]:
        """Tokens sorted by the expert that they chose, the gate of each, and how many each expert has.

        choices, gates: [T, K]; every token goes to the shared experts, too, which come last.
        """
        everyone = np.arange(len(choices))
        shared = self.down.experts - self.routed
        experts = np.concatenate([choices.ravel(), np.repeat(np.arange(self.routed, self.down.experts), len(choices))])
        tokens = np.concatenate([np.repeat(everyone, self.k), np.tile(everyone, shared)])
        weights = np.concatenate([gates.ravel(), np.ones(shared * len(choices))])
        order = np.argsort(experts, kind="stable")
        return tokens[order], weights[order], np.bincount(experts, minlength=self.down.experts)


def activate(both: Halves) -> Halves:
    """silu(gate) * up for both = [gate; up], [2H, N] -> [H, N]: in float32, rounded to float16."""
    gate, up = np.split(both.astype(np.float32), 2)
    with np.errstate(over="ignore"):
        return np.asarray(gate / (1 + np.exp(-gate)) * up, dtype=np.float16)


def _half(weight: moe.Weight) -> Halves:
    values: Sequence[Any] | npt.NDArray[Any] = weight if isinstance(weight, np.ndarray) else weight.decode()
    return np.asarray(values, dtype=np.float16)
