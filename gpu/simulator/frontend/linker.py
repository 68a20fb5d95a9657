"""Several PTX modules become one: what the driver's linker does, on text.

Only what Numba needs: debug builds hand over one module per function, `link=` adds modules compiled from CUDA C++, and
grid synchronisation and `malloc` live in a device library (`device_library.py`).
"""

from __future__ import annotations

import re

from loadsparse.gpu.simulator.frontend.device_library import LIBRARY
from loadsparse.gpu.simulator.frontend.inline import inline_calls
from loadsparse.gpu.simulator.frontend.text import Statement, rename, statements
from loadsparse.gpu.simulator.indirect import resolve_indirect_calls

_HEADER = re.compile(r"\.(version|target|address_size)\b[^\n]*")
_FILE = re.compile(r"\.file\s+(\d+)([^\n]*)")


class LinkError(ValueError):
    """Modules that do not fit together: the message names the symbol."""


def link(modules: list[str]) -> str:
    """What all `modules` define as one module that is ready to be loaded: merged, and without calls where possible."""
    return inline_calls(resolve_indirect_calls(merge(modules)))


def merge(modules: list[str]) -> str:
    """One module that holds what all `modules` define.

    Declarations that another module resolves are dropped, private symbols that clash are renamed, of several weak
    definitions the first stays, and the device library is added where its functions are missing.  A lone complete
    module comes back unchanged.  Raises LinkError when two modules define one symbol.
    """
    parsed = [list(statements(module)) for module in modules]
    missing = _undefined(parsed)
    added = [library for library in LIBRARY if missing & {s.name for s in statements(library)}]
    if not added and len(modules) == 1:
        return modules[0]
    texts = [*modules, *added]
    parsed += [list(statements(library)) for library in added]
    defined = {s.name: s.linkage for module in parsed for s in module if s.linkage in ("visible", "weak", "common")}
    out: list[str] = []
    files: list[str] = []
    taken: set[str] = set(defined)
    emitted: dict[str, str] = {}
    for index, module in enumerate(parsed):
        renames = {s.name: f"{s.name}$m{index}" for s in module if s.linkage == "static" and s.name in taken}
        taken |= {s.name for s in module if s.linkage == "static"}
        shift = len(files) and max(int(_FILE.match(f).group(1)) for f in files)  # type: ignore[union-attr]
        for statement in module:
            if _HEADER.match(statement.text) or statement.text.startswith((".section", "@@")):
                continue
            if found := _FILE.match(statement.text):
                files.append(f".file {int(found.group(1)) + shift}{found.group(2)}")
                continue
            if statement.linkage == "extern":
                if statement.name in defined or emitted.get(statement.name) == "extern":
                    continue
                emitted[statement.name] = "extern"
            elif statement.linkage in ("visible", "weak", "common") and not _is_prototype(statement):
                if (earlier := emitted.get(statement.name)) is not None:
                    if "weak" in (earlier, statement.linkage) or earlier == statement.linkage == "common":
                        continue
                    raise LinkError(f"{statement.name} is defined by two modules: rename one of them")
                emitted[statement.name] = statement.linkage
            out.append(_renumber(rename(statement.text, renames), shift))
    version = max(re.findall(r"\.version\s+(\d+\.\d+)", "\n".join(texts)), key=_version_key)
    target = re.search(r"\.target\s+[^\n]*", modules[0])
    head = f".version {version}\n{target.group() if target else '.target sm_80'}\n.address_size 64\n"
    return "\n".join([head, *out, *files, ""])


def _undefined(parsed: list[list[Statement]]) -> set[str]:
    defined = {s.name for module in parsed for s in module if s.linkage not in ("extern", "")}
    return {s.name for module in parsed for s in module if s.linkage == "extern"} - defined


def _is_prototype(statement: Statement) -> bool:
    return ".func" in statement.text.split("(")[0] and statement.text.endswith(";")


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _renumber(text: str, shift: int) -> str:
    if not shift:
        return text
    pattern = r"((?:\.loc|inlined_at)\s+)(\d+)"
    return re.sub(pattern, lambda found: f"{found.group(1)}{int(found.group(2)) + shift}", text)
