"""Numba, CUDA C++, Triton and PTX text -> PTX; PTX -> machine code, registers and spills.  None of it needs a GPU or a driver."""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypedDict

from loadsparse.gpu import nvptx
from loadsparse.gpu.triton_kernel import TritonKernel, compiled

ARCHES = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_120")
"""GPU architectures that the compilers accept."""


class CompileError(ValueError):
    """A source that does not compile; the message is one line that says why."""


class NoCompilerError(CompileError):
    """What only NVIDIA's tools can do was asked for where they are not installed."""


@contextmanager
def nvidia_needed(what: str) -> Iterator[None]:
    """Raises NoCompilerError, which names the mend, for `what` if a package of NVIDIA's is missing."""
    try:
        yield
    except ImportError as error:
        raise NoCompilerError(
            f'{what} needs NVIDIA\'s compiler: pip install "loadsparse[nvidia]" (Linux and Windows; macOS has none)'
        ) from error


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


Backend = Literal["nvidia", "llvmlite"]
"""Who turns Numba's LLVM IR into PTX: NVIDIA's libNVVM, or llvmlite, which every install has; see `nvptx`."""


@cache
def default_backend() -> Backend:
    """ "nvidia" where NVIDIA's compiler is installed (`pip install "loadsparse[nvidia]"`: Linux and Windows), else "llvmlite"."""
    try:
        import_module("numba.cuda.core")  # of numba-cuda: Numba's own `numba.cuda` knows no newer libNVVM
        import_module("numba.cuda.cudadrv.nvvm").NVVM()
    except (ImportError, OSError, RuntimeError):
        return "llvmlite"
    return "nvidia"


def back_end(backend: Backend) -> AbstractContextManager[None]:
    """Inside, Numba's CUDA compiler writes PTX by this back end."""
    return nvptx.in_place_of_nvvm() if backend == "llvmlite" else nullcontext()


@contextmanager
def device_functions_for(cc: tuple[int, int]) -> Iterator[None]:
    """Let Numba compile device functions without a GPU: it asks the current device only for its compute capability."""
    from numba.cuda import dispatcher

    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=cc)
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


@contextmanager
def lines_of_inlined_code() -> Iterator[None]:
    """Let Numba give code that it inlined the line it was written in, or, from another file, the line before it.

    Left alone, lines above the kernel's `def` become that of the `def`, and lines of other files pass as the kernel's.
    """
    Lower = import_module("numba.cuda.lowering" if find_spec("numba.cuda.lowering") else "numba.core.lowering").Lower
    lower, adjust = Lower.lower_inst, getattr(Lower, "_adjust_line_if_prologue", None)

    def lower_at_own_line(self: Any, instruction: Any) -> Any:
        if self.loc.filename == self.func_ir.loc.filename:
            self.last_line = self.loc.line
        else:
            self.loc = self.func_ir.loc.with_lineno(getattr(self, "last_line", self.func_ir.loc.line))
        return lower(self, instruction)

    Lower.lower_inst = lower_at_own_line
    if adjust is not None:
        Lower._adjust_line_if_prologue = lambda self, line: line
    try:
        yield
    finally:
        Lower.lower_inst = lower
        if adjust is not None:
            Lower._adjust_line_if_prologue = adjust


@contextmanager
def no_collections() -> Iterator[None]:
    """Inside, Python collects no cycles: Numba makes millions of small objects, and looking at them takes a third of its time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def numba(
    f: Callable[..., Any],
    signature: Any,
    arch: str = "sm_80",
    *,
    name: str | None = None,
    launch_bounds: Any = None,
    registers: int | None = None,
    fastmath: bool = False,
    opt: bool = True,
    backend: Backend | None = None,
) -> str:
    """PTX of a Numba-CUDA kernel, with source lines.

    `signature` is a Numba signature, its text ("void(uint64, uint32)") or argument types; the entry is called `name`, by
    default the function's own.  `f` may be a plain function or one decorated with cuda.jit.  `launch_bounds`: threads per
    block, or (threads, blocks per SM); `registers`: most registers per thread (.maxnreg); `fastmath`, `opt`: as in
    cuda.jit.  `backend`: None for `default_backend()`.  Raises CompileError with the compiler's reason.
    """
    from numba import cuda
    from numba.core.errors import NumbaError  # the base of numba-cuda's own
    from numba.cuda.cudadrv.error import NvvmWarning

    function = getattr(f, "py_func", f)
    cc = capability(arch)
    bounds = (launch_bounds,) if isinstance(launch_bounds, int) else tuple(launch_bounds or ())
    backend = backend or default_backend()
    how: dict[str, Any] = {"device": False, "abi": "numba", "lineinfo": True, "fastmath": fastmath, "opt": opt}
    if backend == "nvidia":
        how["launch_bounds"] = bounds or None
    try:
        with (
            device_functions_for(cc),
            lines_of_inlined_code(),
            back_end(backend),
            no_collections(),
            warnings.catch_warnings(),
        ):
            # NVVM only warns of an operand that had to be a constant, and leaves the instruction out
            warnings.filterwarnings("error", "(?s).*error: ", NvvmWarning)
            ptx, _ = cuda.compile(function, signature, cc=cc, **how)
    except (NumbaError, NvvmWarning, nvptx.MissingFunction) as error:
        reason = " ".join(str(error).split())
        raise CompileError(f"{function.__name__}: Numba cannot compile it: {reason[:400]}") from error
    text = str(ptx).replace(entries(ptx)[0], name or re.sub(r"\W", "_", function.__name__))
    # unused, and its name counts compilations
    text = re.sub(r"^\.common .*NumbaEnv.*;\n", "", text, flags=re.MULTILINE)
    directives = [] if registers is None else [f".maxnreg {registers}"]
    if backend == "llvmlite":
        directives += [f".{name} {bound}" for name, bound in zip(("maxntid", "minnctapersm"), bounds, strict=False)]
    text = re.sub(r"^(?=\{)", "".join(f"{line}\n" for line in directives), text, count=1, flags=re.MULTILINE)
    return mark_uniform(text)


def mark_uniform(ptx: str) -> str:
    """PTX whose branches on a comparison of a register that `intrinsics.uniform` made with a constant are `bra.uni`."""
    for register in re.findall(r"mov\.b32\s+(%r\d+), %r\d+; // uniform", ptx):
        for predicate in re.findall(rf"setp\.\w+\.\w+\s+(%p\d+), {register}, -?\d+;", ptx):
            ptx = re.sub(rf"(@!?{predicate} bra)(?=\s)", r"\1.uni", ptx)
    return ptx


_HEADERS = {
    "nvidia-cuda-runtime": "cuda_fp16.h",  # and cooperative_groups.h, cuda_pipeline.h, mma.h
    "nvidia-cuda-crt": "crt/mma.h",
    "nvidia-cuda-cccl": "cuda/barrier",  # and cuda/atomic, cuda/pipeline, cuda/std, cub
}
"""PyPI packages with CUDA's headers, and a header of each as a program names it."""

_HOST_HEADERS = {
    **dict.fromkeys(
        [
            "stdio.h",
            "cstdio",
            "assert.h",
            "cassert",
            "stdlib.h",
            "cstdlib",
            "string.h",
            "cstring",
            "math.h",
            "cmath",
            "device_launch_parameters.h",
        ]
    ),
    "cuda_runtime.h": None,
    "cuda.h": "#define CUDA_VERSION (__CUDACC_VER_MAJOR__ * 1000 + __CUDACC_VER_MINOR__ * 10)",
    "stdint.h": "#include <cuda/std/cstdint>\nusing namespace cuda::std;",
    "cstdint": "#include <cuda/std/cstdint>\nusing namespace cuda::std;",
    **dict.fromkeys(["float.h", "cfloat"], "#include <cuda/std/cfloat>"),
    **dict.fromkeys(["limits.h", "climits"], "#include <cuda/std/climits>"),
    "stddef.h": "#include <cuda/std/cstddef>",
    **{
        name: f"#include <cuda/std/{name}>\nnamespace std {{ using namespace cuda::std; }}"
        for name in ("cstddef", "limits", "type_traits", "utility")
    },
}
"""Host headers that kernels commonly include; NVRTC declares printf, assert and the mathematical functions itself."""

_AS_NVCC = (
    "-DINFINITY=__int_as_float(0x7f800000)",
    "-DNAN=__int_as_float(0x7fffffff)",
    "-DM_PI=3.14159265358979323846",
    *(["--device-int128"] if sys.platform.startswith("linux") else []),
)
"""What nvcc gives every program (by the headers that it includes itself) and NVRTC does not."""


def includes() -> list[Path]:
    """Folders of CUDA's headers, from those of the packages `nvidia-cuda-runtime`, `-crt`, `-cccl` that are installed."""
    found: set[Path] = set()
    for package, header in _HEADERS.items():
        try:
            files = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            continue
        depth = len(Path(header).parts)
        for file in files:
            place = Path(str(file.locate()))
            if place.parts[-depth:] == Path(header).parts and "std" not in place.parts:
                found.add(place.parents[depth - 1])
    return sorted(found)


def cuda(source: str, arch: str = "sm_80", *options: str, name: str = "kernel.cu") -> str:
    """PTX of CUDA C++ source through NVRTC; `name` is the file that errors and line information speak of.

    Raises CompileError with the first error line.
    """
    with nvidia_needed("compiling CUDA C++"):
        from cuda.bindings import nvrtc

    def call(result: tuple[Any, ...]) -> Any:
        if result[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise CompileError(f"NVRTC: {result[0].name}")
        return result[1] if len(result) == 2 else result[1:]

    major, minor = capability(arch)
    names = [name.encode() for name in _HOST_HEADERS]
    texts = [(text or "").encode() for text in _HOST_HEADERS.values()]
    program = call(nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), len(names), texts, names))
    try:
        flags = [f"--gpu-architecture=compute_{major}{minor}".encode(), b"-lineinfo"]
        flags += [option.encode() for option in (*_AS_NVCC, *options)]
        flags += [f"--include-path={folder}".encode() for folder in includes()]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytearray(call(nvrtc.nvrtcGetProgramLogSize(program)))
            nvrtc.nvrtcGetProgramLog(program, log)
            lines = log.decode(errors="replace").strip("\0").splitlines()
            raise CompileError(f"CUDA C++: {next((s for s in lines if 'error' in s), status.name)}")
        text = bytearray(call(nvrtc.nvrtcGetPTXSize(program)))
        nvrtc.nvrtcGetPTX(program, text)
        return text.decode().strip("\0")
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def triton(
    kernel: Any, signature: str, constants: Mapping[str, Any] | None = None, arch: str = "sm_80", **options: Any
) -> TritonKernel:
    """PTX of a Triton kernel (decorated with @triton.jit), and what its launch needs.

    `signature` has the types of the parameters that are no constants, in order: "*fp16:16, *fp32, i32" (`:16` promises a
    multiple of 16, which Triton's launcher finds out by itself); `constants` are the values of the `tl.constexpr` ones;
    `options` are Triton's own: num_warps, num_stages ...  Raises CompileError with the reason.

    >>> built = compiler.triton(add, "*fp32:16, *fp32:16, *fp32:16, i32", {"BLOCK": 256})         # doctest: +SKIP
    >>> kernel = simulator.load(built.ptx, built.arch)[built.name]                                # doctest: +SKIP
    >>> kernel.launch(4, built.threads, x, y, z, x.size, *built.scratch, shared_bytes=built.shared_bytes)  # doctest: +SKIP
    """
    capability(arch)
    try:
        return compiled(kernel, signature, constants or {}, arch, options)
    except ImportError as error:
        mend = 'compiling Triton kernels needs Triton: pip install "loadsparse[triton]" (Linux only)'
        raise NoCompilerError(mend) from error
    except ValueError as error:
        raise CompileError(f"Triton: {error}") from error


def cubin(ptx: str, arch: str = "sm_80") -> tuple[bytes, str]:
    """Machine code of a PTX module and the linker's information log, through nvJitLink.  Raises CompileError."""
    with nvidia_needed("assembling PTX (registers, spills, SASS)"):
        from cuda.bindings import nvjitlink

    capability(arch)
    options = [f"-arch={arch}", "-lineinfo", "-verbose"]
    handle = nvjitlink.create(len(options), options)
    try:
        try:
            text = ptx.encode()
            nvjitlink.add_data(handle, nvjitlink.InputType.PTX, text, len(text), "kernel.ptx")
            nvjitlink.complete(handle)
        except nvjitlink.nvJitLinkError as error:
            log = bytearray(nvjitlink.get_error_log_size(handle))
            nvjitlink.get_error_log(handle, log)
            lines = log.decode(errors="replace").strip("\0").strip().splitlines()
            raise CompileError(f"PTX for {arch}: {lines[0] if lines else error}") from None
        code = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, code)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
        return bytes(code), log.decode(errors="replace").strip("\0")
    finally:
        nvjitlink.destroy(handle)


def disassembler() -> str:
    """Path of nvdisasm: the program of the PyPI package nvidia-cuda-nvdisasm, else one on the PATH."""
    try:
        for file in metadata.files("nvidia-cuda-nvdisasm") or []:
            if file.stem == "nvdisasm" and file.suffix in ("", ".exe") and Path(str(file.locate())).is_file():
                return str(file.locate())
    except metadata.PackageNotFoundError:
        pass
    found = shutil.which("nvdisasm")
    if found is None:
        raise CompileError("nvdisasm is missing: pip install nvidia-cuda-nvdisasm")
    return found


def sass(code: bytes) -> str:
    """SASS listing of a cubin."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        done = subprocess.run([disassembler(), "-c", file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"nvdisasm: {(done.stderr or done.stdout).strip().splitlines()[:1]}")
    return done.stdout


def resources(ptx: str, arch: str = "sm_80") -> Resources:
    """Registers per thread, static shared bytes, stack bytes, spilled bytes and SASS of a module's first kernel.

    Machine code is made for `arch` by nvJitLink.  Raises CompileError.
    """
    code, log = cubin(ptx, arch)

    def number(pattern: str) -> int:
        found = re.search(pattern, log)
        return int(found[1]) if found else 0

    return {
        "registers": number(r"[Uu]sed (\d+) registers"),
        "shared_bytes": number(r"(\d+) bytes smem"),
        "stack_bytes": number(r"(\d+) bytes stack frame"),
        "spill_bytes": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        "sass": sass(code),
    }
