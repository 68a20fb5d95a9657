"""The road of the tokens, judged end to end: a balancer against the exact assignment, in exact arithmetic.

Scores are integers, so every statement is decided without rounding.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loadsparse.reference import routing
from loadsparse.reference.balancing import SignBias
from loadsparse.theory import assignment, lagrangian, linear_program, preference


@dataclass(frozen=True)
class Road:
    """What was checked on one score matrix [tokens, experts] with k experts per token; `ok` is the conjunction."""

    balancer: str
    tokens: int
    experts: int
    k: int
    steps: int
    optimum_certified: bool
    """The exact assignment carries a proof: feasible, and its value equals its dual bound."""
    optimum_equals_lp: bool
    """Its value is the linear program's, solved by HiGHS."""
    bounded_by_dual: bool
    """D(p) >= OPT at every bias the balancer visited."""
    step_identity: bool
    """D1: D(p+) - D(p) = <A - L, Delta> + S with S >= 0, at every step."""
    preference_rule: bool
    """D3: no overloaded expert gained and no underloaded one lost a token."""
    violation_before: float
    violation_after: float
    dual_gap: float
    """(smallest D(p) - OPT) / OPT."""

    @property
    def ok(self) -> bool:
        judged = (self.optimum_certified, self.optimum_equals_lp, self.bounded_by_dual, self.step_identity)
        return all((*judged, self.preference_rule))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and truth values, with `ok`."""
        return {"ok": self.ok, **asdict(self)}


def judge_tokens(seed: int, tokens: int = 128, experts: int = 16, k: int = 2, steps: int = 200, rate: int = 4) -> Road:
    """Run the sign rule on skewed integer scores in 0..1000 and judge it and the exact assignment.

    >>> judge_tokens(0, tokens=32, experts=4, steps=20).ok
    True
    """
    rng = np.random.default_rng(seed)
    scores = np.clip(rng.normal(500, 150, (tokens, experts)) + rng.normal(0, 100, experts), 0, 1000).astype(np.int64)
    best = assignment.solve(scores, k, seed=seed)
    try:
        certified = assignment.certify(scores, k, best) >= 0
    except ValueError:
        certified = False
    program = linear_program.solve(scores, k)
    balancer = SignBias(rate=float(rate))
    state, bounded, identity, preferred = balancer.init(experts), True, True, True
    lowest, violations = np.inf, []
    for _ in range(steps):
        loads = routing.loads(routing.top_k(scores, k, state.bias), experts)
        following = balancer.step(state, loads)
        bias, change = state.bias.astype(np.int64), (following.bias - state.bias).astype(np.int64)
        seen = lagrangian.step(scores, k, bias, change)
        bounded &= bool(seen.before >= best.value)
        identity &= bool(seen.after - seen.before == seen.slope + seen.switching and seen.switching >= 0)
        preferred &= not preference.wrong_way(seen.loads, seen.next_loads).any()
        lowest = min(lowest, float(seen.before))
        violations.append(routing.max_violation(loads))
        state = following
    return Road(
        "sign", tokens, experts, k, steps, bool(certified),
        bool(abs(program.value - best.value) <= 1e-9 * abs(best.value)), bounded, identity, preferred,
        violations[0], violations[-1], (lowest - best.value) / best.value,
    )  # fmt: skip
