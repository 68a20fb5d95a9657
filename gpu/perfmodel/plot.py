"""Pictures of a sweep and of a comparison; they need matplotlib (the extra `plots`)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadsparse.gpu.perfmodel.gpu import PerfError


def check_suffix(path: Path) -> None:
    """Raises PerfError for a file that no plot can be."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise PerfError(f"{path}: a plot is written as .png, .svg or .pdf")


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
    figure.savefig(path)


def bars(path: Path, names: Sequence[str], panels: Mapping[str, Sequence[float | None]], title: str) -> None:
    """Write one panel of bars per quantity, side by side, as a .png, .svg or .pdf file; None leaves a gap.  See `lines`."""
    figure = _figure(path, (3.5 * len(panels), 4))
    for axis, (quantity, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axis.barh(names, [value or 0.0 for value in values])
        axis.invert_yaxis()
        axis.set_title(quantity, fontsize="medium")
        for place, value in enumerate(values):
            axis.annotate(
                " -" if value is None else f" {value:.4g}", (value or 0.0, place), va="center", fontsize="small"
            )
        axis.margins(x=0.2)
        axis.tick_params(labelsize="small")
    figure.suptitle(title)
    figure.savefig(path)


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
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.suptitle(title)
    figure.savefig(path)


def _figure(path: Path, size: tuple[float, float]) -> Any:
    check_suffix(path)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PerfError("plots need matplotlib: pip install 'loadsparse[plots]'") from None
    return Figure(figsize=size, layout="constrained")
