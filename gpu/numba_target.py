"""Numba's CUDA target: that of the package numba-cuda or, where it has no wheel (macOS), the one inside Numba."""

from __future__ import annotations

import re
from contextlib import nullcontext
from functools import cache
from typing import Any, Literal

from loadsparse.gpu.nvptx import in_place_of_nvvm

try:
    from numba.cuda import types
    from numba.cuda.core import errors
    from numba.cuda.lowering import Lower
except ImportError:
    from numba.core import errors, types
    from numba.core.dispatcher import _FunctionCompiler  # type: ignore[attr-defined]
    from numba.cuda.dispatcher import CUDADispatcher

    Lower = None

    _template = CUDADispatcher.get_call_template

    def _folded(self: Any, args: Any, kws: Any) -> Any:
        """Fold *args into one argument, as Numba's own `min` and `max` want it: the built-in target forgot to."""
        _, args = _FunctionCompiler(self.py_func, None, {}, {}, None).fold_argument_types(args, kws)
        return _template(self, tuple(args), {})

    CUDADispatcher.get_call_template = _folded
from numba.cuda.extending import intrinsic

__all__ = ["Lower", "errors", "intrinsic", "nvidia", "types"]


@cache
def nvidia() -> str | None:
    """None where NVIDIA's compiler is installed, else why not."""
    from numba.cuda.cudadrv import nvvm

    try:
        nvvm.NVVM()
    except Exception as error:
        return str(error).splitlines()[0]
    return None


Backend = Literal["nvidia", "llvm"]


def compile_kernel(
    function: Any,
    signature: Any,
    cc: tuple[int, int],
    *,
    backend: Backend | None = None,
    launch_bounds: Any = None,
    **options: Any,
) -> str:
    """PTX of a kernel for a compute capability, by NVIDIA's compiler or by LLVM's (None: NVIDIA's where it is installed)."""
    from numba import cuda

    if Lower is not None:
        options["launch_bounds"] = launch_bounds
    made_by_llvm = (backend or ("llvm" if nvidia() else "nvidia")) == "llvm"
    with in_place_of_nvvm() if made_by_llvm else nullcontext():
        text, _ = cuda.compile(function, signature, device=False, abi="numba", cc=cc, **options)
    if Lower is None and launch_bounds is not None:
        threads, *blocks = launch_bounds if isinstance(launch_bounds, tuple) else (launch_bounds,)
        bounds = f".maxntid {threads}, 1, 1\n" + "".join(f".minnctapersm {least}\n" for least in blocks)
        return with_directive(str(text), bounds)
    return str(text)


def with_directive(ptx: str, directive: str) -> str:
    """The module with a directive before the body of its kernel."""
    return re.sub(r"^(?=\{)", directive, ptx, count=1, flags=re.MULTILINE)
