"""Values that no kernel writes: what still holds them after a launch was never written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def poison(shape: tuple[int, ...], dtype: np.dtype[Any], seed: int) -> NDArray[np.generic]:
    """Signalling NaNs with random payloads, which no arithmetic produces: what is left of them was never written.

    uint16 is taken for bf16; types that are no floats get random bytes.
    """
    rng = np.random.default_rng([seed, 77])
    if dtype == np.float32:
        return (rng.integers(0x100, 0x3FFFFF, shape, dtype=np.uint32) | np.uint32(0x7F800000)).view(dtype)
    if dtype in (np.float16, np.uint16):
        exponent, payload = (0x7C00, 0x1FF) if dtype == np.float16 else (0x7F80, 0x3F)
        return (rng.integers(1, payload, shape, dtype=np.uint16) | np.uint16(exponent)).view(dtype)
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
