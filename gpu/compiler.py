"""Numba, CUDA C++ and PTX text -> PTX; PTX -> machine code, registers and spills.  None of it needs a GPU or a driver."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

ARCHES = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_120")
"""GPU architectures that the compilers accept."""


class CompileError(ValueError):
    """A source that does not compile; the message is one line that says why."""


class Resources(TypedDict):
    """What one kernel needs: registers per thread, static shared and stack bytes, spills, and its SASS listing."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int
    sass: str


def capability(arch: str) -> tuple[int, int]:
    """(8, 0) for "sm_80".  Raises ValueError for an unknown architecture."""
    if arch not in ARCHES:
        raise ValueError(f"unknown architecture {arch!r}: known are {', '.join(ARCHES)}")
    digits = arch[3:]
    return int(digits[:-1]), int(digits[-1])


def entries(ptx: str) -> list[str]:
    """Names of the kernels in a PTX module, in order."""
    return re.findall(r"\.entry\s+([\w$.]+)", ptx)


def numba(
    f: Callable[..., Any], signature: Any, arch: str = "sm_80", *, name: str | None = None, launch_bounds: Any = None
) -> str:
    """PTX of a Numba-CUDA kernel, with source lines.

    `signature` is a Numba signature or its text ("void(uint64, uint32)"); the entry is called `name`, by default the
    function's own.  `f` may be a plain function or one decorated with cuda.jit.  `launch_bounds`: threads per block, or
    (threads, blocks per SM).  Raises CompileError with the compiler's reason.
    """
    from numba import cuda
    from numba.cuda.core.errors import NumbaError

    function = getattr(f, "py_func", f)
    try:
        ptx, _ = cuda.compile(
            function, signature, device=False, abi="numba", lineinfo=True, cc=capability(arch), launch_bounds=launch_bounds
        )
    except NumbaError as error:
        reason = " ".join(str(error).split())
        raise CompileError(f"{function.__name__}: Numba cannot compile it: {reason[:400]}") from error
    return str(ptx).replace(entries(ptx)[0], name or function.__name__)
