"""Pictures of a sweep and of a comparison; they need matplotlib (the extra `plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadsparse.gpu.perfmodel.gpu import PerfError


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


def _figure(path: Path, size: tuple[float, float]) -> Any:
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise PerfError(f"{path}: a plot is written as .png, .svg or .pdf")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PerfError("plots need matplotlib: pip install 'loadsparse[plots]'") from None
    return Figure(figsize=size, layout="constrained")
