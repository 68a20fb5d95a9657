"""A mistake in the learner's file, as its process described it -> one sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from loadsparse.tutorials.judge.problem import Problem, hint

FUNCTIONS = (
    "syncthreads", "syncwarp", "threadIdx", "blockIdx", "blockDim", "gridDim", "grid", "gridsize", "shared", "local",
    "atomic", "popc", "shfl_sync", "shfl_down_sync", "shfl_xor_sync", "float32", "int32", "uint32", "cuda", "range", "min", "max",
)  # fmt: skip
"""Names that kernels use, to suggest from."""


@dataclass(eq=False)
class Fault(Exception):
    """What stopped a learner's file.  kind is one of puzzle.HINTED, or None where the message must tell."""

    kind: str | None
    error: str
    message: str
    line: int | None = None
    names: tuple[str, ...] = ()
    """Names that the file defines."""
    used: tuple[str, ...] = ()
    """Names and attributes that it reads."""
    trace: str = ""


def problem(fault: Fault, own: Mapping[str, str]) -> Problem:
    """The fault in one sentence with one hint; `own` are the puzzle's hints."""
    kind, sentence, better = _explain(fault)
    details = tuple(fault.trace.splitlines())
    return Problem(kind, sentence, better or hint(kind, own), fault.line, details=details)


def _explain(fault: Fault) -> tuple[str, str, str]:
    """(kind, sentence, a better hint than the general one or "")."""
    text = " ".join(fault.message.split())
    match fault.kind:
        case "placeholder":
            return "placeholder", "the puzzle is not filled in: `...` is still here", ""
        case "missing":
            return "missing", f"the file has no function {text!r}", ""
        case "nothing":
            return "nothing", f"{text} returned nothing", ""
        case "dtype":
            return "dtype", f"the function returned a {text}, which is no array of numbers", ""
        case "launch":
            return "launch", f"launch returned {text}, which is no (grid, block)", ""
        case str():
            return fault.kind, text, ""
    if fault.error == "UnicodeDecodeError" or "null bytes" in text:
        return "syntax", "the file is no UTF-8 text", "Save it as UTF-8."
    if fault.error in ("SyntaxError", "IndentationError", "TabError"):
        return "syntax", f"Python cannot read this line: {re.sub(r' [(].*', '', text)}", ""
    if fault.error == "Forbidden":
        return "forbidden", f"the file {text}, which no answer may do", ""
    if fault.error == "SystemExit":
        return "exit", "the file ends its process instead of answering", ""
    if fault.error == "MemoryError":
        return "memory", "the function needs more memory than it may have", ""
    if fault.error == "RecursionError":
        return "time", "a function calls itself for ever", "A function that calls itself needs an end."
    return _compiled(fault, text)


_RULES = (
    (r"Signature mismatch: (\d+) argument types given, but function takes (\d+)", "missing",
     "the kernel takes {1} parameters, the puzzle has {0}"),
    (r"No implementation of function Function\(<function shared.array", "constant", "the shape of a shared array is no constant"),
    (r">>> getitem\(Tuple\(", "constant", "a tuple of mixed types is indexed by a variable"),
    (r"must be a constant|requires literal|RequireLiteralValue|inline asm constraint 'n'", "constant", "an argument that must be a constant is a variable"),
    (r"cannot index array\((\w+), (\d)d, \w+\) with (\d) indices", "index", "an array of {1} dimension(s) is indexed with {2} indices"),
    (r"Unsupported array index type (\w+)", "index", "an index is a {0}, not an integer"),
    (r"setitem\(array\(\w+, (\d)d, \w+\), [^)]*, array\(", "index", "a whole row is written into one element"),
    (r"No conversion from (\S+) to none for '\S*return", "type", "a kernel returns nothing, but this one returns a {0}"),
    (r"IMPORT_NAME", "type", "a kernel cannot import inside of its body"),
    (r"_ol_array_allocate|_call_allocator", "type", "a kernel cannot calculate with whole arrays: this would need a new one"),
    (r">>> ([\w.]+)\(([^)]*\)?)\)", "type", "the compiler knows no {0}({1}) for these types"),
)  # fmt: skip
_BETTER = {
    "returns nothing": "Write the result into `out`.",
    "whole row": "Give one index per dimension on both sides.",
    "whole arrays": "Work on one element: index both sides, as in out[i] = a[i].",
    "cannot import": "Import at the top of the file.",
}


def _compiled(fault: Fault, text: str) -> tuple[str, str, str]:
    name = re.search(r"name '(\w+)' is not defined|global name '(\w+)'", text)
    if name is not None and (name[1] or name[2]) in fault.used:  # else it stands in code that is not the learner's
        return "name", f"the name `{name[1] or name[2]}` is not known", _similar(name[1] or name[2], fault.names)
    if name := re.search(r"(?:no attribute|Unknown attribute) '(\w+)'", text):
        return "name", f"there is nothing called `.{name[1]}` here", _similar(name[1], fault.names)
    if "local variable" in text and "referenced before assignment" in text:
        return "name", text, "Assign it on every path before it is used."
    for pattern, kind, sentence in _RULES:
        if found := re.search(pattern, text):
            said = sentence.format(*found.groups())
            return kind, said, next((better for part, better in _BETTER.items() if part in said), "")
    if "read-only" in text:
        return "overwritten", "an input is written to", ""
    return "crash", f"{fault.error}: {text[:200]}", ""


def _similar(name: str, names: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, [*names, *FUNCTIONS], 1, 0.6)
    return f"Did you mean `{close[0]}`?" if close and close[0] != name else ""
