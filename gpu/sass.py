"""Which machine instructions a PTX line became, as NVIDIA's assembler says in the cubin's line table.

The table (.nv_debug_line_sass) names one PTX line for each SASS instruction.  An instruction that serves several PTX
lines is listed under one of them, and a PTX line that was folded into others has none: the table is exact about where
an instruction came from, and silent about what else it does.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from loadsparse.gpu import compiler

_LINE = re.compile(r'//## File "[^"]*", line (\d+)')
_CODE = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(.*?)\s*;\s*(?:/\*.*)?$")
_LABEL = re.compile(r"^\s*(\.L_x_\d+):")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One SASS instruction: byte offset in its function, text, the PTX line it came from (None: not said), and the label
    before it ("" for none)."""

    offset: int
    text: str
    line: int | None
    label: str = ""


def listing(code: bytes, entry: str) -> tuple[Instruction, ...]:
    """The SASS of one kernel of a cubin, without the padding at its end.  Raises CompileError."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        command = [compiler.disassembler(), "-c", "-gp", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise compiler.CompileError(f"nvdisasm: {(done.stderr or done.stdout).strip().splitlines()[:1]}")
    return parse(section(done.stdout, entry))


def section(text: str, entry: str) -> str:
    """The part of a disassembly that belongs to one kernel."""
    for part in re.split(r"(?m)^(?=\s*\.section\s+\.text\.)", text):
        if re.match(rf"\s*\.section\s+\.text\.{re.escape(entry)}(?![\w$])", part):
            return part
    return text


def parse(text: str) -> tuple[Instruction, ...]:
    """Instructions of a disassembly with line annotations."""
    found: list[Instruction] = []
    line, label = None, ""
    for row in text.splitlines():
        if (place := _LINE.search(row)) is not None:
            line = int(place[1])
        elif (mark := _LABEL.match(row)) is not None:
            label = mark[1]
        elif (code := _CODE.match(row)) is not None:
            found.append(Instruction(int(code[1], 16), " ".join(code[2].split()), line, label))
            label = ""
    while found and found[-1].text == "NOP":
        found.pop()
    return tuple(found)


def by_line(machine: Iterable[Instruction]) -> dict[int, list[Instruction]]:
    """SASS instructions by PTX line."""
    found: dict[int, list[Instruction]] = defaultdict(list)
    for instruction in machine:
        if instruction.line is not None:
            found[instruction.line].append(instruction)
    return dict(found)
