"""The launch description of a kernel from outside: plain data, checked field by field, never code and never a pickle.

A user's file defines one function::

    def kernel(a, n, arch):      # a: A[M, K] as float16 (bf16: uint16), n: columns of B, arch: "sm_80"
        m, k = a.shape
        return dict(ptx=PTX, grid=(-(-m // 64), n), block=64, args=["a", "b", "c", m, n, k])

It sees A, so that it may encode it, but never B: what is judged is the PTX, not Python.  An object with encode and
plan, as in `loadsparse.gpu.kernels`, will do as well; its plan meets a stand-in for B.  Keys of the description:

ptx        PTX text, from any compiler
entry      the kernel's name; may be left out where the PTX has one `.entry`
grid       blocks, 1 to 3 integers;  block: threads, likewise;  shared: dynamic shared memory in bytes (default 0)
args       one item per parameter of the kernel: the name of an array (a pointer to its first byte) or a number
arrays     name -> NumPy array, for what the kernel made of A;  "a", "b" [K, N] and "c" [M, N] exist, row-major
scratch    name -> (dtype, count): uninitialised workspace in device memory
steps      instead of ptx .. args: a list of dicts with those keys, launched in order (a reduction after split-K)
out        format of C: "f16" (default), "f32" or "bf16"
semantics  "dense" (default: 0 x Inf is NaN) or "stored" (zeros of A are skipped)
splits     the declared K order: list of (start, stop) ranges of columns, each chained in ascending blocks of 16, the
           sums added in order in float32; the last stop may lie beyond K, where whole tiles end in zeros; without it
           the error bound alone judges, and `exact` is null
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import launch
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.verify.errors import InputError
from loadsparse.gpu.verify.inputs import Case
from loadsparse.reference.spmm.matrices import MOST_PADDING

MAX_PTX = 16 * 2**20
MAX_ARRAY = 4 * 2**30
MAX_STEPS, MAX_ARGS, MAX_ARRAYS = 16, 128, 64
KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
BUILT_IN = ("a", "b", "c")
FORMATS = ("f16", "f32", "bf16")
STEP_KEYS = ("ptx", "entry", "grid", "block", "shared", "args")
KEYS = (*STEP_KEYS, "steps", "arrays", "scratch", "out", "semantics", "splits")
_NAME = re.compile(r"[A-Za-z_$%][A-Za-z0-9_$]{0,4095}")
_ENTRY = re.compile(r"\.entry\s+([A-Za-z_$%][A-Za-z0-9_$]*)")


@dataclass(frozen=True)
class Step:
    """One kernel launch; `args` holds array names and numbers."""

    ptx: str
    entry: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    args: tuple[str | int | float, ...]


@dataclass(frozen=True)
class Handover:
    """Everything a submission may hand over."""

    steps: tuple[Step, ...]
    arrays: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    scratch: dict[str, tuple[str, int]] = field(default_factory=dict)
    out: str = "f16"
    semantics: str = "dense"
    splits: tuple[tuple[int, int], ...] | None = None


def shown(value: object) -> str:
    """What was handed over, on one line of at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _integer(value: Any, name: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= int(value) <= high:
        raise InputError(f"{name} is {shown(value)}: give an integer from {low} to {high}")
    return int(value)


def _extent(value: Any, name: str, limits: tuple[int, int, int]) -> tuple[int, int, int]:
    parts = list(value) if isinstance(value, (list, tuple)) else [value]
    if not 1 <= len(parts) <= 3:
        raise InputError(f"{name} is {shown(value)}: give 1 to 3 integers")
    parts += [1] * (3 - len(parts))
    x, y, z = (_integer(part, name, 1, limit) for part, limit in zip(parts, limits, strict=True))
    return x, y, z


def _step(raw: Any, known: set[str], where: str) -> Step:
    if not isinstance(raw, Mapping):
        raise InputError(f"{where} is a {type(raw).__name__}: give a dict with ptx, grid, block and args")
    unknown = sorted(str(key) for key in raw if key not in STEP_KEYS)
    if unknown:
        raise InputError(f"{where} has an unknown key {shown(unknown[0])}: known are {', '.join(STEP_KEYS)}")
    missing = [key for key in ("ptx", "grid", "block", "args") if key not in raw]
    if missing:
        raise InputError(f"{where} lacks {missing[0]!r}")
    ptx = raw["ptx"]
    if not isinstance(ptx, str) or not ptx.strip():
        raise InputError(f"{where}: ptx is a {type(ptx).__name__}: hand over the PTX text as a str")
    if len(ptx) > MAX_PTX:
        raise InputError(f"{where}: ptx has {len(ptx)} characters; at most {MAX_PTX} are read")
    entry = raw.get("entry")
    if entry is None:
        found = _ENTRY.findall(ptx)
        if len(found) != 1:
            raise InputError(f"{where}: the PTX has {len(found)} entries ({', '.join(found[:5])}): name one as entry=")
        entry = found[0]
    if not isinstance(entry, str) or not _NAME.fullmatch(entry):
        raise InputError(f"{where}: entry {shown(entry)} is no PTX name")
    args = raw["args"]
    if not isinstance(args, (list, tuple)) or len(args) > MAX_ARGS:
        raise InputError(f"{where}: args must be a list of at most {MAX_ARGS} array names and numbers")
    checked: list[str | int | float] = []
    for index, arg in enumerate(args):
        if isinstance(arg, str):
            if arg not in known:
                raise InputError(
                    f"{where}: args[{index}] names {shown(arg)}; the arrays are {', '.join(sorted(known))}"
                )
            checked.append(arg)
        elif isinstance(arg, (bool, int, np.integer)):
            checked.append(_integer(int(arg), f"{where}: args[{index}]", -(2**63), 2**64 - 1))
        elif isinstance(arg, (float, np.floating)):
            checked.append(float(arg))
        else:
            raise InputError(f"{where}: args[{index}] is a {type(arg).__name__}: give an array's name or a number")
    return Step(
        ptx,
        entry,
        _extent(raw["grid"], f"{where}: grid", (2**31 - 1, 65535, 65535)),
        _extent(raw["block"], f"{where}: block", (1024, 1024, 64)),
        _integer(raw.get("shared", 0), f"{where}: shared", 0, 2**20),
        tuple(checked),
    )


def _arrays(raw: Any) -> dict[str, NDArray[np.generic]]:
    if not isinstance(raw, Mapping) or len(raw) > MAX_ARRAYS:
        raise InputError(f"arrays must be a dict of at most {MAX_ARRAYS} NumPy arrays by name")
    checked: dict[str, NDArray[np.generic]] = {}
    for name, array in raw.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in BUILT_IN:
            raise InputError(f"arrays: {shown(name)} cannot be an array's name ({', '.join(BUILT_IN)} are taken)")
        if not isinstance(array, np.ndarray) or array.dtype.name not in KINDS:
            kind = getattr(array, "dtype", type(array).__name__)
            raise InputError(f"arrays[{name!r}] is {kind}: give a NumPy array of {', '.join(KINDS)}")
        if array.nbytes > MAX_ARRAY:
            raise InputError(f"arrays[{name!r}] has {array.nbytes} bytes; at most {MAX_ARRAY} are taken")
        checked[name] = np.ascontiguousarray(array)
    return checked


def _scratch(raw: Any, arrays: Mapping[str, object]) -> dict[str, tuple[str, int]]:
    if not isinstance(raw, Mapping) or len(raw) > MAX_ARRAYS:
        raise InputError(f"scratch must be a dict of at most {MAX_ARRAYS} (dtype, count) pairs by name")
    checked: dict[str, tuple[str, int]] = {}
    for name, pair in raw.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in BUILT_IN or name in arrays:
            raise InputError(f"scratch: {shown(name)} cannot be a workspace's name or is taken")
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise InputError(f"scratch[{name!r}] is {shown(pair)}: give (dtype, count)")
        try:
            kind = np.dtype(pair[0]).name
        except TypeError:
            kind = str(pair[0])
        if kind not in KINDS:
            raise InputError(f"scratch[{name!r}] has type {kind}: use one of {', '.join(KINDS)}")
        checked[name] = kind, _integer(pair[1], f"scratch[{name!r}]", 1, MAX_ARRAY // np.dtype(kind).itemsize)
    return checked


def _splits(raw: Any, k: int) -> tuple[tuple[int, int], ...] | None:
    if raw is None:
        return None
    if not isinstance(raw, (list, tuple)) or not raw or len(raw) > 4096:
        raise InputError(f"splits is {type(raw).__name__}: give a list of (start, stop) column ranges")
    pairs = []
    for index, pair in enumerate(raw):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise InputError(f"splits[{index}] is {shown(pair)}: give (start, stop)")
        pairs.append((_integer(pair[0], f"splits[{index}]", 0, 2**31), _integer(pair[1], f"splits[{index}]", 0, 2**31)))
    edges = [0, *(stop for _, stop in pairs)]
    if [start for start, _ in pairs] != edges[:-1] or edges != sorted(edges):
        raise InputError(f"splits must cover columns 0 to {k} in ascending order without gaps")
    if not k <= edges[-1] < k + MOST_PADDING:
        raise InputError(
            f"splits must cover columns 0 to {k} (or to the end of the last tile): they end at {edges[-1]}"
        )
    return tuple(pairs)


def check(raw: Any, k: int) -> Handover:
    """The validated description; `k` is the number of columns of A.  Raises InputError naming the field."""
    if not isinstance(raw, Mapping):
        raise InputError(f"kernel returned a {type(raw).__name__}: return a dict with ptx, grid, block and args")
    unknown = sorted(str(key) for key in raw if key not in KEYS)
    if unknown:
        raise InputError(f"unknown key {shown(unknown[0])} in the launch description: known are {', '.join(KEYS)}")
    arrays = _arrays(raw.get("arrays", {}))
    scratch = _scratch(raw.get("scratch", {}), arrays)
    known = {*BUILT_IN, *arrays, *scratch}
    single = {key: raw[key] for key in STEP_KEYS if key in raw}
    if "steps" in raw:
        if single:
            raise InputError(f"the description has both steps and {next(iter(single))!r}: put it inside a step")
        if not isinstance(raw["steps"], (list, tuple)) or not 1 <= len(raw["steps"]) <= MAX_STEPS:
            raise InputError(f"steps must be a list of 1 to {MAX_STEPS} dicts")
        steps = tuple(_step(step, known, f"steps[{index}]") for index, step in enumerate(raw["steps"]))
    else:
        steps = (_step(single, known, "the description"),)
    out, semantics = raw.get("out", "f16"), raw.get("semantics", "dense")
    if not isinstance(out, str) or out not in FORMATS:
        raise InputError(f"out is {shown(out)}: use {', '.join(FORMATS)}")
    if not isinstance(semantics, str) or semantics not in ("dense", "stored"):
        raise InputError(f"semantics is {shown(semantics)}: use 'dense' or 'stored'")
    if not any("c" in step.args for step in steps):
        raise InputError("no step takes 'c': the kernel must write its product there")
    return Handover(steps, arrays, scratch, out, semantics, _splits(raw.get("splits"), k))


def _plain(arg: str | int | float | np.generic, roles: Mapping[str, str]) -> str | int | float:
    """An argument as a buffer's name or a Python number."""
    if isinstance(arg, str):
        return roles.get(arg, arg)
    number: int | float = arg.item() if isinstance(arg, np.generic) else arg
    return number


def from_launch(planned: Launch, b: NDArray[Any]) -> dict[str, Any]:
    """The description of a Launch that was planned for a stand-in `b`: the judge puts the real one in its place."""
    roles = {planned.output: "c"}
    for name in planned.inputs:
        array = planned.buffers[name]
        if array.shape == b.shape and array.dtype == b.dtype and array.tobytes() == b.tobytes():
            roles[name] = "b"
    roles |= {name: f"{name}_" for name in planned.buffers if name in BUILT_IN and name not in roles}
    inputs = [name for name in planned.inputs if roles.get(name) != "b"]
    target = planned.buffers[planned.output].dtype
    return {
        "steps": [
            {
                "ptx": step.ptx,
                "entry": step.entry,
                "grid": step.grid,
                "block": step.block,
                "shared": step.shared_bytes,
                "args": [_plain(arg, roles) for arg in step.args],
            }
            for step in planned.steps
        ],
        "arrays": {roles.get(name, name): planned.buffers[name] for name in inputs},
        "scratch": {
            roles.get(name, name): (planned.buffers[name].dtype, planned.buffers[name].size)
            for name in planned.workspace
        },
        "out": {np.dtype(np.float16): "f16", np.dtype(np.float32): "f32"}.get(target, "bf16"),
        "semantics": planned.semantics,
        "splits": planned.splits or None,
    }


def to_launch(handover: Handover, case: Case, arch: str, kernel: str) -> Launch:
    """The hand-over with the judge's own A, B and C put in their places."""
    m, n, k = case.shape
    carrier = {"f16": np.float16, "f32": np.float32, "bf16": np.uint16}[handover.out]
    buffers: dict[str, NDArray[Any]] = {"a": case.a, "b": case.b, "c": np.zeros((m, n), carrier)}
    buffers |= handover.arrays
    buffers |= {name: np.zeros(count, np.dtype(kind)) for name, (kind, count) in handover.scratch.items()}
    return Launch(
        steps=tuple(
            launch.Step(step.ptx, step.entry, step.grid, step.block, step.shared, step.args) for step in handover.steps
        ),
        buffers=buffers,
        output="c",
        shape=(m, n, k),
        arch=arch,
        kernel=kernel,
        splits=handover.splits or (),
        semantics="stored" if handover.semantics == "stored" else "dense",
        in_format=case.dtype,
        workspace=tuple(handover.scratch),
    )


def write(handover: Handover, folder: Path) -> None:
    """`launch.json` and one .npy per array, into an existing folder."""
    for index, array in enumerate(handover.arrays.values()):
        np.save(folder / f"{index}.npy", array, allow_pickle=False)
    description = {
        "steps": [{key: getattr(step, key) for key in STEP_KEYS} for step in handover.steps],
        "arrays": {name: f"{index}.npy" for index, name in enumerate(handover.arrays)},
        "scratch": handover.scratch,
        "out": handover.out,
        "semantics": handover.semantics,
        "splits": handover.splits,
    }
    temporary = folder / "launch.json.part"
    temporary.write_text(json.dumps(description), encoding="utf-8")
    temporary.replace(folder / "launch.json")


def read(folder: Path, k: int) -> Handover:
    """The description in `folder`, validated again: the writer is not trusted.  Raises InputError."""
    path = folder / "launch.json"
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 4 * MAX_PTX:
        raise InputError("the kernel's process left no launch description")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the launch description is no JSON ({error})") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("arrays", {}), dict):
        raise InputError("the launch description is no dict of steps and arrays")
    loaded = {}
    for name, file in raw.get("arrays", {}).items():
        source = folder / str(file)
        if not re.fullmatch(r"\d{1,3}\.npy", str(file)) or source.is_symlink() or not source.is_file():
            raise InputError(f"arrays[{name!r}] names {file!r}, which is no file of the hand-over")
        if source.stat().st_size > MAX_ARRAY + 4096:
            raise InputError(f"arrays[{name!r}] is larger than {MAX_ARRAY} bytes")
        try:
            loaded[name] = np.load(source, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"arrays[{name!r}] cannot be read: {error}") from None
    raw["arrays"] = loaded
    return check(raw, k)
