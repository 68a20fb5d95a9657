"""LLVM IR -> PTX through llvmlite's NVPTX back end: how Numba kernels compile where NVIDIA's compiler is not installed.

Numba makes the same LLVM IR either way; here llvmlite stands in for libNVVM, the one library of NVIDIA's that Numba asks.
Of libdevice, NVIDIA's mathematical functions, it has those that are one instruction or exact (square root, fma, rounding,
minimum, bits); a kernel that calls another one (exp, sin, ...) is refused by name.  Both compilers make
a product and a sum one fma, but of a difference neither; of a product that is used elsewhere, too, only llvmlite does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

PTX_FEATURE = "+ptx87"  # PTX ISA 8.7, the newest that the oldest llvmlite we accept can write; sm_120 needs it

DATA_LAYOUT = (
    "e-p:64:64:64-i1:8:8-i8:8:8-i16:16:16-i32:32:32-i64:64:64-i128:128:128-f32:32:32-f64:64:64-v16:16:16-v32:32:32"
    "-v64:64:64-v128:128:128-n16:32:64"
)
"""Of NVVM IR.  Source: NVVM IR specification, "Data Layout"."""


class Nvvm:
    """What Numba asks of libNVVM before it compiles."""

    data_layout = DATA_LAYOUT

    def get_ir_version(self) -> tuple[int, int, int, int]:
        """NVVM IR 2.0, debug information 3.1."""
        return 2, 0, 3, 1


class MissingFunction(ValueError):
    """The kernel calls a function, or gives an operand, that this back end cannot translate; the message says which."""


@contextmanager
def in_place_of_nvvm() -> Iterator[None]:
    """Let Numba's compiler hand its LLVM IR to llvmlite instead of libNVVM."""
    from numba.cuda.cudadrv import nvrtc, nvvm
    from numba.cuda.dispatcher import CUDADispatcher

    ours: dict[tuple[Any, str], Any] = {(nvvm, "compile_ir"): compile_ir, (nvvm, "NVVM"): Nvvm}
    for module in (nvvm, nvrtc):  # which of the two names architectures depends on Numba's version
        if hasattr(module, "get_arch_option"):
            ours[module, "get_arch_option"] = architecture
    if find_spec("numba.cuda.core") is None:  # Numba's own, which cannot call functions of *arguments (min, max)
        template = CUDADispatcher.get_call_template

        def folded(self: Any, args: Any, kws: Any) -> Any:
            _, args = self.fold_argument_types(args, kws)
            return template(self, args, {})

        ours[CUDADispatcher, "get_call_template"] = folded
    theirs = {(place, name): getattr(place, name) for place, name in ours}
    for (place, name), value in ours.items():
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name), value in theirs.items():
            setattr(place, name, value)


def architecture(major: int, minor: int, suffix: str = "") -> str:
    """ "sm_80" for (8, 0)."""
    return f"sm_{major}{minor}{suffix}"


def compile_ir(modules: str | list[str], arch: str, **_: Any) -> bytes:
    """PTX of LLVM modules linked into one.  Raises MissingFunction."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    texts = [modules] if isinstance(modules, str) else modules
    linked = llvm.parse_assembly(contracting(texts[0]))
    for text in texts[1:]:
        linked.link_in(llvm.parse_assembly(contracting(text)))
    called = {f.name for f in linked.functions if f.is_declaration}
    for name in sorted(called & functions().keys()):
        linked.link_in(llvm.parse_assembly(functions()[name]))
    machine = llvm.Target.from_triple("nvptx64-nvidia-cuda").create_target_machine(
        cpu=arch, features=PTX_FEATURE, opt=3
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(linked, builder)
    check(linked)
    return str(machine.emit_assembly(linked)).encode()


def contracting(text: str) -> str:
    """LLVM IR that allows a product and a sum to become one fma, as libNVVM does by default."""
    return re.sub(r"(?<= = )(f(?:mul|add)) (?=float|double)", r"\1 contract ", text)


def check(module: Any) -> None:
    """Raises MissingFunction for what the back end would stop the process for: unknown functions, operands not constant."""
    for function in module.functions:
        if function.is_declaration and function.name.startswith(("__nv_", "___numba_")):
            raise MissingFunction(
                f"{function.name} is of NVIDIA's libdevice, which comes with its compiler alone: "
                'pip install "loadsparse[nvidia]" (Linux and Windows)'
            )
        for block in function.blocks:
            for instruction in block.instructions:
                if instruction.opcode == "call":
                    check_operands(instruction)


def check_operands(call: Any) -> None:
    """Raises MissingFunction for an inline assembly statement with a variable where a constant has to be."""
    found = re.search(r'\basm (?:\w+ )*"([^"]*)", "([^"]*)"\(', str(call))
    if found is None:
        return
    inputs = [code for code in found[2].split(",") if code and code[0] not in "=~"]
    for code, operand in zip(inputs, call.operands, strict=False):  # the last operand is the statement itself
        if code == "n" and not operand.is_constant:
            raise MissingFunction(f"an operand of {found[1].split()[0]} has to be a compile-time constant")


@cache
def functions() -> dict[str, str]:
    """LLVM IR of the functions of libdevice and of Numba's atomics that are known here, by name."""
    made: dict[str, str] = {}

    def define(name: str, kind: str, parameters: str, body: str, declares: str = "") -> None:
        listed = ", ".join(f"{p} %{letter}" for p, letter in zip(parameters.split(), "abc", strict=False))
        made[name] = f"define linkonce_odr {kind} @{name}({listed}) alwaysinline {{\n{body}\n}}\n{declares}"

    def intrinsic(name: str, kind: str, count: int, llvm_name: str, *more: str) -> None:
        arguments = [f"{kind} %{letter}" for letter in "abc"[:count]] + list(more)
        types = ", ".join(argument.split()[0] for argument in arguments)
        body = f"%r = call {kind} @{llvm_name}({', '.join(arguments)})\nret {kind} %r"
        define(name, kind, " ".join([kind] * count), body, f"declare {kind} @{llvm_name}({types})")

    for suffix, kind, bits, letter in (("f", "float", "f32", "f"), ("", "double", "f64", "d")):
        for name, count, llvm_name in (
            ("sqrt", 1, "sqrt"), ("fabs", 1, "fabs"), ("floor", 1, "floor"), ("ceil", 1, "ceil"), ("trunc", 1, "trunc"),
            ("rint", 1, "rint"), ("nearbyint", 1, "nearbyint"), ("round", 1, "round"), ("copysign", 2, "copysign"),
            ("fmin", 2, "minnum"), ("fmax", 2, "maxnum"), ("fma", 3, "fma"),
        ):  # fmt: skip
            intrinsic(f"__nv_{name}{suffix}", kind, count, f"llvm.{llvm_name}.{bits}")
        intrinsic(f"__nv_{letter}sqrt_rn", kind, 1, f"llvm.sqrt.{bits}")
        intrinsic(f"__nv_fma{suffix}_rn", kind, 3, f"llvm.fma.{bits}")
        for name in ("add", "sub", "mul", "div"):
            body = f"%r = f{name} {kind} %a, %b\nret {kind} %r"
            define(f"__nv_{letter}{name}_rn", kind, f"{kind} {kind}", body)
        test = f"%r = fcmp uno {kind} %a, %a\n%w = zext i1 %r to i32\nret i32 %w"
        define(f"__nv_isnan{letter}", "i32", kind, test)
        absolute = f"%m = call {kind} @llvm.fabs.{bits}({kind} %a)\n"
        declared = f"declare {kind} @llvm.fabs.{bits}({kind})"
        for name, relation in (("isinf", "oeq"), ("finite" if letter == "f" else "isfinite", "one")):
            test = f"%r = fcmp {relation} {kind} %m, 0x7FF0000000000000\n%w = zext i1 %r to i32\nret i32 %w"
            define(f"__nv_{name}{letter}", "i32", kind, absolute + test, declared)
    for prefix, kind in (("", "i32"), ("ll", "i64")):
        intrinsic(f"__nv_{prefix}abs", kind, 1, f"llvm.abs.{kind}", "i1 false")
        for name in ("min", "max"):
            intrinsic(f"__nv_{prefix}{name}", kind, 2, f"llvm.s{name}.{kind}")
            intrinsic(f"__nv_u{prefix}{name}", kind, 2, f"llvm.u{name}.{kind}")
        intrinsic(f"__nv_brev{prefix}", kind, 1, f"llvm.bitreverse.{kind}")
        narrow = "" if kind == "i32" else "%n = trunc i64 %r to i32\n"
        result = "%r" if kind == "i32" else "%n"
        for name, llvm_name, more in (("popc", "ctpop", ""), ("clz", "ctlz", ", i1 false")):
            flag = more and ", i1"
            body = f"%r = call {kind} @llvm.{llvm_name}.{kind}({kind} %a{more})\n{narrow}ret i32 {result}"
            define(f"__nv_{name}{prefix}", "i32", kind, body, f"declare {kind} @llvm.{llvm_name}.{kind}({kind}{flag})")
    for name, kind, operation in (
        ("double_add", "double", "fadd"), ("float_sub", "float", "fsub"), ("double_sub", "double", "fsub"),
        ("u64_inc", "i64", "uinc_wrap"), ("u64_dec", "i64", "udec_wrap"),
        *((f"{kind}_{nan}{name}", kind, f"f{name}") for kind in ("float", "double") for nan in ("", "nan")
          for name in ("min", "max")),
    ):  # fmt: skip
        body = f"%r = atomicrmw {operation} ptr %a, {kind} %b monotonic\nret {kind} %r"
        define(f"___numba_atomic_{name}", kind, f"ptr {kind}", body)
    return made
