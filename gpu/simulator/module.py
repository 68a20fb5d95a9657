"""Modules and their entries: load PTX once, launch it as often as you like."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from loadsparse.gpu.simulator import interpreter, report
from loadsparse.gpu.simulator.arguments import bind
from loadsparse.gpu.simulator.indirect import resolve_indirect_calls
from loadsparse.gpu.simulator.layout import Layout, layout
from loadsparse.gpu.simulator.limits import (
    ARCHITECTURES,
    MAXIMUM_BLOCK,
    MAXIMUM_GRID,
    LaunchError,
    check_launch,
    dimensions,
    limits,
)
from loadsparse.gpu.simulator.parser import parse
from loadsparse.gpu.simulator.program import Kernel, Program, PtxError
from loadsparse.gpu.simulator.request import (
    CONSTANT,
    GRID_WORKSPACE,
    Allocation,
    Checks,
    Outcome,
    Request,
)

WORKSPACE_BYTES = 256
"""Zeroed before each launch; %envreg1 and %envreg2 point to it: cooperative groups keep their grid barrier there."""

_SM = re.compile(r"sm_(\d+)([a-z]?)$")

Engine = Literal["auto", "interpreter", "llvm"]


@functools.lru_cache(maxsize=256)
def _checked(program: Program, kernel: Kernel, arch: str) -> Layout:
    """The layout of a kernel whose every instruction can be executed: tried on one thread without arguments."""
    place, one = layout(program, kernel), (1, 1, 1)
    nothing = np.zeros(0, np.uint8)
    interpreter.check(Request(program, kernel, arch, one, one, nothing, {}, place.shared_bytes, 0, place.local_bytes))
    return place


class Entry:
    """One kernel of a module."""

    def __init__(self, module: Module, kernel: Kernel) -> None:
        self.module, self.kernel = module, kernel
        self.layout = _checked(module.program, kernel, module.arch)

    def __repr__(self) -> str:
        parameters = ", ".join(f".{p.type}" + (f"[{p.size}]" if p.type == "b8" else "") for p in self.kernel.parameters)
        return f"Entry({self.kernel.name[:60]}({parameters}), {len(self.kernel.instructions)} instructions)"

    def request(
        self,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        shared_bytes: int = 0,
        checks: Checks | None = None,
        seed: int = 0,
        budget: int | None = None,
        schedule: Literal["default", "adversarial"] = "default",
        cp_async: Literal["late", "eager"] = "late",
    ) -> Request:
        """A launch without its arguments; limits are checked here."""
        arch = self.module.arch
        grid3, block3 = dimensions("grid", grid, MAXIMUM_GRID), dimensions("block", block, MAXIMUM_BLOCK)
        static = self.layout.shared_bytes
        check_launch(arch, block3, static, shared_bytes, self.kernel.max_threads, self.kernel.required_threads)
        if budget is not None and budget < 1:
            raise LaunchError(f"budget is {budget}; give a positive number of thread instructions")
        if schedule not in ("default", "adversarial"):
            raise LaunchError(f"schedule is {schedule!r}; choose 'default' or 'adversarial'")
        if cp_async not in ("late", "eager"):
            raise LaunchError(f"cp_async is {cp_async!r}; choose 'late' or 'eager'")
        most = limits(arch)
        return Request(
            self.module.program, self.kernel, arch, grid3, block3, np.zeros(0, np.uint8), {}, static, shared_bytes,
            self.layout.local_bytes, checks if checks is not None else Checks(), budget, schedule,
            cp_async, seed, most.multiprocessors * most.blocks,
        )  # fmt: skip

    def launch(
        self,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *arguments: Any,
        shared_bytes: int = 0,
        checks: Checks | None = None,
        seed: int = 0,
        budget: int | None = None,
        engine: Engine = "auto",
        schedule: Literal["default", "adversarial"] = "default",
        cp_async: Literal["late", "eager"] = "late",
        observer: interpreter.Observer | None = None,
    ) -> report.Report:
        """Executes the kernel and returns its report.

        Arguments are NumPy arrays (C-contiguous; copied in, and written back), `empty(array)`, scalars, and for
        structures by value bytes or one element of a structured dtype (`align=True` lays it out as C does).  Engine
        "auto" takes the LLVM engine where it can execute the kernel and the interpreter elsewhere; an `observer`
        (one call per warp instruction) needs the interpreter.  Raises `LaunchError` for an impossible launch.
        """
        request = self.request(grid, block, shared_bytes, checks, seed, budget, schedule, cp_async)
        bound = bind(self.kernel, arguments)
        request.parameters = bound.parameters
        workspace = Allocation(GRID_WORKSPACE, "grid workspace", np.zeros(WORKSPACE_BYTES, np.uint8))
        request.allocations = {CONSTANT: self.module.variables, GRID_WORKSPACE: workspace, **bound.allocations}
        outcome, name = _run(request, engine, observer)
        bound.copy_back()
        return report.build(request, self.layout, outcome, name)


def _run(request: Request, engine: Engine, observer: interpreter.Observer | None) -> tuple[Outcome, str]:
    if engine not in ("auto", "interpreter", "llvm"):
        raise LaunchError(f"engine is {engine!r}; choose 'auto', 'interpreter' or 'llvm'")
    if engine == "llvm" and observer is not None:
        raise LaunchError("an observer needs engine='interpreter'")
    if engine == "interpreter" or observer is not None:
        return interpreter.run(request, observer), "interpreter"
    try:
        run = importlib.import_module("loadsparse.gpu.simulator.engine").run
    except (ImportError, AttributeError) as error:
        if engine == "llvm":
            raise LaunchError(
                f"the LLVM engine cannot be used ({error}); install llvmlite or use the interpreter"
            ) from error
        return interpreter.run(request), "interpreter"
    try:
        return run(request), "llvm"
    except NotImplementedError as error:
        if engine == "llvm":
            raise LaunchError(f"{error}; use engine='interpreter'") from error
    return interpreter.run(request), "interpreter"


class Module(Mapping[str, Entry]):
    """The entries of a PTX module by name; its variables keep their values from launch to launch."""

    def __init__(self, program: Program, arch: str) -> None:
        limits(arch)
        self.program, self.arch = program, arch
        self.entries = {name: Entry(self, kernel) for name, kernel in program.kernels.items() if kernel.is_entry}
        placed = [v for v in program.globals if v.space in ("global", "const")]
        data = np.zeros(max((v.offset + v.size for v in placed), default=0), np.uint8)
        for variable in placed:
            if variable.data is not None:
                data[variable.offset : variable.offset + variable.size] = np.frombuffer(variable.data, np.uint8)
        self.variables = Allocation(CONSTANT, "module variables", data)

    def __getitem__(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            raise KeyError(f"no entry {name!r}; this module has {', '.join(self.entries) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"Module({self.arch}, {list(self.entries.values())})"


def load(ptx_text: str, arch: str = "sm_80") -> Module:
    """Parses PTX text for an architecture (sm_80, sm_86, sm_89, sm_90).

    Raises `PtxError`, naming line and column, for text or opcodes that are not understood and for a `.target` that does
    not run on `arch`, and `LaunchError` for an architecture that is not simulated.
    """
    limits(arch)
    if not isinstance(ptx_text, str):
        raise TypeError(f"PTX is text, not {type(ptx_text).__name__}; of a file, pass Path(...).read_text()")
    program = parse(resolve_indirect_calls(ptx_text.removeprefix("\ufeff")))
    _check_target(program, arch)
    return Module(program, arch)


def _check_target(program: Program, arch: str) -> None:
    """PTX runs on its .target and on newer GPUs; that of sm_90a (or another letter) on no other."""
    target, own = _SM.match(program.target), _SM.match(arch)
    if target is None or own is None or program.target == arch:
        return
    if int(target[1]) > int(own[1]) or target[2]:
        mend = f"load it with arch={program.target!r} or " if program.target in ARCHITECTURES else ""
        line = program.text[: program.text.find(".target")].count("\n") + 1
        raise PtxError(f".target {program.target} does not run on {arch}: {mend}compile it for {arch}", line, 1)
