"""A bank-conflict heat map as text: 32 banks wide, one mark per lane, readable without colour."""

from __future__ import annotations

from loadsparse.gpu.simulator.heat import Heat

LEVELS = " .:-=+*#%@"


def rows(heat: Heat, line: int | None) -> tuple[str, ...]:
    """How many lanes hit each bank in one execution on average, as bars; and the worst bank in words."""
    lanes = heat.counts.sum(axis=0) / max(heat.executions, 1)
    worst = int(lanes.argmax())
    height = max(1, round(float(lanes.max())))
    steps = min(height, 8)
    where = f"line {line}, " if line is not None else ""
    picture = [
        f"{where}{heat.ptx.split()[0]}: lanes per shared-memory bank (on average over {heat.executions} executions)"
    ]
    for step in range(steps, 0, -1):
        level = step * height / steps
        picture.append(
            f"{level:5.0f} |" + "".join("#" if count >= level - height / steps / 2 else " " for count in lanes)
        )
    picture += ["      +" + "-" * 32, "       0       8       16      24    31  bank"]
    picture.append(
        f"bank {worst} serves {lanes[worst]:.0f} lanes, one after another; {int((lanes > 0).sum())} of 32 banks work"
    )
    return tuple(picture)


def table(heat: Heat) -> tuple[str, ...]:
    """Lane by bank: how often each lane hit each bank (a darker mark is more often)."""
    most = max(int(heat.counts.max()), 1)
    marks = (heat.counts * (len(LEVELS) - 1) + most - 1) // most
    return ("lane x bank", *(f"{lane:4} |" + "".join(LEVELS[mark] for mark in row) for lane, row in enumerate(marks)))
