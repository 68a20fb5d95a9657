"""Which lane of a warp holds which element of the matrices that one mma multiplies."""

from __future__ import annotations

from loadsparse.reference.tensorcore import fragments
from loadsparse.tutorials.views.film import Film

CELL = 17.0


def fragment_lanes(shape: fragments.Shape = fragments.M16N8K16) -> Film:
    """A, B and C of an mma shape; every cell carries the number of the lane that holds it; a frame is a lane."""
    (m, k), (deep, n) = shape.a.shape, shape.b.shape
    captions = []
    for lane in range(fragments.LANES):
        held = [
            f"{name} ({', '.join(f'{r},{c}' for r, c in zip(part.row[lane], part.column[lane], strict=True))})"
            for name, part in (("A", shape.a), ("B", shape.b), ("C", shape.c))
        ]
        captions.append(f"Lane {lane} (g = {lane // 4}, t = {lane % 4}) holds (row,column) of {'; of '.join(held)}.")
    alt = (
        f"Three grids: A is {m} by {k}, B is {deep} by {n} above C, which is {m} by {n}. Each cell shows the number of the "
        "lane that holds it; the cells of one lane are outlined."
    )
    left, top = CELL * (k + 2), CELL * (deep + 2)
    film = Film(f"Fragments of {shape.name}", alt, left + CELL * (n + 1), top + CELL * (m + 1), captions)
    for name, part, x, y in (
        ("A", shape.a, CELL, top), ("B", shape.b, left, CELL), ("C", shape.c, left, top),
    ):  # fmt: skip
        film.text(x + CELL * part.shape[1] / 2, y - CELL / 2, name)
        for lane in range(fragments.LANES):
            for row, column in zip(part.row[lane], part.column[lane], strict=True):
                film.box(x + CELL * column, y + CELL * row, CELL, CELL, [lane], str(lane))
    return film
