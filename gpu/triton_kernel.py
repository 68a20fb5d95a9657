"""Triton kernels to PTX, without a GPU: Triton's own compiler, told the target and the types that a launch would tell it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

DIVISIBLE = 16
"""What `:16` after a type promises: the address or the number is a multiple of it."""


@dataclass(frozen=True, slots=True)
class TritonKernel:
    """A compiled Triton kernel and what its launch needs: `threads` per block, dynamic `shared_bytes`.

    `arch` is that of the PTX ("sm_90a" where "sm_90" was asked for); `scratch` are the pointers, all null, that Triton
    adds to the kernel's parameters.
    """

    name: str
    ptx: str
    arch: str
    threads: int
    shared_bytes: int
    scratch: tuple[int, ...]


def types_of(kernel: Any, signature: str, constants: Mapping[str, Any]) -> dict[str, str]:
    """Parameter -> type as Triton writes it, of those that are no constants.  Raises ValueError."""
    unknown = sorted(set(constants) - set(kernel.arg_names))
    if unknown:
        raise ValueError(f"no parameter {unknown[0]!r}; parameters are {', '.join(kernel.arg_names)}")
    names = [name for name in kernel.arg_names if name not in constants]
    types = [text.strip() for text in signature.split(",")] if signature.strip() else []
    if len(types) != len(names):
        raise ValueError(
            f"{len(types)} types for the {len(names)} parameters that are no constants: {', '.join(names)}"
        )
    wrong = next((text for text in types if not re.fullmatch(rf"\*?[a-z]\w*(:{DIVISIBLE})?", text)), None)
    if wrong is not None:
        raise ValueError(f"type {wrong!r}: write *fp16 for a pointer, i32 for a number, *fp16:16 if a multiple of 16")
    return dict(zip(names, types, strict=True))


def compiled(
    kernel: Any, signature: str, constants: Mapping[str, Any], arch: str, options: dict[str, Any]
) -> TritonKernel:
    """See `compiler.triton`.  Raises ImportError without Triton, ValueError with the reason of a refusal."""
    compiler = import_module("triton.compiler")
    target = import_module("triton.backends.compiler").GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    if not hasattr(kernel, "arg_names"):
        raise ValueError(f"{getattr(kernel, '__name__', kernel)!r} is no function decorated with @triton.jit")
    types = types_of(kernel, signature, constants)
    divisible = {
        (kernel.arg_names.index(name),): [["tt.divisibility", DIVISIBLE]]
        for name, text in types.items()
        if text.endswith(f":{DIVISIBLE}")
    }
    plain = {name: text.partition(":")[0] for name, text in types.items()}
    every = {name: plain.get(name, "constexpr") for name in kernel.arg_names}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Triton's next versions will do
            source = compiler.ASTSource(kernel, every, dict(constants), divisible)
            built = compiler.compile(source, target=target, options=options)
    except (compiler.CompilationError, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason[-400:]) from error
    ptx = str(built.asm["ptx"])
    name, heading = re.findall(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)", ptx)[0]
    found = re.search(r"\.target\s+(\w+)", ptx)
    return TritonKernel(
        name,
        ptx,
        found[1] if found else arch,
        32 * int(built.metadata.num_warps),
        int(built.metadata.shared),
        (0,) * (heading.count(".param") - len(types)),
    )
