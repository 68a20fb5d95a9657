"""Fit the constants on the calibration rows: `python -m loadsparse.gpu.perfmodel.fit` writes data/fitted.json.

Each group of constants is fitted by least squares of log(predicted / measured) on the rows of one kernel, in an order in
which every group needs only those before it.  The errors with each shape left out in turn are printed and become the
spread of the predictions.  No other published number is read here.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from loadsparse.gpu.perfmodel.constants import Constants
from loadsparse.gpu.perfmodel.gpu import DATA, load
from loadsparse.gpu.perfmodel.kernel import work

GROUPS: dict[str, dict[str, tuple[float, float, str, str]]] = {
    "cublas": {"call": (0.0, 50e-6, "s", "launch, ramp and tail of one call")},
    "flash-llm": {
        "issue_latency": (1.0, 30.0, "cycles", "between two instructions of one warp"),
        "exposed_share": (0.0, 3.0, "of the DRAM latency", "left in sight at each barrier"),
        "join": (1.0, 12.0, "", "exponent that joins what overlaps"),
    },
    "sputnik": {
        "item_cycles": (0.0, 9.0, "cycles", "of a multiprocessor per stored item"),
        "item_latency": (0.0, 1000.0, "cycles", "per item of a row walked alone"),
    },
    "sparta": {"sparta_read_share": (0.3, 1.0, "of the read bandwidth", "that the 2:4 kernel reaches")},
}


@dataclass(frozen=True)
class Row:
    """One measured point: shape, sparsity (a share) and kernel -> seconds."""

    m: int
    n: int
    k: int
    sparsity: float
    seconds: dict[str, float]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, k)"""
        return self.m, self.k


def calibration() -> list[Row]:
    """The calibration rows: seconds = 2 m n k / (TFLOP/s)."""
    rows = []
    with (DATA / "flash_llm_a100_opt66b.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            m, n, k = int(line["m"]), int(line["n"]), int(line["k"])
            names = {"sputnik": "sputnik", "cublas": "cublas", "sparta": "sparta", "flash-llm": "flash_llm"}
            seconds = {name: 2 * m * n * k / (float(line[f"{column}_tflops"]) * 1e12) for name, column in names.items()}
            rows.append(Row(m, n, k, float(line["sparsity_percent"]) / 100, seconds))
    return rows


def seconds(kernel: str, row: Row, constants: Constants) -> float:
    """Predicted seconds of a row."""
    gpu = load("a100-80gb")
    return work(kernel, row.m, row.n, row.k, 1 - row.sparsity, gpu, constants).seconds(constants.join)


def errors(kernel: str, rows: Sequence[Row], constants: Constants) -> list[float]:
    """predicted / measured - 1 of each row."""
    return [seconds(kernel, row, constants) / row.seconds[kernel] - 1 for row in rows]


def fit(rows: Sequence[Row]) -> Constants:
    """Constants fitted on these rows."""
    constants = Constants()
    for kernel in GROUPS:
        constants = _fit_group(kernel, rows, constants)
    return constants


def _fit_group(kernel: str, rows: Sequence[Row], known: Constants) -> Constants:
    """`known` with the constants of one kernel's group fitted on its rows."""
    group = GROUPS[kernel]
    start = np.array([getattr(known, name) for name in group])
    low, high = (np.array([group[name][end] for name in group]) / start for end in (0, 1))

    def trial(x: NDArray[np.float64]) -> Constants:
        return replace(known, **dict(zip(group, (x * start).tolist(), strict=True)))

    def residuals(x: NDArray[np.float64]) -> list[float]:
        return [float(np.log1p(error)) for error in errors(kernel, rows, trial(x))]

    return trial(least_squares(residuals, np.ones(len(group)), bounds=(low, high), diff_step=1e-4).x)


def left_out(rows: Sequence[Row]) -> dict[str, dict[tuple[int, int], list[float]]]:
    """kernel -> shape -> errors of its rows under constants fitted on all other shapes."""
    found: dict[str, dict[tuple[int, int], list[float]]] = {kernel: {} for kernel in GROUPS}
    for shape in sorted({row.shape for row in rows}):
        constants = fit([row for row in rows if row.shape != shape])
        for kernel in GROUPS:
            found[kernel][shape] = errors(kernel, [row for row in rows if row.shape == shape], constants)
    return found


def main() -> None:
    """Fit, print, and write the file."""
    rows = calibration()
    constants, without = fit(rows), left_out(rows)
    spread = {
        kernel: round(max(abs(e) for each in shapes.values() for e in each), 4) for kernel, shapes in without.items()
    }
    table = {
        name: {
            "value": float(f"{getattr(constants, name):.4g}"),
            "unit": unit,
            "meaning": meaning,
            "fitted_on": f"{kernel} rows",
        }
        for kernel, group in GROUPS.items()
        for name, (_, _, unit, meaning) in group.items()
    }
    path = (DATA / "fitted.json").resolve()  # a development install links to the file
    fresh = path.with_suffix(".new")
    fresh.write_text(
        json.dumps({"rows": "flash_llm_a100_opt66b.csv", "constants": table, "spread": spread}, indent=1) + "\n"
    )
    os.replace(fresh, path)
    for name, row in table.items():
        print(f"{name:18} {row['value']:<10} {row['unit']:22} {row['meaning']}")
    print(f"\n{'kernel':10} {'rows':>6} {'left out':>9}   by left-out shape")
    for kernel, shapes in without.items():
        own = np.mean(np.abs(errors(kernel, rows, constants)))
        away = np.mean([abs(e) for each in shapes.values() for e in each])
        each = "  ".join(f"{m}x{k} {np.mean(np.abs(found)):.1%}" for (m, k), found in shapes.items())
        print(f"{kernel:10} {own:6.1%} {away:9.1%}   {each}")


if __name__ == "__main__":
    main()
