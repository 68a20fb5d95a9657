"""What happens in the learner's process: the file becomes PTX and a launch, or arrays.  No answer is within its reach.

Only NumPy and the sandbox are imported here, so that a NumPy puzzle's process never holds an oracle.
"""

from __future__ import annotations

import ast
import json
import os
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from loadsparse.gpu import sandbox
from loadsparse.tutorials.judge.guard import guard
from loadsparse.tutorials.judge.landlock import confine

LARGEST = 256 * 2**20
"""Bytes of the largest file it may write."""


class Mistake(Exception):
    """A mistake with a kind of its own (puzzle.HINTED) and, where known, a line."""

    def __init__(self, kind: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.line = kind, line


def serve(folder: Path) -> None:
    """The whole of the process: limits, guard, answer."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    sandbox.limit(request["memory"], request["seconds"], LARGEST)
    kernel = request["signature"] is not None
    if kernel:
        from loadsparse.gpu import compiler, intrinsics  # noqa: F401  before the guard: they read and load much

        compiler.default_backend()
    confine(folder)
    guard(folder, tuple(Path(place) for place in request["sealed"]), numpy_only=not kernel)
    respond(folder, request)


def respond(folder: Path, request: dict[str, Any]) -> None:
    """Leave answer.json (and out*.npy) in the folder, or mistake.json."""
    path = Path(request["path"])
    tree: ast.Module | None = None
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        module = sandbox.load(path)
        function = _function(module, tree, request["function"])
        kernel = request["signature"] is not None
        answer = _kernel(module, function, request) if kernel else _arrays(function, request, folder)
        _write(folder / "answer.json", answer)
    except BaseException as error:  # the learner's file may raise anything, SystemExit included
        _write(folder / "mistake.json", _describe(error, path, tree))


def _write(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    os.replace(temporary, path)


def _function(module: ModuleType, tree: ast.Module, name: str) -> Callable[..., Any]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and (line := _placeholder(node)) is not None:
            raise Mistake("placeholder", "", line)
    found: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(found):
        raise Mistake("missing", name)
    return found


def _placeholder(definition: ast.FunctionDef) -> int | None:
    """Line of a `...` that was left in place."""
    for node in ast.walk(definition):
        if isinstance(node, (ast.Expr, ast.Assign, ast.Return, ast.AugAssign, ast.If, ast.While, ast.For)):
            value = getattr(node, "value", None) or getattr(node, "test", None) or getattr(node, "iter", None)
            if any(isinstance(part, ast.Constant) and part.value is ... for part in _unindexed(value)):
                return node.lineno
    return None


def _unindexed(node: ast.AST | None) -> Iterator[ast.AST]:
    """The parts of an expression outside of its subscripts, where `...` has a meaning of its own."""
    if node is not None:
        yield node
        for name, child in ast.iter_fields(node):
            for part in child if isinstance(child, list) else [child]:
                if isinstance(part, ast.AST) and not (isinstance(node, ast.Subscript) and name == "slice"):
                    yield from _unindexed(part)


def _kernel(module: ModuleType, function: Callable[..., Any], request: dict[str, Any]) -> dict[str, Any]:
    from loadsparse.gpu import compiler

    ptx = compiler.numba(function, request["signature"], request["arch"], name="kernel")
    launches = []
    if request["chosen"]:
        choose = getattr(module, "launch", None)
        if not callable(choose):
            raise Mistake("missing", "launch")
        for sizes in request["trials"]:
            launches.append(_extents(choose(**sizes)))
    return {"ptx": ptx, "launches": launches}


def _extents(chosen: Any) -> list[list[int]]:
    try:
        grid, block = chosen
        return [[int(n) for n in (size if isinstance(size, (tuple, list)) else (size,))] for size in (grid, block)]
    except (TypeError, ValueError):
        raise Mistake("launch", f"{chosen!r}"[:80]) from None


def _arrays(function: Callable[..., Any], request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Call the function for every trial; arrays of one shape keep their identity, so that nothing can be cached by it."""
    held: dict[tuple[Any, ...], Any] = {}
    changed: list[list[str]] = []
    for number, names in enumerate(request["trials"]):
        inputs = {}
        for name, value in names.items():
            if value is None:
                value = np.load(folder / f"in{number}_{name}.npy", allow_pickle=False)
                kept = held.setdefault((name, value.shape, value.dtype.str), value)
                kept[...] = value
                value = kept
            inputs[name] = value
        before = {name: value.tobytes() for name, value in inputs.items() if isinstance(value, np.ndarray)}
        result = function(*inputs.values())
        if result is None:
            raise Mistake("nothing", request["function"])
        array = np.array(result, subok=False, order="C")
        if array.dtype.hasobject or array.dtype.kind not in "biuf":
            raise Mistake("dtype", f"{type(result).__name__} of {array.dtype}")
        changed.append([name for name, data in before.items() if inputs[name].tobytes() != data])
        np.save(folder / f"out{number}.npy", array, allow_pickle=False)
    return {"changed": changed}


def _describe(error: BaseException, path: Path, tree: ast.Module | None) -> dict[str, Any]:
    """A mistake as data: kind (None: to be found out), exception, message, line, whole traceback."""
    cause = error.__cause__ if type(error).__name__ == "CompileError" and error.__cause__ is not None else error
    message = str(cause)[:6000]
    line = error.line if isinstance(error, Mistake) else sandbox.line_of(error, path)
    if line is None:
        line = _inferred_line(cause, path) or _named_line(message, path, tree)
    return {
        "kind": error.kind if isinstance(error, Mistake) else None,
        "error": type(cause).__name__,
        "message": message,
        "line": line,
        "names": sorted(_names(tree))[:400],
        "used": sorted(_used(tree))[:400],
        "trace": "".join(traceback.format_exception(error))[-20000:],
    }


def _names(tree: ast.Module | None) -> set[str]:
    """Names that the file defines or imports."""
    found: set[str] = set()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


def _used(tree: ast.Module | None) -> set[str]:
    """Names and attributes that the file reads."""
    nodes = list(ast.walk(tree)) if tree is not None else []
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _inferred_line(error: BaseException, path: Path) -> int | None:
    """The line whose types Numba was working on: its constraints know it, though its message may not say it."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        place = getattr(frame.f_locals.get("self"), "loc", None)
        if getattr(place, "filename", None) == str(path):
            found = getattr(place, "line", None)
    return found if isinstance(found, int) else None


def _named_line(message: str, path: Path, tree: ast.Module | None) -> int | None:
    """The line a compiler's message speaks of: as it says, else where the name stands that it complains about."""
    lines = re.findall(rf'{re.escape(path.name)}", line (\d+)|{re.escape(str(path))} \((\d+)\)', message)
    if lines:
        return int(lines[0][0] or lines[0][1])
    if (name := re.search(r"name '(\w+)'|attribute '(\w+)'", message)) and tree is not None:
        wanted = name[1] or name[2]
        for node in ast.walk(tree):
            if (isinstance(node, ast.Name) and node.id == wanted) or (
                isinstance(node, ast.Attribute) and node.attr == wanted
            ):
                return node.lineno
    return None
