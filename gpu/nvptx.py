"""LLVM's NVPTX back end in the place of NVIDIA's libNVVM, which has no wheel for macOS and is large elsewhere.

Numba hands LLVM IR to `nvvm.compile_ir`; here llvmlite, which Numba needs anyway, makes PTX of it.  What libdevice would
supply is taken from LLVM where LLVM computes the very same (`SAME`); other functions of libdevice are refused by name.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import llvmlite.binding as llvm

LAYOUT = (
    "e-p:64:64:64-i1:8:8-i8:8:8-i16:16:16-i32:32:32-i64:64:64-i128:128:128-f32:32:32-f64:64:64-v16:16:16-v32:32:32-"
    "v64:64:64-v128:128:128-n16:32:64"
)
"""Where values lie in memory, as NVVM has it."""
PTX_VERSION = {"sm_100": 86, "sm_120": 87}
"""Least PTX version of architectures that the default does not know."""

SAME = {
    "fabs": ("f64", "fabs"), "fabsf": ("f32", "fabs"), "floor": ("f64", "floor"), "floorf": ("f32", "floor"),
    "ceil": ("f64", "ceil"), "ceilf": ("f32", "ceil"), "trunc": ("f64", "trunc"), "truncf": ("f32", "trunc"),
    "rint": ("f64", "rint"), "rintf": ("f32", "rint"), "sqrt": ("f64", "sqrt"), "sqrtf": ("f32", "sqrt"),
    "fmin": ("f64 f64", "minnum"), "fminf": ("f32 f32", "minnum"), "fmax": ("f64 f64", "maxnum"),
    "fmaxf": ("f32 f32", "maxnum"), "copysign": ("f64 f64", "copysign"), "copysignf": ("f32 f32", "copysign"),
    "fma": ("f64 f64 f64", "fma"), "fmaf": ("f32 f32 f32", "fma"), "popc": ("i32", "ctpop"), "brev": ("i32", "bitreverse"),
}  # fmt: skip
"""Function of libdevice -> operand types, and the LLVM intrinsic with the same result in every bit."""
_NAMES = {"f32": "float", "f64": "double", "i32": "i32"}
_lock = threading.RLock()


class _Dialect:
    """What Numba asks libNVVM about itself."""

    data_layout = LAYOUT
    supported_ccs = ((7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (12, 0))

    def get_ir_version(self) -> tuple[int, int, int, int]:
        return 2, 0, 3, 2


@contextmanager
def in_place_of_nvvm() -> Iterator[None]:
    """Within this block Numba's compiler calls LLVM."""
    nvvm: Any = import_module("numba.cuda.cudadrv.nvvm")
    with _lock:
        kept = nvvm.NVVM, nvvm.compile_ir
        nvvm.NVVM, nvvm.compile_ir = _Dialect, compile_ir
        try:
            yield
        finally:
            nvvm.NVVM, nvvm.compile_ir = kept


@cache
def _target() -> llvm.Target:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple("nvptx64-nvidia-cuda")


def compile_ir(modules: str | list[str], **options: Any) -> bytes:
    """PTX of LLVM IR, as `nvvm.compile_ir` makes it.  Raises NotImplementedError for functions of libdevice that it lacks."""
    texts = [modules] if isinstance(modules, str) else modules
    whole = llvm.parse_assembly(texts[0])
    for text in texts[1:]:
        whole.link_in(llvm.parse_assembly(text))
    wanted = {f.name.removeprefix("__nv_") for f in whole.functions if f.is_declaration and f.name.startswith("__nv_")}
    if missing := sorted(wanted - SAME.keys()):
        raise NotImplementedError(f"{', '.join(missing)}: these functions are in NVIDIA's libdevice, which is not here")
    if wanted:
        whole.link_in(llvm.parse_assembly("\n".join(map(_wrapper, sorted(wanted)))))
    arch = options["arch"].replace("compute", "sm")
    machine = _target().create_target_machine(
        cpu=arch, features=f"+ptx{PTX_VERSION.get(arch, 80)}", opt=3 if options.get("opt", 3) else 0
    )
    tuning = llvm.create_pipeline_tuning_options(speed_level=3 if options.get("opt", 3) else 0)
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(whole, builder)
    ptx: str = machine.emit_assembly(whole)
    return ptx.encode()


def _wrapper(name: str) -> str:
    """LLVM IR that defines a function of libdevice by an intrinsic."""
    operands, intrinsic = SAME[name]
    kinds = operands.split()
    kind = _NAMES[kinds[0]]
    formal, actual = ", ".join([kind] * len(kinds)), ", ".join(f"{kind} %{i}" for i in range(len(kinds)))
    return (
        f"declare {kind} @llvm.{intrinsic}.{kinds[0]}({formal})\n"
        f"define linkonce_odr {kind} @__nv_{name}({formal}) alwaysinline {{\n"
        f"  %r = call {kind} @llvm.{intrinsic}.{kinds[0]}({actual})\n  ret {kind} %r\n}}\n"
    )
