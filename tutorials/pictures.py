"""Figures of the tutorials: one size, one palette that is also readable in grey, and alternative text for each."""

from io import BytesIO
from typing import Any

import matplotlib

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
