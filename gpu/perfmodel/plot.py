"""One picture of a sweep; needs matplotlib (the extra `plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loadsparse.gpu.perfmodel.gpu import PerfError


def lines(
    path: Path, x: Sequence[float], curves: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, title: str
) -> None:
    """Write curves y(x) as a .png, .svg or .pdf file.  Raises PerfError without matplotlib or for another suffix."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise PerfError(f"{path}: a plot is written as .png, .svg or .pdf")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PerfError("plots need matplotlib: pip install 'loadsparse[plots]'") from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for name, y in curves.items():
        axis.plot(x, y, marker="o", label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path)
