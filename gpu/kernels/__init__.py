"""SpMM kernels for Tensor Cores, one module each; `get(name)` finds one.

The protocol, which a kernel of your own follows too (any object with these three names will do):

    name                                                 what reports call it
    encode(a, dtype="f16") -> encoded                    the weights' form: anything with `.shape` (m, k), `.dtype`, `.nbytes`, `.decode()`
    plan(encoded, b, arch="sm_80", split_k=None) -> Launch   PTX, grid, block and buffers for C[m, n] = A[m, k] x B[k, n]

`plan` raises ValueError with one line for arguments it cannot serve, and promises in the Launch the order in which it
adds (`splits`) and what it does with zeros (`semantics`), so that the result can be compared bit for bit.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.launch import Launch


class Kernel(Protocol):
    """What a kernel module provides."""

    @property
    def name(self) -> str: ...

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> Any: ...

    def plan(self, encoded: Any, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch: ...


def names() -> tuple[str, ...]:
    """Names that `get` knows, best first."""
    return ("bitmap", "lscd")


def get(name: str) -> Kernel:
    """The kernel of that name.  Raises ValueError that lists the known names."""
    from loadsparse.gpu.kernels.bitmap import BitmapKernel
    from loadsparse.gpu.kernels.lscd import Lscd

    known: dict[str, Kernel] = {"bitmap": BitmapKernel(), "lscd": Lscd()}
    if name not in known:
        raise ValueError(f"unknown kernel {name!r}: known are {', '.join(names())}")
    return known[name]
