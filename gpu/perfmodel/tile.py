"""The analytical tile model: what one block of a kernel does in one step along K, and how that scales to a whole product.

A launch of a tiled kernel is `blocks` blocks that take `steps` steps each, so every count is

    count = blocks * (per_block + steps * per_step),

with per_step depending on the density of the tile.  Two small executions of different K give both numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from loadsparse.gpu.perfmodel.gpu import DATA, PerfError

OURS = ("adaptive", "bitmap", "lscd")
COUNTED_PEERS = ("flash-llm", "spinfer")
ALIKE = {"flash-llm": "lscd", "spinfer": "bitmap"}
"""Counted peer -> our kernel whose mix of pipes stands in for its own."""


@dataclass(frozen=True)
class Counts:
    """Warp instructions, shared-memory wavefronts, Tensor Core and population-count instructions, barriers (per warp),
    and the instructions of the integer-and-logic, the multiply-add and the load-store pipe."""

    instructions: float = 0.0
    wavefronts: float = 0.0
    mma: float = 0.0
    popc: float = 0.0
    barriers: float = 0.0
    alu: float = 0.0
    fma: float = 0.0
    lsu: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def __mul__(self, factor: float) -> Counts:
        return Counts(*(factor * value for value in self.values()))

    __rmul__ = __mul__

    def values(self) -> tuple[float, ...]:
        """The numbers in the order of the fields."""
        return (
            self.instructions, self.wavefronts, self.mma, self.popc, self.barriers, self.alu, self.fma, self.lsu,
        )  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """One kernel at one width and density: its block, and its counts per block and per step.

    Fields
        rows, columns, depth          of C and K that a block covers in a step
        threads, registers, shared_bytes   of a block, which decide how many are resident
        ahead                         steps that travel from DRAM while one is computed
        step, block                   Counts of one step; of a block's prologue and epilogue
        counted                       who counted: "simulator" or "published"
        width_counted                 False where this width was not counted and a neighbour stands in
        partial_bytes                 of one partial sum when K is split: 2 or 4
    """

    rows: int
    columns: int
    depth: int
    threads: int
    registers: int
    shared_bytes: int
    ahead: int
    step: Counts
    block: Counts
    counted: str
    width_counted: bool
    partial_bytes: int


def encoded_bytes(kernel: str, m: int, k: int, density: float) -> float:
    """Bytes of A[m, k] in a kernel's format at a density, offsets and padding included (expected value).

    >>> encoded_bytes("cublas", 128, 64, 0.2)
    16384.0
    """
    elements = float(m) * k
    if kernel in ("cublas", "fastertransformer", "deepspeed"):
        return 2 * elements
    if kernel in ("flash-llm", "lscd"):
        tiles = -(-m // 128) * -(-k // 64)
        padding = 6 if 0 < density < 1 else 0  # 1.5 items of 4 bytes on average, to whole vectors
        return 4 * density * elements + (4 + padding) * tiles
    if kernel == "bitmap":
        tiles = -(-m // 64) * -(-k // 64)
        return tiles * (4 + 8 + 512 + 4 + 7) + 2 * density * elements  # 7: half a unit of padding
    if kernel == "adaptive":
        points = _data("counts")["kernels"]["adaptive"]["1"]
        low, high = next((two for two in pairwise(points) if density <= two[1]["density"]), points[-2:])
        weight = (density - low["density"]) / (high["density"] - low["density"])
        return float((1 - weight) * low["bytes"] + weight * high["bytes"]) * elements
    if kernel == "spinfer":
        return 2 * density * elements + elements / 8
    if kernel == "sputnik":
        return 4 * density * elements + 8 * m
    if kernel == "twofour":
        return 1.125 * elements
    if kernel == "sparta":
        return 1.125 * elements + 6 * sparta_rest(density) * elements
    raise PerfError(f"unknown kernel {kernel!r}")


def sparta_rest(density: float) -> float:
    """Share of elements that 2 of 4 cannot hold: (4 d^3 (1 - d) + 2 d^4) / 4, the third and fourth of a group."""
    return (4 * density**3 * (1 - density) + 2 * density**4) / 4


@cache
def _data(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def tile(kernel: str, n: int, density: float) -> Tile:
    """The tile of a counted kernel for N columns.  Raises PerfError for kernels that nobody counted."""
    if kernel in OURS:
        return _ours(kernel, n, density)
    if kernel in COUNTED_PEERS:
        return _peer(kernel, n, density)
    raise PerfError(f"kernel {kernel!r} has no counts")


def _ours(kernel: str, n: int, density: float) -> Tile:
    by_panels = _data("counts")["kernels"][kernel]
    panels = min(-(-n // 8), 8)
    chosen = min(int(p) for p in by_panels if int(p) >= panels)
    below, above, weight = _between(by_panels[str(chosen)], density)
    lower, upper = _counts(below), _counts(above)
    step, block = ((1 - weight) * low + weight * high for low, high in zip(lower, upper, strict=True))
    columns = below["columns"] if below["columns"] < 8 * chosen else 8 * panels
    return Tile(
        below["rows"], columns, 64, below["threads"], max(below["registers"], above["registers"]),
        max(below["shared_bytes"], above["shared_bytes"]), below["ahead"], step, block, "simulator",
        chosen == panels, 4,
    )  # fmt: skip


def _counts(point: dict[str, Any]) -> tuple[Counts, Counts]:
    return Counts(*point["step"]), Counts(*point["block"])


def _between(points: list[dict[str, Any]], density: float) -> tuple[dict[str, Any], dict[str, Any], float]:
    """Neighbouring counted points of the same variant of the kernel, and the weight of the upper one.

    Where the blocks of the two have another shape or depth nothing lies between them: the nearer one, twice.
    """
    variant = next((p["variant"] for p in points if density <= p["upto"]), points[-1]["variant"])
    same = [p for p in points if p["variant"] == variant]
    for low, high in pairwise(same):
        if density <= high["density"] or high is same[-1]:
            weight = (density - low["density"]) / (high["density"] - low["density"])
            if any(low[key] != high[key] for key in ("rows", "columns", "threads", "ahead")):
                nearer = low if weight < 0.5 else high
                return nearer, nearer, 0.0
            return low, high, weight
    return same[0], same[0], 0.0


def _peer(kernel: str, n: int, density: float) -> Tile:
    data = _data("peers")
    widths = sorted(int(w) for w in data[kernel])
    width = next((w for w in widths if w >= n), widths[-1])
    entry = data[kernel][str(width)]
    rows = entry["tile_m"]
    per_step = rows * 64 / (data["m"] * data["k"])  # share of the counted launch
    instructions = [value * data["m"] * width / 32 * per_step for value in entry["per_output"]]
    wavefronts = [value * per_step for value in entry["wavefronts"]]
    densities = [1 - value for value in data["sparsity"]]

    def at(pair: list[float], x: float) -> float:
        return float(pair[1] + (pair[0] - pair[1]) / (densities[0] - densities[1]) * (x - densities[1]))

    shared = at(wavefronts, density)
    ahead, barriers = 1, 2
    if kernel == "flash-llm":
        order = data["flash-llm-reordered"]
        saved = sum(order["plain"]) / 3 - sum(order["reordered"]) / 3  # wavefronts per store of 32 items
        shared -= saved / 32 * density * rows * 64
    mma = rows / 16 * 4 * width / 8
    popc = entry.get("popc", 0.0) * per_step
    # nobody published which pipes the instructions use: as those of our kernel that decodes in the same way
    alike = _ours(ALIKE[kernel], width, density).step
    issued = at(instructions, density)
    alu, fma, lsu = (issued * part / alike.instructions for part in (alike.alu, alike.fma, alike.lsu))
    step = Counts(issued, shared, mma, popc, 4.0 * barriers, alu, fma, lsu)
    shared_bytes = entry["shared_bytes"] + (0 if kernel == "flash-llm" else int(2 * 2 * density * rows * 64))
    return Tile(
        rows, width, 64, 128, entry["registers"], shared_bytes, ahead, step, Counts(), "published", width >= n, 2
    )  # fmt: skip
