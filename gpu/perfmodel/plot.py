"""Pictures of a sweep and of a comparison; they need matplotlib (the extra `plots`)."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadsparse.gpu.perfmodel.gpu import PerfError
from loadsparse.reference.formats.container import replace_file

ACROSS = 4
"""Panels of bars side by side."""


def check(path: Path) -> None:
    """Raises PerfError for a file that no plot can be, and without matplotlib: to be called before the work."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise PerfError(f"{path}: a plot is written as .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise PerfError(f"{path}: there is no folder {path.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise PerfError("plots need matplotlib: pip install 'loadsparse[plots]'")


def lines(
    path: Path, x: Sequence[float], curves: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, title: str
) -> None:
    """Write curves y(x) as a .png, .svg or .pdf file.  Raises PerfError without matplotlib or for another suffix."""
    figure = _figure(path, (7, 4))
    axis = figure.subplots()
    for name, y in curves.items():
        axis.plot(x, y, marker="o", label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)


def bars(path: Path, names: Sequence[str], panels: Mapping[str, Sequence[float | None]], title: str) -> None:
    """Write one panel of bars per quantity as a .png, .svg or .pdf file; None leaves a gap.  See `lines`."""
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = _figure(path, (1 + 3 * across, (0.8 + 0.28 * len(names)) * down + 0.4))
    axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (quantity, values) in zip(axes, panels.items(), strict=False):
        axis.barh(names, [value or 0.0 for value in values])
        axis.set_title(quantity, fontsize="medium")
        for place, value in enumerate(values):
            axis.annotate(
                _number(value), (value or 0.0, place), xytext=(3, 0), textcoords="offset points",
                va="center", fontsize="small",
            )  # fmt: skip
        axis.set_xlim(0, 1.35 * (max((value or 0.0 for value in values), default=0.0) or 1.0))
        axis.locator_params(axis="x", nbins=4)
        axis.tick_params(labelsize="small")
    axes[0].invert_yaxis()
    figure.suptitle(title)
    _save(figure, path)


def _number(value: float | None) -> str:
    """Three digits, without an exponent."""
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def dots(
    path: Path,
    names: Sequence[str],
    panels: Mapping[str, Mapping[str, Sequence[float | None]]],
    ylabel: str,
    title: str,
) -> None:
    """Write a panel for each of `panels`, one above the other, with a row of marks per series over `names`; None leaves a
    gap.  See `lines`."""
    readable = len(names) <= 60
    figure = _figure(path, (min(16.0, 4 + 0.22 * len(names)), 3 * len(panels) + (1.5 if readable else 0.5)))
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axis, (panel, series) in zip(axes, panels.items(), strict=True):
        for (name, values), marker in zip(series.items(), itertools.cycle("osD^vPX<>"), strict=False):
            shown = [float("nan") if value is None else value for value in values]
            axis.plot(range(len(names)), shown, marker=marker, markersize=4, linestyle="none", label=name)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(ylabel=ylabel, title=panel)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    if readable:
        axes[-1].set_xticks(range(len(names)), names, rotation=90, fontsize="small")
    else:
        axes[-1].set_xlabel(f"{len(names)} matrices, in the order of the table")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside center right")
    figure.suptitle(title)
    _save(figure, path)


def _figure(path: Path, size: tuple[float, float]) -> Any:
    check(path)
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _save(figure: Any, path: Path) -> None:
    replace_file(path, lambda file: figure.savefig(file, format=path.suffix[1:]))
