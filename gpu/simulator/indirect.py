"""Calls through a register become a choice among the functions whose address is taken.

The simulator calls functions by name.  A function's address becomes a number that no memory has, and an indirect call
compares its register with the numbers of all functions of that shape; none of them is a trap.
"""

from __future__ import annotations

import re

_FUNCTION = re.compile(r"\.func\s*(\([^()]*\)\s*)?([\w$]+)\s*(\([^()]*\))?")
_PROTOTYPE = re.compile(r"(?<![\w$])([\w$]+)\s*:\s*\.callprototype\s*(\([^()]*\)\s*)?_\s*(\([^()]*\))?[^;:]*;")
_CALL = re.compile(
    r"(@!?[\w$%]+\s+)?\bcall(?:\.uni)?\s+(\([^()]*\)\s*,)?\s*(%[\w$]+)\s*,\s*(\([^()]*\)\s*,)?\s*([\w$]+)\s*;"
)
_PARAMETER = re.compile(r"\.[busf](\d+)\b[^,()\[]*(?:\[(\d+)\])?")
_TAKEN = re.compile(r"(mov\.[bu]64\s+%[\w$]+\s*,\s*)([\w$]+)(\s*;)")
_STORED = re.compile(r"(?m)^([ \t]*(?:\.\w+\s+)*\.(?:global|const)\b[^;=]*=)([^;]*)(;)")

_NAME = re.compile(r"[A-Za-z_$][\w$]*")

Shape = tuple[tuple[int, ...], tuple[int, ...]]


def resolve_indirect_calls(ptx: str) -> str:
    """The same module, line for line, without indirect calls; text without any comes back unchanged."""
    if ".callprototype" not in ptx:
        return ptx
    prototypes = {found[1]: _shape(found[2], found[3]) for found in _PROTOTYPE.finditer(ptx)}
    if not prototypes:
        return ptx
    functions = {found[2]: _shape(found[1], found[3]) for found in _FUNCTION.finditer(ptx)}
    numbers = {name: (1 << 62) + 16 * index for index, name in enumerate(functions)}
    taken: set[str] = set()

    def number(name: str) -> str:
        if name not in numbers:
            return name
        taken.add(name)
        return str(numbers[name])

    ptx = _TAKEN.sub(lambda found: found[1] + number(found[2]) + found[3], ptx)
    ptx = _STORED.sub(lambda found: found[1] + _NAME.sub(lambda n: number(n[0]), found[2]) + found[3], ptx)
    calls = 0

    def choose(found: re.Match[str]) -> str:
        nonlocal calls
        if found[5] not in prototypes:
            return found[0]
        calls += 1
        guard, results, register, arguments = found[1], found[2] or "", found[3], found[4] or "(),"
        end = f"$indirect_{calls}_end"
        lines = ["{", ".reg .pred %chosen;"]
        if guard:
            inverse = guard.strip().replace("@!", "@") if guard.startswith("@!") else guard.strip().replace("@", "@!")
            lines.append(f"{inverse} bra {end};")
        for index, name in enumerate(sorted(taken)):
            if functions[name] == prototypes[found[5]]:
                lines += [
                    f"setp.ne.u64 %chosen, {register}, {numbers[name]};",
                    f"@%chosen bra $indirect_{calls}_{index};",
                    f"call {results} {name}, {arguments.rstrip().rstrip(',')};",
                    f"bra {end};",
                    f"$indirect_{calls}_{index}:",
                ]
        return " ".join([*lines, "trap;", "}", f"{end}:"]) + "\n" * found[0].count("\n")

    return _PROTOTYPE.sub(lambda found: "\n" * found[0].count("\n"), _CALL.sub(choose, ptx))


def _shape(results: str | None, parameters: str | None) -> Shape:
    def sizes(text: str | None) -> tuple[int, ...]:
        return tuple(int(width) * int(count or 1) for width, count in _PARAMETER.findall(text or ""))

    return sizes(results), sizes(parameters)
