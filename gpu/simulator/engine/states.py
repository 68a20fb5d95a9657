"""Digests of all that the next round of a native launch depends on, for `recurrence.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.arena import words
from loadsparse.gpu.simulator.request import Allocation

_CONTROL = ((L.W_PC, L.W_INDEX), (L.W_STATUS, L.W_STEPPED), (L.W_ASIDE, L.W_SLOT))


def threads(blocks: Iterable[int], executions: ArrayLike) -> bytes:
    """Registers and program counters of live blocks, their barriers, and `executions` of what acts elsewhere."""
    digest = hashlib.blake2b(np.asarray(executions).tobytes())
    for address in blocks:
        block = words(address, L.BLOCK_BYTES // 8)
        digest.update(block[L.B_LINEAR // 8].tobytes())
        digest.update(block[L.B_BARRIERS // 8 : L.B_PASSED // 8].tobytes())
        size = int(block[L.B_WARP_BYTES // 8])
        for index in range(int(block[L.B_WARP_COUNT // 8])):
            warp = words(int(block[L.B_WARPS // 8]) + index * size, size // 8).view(np.uint8)
            for first, stop in (*_CONTROL, (L.W_REGISTERS, size)):
                digest.update(warp[first:stop].data)
    return digest.digest()


def memory(blocks: Iterable[int], allocations: Iterable[Allocation]) -> bytes:
    """Bytes and defined bits of shared, local and writable global memory."""
    digest = hashlib.blake2b()
    for address in blocks:
        block = words(address, L.BLOCK_BYTES // 8)
        shared = int(block[L.B_SHARED_BYTES // 8])
        local = int(block[L.B_LOCAL_BYTES // 8] * block[L.B_WARP_COUNT // 8]) * 32
        for place, size in (
            (L.B_SHARED, shared), (L.B_SHARED_DEFINED, shared), (L.B_LOCAL, local), (L.B_LOCAL_DEFINED, local),
        ):  # fmt: skip
            digest.update(words(int(block[place // 8]), -(-size // 8)).view(np.uint8)[:size].data)
    for allocation in allocations:
        if not allocation.read_only:
            digest.update(allocation.data.data)
            if allocation.defined is not None:
                digest.update(allocation.defined.data)
    return digest.digest()
