"""Into how many parts K is split: the rule of the plain kernels, and what there is to fill: multiprocessors, shared memory."""

from __future__ import annotations

SM_COUNT = {
    "sm_75": 40,
    "sm_80": 108,
    "sm_86": 84,
    "sm_87": 16,
    "sm_89": 128,
    "sm_90": 132,
    "sm_100": 148,
    "sm_120": 170,
}
"""Multiprocessors of a common GPU of each architecture: T4, A100, A10-class, Orin, RTX 4090, H100, B200, RTX 5090."""

SMALL_SHARED = ("sm_86", "sm_89", "sm_120")


def shared_per_block(arch: str) -> int:
    """Bytes of shared memory that a block may ask for: 99 KB on the smaller parts, 163 KB on A100, more on newer ones.

    Source: CUDA C++ Programming Guide, technical specifications per compute capability.
    """
    return (99 if arch in SMALL_SHARED else 163) * 1024


def expected_resident(rows: int) -> int:
    """Blocks of so many rows that a multiprocessor is expected to hold: three of up to 256, one of more."""
    return 3 if rows <= 256 else 1


def choose_split(blocks: int, tiles: int, arch: str, resident: int) -> int:
    """Factor of K that fills the GPU: least (waves x tiles per block), where `resident` blocks share a multiprocessor.

    A split costs one write and one read of its float32 partials; it counts as a quarter of a tile.
    """
    slots = SM_COUNT.get(arch, 108) * resident

    def cost(splits: int) -> float:
        return -(-blocks * splits // slots) * (-(-tiles // splits)) + 0.25 * splits

    return min(range(1, min(tiles, 32) + 1), key=cost)
