"""SpMM kernels for Tensor Cores, one module each; `get(name)` finds one.

The protocol, which a kernel of your own follows too (any object with these three names will do):

    name                         what reports call it
    encode(a, dtype="f16")       -> encoded: the weights' form, with `.shape` (m, k), `.dtype`, `.nbytes`, `.decode()`
    plan(encoded, b, arch="sm_80", split_k=None)
                                 -> Launch: PTX, grid, block and buffers for C[m, n] = A[m, k] x B[k, n]

The grouped kernels ("grouped_bitmap", "grouped_lscd") encode a list of weights and plan with the tokens of each expert.

`plan` raises ValueError with one line for arguments it cannot serve, and promises in the Launch the order in which it
adds (`splits`) and what it does with zeros (`semantics`), so that the result can be compared bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from numpy.typing import NDArray

from loadsparse.gpu.compiler import CompileError
from loadsparse.gpu.launch import Launch

if TYPE_CHECKING:
    from loadsparse.gpu.kernels.grouped import Grouped

GROUPED = ("grouped_bitmap", "grouped_lscd")
"""Kernels of a sparse MoE layer: many weights, each with columns of its own; see `grouped.Grouped`."""


class Kernel(Protocol):
    """What a kernel module provides."""

    @property
    def name(self) -> str: ...

    def encode(self, a: NDArray[Any], dtype: str = "f16") -> Any: ...

    def plan(self, encoded: Any, b: NDArray[Any], arch: str = "sm_80", split_k: int | None = None) -> Launch: ...


def _check_compiler() -> None:
    """Raises CompileError where Numba has no CUDA target."""
    try:
        import loadsparse.gpu.intrinsics  # noqa: F401
    except ImportError as error:
        raise CompileError(
            'kernels are written in Numba\'s CUDA target, which this Numba lacks: pip install "loadsparse[nvidia]" (Linux and '
            "Windows); oracles, balancing, theory and PTX text that exists already do not need it"
        ) from error


def known() -> dict[str, Kernel]:
    """All kernels by name, best first.  Raises CompileError (a ValueError) where Numba has no CUDA target."""
    _check_compiler()
    from loadsparse.gpu.kernels.bitmap import AdaptiveKernel, BitmapKernel
    from loadsparse.gpu.kernels.dense import DenseKernel
    from loadsparse.gpu.kernels.lscd import Lscd
    from loadsparse.gpu.kernels.sparta import Sparta
    from loadsparse.gpu.kernels.sputnik import Sputnik
    from loadsparse.gpu.kernels.twofour import TwoFourKernel

    kernels: tuple[Kernel, ...] = (
        BitmapKernel(), Lscd(), DenseKernel(), Sparta(), Sputnik(), TwoFourKernel(), AdaptiveKernel(),
    )  # fmt: skip
    return {kernel.name: kernel for kernel in kernels}


def names() -> tuple[str, ...]:
    """Names of the kernels to compare, best first: not twofour, which wants 2:4 weights, nor adaptive, bitmap's other road."""
    return tuple(name for name in known() if name not in ("twofour", "adaptive"))


@overload
def get(name: Literal["grouped_bitmap", "grouped_lscd"]) -> Grouped: ...  # type: ignore[overload-overlap]


@overload
def get(name: str) -> Kernel: ...


def get(name: str) -> Any:
    """The kernel of that name.  Raises ValueError that lists the known names."""
    if name in GROUPED:
        _check_compiler()
        from loadsparse.gpu.kernels.grouped import Grouped

        return Grouped(name.removeprefix("grouped_"))
    kernels = known()
    if name not in kernels:
        raise ValueError(f"unknown kernel {name!r}: known are {', '.join((*kernels, *GROUPED))}")
    return kernels[name]
