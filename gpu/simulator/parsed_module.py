"""The tree of a PTX module -> `Program`: module variables and functions."""

from __future__ import annotations

import re
import struct
from typing import Any

from lark import Token, Tree

from loadsparse.gpu.simulator.body import Body
from loadsparse.gpu.simulator.declarations import (
    MAXIMUM_VARIABLES,
    Declared,
    Frame,
    Scope,
    declarators,
    flatten,
    heading,
    integer,
)
from loadsparse.gpu.simulator.locations import InlineAssembly
from loadsparse.gpu.simulator.program import (
    WIDTH,
    FunctionName,
    Immediate,
    Kernel,
    Program,
    PtxError,
    Variable,
)
from loadsparse.gpu.simulator.recursion import unroll


class Module:
    """Builds a `Program` from the tree."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.files = {int(n): name for n, name in re.findall(r'^\s*\.file\s+(\d+)\s+"([^"\n]*)"', text, re.M)}
        self.inline_assembly = InlineAssembly(text)
        self.scope = Scope()
        self.frames = {space: Frame() for space in ("global", "shared")}
        self.kernels: dict[str, Kernel] = {}

    def build(self, tree: Tree[Token]) -> Program:
        version, target = "", ""
        functions: list[Tree[Token]] = []
        for item in tree.children:
            if isinstance(item, Token):
                if item.type == "VERSION":
                    version = item.split()[1]
                elif item.type == "ADDRESS_SIZE" and item.split()[1] != "64":
                    raise PtxError("addresses have 64 bits in what is simulated", item.line or 0, item.column or 0)
                elif item.type == "TARGET":
                    target = re.split(r"[\s,/]+", item.strip())[1]
            elif item.data == "declaration":
                self._global(item)
            else:
                functions.append(item)
                name, _, _ = heading(item)
                self.scope.names.setdefault(str(name), FunctionName(str(name)))
        if not version:
            raise PtxError("PTX starts with .version, which is missing here", 1, 1)
        for function in functions:
            if any(isinstance(child, Tree) and child.data == "body" for child in function.children):
                kernel = Body(self, function).build()
                if kernel.name in self.kernels:
                    raise PtxError(
                        f"'{kernel.name}' is defined twice", function.meta.line if hasattr(function.meta, "line") else 0
                    )
                self.kernels[kernel.name] = kernel
        kernels = unroll(self.kernels)
        if self.frames["global"].size > MAXIMUM_VARIABLES:
            raise PtxError(
                f"module variables take {self.frames['global'].size} bytes; at most {MAXIMUM_VARIABLES} are simulated"
            )
        variables = [value for value in self.scope.names.values() if isinstance(value, Variable)]
        return Program(version, target, kernels, tuple(variables), self.text)

    def _global(self, tree: Tree[Token]) -> None:
        for declared in declarators(tree):
            if declared.space not in ("global", "const", "shared"):
                raise PtxError(
                    f".{declared.space} '{declared.name}' cannot stand outside a function",
                    declared.name.line or 0,
                    declared.name.column or 0,
                )
            frame = self.frames["shared" if declared.space == "shared" else "global"]
            offset = 0 if declared.dynamic else frame.place(declared.size, declared.align)
            variable = self.variable(declared, offset)
            if variable.name in self.scope.names and declared.dynamic:
                continue
            self.scope.declare(declared.name, variable)

    def variable(self, declared: Declared, offset: int) -> Variable:
        data = None if declared.initial is None else self._bytes(declared)
        return Variable(
            str(declared.name),
            declared.space,
            declared.type,
            declared.size,
            declared.align,
            offset,
            data,
            declared.dynamic,
        )

    def _bytes(self, declared: Declared) -> bytes:
        width = WIDTH[declared.type] // 8
        data = b"".join(self._scalar(value, width) for value in flatten(declared.initial))
        if len(data) > declared.size:
            raise PtxError(
                f"'{declared.name}' has more initial values than room",
                declared.name.line or 0,
                declared.name.column or 0,
            )
        return data.ljust(declared.size, b"\0")

    def _scalar(self, value: Any, width: int) -> bytes:
        if isinstance(value, Immediate):
            bits = value.value
            if value.float_bits == 64 and width == 4:
                bits = struct.unpack("<I", struct.pack("<f", struct.unpack("<d", struct.pack("<Q", bits))[0]))[0]
            return (bits & (1 << 8 * width) - 1).to_bytes(width, "little")
        name, offset = value.children[0], value.children[1]
        target = self.scope.names.get(str(name))
        if not isinstance(target, Variable) or target.space not in ("global", "const"):
            raise PtxError(
                f"'{name}' is no global variable whose address could be stored", name.line or 0, name.column or 0
            )
        address = (3 << 36) + target.offset + (integer(offset) if offset else 0)
        return (address & (1 << 8 * width) - 1).to_bytes(width, "little")
