"""Occupancy: how many blocks and warps one multiprocessor holds, by NVIDIA's allocation rules.

Registers are handed out per warp in units of 256 inside each of four sub-partitions; shared memory per block in units
of 128 bytes plus 1 KB that the driver reserves; blocks and warps have limits of their own.  The least of the four wins.
Source: the rules of the CUDA occupancy calculator, compute capability 8.0 to 9.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from loadsparse.gpu.simulator.limits import KIBI, MAXIMUM_THREADS, LaunchError, limits

WARP = 32
PARTITIONS = 4
REGISTERS = 65_536
"""32-bit registers of a multiprocessor, and the most that one block may have."""
REGISTER_UNIT = 256
MAXIMUM_REGISTERS = 256
"""Per thread, as the calculator allows; a compiler uses at most 255."""
SHARED_UNIT = 128
RESERVED_SHARED = KIBI
"""Bytes of shared memory per block that the driver takes for itself."""
METRIC = "sm__maximum_warps_per_active_cycle_pct"
"""Nsight Compute's name of the theoretical occupancy in percent."""

_SMALL = (0, 8, 16, 32, 64, 100)
_LARGE = (*_SMALL, 132, 164)
_WARPS = {"sm_80": 64, "sm_86": 48, "sm_89": 48, "sm_90": 64, "sm_90a": 64}
CARVEOUTS = {
    "sm_80": _LARGE,
    "sm_86": _SMALL,
    "sm_89": _SMALL,
    "sm_90": (*_LARGE, 196, 228),
    "sm_90a": (*_LARGE, 196, 228),
}
"""KB of shared memory that a multiprocessor may set aside; the rest of the array is L1."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What one multiprocessor holds of a kernel.

    `limits` maps "blocks", "warps", "registers" and "shared" to the blocks each would allow (None: no limit);
    `limiter` names those that bind.
    """

    blocks: int
    warps: int
    maximum_warps: int
    limits: dict[str, int | None]

    @property
    def fraction(self) -> float:
        """Active warps / warps that the multiprocessor could hold."""
        return self.warps / self.maximum_warps

    @property
    def limiter(self) -> tuple[str, ...]:
        return tuple(name for name, value in self.limits.items() if value == self.blocks)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def occupancy(arch: str, threads: int, registers: int, shared_bytes: int = 0, carveout: int | None = None) -> Occupancy:
    """Occupancy of blocks of `threads` threads with `registers` each and `shared_bytes` (static + dynamic).

    carveout: bytes of shared memory preferred per multiprocessor; None is the largest, as the driver may choose.
    Raises LaunchError for an unknown architecture or impossible numbers; a block that does not fit has 0 blocks.

    >>> occupancy("sm_80", 128, 154, 72 * 1024).blocks      # Flash-LLM at N = 16: shared memory allows two blocks
    2
    """
    most, maximum = limits(arch), _WARPS[arch]
    if not 1 <= threads <= MAXIMUM_THREADS:
        raise LaunchError(f"a block of {threads} threads; it must have 1 to {MAXIMUM_THREADS}")
    if registers < 0 or shared_bytes < 0:
        raise LaunchError("registers and shared bytes cannot be negative")
    warps = -(-threads // WARP)
    per_warp = _up(registers * WARP, REGISTER_UNIT)
    found: dict[str, int | None] = {"blocks": most.blocks, "warps": maximum // warps}
    if registers > MAXIMUM_REGISTERS or per_warp * _up(warps, PARTITIONS) > REGISTERS:
        found["registers"] = 0
    else:
        found["registers"] = REGISTERS // PARTITIONS // per_warp * PARTITIONS // warps if registers else None
    per_block = _up(shared_bytes + RESERVED_SHARED, SHARED_UNIT)
    if shared_bytes > most.shared_bytes or per_block > most.shared_bytes + RESERVED_SHARED:
        found["shared"] = 0
    else:
        sizes = [size * KIBI for size in CARVEOUTS[arch]]
        wanted = max(per_block, sizes[-1] if carveout is None else carveout)
        if wanted > sizes[-1]:
            raise LaunchError(f"a carve-out of {carveout} bytes; {arch} has {sizes[-1]}")
        found["shared"] = next(size for size in sizes if size >= wanted) // per_block
    blocks = min(value for value in found.values() if value is not None)
    return Occupancy(blocks, blocks * warps, maximum, found)
