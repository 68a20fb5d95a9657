"""The committed log and what it says: figures per arm with 95% intervals over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from loadsparse.reference import balancing

from .arms import Arm, arms

LOG = Path(__file__).parent / "log.json"
Record = dict[str, Any]


@dataclass(frozen=True)
class Interval:
    """Mean and half the width of the 95% t-interval over seeds; the half is NaN for one seed or an empty list."""

    mean: float
    half: float

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "-"
        digits = 1 if abs(self.mean) >= 10 else 3 if abs(self.mean) >= 0.1 or self.mean == 0 else 4
        return f"{self.mean:.{digits}f}" + ("" if math.isnan(self.half) else f" ± {self.half:.{digits}f}")


def interval(values: Sequence[float]) -> Interval:
    """Of one value per seed; values that are NaN are left out.

    >>> str(interval([1.0, 1.0, 1.0]))
    '1.000 ± 0.000'
    """
    v = np.asarray([value for value in values if not math.isnan(value)], dtype=np.float64)
    if v.size == 0:
        return Interval(math.nan, math.nan)
    half = float(stats.t.ppf(0.975, v.size - 1) * v.std(ddof=1) / math.sqrt(v.size)) if v.size > 1 else math.nan
    return Interval(float(v.mean()), half)


def load(path: Path = LOG) -> Record:
    """The log: {"command", "versions", "setting", "corpus", "runs": [{"arm", "seed", ...}]}."""
    found: Record = json.loads(path.read_text())
    return found


def by_arm(log: Record) -> dict[str, list[Record]]:
    """The finished runs of each arm, in the order of `arms`."""
    order = arms(log["setting"]["model"]["k"])
    found = {name: [run for run in log["runs"] if run["arm"] == name] for name in order}
    return {name: runs for name, runs in found.items() if runs}


def table(run: Record, name: str, late: bool = False) -> np.ndarray:
    """measured[name] as [logs, layers]; the second half of training only where `late`."""
    values = np.asarray(run["measured"][name], dtype=np.float64)  # None becomes NaN
    return values[len(values) // 2 :] if late else values


def share(run: Record, part: str, whole: str) -> float:
    """Sum of one measured count over another; NaN where there is nothing to count."""
    total = np.nansum(table(run, whole))
    return float(np.nansum(table(run, part)) / total) if total else math.nan


def spread_bound(arm: Arm, reach: float, experts: int, k: int) -> float:
    """D4 with R = `reach`: 2R + 2u (sign), 2R + eps T (proportional), 2R (an optimal price vector); NaN without bias."""
    match arm.balancer:
        case None:
            return math.nan
        case balancing.SignBias(rate=u):
            return 2 * reach + 2 * u
        case balancing.ProportionalBias(rate=rate):  # of violations: eps T = rate T / L = rate E / K
            return 2 * reach + rate * experts / k
        case _:
            return 2 * reach


def mean_of(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN for nothing."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else math.nan


def figures(log: Record) -> dict[str, Callable[[Record], float]]:
    """Title -> the figure of one run; the columns of the results table."""
    layers, k = log["setting"]["model"]["layers"], log["setting"]["model"]["k"]
    known, experts = arms(k), log["setting"]["model"]["routed"]

    def late_violation(layer: int) -> Callable[[Record], float]:
        def of(run: Record) -> float:
            values = np.asarray(run["max_violation"])[:, layer]
            return float(values[3 * len(values) // 4 :].mean())

        return of

    def gap(run: Record) -> float:
        dual, optimum = table(run, "dual", late=True), table(run, "optimum", late=True)
        return float(((dual - optimum) / optimum).mean())

    def spread(run: Record) -> float:
        bound = spread_bound(known[run["arm"]], float(table(run, "reach").max()), experts, k)
        return max(run["spread"]) / bound

    columns: dict[str, Callable[[Record], float]] = {"bits/byte": lambda run: run["validation"][-1]}
    for layer in range(layers):
        columns[f"MaxVio batch, layer {layer + 1}"] = late_violation(layer)
    for layer in range(layers):
        columns[f"MaxVio pooled, layer {layer + 1}"] = lambda run, at=layer: run["pooled_max_violation"][at]
    for layer in range(layers):
        columns[f"MaxVio held out, layer {layer + 1}"] = lambda run, at=layer: run["validation_max_violation"][-1][at]
    return columns | {
        "dual gap": gap,
        "D falls (D2)": lambda run: mean_of(table(run, "falls")),
        "D2(b) holds": lambda run: mean_of(table(run, "few")),
        "D3, fixed scores": lambda run: share(run, "obey", "pairs"),
        "D3, moving scores": lambda run: share(run, "moved_obey", "moved_pairs"),
        "wrong way": lambda run: mean_of(table(run, "moved_wrong")),
        "spread / bound (D4)": spread,
        "regret": lambda run: float(np.mean(run["regret"])),
        "CPU s": lambda run: run["cpu_seconds"],
    }


def summary(log: Record) -> dict[str, dict[str, Interval]]:
    """Arm -> title -> interval over its seeds."""
    columns = figures(log)
    return {
        name: {title: interval([figure(run) for run in runs]) for title, figure in columns.items()}
        for name, runs in by_arm(log).items()
    }


@dataclass(frozen=True)
class Trend:
    """A published trend as a difference that should be negative, and what it is here (paired by seed, 95% interval)."""

    published: str
    difference: str
    here: Interval

    @property
    def verdict(self) -> str:
        """Whether the interval over seeds lies on the published side of 0."""
        if math.isnan(self.here.half):
            return "not measured"
        if abs(self.here.mean) <= self.here.half:
            return "not resolved"
        return "appears" if self.here.mean < 0 else "the opposite"


# published trend, figure, smaller in this arm than in that one
TRENDS = (
    ("loss-free balances better than the loss: 0.04 against 0.72", "MaxVio pooled", "sign 1e-3", "loss 1e-3"),
    ("the same, on held-out text", "MaxVio held out", "sign 1e-3", "loss 1e-3"),
    ("the same, against ten times the loss", "MaxVio pooled", "sign 1e-3", "loss 1e-2"),
    ("and costs less: perplexity 9.50 against 9.56", "bits/byte", "sign 1e-3", "loss 1e-3"),
    ("the same, against ten times the loss", "bits/byte", "sign 1e-3", "loss 1e-2"),
    ("u = 1e-4 is slow: more imbalance in the first half", "MaxVio batch, first half", "sign 1e-3", "sign 1e-4"),
    (
        "u = 1e-2 fluctuates late: more imbalance from batch to batch",
        "MaxVio batch, last quarter",
        "sign 1e-3",
        "sign 1e-2",
    ),
    ("and in sum", "MaxVio pooled", "sign 1e-3", "sign 1e-2"),
    ("u = 1e-2 is no better for the text: 9.50 against 9.51", "bits/byte", "sign 1e-3", "sign 1e-2"),
    ("u/n with a small u cannot travel", "MaxVio pooled", "sign 1e-3", "sign 1e-3/n"),
    (
        "the proportional rule balances a little better: 0.028 to 0.040 against 0.044",
        "MaxVio pooled",
        "proportional 1e-2",
        "sign 1e-3",
    ),
    ("no balancing costs quality", "bits/byte", "sign 1e-3", "none"),
    ("the same, against quantile balancing", "bits/byte", "quantile", "none"),
)


def trends(log: Record) -> list[Trend]:
    """The published trends beside this log; figures are means over layers."""
    runs = {(run["arm"], run["seed"]): run for run in log["runs"]}
    of: dict[str, Callable[[Record], float]] = {
        "bits/byte": lambda run: run["validation"][-1],
        "MaxVio pooled": lambda run: float(np.mean(run["pooled_max_violation"])),
        "MaxVio held out": lambda run: float(np.mean(run["validation_max_violation"][-1])),
        "MaxVio batch, first half": lambda run: float(np.mean(run["max_violation"][: len(run["max_violation"]) // 2])),
        "MaxVio batch, last quarter": lambda run: float(
            np.mean(run["max_violation"][3 * len(run["max_violation"]) // 4 :])
        ),
    }
    found = []
    for published, figure, less, more in TRENDS:
        seeds = [seed for arm, seed in runs if arm == less and (more, seed) in runs]
        here = interval([of[figure](runs[less, seed]) - of[figure](runs[more, seed]) for seed in seeds])
        found.append(Trend(published, f"{figure}: {less} minus {more}", here))
    return found
