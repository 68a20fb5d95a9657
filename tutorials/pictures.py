"""Figures of the tutorials: one size, one palette that is also readable in grey, and alternative text for each."""

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from IPython.display import Image, display

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))


def canvas(columns: int = 1, width: float = 7.0, height: float = 3.6) -> tuple[Any, Any]:
    """A figure with `columns` axes side by side, constrained layout."""
    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained")
    for axis in [axes] if columns == 1 else axes:
        axis.set_prop_cycle(color=COLOURS, linestyle=STYLES)
        axis.grid(alpha=0.3)
    return figure, axes


def show(figure: Any, alt: str) -> None:
    """Display as PNG with alternative text, then close the figure."""
    if not alt.strip():
        raise ValueError("a picture needs alternative text that says what it shows")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    display(Image(data=buffer.getvalue(), format="png", alt=alt))


def cells(axis: Any, text: Any, shade: Any = None, rows: Any = None, columns: Any = None, size: float = 8) -> None:
    """A matrix of boxes: text[i][j] in each, shade[i][j] in 0 (white) to 1 (grey) behind it, labels beside and above."""
    text = np.asarray(text)
    down, across = text.shape
    shade = np.zeros(text.shape) if shade is None else np.asarray(shade, dtype=float)
    axis.imshow(shade, cmap="Greys", vmin=0, vmax=3, aspect="auto")  # a light grey at most: the text stays readable
    for i, j in np.ndindex(down, across):
        axis.text(j, i, str(text[i, j]), ha="center", va="center", fontsize=size)
    axis.grid(visible=False)
    axis.set_xticks(np.arange(across), range(across) if columns is None else columns, fontsize=size)
    axis.set_yticks(np.arange(down), range(down) if rows is None else rows, fontsize=size)
    axis.set_xticks(np.arange(across + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(down + 1) - 0.5, minor=True)
    axis.grid(visible=True, which="minor", color="black", linewidth=0.5)
    axis.tick_params(which="both", length=0, labeltop=True, labelbottom=False)


def flow(steps: Sequence[str], between: Sequence[str] = (), height: float = 1.7) -> Any:
    """A figure of boxes from left to right, joined by arrows; `between` stands above the arrows."""
    figure, axis = plt.subplots(figsize=(8.4, height), layout="constrained")
    axis.set(xlim=(-0.5, len(steps) - 0.5), ylim=(-1, 1))
    axis.axis("off")
    box = {"boxstyle": "round,pad=0.5", "facecolor": "#f2f2f2", "edgecolor": "black"}
    drawn = [axis.text(i, 0, step, ha="center", va="center", fontsize=9, bbox=box) for i, step in enumerate(steps)]
    for i, (left, right) in enumerate(pairwise(drawn)):
        arrow = {"arrowstyle": "->", "patchA": left.get_bbox_patch(), "patchB": right.get_bbox_patch(), "shrinkA": 2}
        axis.annotate("", xy=(i + 1, 0), xytext=(i, 0), arrowprops=arrow)
    for i, label in enumerate(between):
        axis.text(i + 0.5, 0.6, label, ha="center", va="center", fontsize=8, style="italic")
    return figure
