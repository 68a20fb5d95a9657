"""Stand-ins for the parts of `cuda.core` that compile, link, load and launch: what is simulated is PTX."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from itertools import count
from typing import Any

from cuda.bindings import nvrtc
from cuda.core import Linker as RealLinker
from cuda.core import LinkerOptions, ObjectCode
from cuda.core._utils.cuda_utils import CUDAError, NVRTCError

from loadsparse.gpu.simulator.frontend.launcher import LoadedModule, pack
from loadsparse.gpu.simulator.frontend.linker import LinkError, link
from loadsparse.gpu.simulator.frontend.session import session
from loadsparse.gpu.simulator.limits import LaunchError

_handles = count(1)


class Program:
    """`cuda.core.Program` for CUDA C++: NVRTC, which needs no driver."""

    def __init__(self, code: str, code_type: str, options: Any = None) -> None:
        self._source, self._options = code, options

    def compile(self, target_type: str, name_expressions: Sequence[str] = (), logs: Any = None, **ignored: Any) -> Any:
        name = (self._options.name or "source.cu").encode()
        error, handle = nvrtc.nvrtcCreateProgram(self._source.encode(), name, 0, [], [])
        _check(error)
        try:
            flags = self._options.as_bytes("nvrtc")
            (error,) = nvrtc.nvrtcCompileProgram(handle, len(flags), flags)
            _, size = nvrtc.nvrtcGetProgramLogSize(handle)
            log = b" " * size
            nvrtc.nvrtcGetProgramLog(handle, log)
            text = log.decode("utf-8", "replace").strip("\0 \n")
            if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
                _check(error, text)
            if text and logs is not None:
                logs.write(text)
            return self._result(handle, target_type)
        finally:
            nvrtc.nvrtcDestroyProgram(handle)

    def _result(self, handle: Any, target_type: str) -> Any:
        sizer, getter = {
            "ptx": (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX),
            "ltoir": (nvrtc.nvrtcGetLTOIRSize, nvrtc.nvrtcGetLTOIR),
        }[str(target_type)]
        error, size = sizer(handle)
        _check(error)
        code = b" " * size
        _check(*getter(handle, code))
        maker = ObjectCode.from_ptx if target_type == "ptx" else ObjectCode.from_ltoir
        return maker(code, name=self._options.name or "")


def _check(error: Any, log: str = "") -> None:
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise NVRTCError(f"{error.name}: compilation failed\n{log}")


class Linker:
    """`cuda.core.Linker`: joins PTX as text; LTO-IR becomes PTX through nvJitLink, which needs no driver."""

    def __init__(self, *codes: Any, options: LinkerOptions) -> None:
        self._codes, self._options = codes, options

    def link(self, target_type: str) -> Any:
        if str(target_type) == "ptx":
            return self._lto("ptx")
        modules: list[str] = []
        for code in self._codes:
            if code.code_type == "ptx":
                modules.append(_text(code.code))
            elif code.code_type not in ("ltoir", "library"):
                raise CUDAError(
                    f"{code.name or code.code_type}: machine code ({code.code_type}) cannot be simulated; "
                    "link its PTX or its CUDA C++ source"
                )
            elif code.code_type == "library" and "cudadevrt" not in str(code.name):
                raise CUDAError(f"{code.name}: an archive of machine code cannot be simulated; link its PTX or source")
        if any(code.code_type == "ltoir" for code in self._codes):
            modules.append(_text(self._lto("ptx").code))
        try:
            text = link(modules)
        except LinkError as error:
            raise CUDAError(str(error)) from None
        return Code(text, [(bytes(c.code), c.code_type, c.name) for c in self._codes], self._options)

    def _lto(self, target: str) -> Any:
        options = LinkerOptions(arch=self._options.arch, link_time_optimization=True, ptx=True, lineinfo=True)
        return RealLinker(*(c for c in self._codes if c.code_type == "ltoir"), options=options).link(target)

    def get_info_log(self) -> str:
        return ""

    def get_error_log(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""


def _text(code: Any) -> str:
    return (code.decode() if isinstance(code, bytes) else str(code)).rstrip("\0 \n")


class Code:
    """`cuda.core.ObjectCode` of a linked module: what is simulated is PTX; machine code is made when asked for."""

    def __init__(self, ptx: str, parts: list[tuple[bytes, str, str]], options: LinkerOptions) -> None:
        self.ptx, self.name = ptx, ""
        self._parts = parts
        self._options = {
            "arch": options.arch,
            "max_register_count": options.max_register_count,
            "lineinfo": options.lineinfo,
            "link_time_optimization": options.link_time_optimization,
        }
        self._loaded: LoadedModule | None = None
        self._handle: int | None = None
        self._machine: tuple[bytes, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None, "_handle": None}

    @property
    def code_type(self) -> str:
        return "cubin"

    @property
    def handle(self) -> int:
        """The module's number in the driver; loads it."""
        if self._handle is None or self._handle not in session().driver.modules:
            self._handle = next(_handles)
            self._loaded = LoadedModule(self.ptx, session().driver.memory, session().driver.gpu.arch)
            session().driver.modules[self._handle] = self._loaded
        return self._handle

    @property
    def module(self) -> LoadedModule:
        """The loaded module."""
        return session().driver.modules[self.handle]  # type: ignore[no-any-return]

    def get_kernel(self, name: str) -> Kernel:
        if name not in self.module.kernels:
            raise CUDAError(f"CUDA_ERROR_NOT_FOUND: no kernel {name!r} in this module")
        return Kernel(self, name)

    def machine(self) -> tuple[bytes, str]:
        """(cubin, the linker's log with registers, stack and memory) from nvJitLink."""
        if self._machine is None:
            makers = {"ptx": ObjectCode.from_ptx, "ltoir": ObjectCode.from_ltoir, "library": ObjectCode.from_library}
            codes = [makers[kind](code, name=name) for code, kind, name in self._parts]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                linker = RealLinker(*codes, options=LinkerOptions(verbose=True, **self._options))
                cubin = linker.link("cubin")
            self._machine = bytes(cubin.code), linker.get_info_log()
        return self._machine

    @property
    def code(self) -> bytes:
        """The cubin."""
        return self.machine()[0]


class Kernel:
    """`cuda.core.Kernel`: one entry of a loaded module."""

    def __init__(self, code: Code, name: str) -> None:
        self.code, self.name = code, name

    @property
    def handle(self) -> Kernel:
        return self

    _handle = handle

    @property
    def attributes(self) -> Attributes:
        return Attributes(self)


class Value(int):
    """An attribute that may be read or called: cuda.core changed from one to the other."""

    def __call__(self) -> int:
        return int(self)


class Attributes:
    """Resources of a kernel: registers and stack as NVIDIA's assembler reports them, the rest from the PTX."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def _reported(self, what: str) -> int:
        log = self._kernel.code.machine()[1]
        name = re.escape(self._kernel.name)
        section = re.search(rf"properties for '?{name}'?:?\s*\n(.*?)(?=Function properties|\Z)", log, re.DOTALL)
        found = section and re.search(what, section.group(1))
        if not found:
            raise CUDAError(f"the assembler's log does not say what {self._kernel.name!r} needs")
        return int(found.group(1))

    @property
    def num_regs(self) -> Value:
        return Value(self._reported(r"[Uu]sed (\d+) registers"))

    @property
    def local_size_bytes(self) -> Value:
        return Value(self._reported(r"(\d+) bytes stack frame"))

    @property
    def shared_size_bytes(self) -> Value:
        module = self._kernel.code.module
        return Value(module.static_shared_bytes(self._kernel.name))

    @property
    def const_size_bytes(self) -> Value:
        program = self._kernel.code.module.module.program
        return Value(sum(variable.size for variable in program.globals if variable.space == "const"))

    @property
    def max_threads_per_block(self) -> Value:
        bounds = self._kernel.code.module.kernels[self._kernel.name].max_threads
        return Value(1024 if bounds is None else bounds[0] * bounds[1] * bounds[2])


class LaunchConfig:
    """`cuda.core.LaunchConfig`: extents filled up with ones.  All blocks of a grid may wait for each other here."""

    def __init__(self, grid: Any, block: Any, shmem_size: int = 0, **ignored: Any) -> None:
        self.grid, self.block, self.shmem_size = _extents(grid), _extents(block), shmem_size


def _extents(given: Any) -> tuple[int, int, int]:
    x, y, z = (*(given if isinstance(given, tuple | list) else (given,)), 1, 1)[:3]
    return int(x), int(y), int(z)


def launch(stream: Any, config: LaunchConfig, kernel: Kernel, *arguments: Any) -> None:
    """`cuda.core.launch`: run the kernel to its end."""
    module = kernel.code.module
    parameters = pack(module.kernels[kernel.name].parameters, arguments)
    try:
        report = module.launch(
            kernel.name, config.grid, config.block, parameters, config.shmem_size, **session().options
        )
    except LaunchError as error:
        raise CUDAError(f"CUDA_ERROR_INVALID_VALUE: {error}") from None
    session().launched(kernel.name, report)
