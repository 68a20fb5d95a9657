"""Online balancing: fresh batches of tokens every step, regret against the best fixed bias (statement D9).

D_n(p) is the dual of batch n per token, f its expectation, g_n = A^n / T - K/E, E[g_n | p^n] = grad f(p^n),
E||g_n||^2 <= V = K (1 - K/E).
(a) f mu-strongly convex on a convex C with p*: p^{n+1} = Proj_C(p^n - g_n / (mu n)) has regret <= V / (2 mu) (1 + ln
N).
(b) also beta-smooth where the iterates stay, steps 1 / (mu (n + n0)), n0 = 2 beta / mu:
    regret <= 2 beta ||p0 - p*||^2 + V / (mu T) ln(1 + N / n0).
(c) population sign rule with constant u: min_n ||pi - K/E||_1 <= (f(p0) - f*) / (u N) + 2 u W, W = sup sum_{k<j} w_kj.
Regret is sum_n E[D_n(p^n) - D_n(p*)] = sum_n E[f(p^n) - f(p*)]; each D_n is piecewise linear, so logarithmic regret
exists only in expectation. A drifting law (drift > 0) is an experiment without a claim.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from loadsparse.reference import balancing
from loadsparse.reference.balancing.protocol import check_rate, rate_at
from loadsparse.theory import assignment, expected_dual, score_laws

Floats = npt.NDArray[np.float64]
CHUNK = 256  # batches drawn at once


@dataclass(frozen=True)
class Setting:
    """One run: E experts, K per token, batches of T tokens, N steps, a rule, a law of scores and a seed; plain numbers.

    rule "sign": rate in units of the scores; "proportional": rate multiplies load fractions (L - A) / T. schedule and
    offset: rate / (n + offset)^a. law "uniform", or "skewed": logit-normal with means from -skew to skew. radius:
    biases are projected onto |p_0 - p_1| <= radius (two experts only). drift: standard deviation per step of a random
    walk added to the scores.
    """

    experts: int = 8
    k: int = 2
    tokens: int = 64
    steps: int = 1000
    rule: Literal["sign", "proportional"] = "sign"
    rate: float = 1e-3
    schedule: Literal["constant", "1/n", "1/sqrt(n)"] = "constant"
    offset: float = 0.0
    law: Literal["uniform", "skewed"] = "skewed"
    skew: float = 0.8
    radius: float | None = None
    drift: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_rate(self.rate, self.schedule, self.offset)
        if not 1 <= self.k < self.experts:
            raise ValueError(f"need 1 <= k < experts, got k = {self.k}, experts = {self.experts}")
        if self.tokens < 1 or self.steps < 1:
            raise ValueError(f"need tokens >= 1 and steps >= 1, got {self.tokens} and {self.steps}")
        if self.radius is not None and (self.experts != 2 or not self.radius > 0):
            raise ValueError("radius > 0 projects two experts; for more there is no projection")
        if self.rule not in ("sign", "proportional") or self.law not in ("uniform", "skewed"):
            raise ValueError(f"unknown rule {self.rule!r} or law {self.law!r}")

    def scores(self) -> score_laws.Law:
        """The law of scores."""
        return score_laws.Uniform(self.experts) if self.law == "uniform" else score_laws.skewed(self.experts, self.skew)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON keeps them."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Setting:
        """The setting of `to_dict`; ValueError names what is unknown."""
        unknown = set(values) - {f.name for f in fields(Setting)}
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        return Setting(**values)


@dataclass(frozen=True)
class Run:
    """Cumulated regret after `steps` [M] (numbers of steps): expected sum f(p^n) - f*, realised sum D_n(p^n) - D_n(p*);
    violation: max_k |pi_k(p) E / K - 1| of the population after them; bias: the last one."""

    steps: list[int]
    expected: list[float]
    realised: list[float]
    violation: list[float]
    bias: list[float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON keeps them."""
        return asdict(self)


@lru_cache(maxsize=32)
def optimum(law: Literal["uniform", "skewed"], experts: int, k: int, skew: float) -> tuple[tuple[float, ...], float]:
    """(p*, f*) of the law of a setting."""
    scores = Setting(experts=experts, k=k, law=law, skew=skew).scores()
    p = expected_dual.minimiser(scores, k)
    return tuple(p.tolist()), float(expected_dual.values(scores, k, p[None, :])[0])


@njit(cache=True)
def _walk(scores, drifts, rates, k, proportional, radius, p, star, biases, realised):
    """Play the chunk scores [C, T, E]: biases [C, E] before each step, realised [C] = D_n(p^n) - D_n(p*); p is
    updated."""
    steps, tokens, experts = scores.shape
    loads = np.empty(experts)
    used = np.empty(experts, dtype=np.bool_)
    for n in range(steps):
        best = star - drifts[n]
        total = 0.0
        loads[:] = 0
        for side in range(2):
            bias = p if side == 0 else best
            top = 0.0
            for i in range(tokens):
                used[:] = False
                for _ in range(k):
                    chosen, high = -1, -np.inf
                    for e in range(experts):
                        v = scores[n, i, e] + drifts[n, e] + bias[e]
                        if not used[e] and v > high:
                            chosen, high = e, v
                    used[chosen] = True
                    top += high
                    if side == 0:
                        loads[chosen] += 1
            dual = top / tokens - k / experts * bias.sum()
            total += dual if side == 0 else -dual
        biases[n] = p
        realised[n] = total
        mean = k * tokens / experts
        for e in range(experts):
            missing = mean - loads[e]
            p[e] += rates[n] * (missing / tokens if proportional else np.sign(missing))
        if radius > 0:
            centre, half = (p[0] + p[1]) / 2, min(max((p[0] - p[1]) / 2, -radius / 2), radius / 2)
            p[0], p[1] = centre + half, centre - half


def simulate(setting: Setting) -> Run:
    """Play one setting: the same setting gives the same numbers on every machine that has the same NumPy streams."""
    law, rng = setting.scores(), np.random.default_rng(setting.seed)
    star, least = optimum(setting.law, setting.experts, setting.k, setting.skew)
    p, drift = np.zeros(setting.experts), np.zeros(setting.experts)
    marks = sorted({*np.geomspace(1, setting.steps, 25).round().astype(int).tolist(), setting.steps})
    expected, realised, violation = [], [], []
    sums, done = [0.0, 0.0], 0
    for stop in marks:
        while done < stop:
            count = min(CHUNK, stop - done)
            scores = law.sample(rng, count * setting.tokens).reshape(count, setting.tokens, setting.experts)
            moves = rng.standard_normal((count, setting.experts)) * setting.drift if setting.drift else 0.0
            drifts = drift + np.cumsum(np.zeros((count, setting.experts)) + moves, axis=0)
            rates = np.asarray(
                [rate_at(setting.rate, setting.schedule, setting.offset, done + n) for n in range(count)]
            )
            biases, real = np.empty((count, setting.experts)), np.empty(count)
            proportional, radius = setting.rule == "proportional", setting.radius or 0.0
            _walk(scores, drifts, rates, setting.k, proportional, radius, p, np.asarray(star), biases, real)
            sums[0] += float((expected_dual.values(law, setting.k, biases + drifts) - least).sum())
            sums[1] += float(real.sum())
            drift, done = drifts[-1], done + count
        expected.append(sums[0])
        realised.append(sums[1])
        chance = expected_dual.selected(law, setting.k, p + drift)
        violation.append(float(np.abs(chance * setting.experts / setting.k - 1).max()))
    return Run(marks, expected, realised, violation, p.tolist())


def balancer(setting: Setting) -> balancing.Balancer:
    """The reference balancer that takes the same steps (without projection)."""
    if setting.rule == "sign":
        return balancing.SignBias(setting.rate, setting.schedule, setting.offset)
    return balancing.ProportionalBias(setting.rate, setting.schedule, setting.offset, unit="fraction", k=setting.k)


def second_moment(k: int, experts: int) -> float:
    """V = K (1 - K/E), the largest ||A / T - K/E||^2."""
    return k * (1 - k / experts)


def projected_bound(k: int, experts: int, mu: float, steps: npt.ArrayLike) -> Floats:
    """D9 (a): V / (2 mu) (1 + ln N)."""
    return np.asarray(second_moment(k, experts) / (2 * mu) * (1 + np.log(steps)), dtype=np.float64)


def smooth_bound(
    k: int, experts: int, tokens: int, mu: float, beta: float, distance: float, steps: npt.ArrayLike
) -> Floats:
    """D9 (b): 2 beta ||p0 - p*||^2 + V / (mu T) ln(1 + N / n0), n0 = 2 beta / mu; distance = ||p0 - p*||."""
    log = np.log1p(np.asarray(steps) * mu / (2 * beta))
    return np.asarray(2 * beta * distance**2 + second_moment(k, experts) / (mu * tokens) * log, dtype=np.float64)


def sign_floor(start_gap: float, u: float, steps: int, total: float) -> float:
    """D9 (c): (f(p0) - f*) / (u N) + 2 u W, W = sup sum_{k<j} w_kj."""
    return start_gap / (u * steps) + 2 * u * total


def two_expert_dual(difference: float) -> float:
    """f for E = 2, K = 1, uniform scores, |p_0 - p_1| = d <= 1: 2/3 + d^2 / 2 - |d|^3 / 6; mu = 2 (1 - r) on |d| <= r.

    >>> round(two_expert_dual(0.0), 6)
    0.666667
    """
    d = abs(difference)
    if d > 1:
        raise ValueError(f"the formula holds for |p_0 - p_1| <= 1, got {difference}")
    return 2 / 3 + d**2 / 2 - d**3 / 6


def hindsight(batches: npt.ArrayLike, k: int) -> tuple[Floats, float]:
    """The best fixed bias for batches [N, T, E], in hindsight: (prices, sum_n D_n(prices)), the dual of all tokens
    together.

    By LP duality it is the value of the balanced assignment of the concatenated batches, per token of a batch.
    """
    b = np.asarray(batches)
    steps, tokens, experts = b.shape
    found = assignment.solve(b.reshape(steps * tokens, experts), k)
    return found.prices, (found.value + found.gap) / tokens


@dataclass(frozen=True)
class Slope:
    """Least-squares growth of regret per ln N with its 95% interval over seeds."""

    mean: float
    low: float
    high: float


def log_slope(runs: list[Run], start: int = 100) -> Slope:
    """Fit sum f(p^n) - f* = a + b ln N from `start` steps on, one b per run; mean and 95% t-interval of b."""
    from scipy import stats

    slopes = []
    for run in runs:
        n = np.asarray(run.steps)
        late = n >= start
        slopes.append(float(np.polyfit(np.log(n[late]), np.asarray(run.expected)[late], 1)[0]))
    mean = float(np.mean(slopes))
    if len(slopes) < 2:
        return Slope(mean, -np.inf, np.inf)
    half = float(stats.t.ppf(0.975, len(slopes) - 1) * np.std(slopes, ddof=1) / np.sqrt(len(slopes)))
    return Slope(mean, mean - half, mean + half)
