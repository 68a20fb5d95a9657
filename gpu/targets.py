"""What a user names, as a job to profile or trace: a kernel of this project, a Python file, CUDA C++ or PTX text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import compiler, kernels
from loadsparse.gpu.launch import Step
from loadsparse.gpu.profiling import Job, of_launch
from loadsparse.gpu.verify import child
from loadsparse.gpu.verify.errors import InputError
from loadsparse.gpu.verify.experts import deal
from loadsparse.gpu.verify.handover import MAX_ARRAY, MAX_PTX, to_launch
from loadsparse.gpu.verify.inputs import random_case

if TYPE_CHECKING:
    from loadsparse.gpu.kernels.grouped import Grouped

_FILE = re.compile(r"(.*\.(py|cu|ptx))(?::([^:]+))?", re.IGNORECASE | re.DOTALL)


def resolve(
    target: str,
    *,
    shape: tuple[int, int, int] | None = None,
    sparsity: float = 0.8,
    dtype: str = "f16",
    split_k: int | None = None,
    grid: Sequence[int] | None = None,
    block: Sequence[int] | None = None,
    shared: int = 0,
    arguments: Sequence[str] = (),
    arch: str = "sm_80",
    seed: int = 0,
) -> tuple[Job, dict[str, str]]:
    """The job of `lscd`, `mine.py:kernel`, `mine.cu:kernel` or `mine.ptx:kernel`, and source text by file name.

    Kernels by name and Python files (run in a child process that hands over data only) multiply a random sparse A by a
    random B of `shape` (M, N, K), the grouped ones with its rows cut into experts; .cu and .ptx files take a grid, a block
    and arguments.  Raises InputError.
    """
    match = _FILE.fullmatch(target)
    if match is not None and match[2].lower() in ("cu", "ptx"):
        if grid is None or block is None:
            raise InputError(
                f"{target}: say how to launch it, for example --grid 4 --block 128 --arg f32[512] --arg 512"
            )
        return of_text(match[1], match[3], grid, block, arguments, shared=shared, arch=arch, seed=seed)
    if grid is not None or block is not None or arguments or shared:
        raise InputError(
            "--grid, --block, --shared and --arg belong to .cu and .ptx files; this target has its own launch"
        )
    case = random_case(seed, dtype, shape or (256, 16, 256), 1 - sparsity)
    if match is not None:
        path, name = match[1], match[3]
        if name is None:
            raise InputError(f"{path}: name the function too, as {path}:kernel")
        (handed,) = child.submissions(path, name, [(case.a, case.shape[1])], arch)
        file = Path(path)
        return of_launch(to_launch(handed, case, arch, f"{file.name}:{name}")), {file.name: _text(file)}
    try:
        kernel = kernels.get(target)
        if target in kernels.GROUPED:
            experts = deal(case, seed)
            grouped = cast("Grouped", kernel)
            launch = grouped.plan(grouped.encode(experts.a, dtype), experts.b, experts.counts, arch, split_k)
        else:
            launch = kernel.plan(kernel.encode(case.a, dtype), case.b, arch, split_k)
    except ValueError as error:
        raise InputError(f"{error}; your own is mine.py:kernel, mine.cu:kernel or mine.ptx:kernel") from None
    folder = files("loadsparse.gpu.kernels")
    found = {item.name: item.read_text(encoding="utf-8") for item in folder.iterdir() if item.name.endswith(".py")}
    return of_launch(launch), found


def _text(file: Path) -> str:
    if file.stat().st_size > MAX_PTX:
        raise InputError(f"{file} has more than {MAX_PTX} bytes")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file} is no text") from None


KINDS = {
    "f16": np.float16, "f32": np.float32, "f64": np.float64, "i8": np.int8, "u8": np.uint8, "i16": np.int16,
    "u16": np.uint16, "bf16": np.uint16, "i32": np.int32, "u32": np.uint32, "i64": np.int64, "u64": np.uint64,
}  # fmt: skip
_ARRAY = re.compile(r"(\w+)\[(\d+)\](?:=(random|zeros|ones|arange|empty))?")
_SCALAR = re.compile(
    r"(?:(\w+):)?([-+]?(?:0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+|nan|inf))"
)


def argument(text: str, rng: np.random.Generator) -> tuple[Any, bool]:
    """(value, undefined) of a kernel argument as it is written on the command line.

    `f32[1024]` an array (random; or `=zeros`, `=ones`, `=arange`, `=empty`: uninitialised), `data.npy` a file, `17` or
    `2.5` a number, `f16:2.5` a number of that type.  Raises InputError.
    """
    if text.endswith(".npy"):
        try:
            loaded = np.load(text, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(f"{text} cannot be read: {error}") from None
        if not isinstance(loaded, np.ndarray) or loaded.dtype.hasobject:
            raise InputError(f"{text} is no single array of numbers")
        return np.ascontiguousarray(loaded), False
    match = _ARRAY.fullmatch(text)
    if match is not None:
        kind, count, how = match[1], int(match[2]), match[3] or "random"
        if kind not in KINDS:
            raise InputError(f"--arg {text}: unknown type {kind!r}; use one of {', '.join(KINDS)}")
        dtype = np.dtype(KINDS[kind])
        if count * dtype.itemsize > MAX_ARRAY:
            raise InputError(f"--arg {text}: more than {MAX_ARRAY} bytes")
        return _array(dtype, kind, count, how, rng), how == "empty"
    number = _SCALAR.fullmatch(text)
    if number is None or (number[1] is not None and number[1] not in KINDS):
        raise InputError(f"--arg {text}: write f32[1024], f32[1024]=zeros, data.npy, 17, 2.5 or f16:2.5")
    try:
        value = int(number[2], 0) if re.fullmatch(r"[-+]?(0[xX][0-9a-fA-F]+|\d+)", number[2]) else float(number[2])
        if number[1] is None:
            return value, False
        dtype = np.dtype(KINDS[number[1]])
        if dtype.kind != "f" and isinstance(value, float):
            raise InputError(f"--arg {text}: {number[1]} takes an integer")
        with np.errstate(over="raise"):
            return dtype.type(value), False
    except (ValueError, OverflowError, FloatingPointError) as error:
        reason = str(error) if isinstance(error, InputError) else f"--arg {text}: {error}"
        raise InputError(reason) from None


def _array(dtype: np.dtype[Any], kind: str, count: int, how: str, rng: np.random.Generator) -> NDArray[Any]:
    if how in ("zeros", "empty"):
        return np.zeros(count, dtype)
    if kind == "bf16":
        values = (
            np.ones(count) if how == "ones" else np.arange(count) if how == "arange" else rng.standard_normal(count)
        )
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if how == "ones":
        return np.ones(count, dtype)
    if how == "arange":
        return np.arange(count).astype(dtype)
    if dtype.kind == "f":
        return rng.standard_normal(count).astype(dtype)
    return rng.integers(0, 100, count).astype(dtype)


def of_text(
    path: str,
    entry: str | None,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[str],
    *,
    shared: int = 0,
    arch: str = "sm_80",
    seed: int = 0,
) -> tuple[Job, dict[str, str]]:
    """The job of a `.ptx` or `.cu` file, and its source text by file name.  Raises InputError."""
    file = Path(path)
    text = _text(file)
    sources = {}
    ptx = text
    if file.suffix.lower() == ".cu":
        try:  # headers beside the file are found, as by nvcc
            ptx = compiler.cuda(text, arch, f"--include-path={file.parent}", name=file.name)
        except (compiler.CompileError, ValueError) as error:
            raise InputError(f"{path}: {error}") from None
        sources[file.name] = text
    name = _entry(compiler.entries(ptx), entry, path)
    rng = np.random.default_rng(seed)
    buffers: dict[str, NDArray[Any]] = {}
    undefined = set()
    args: list[Any] = []
    for number, written in enumerate(arguments):
        value, empty = argument(written, rng)
        if isinstance(value, np.ndarray):
            key = f"array {number}"
            buffers[key] = value
            args.append(key)
            undefined |= {key} if empty else set()
        else:
            args.append(value)
    sizes = [(*given, 1, 1)[:3] for given in (tuple(grid), tuple(block))]
    step = Step(ptx, name, sizes[0], sizes[1], shared, tuple(args))  # type: ignore[arg-type]
    return Job(f"{file.name}:{entry or name}", arch, (step,), buffers, frozenset(undefined)), sources


def _entry(entries: list[str], wanted: str | None, path: str) -> str:
    """The PTX name of a kernel: as given, or its C++ name inside the mangled one."""
    if not entries:
        raise InputError(f"{path} has no kernel: of CUDA C++ a __global__ function, of PTX an .entry")
    if wanted is None:
        if len(entries) == 1:
            return entries[0]
        raise InputError(f"{path} has {len(entries)} kernels ({', '.join(entries[:5])}): name one as {path}:kernel")
    if wanted in entries:
        return wanted
    mangled = [name for name in entries if f"{len(wanted)}{wanted}" in name]
    if len(mangled) == 1:
        return mangled[0]
    raise InputError(f"{path} has no single kernel {wanted!r}; it has {', '.join(entries[:8])}")
