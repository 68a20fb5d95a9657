"""Which thread wrote an element of C."""

from __future__ import annotations

from loadsparse.gpu.launch import Launch


def origin(launch: Launch, row: int, column: int, seed: int) -> str:
    """Tile of the element."""
    return f"tile ({row // 16}, {column // 8}) of 16 x 8"
