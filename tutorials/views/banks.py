"""Which bank of shared memory each lane of a warp hits, and how many wavefronts that takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from loadsparse.tutorials.views.film import Film

BANKS, CELL = 32, 20.0

PATTERNS: Mapping[str, Callable[[int], int]] = {
    "neighbours: word = lane": lambda lane: lane,
    "one word for all: a broadcast": lambda lane: 5,
    "stride 2: word = 2 lane": lambda lane: 2 * lane,
    "stride 3, odd: word = 3 lane": lambda lane: 3 * lane,
    "a column of a 32-wide tile: word = 32 lane": lambda lane: 32 * lane,
    "a column of a tile padded to 33: word = 33 lane": lambda lane: 33 * lane,
    "a column, swizzled: word = 32 lane + (4 XOR lane)": lambda lane: 32 * lane + (4 ^ lane),
}


def wavefronts(words: list[int]) -> list[tuple[int, int]]:
    """(wavefront, bank) of each lane's 4-byte word: a bank serves one distinct word per wavefront, to all who ask.

    >>> wavefronts([0, 32, 0, 1])
    [(0, 0), (1, 0), (0, 0), (0, 1)]
    """
    queues: dict[int, list[int]] = {}
    for word in words:
        queue = queues.setdefault(word % BANKS, [])
        if word not in queue:
            queue.append(word)
    return [(queues[word % BANKS].index(word), word % BANKS) for word in words]


def bank_hits(patterns: Mapping[str, Callable[[int], int]] = PATTERNS) -> Film:
    """A frame per access pattern (lane -> word): banks from left to right, wavefronts downwards, lanes in the cells."""
    frames = [wavefronts([pattern(lane) for lane in range(BANKS)]) for pattern in patterns.values()]
    captions = []
    for name, frame in zip(patterns, frames, strict=True):
        waves = 1 + max(wave for wave, _ in frame)
        captions.append(f"{name}. {waves} wavefront{'s' if waves > 1 else ''}.")
    alt = (
        "32 columns, one per bank; a row per wavefront; in each cell the lane whose word is read there then. "
        + " ".join(captions)
    )
    deepest = 1 + max(wave for frame in frames for wave, _ in frame)
    film = Film("Banks of shared memory", alt, CELL * BANKS + 70, CELL * (deepest + 1), captions)
    for bank in range(BANKS):
        film.text(70 + CELL * (bank + 0.5), CELL / 2, str(bank))
    film.text(2, CELL / 2, "bank", left=True)
    for wave in range(deepest):
        film.text(2, CELL * (wave + 1.5), f"wavefront {wave}", left=True)
        for bank in range(BANKS):
            busy = [i for i, frame in enumerate(frames) if (wave, bank) in frame]
            film.box(70 + CELL * bank, CELL * (wave + 1), CELL, CELL, busy)
            for i in busy:
                lanes = [lane for lane, place in enumerate(frames[i]) if place == (wave, bank)]
                text = str(lanes[0]) if len(lanes) == 1 else f"{len(lanes)}x"
                film.text(70 + CELL * (bank + 0.5), CELL * (wave + 1.5), text, at=[i])
    return film
