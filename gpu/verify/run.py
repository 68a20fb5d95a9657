"""The main job: kernels against their oracles, on inputs that find bugs."""

from __future__ import annotations

import itertools
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from loadsparse.gpu import device as gpu
from loadsparse.gpu import kernels, simulator
from loadsparse.gpu.kernels import Kernel
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.simulator.explore import schedules
from loadsparse.gpu.verify import child, execute, explain
from loadsparse.gpu.verify.errors import InputError
from loadsparse.gpu.verify.experts import ExpertCase, deal, judge_experts
from loadsparse.gpu.verify.handover import to_launch
from loadsparse.gpu.verify.inputs import KINDS, Case, cases, random_case, real_cases
from loadsparse.gpu.verify.judge import as_matrix, judge
from loadsparse.gpu.verify.result import Result, Row

if TYPE_CHECKING:
    from loadsparse.gpu.kernels.grouped import Grouped

Progress = Callable[[str, int, int], None]

SMALL = 2**14
"""Elements of A times panels of 8 columns up to which interpreting is quicker than translating a kernel first."""

DEALT = ("random",)
"""Inputs of a grouped kernel when none are asked for: it shares its arithmetic with a plain kernel."""

PROVES_NOT = (
    "A green row does not prove: other shapes and values, other schedules of warps and blocks than the executed ones, "
    "or anything about speed."
)
WHERE = {
    "simulator": "Executed by the simulator; no GPU was involved.",
    "cuda": "Executed on a GPU, where nothing watches for hazards; the makers of this project have not run this path.",
}


def judge_launch(
    launch: Launch,
    case: Case,
    *,
    kernel: str,
    seed: int = 0,
    explained: bool = True,
    explored: int = 1,
    **options: Any,
) -> Row:
    """Execute one launch and judge what it did on the four counts.

    A launch without `splits` declares no K order: `exact` is then None.  `explained` traces in the interpreter who
    wrote the first wrong element.  `explored`: legal schedules to run; what depends on them is not clean.  `options` go
    to the simulator's launch (engine, budget, schedule).
    """
    if launch.shape != case.shape:
        raise InputError(f"{kernel} planned {launch.shape} (M, N, K) for an input of {case.shape}")
    m, n, k = launch.shape
    if options.get("budget") is None:
        options["budget"] = 2**30 + 4096 * m * n * k
    try:
        done = execute.run(launch, seed=seed, **options)
    except (simulator.PtxError, simulator.LaunchError, gpu.NoGpu) as error:
        raise InputError(f"{kernel}: {error}") from None
    declared: dict[str, Any] = {
        "dtype": "bf16" if case.dtype == "bf16" else None,
        "arch": launch.arch,
        "splits": launch.splits or None,
        "semantics": launch.semantics,
        "algorithm": getattr(launch, "algorithm", "lscd"),
        "seed": seed,
    }
    if isinstance(case, ExpertCase):
        verdict = judge_experts(done.c, case.a, case.b, case.counts, **declared)
    else:
        verdict = judge(done.c, case.a, case.b, **declared)
    failures = []
    if verdict.first is not None:
        row, column = verdict.first.row, verdict.first.column
        lines = [f"{verdict.mismatches} of {done.c.size} elements are wrong; the first, {verdict.first}"]
        lines.append(f"output tile ({row // 16}, {column // 8}) of 16 x 8")
        if explained and done.hazards is not None and not done.unwritten[row, column] and not done.stopped:
            lines.append(str(explain.origin(launch, row, column, seed)))
        failures.append("; ".join(lines))
    hazards = done.hazards or tuple(_depends(launch, done, explored, seed, options))
    failures += hazards[:8]
    if len(hazards) > 8:
        failures.append(f"and {len(hazards) - 8} hazards more")
    if done.unwritten.any():
        row, column = (int(place) for place in np.argwhere(done.unwritten)[0])
        failures.append(f"{int(done.unwritten.sum())} elements of C were never written; first C[{row}, {column}]")
    failures += [f"input {name!r} was overwritten" for name in done.changed]
    return Row(
        kernel,
        case.name,
        case.shape,
        verdict.exact,
        verdict.accurate,
        None if done.hazards is None else not hazards,
        done.complete,
        done.seconds,
        done.metrics,
        tuple(failures),
        verdict.rows_exact,
        verdict.notes + ((case.note,) if ":" in case.name else ()),
    )


def _depends(launch: Launch, done: execute.Execution, count: int, seed: int, options: dict[str, Any]) -> Iterator[str]:
    """What other schedules show of a launch whose default one is clean: another C, or the hazards of the first that
    has any."""
    same = True
    for schedule in itertools.islice(schedules(count, seed), 1, None):
        other = execute.run(
            launch, seed=schedule.seed, **{**options, "schedule": schedule.schedule, "cp_async": schedule.cp_async}
        )
        wrong = int((execute.words(done.c) != execute.words(other.c)).sum())
        if wrong and same:
            yield f"{schedule}: C depends on the schedule: {wrong} of {done.c.size} elements differ"
            same = False
        if other.hazards:
            yield from (f"{schedule}: {hazard}" for hazard in other.hazards)
            return


def verify(
    kernel: str | Kernel | Iterable[str | Kernel] | None = None,
    inputs: str | Case | Sequence[str | Case] | None = None,
    *,
    arch: str = "sm_80",
    dtype: str = "f16",
    shape: tuple[int, int, int] | None = None,
    weights: str | os.PathLike[str] | None = None,
    sparsity: float = 0.8,
    split_k: int | None = None,
    seed: int | None = None,
    time_limit: float = child.TIME_LIMIT,
    memory_limit: int = child.MEMORY_LIMIT,
    device: str = "simulator",
    explore: int = 1,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Judge kernels against their oracles: exact, accurate, clean, complete.

    kernel: a name, "path/to/mine.py:function", an object with encode and plan, or several; None is every kernel.
    inputs: "random", "adversarial", "real", one adversarial name, a `Case`, or several; None is all three kinds.
    shape: (M, N, K) of one random input instead; weights: a file of real ones instead.  sparsity: of random and of real
    weights.  seed: drawn afresh, and reported, when None.  progress: called with (what, done, total).
    device: "simulator", or "cuda" for a real GPU.  explore: legal schedules that each launch runs under.
    time_limit, memory_limit: seconds and bytes for a file of the user's.  `options` go to `judge_launch`.

    Raises InputError for what cannot be judged.
    """
    if not 0 <= sparsity <= 1:
        raise InputError(f"a sparsity lies between 0 and 1, not {sparsity}")
    if not (math.isfinite(time_limit) and time_limit > 0):
        raise InputError(f"a time limit is a number of seconds above 0, not {time_limit}")
    if device not in WHERE:
        raise InputError(f"unknown device {device!r}: use {' or '.join(WHERE)}")
    if device == "cuda":
        try:
            arch = gpu.architecture(gpu.driver())
        except gpu.NoGpu as error:
            raise InputError(f"no GPU to run on: {error}; leave --device out to use the simulator") from None
        options["device"] = device
    if explore < 1 or (explore > 1 and device == "cuda"):
        raise InputError("explore is a number of schedules, at least 1; a GPU chooses its own: leave it out there")
    if dtype not in ("f16", "bf16"):
        raise InputError(f"unknown input format {dtype!r}: use 'f16' or 'bf16'")
    seed = secrets.randbits(32) if seed is None else seed
    if weights is not None:
        given = list(real_cases(seed, dtype, sparsity=sparsity, path=weights))
    elif shape is not None:
        given = [random_case(seed, dtype, shape, 1 - sparsity)]
    else:
        given = _cases(inputs, seed, dtype, sparsity)
    chosen = _kernels(kernel)
    rows: list[Row] = []
    for found in chosen:
        mine = given
        if getattr(found, "name", "") in kernels.GROUPED:
            asked = any(choice is not None for choice in (inputs, shape, weights))
            mine = [deal(case, seed) for case in given if asked or case.name in DEALT]
        for case, launch in _launches(found, mine, arch, split_k, time_limit, memory_limit):
            m, n, k = case.shape
            quick = not isinstance(found, tuple) and m * k * -(-n // 8) <= SMALL
            if progress is not None:
                progress(f"{launch.kernel} on {case.name}", len(rows), len(chosen) * len(given))
            engine = {"engine": "interpreter" if quick else "auto"}
            rows.append(
                judge_launch(launch, case, kernel=launch.kernel, seed=seed, explored=explore, **{**engine, **options})
            )
    return Result(tuple(rows), seed, (f"seed {seed} repeats these inputs", WHERE[device], PROVES_NOT))


def _kernels(kernel: str | Kernel | Iterable[str | Kernel] | None) -> list[tuple[str, str] | Kernel | Grouped]:
    """Kernels, and (path, function) pairs for what lives in a file of the user's."""
    if kernel is None:
        try:
            wanted: list[str | Kernel] = [*kernels.names(), *kernels.GROUPED]
        except ValueError as error:
            raise InputError(str(error)) from None
    elif isinstance(kernel, str) or not isinstance(kernel, Iterable):
        wanted = [kernel]
    else:
        wanted = list(kernel)
    found: list[tuple[str, str] | Kernel | Grouped] = []
    for item in wanted:
        if not isinstance(item, str):
            found.append(item)
            continue
        path, colon, function = item.rpartition(":")
        if colon and path.endswith(".py"):
            found.append((path, function))
        elif item.endswith(".py"):
            raise InputError(f"{item}: name the function too, as {item}:kernel")
        else:
            try:
                found.append(kernels.get(item))
            except ValueError as error:
                raise InputError(f"{error}; your own is path/to/mine.py:function") from None
    return found


def _launches(
    kernel: tuple[str, str] | Kernel | Grouped,
    given: list[Case],
    arch: str,
    split_k: int | None,
    time_limit: float,
    memory_limit: int,
) -> Iterator[tuple[Case, Launch]]:
    if isinstance(kernel, tuple):
        path, function = kernel
        handed = child.submissions(
            path, function, [(case.a, case.shape[1]) for case in given], arch,
            time_limit=time_limit, memory_limit=memory_limit,
        )  # fmt: skip
        for case, single in zip(given, handed, strict=True):
            yield case, to_launch(single, case, arch, f"{os.path.basename(path)}:{function}")
        return
    for case in given:
        try:
            encoded = kernel.encode(case.a, case.dtype)
            if isinstance(case, ExpertCase):
                launch = cast("Grouped", kernel).plan(encoded, case.b, case.counts, arch, split_k)
            else:
                launch = cast("Kernel", kernel).plan(encoded, case.b, arch, split_k)
        except ValueError as error:
            raise InputError(f"{kernel.name} on {case.name}: {error}") from None
        yield case, launch


def _cases(inputs: str | Case | Sequence[str | Case] | None, seed: int, dtype: str, sparsity: float) -> list[Case]:
    given = KINDS if inputs is None else [inputs] if isinstance(inputs, (str, Case)) else inputs
    found: list[Case] = []
    for item in given:
        found += [item] if isinstance(item, Case) else list(cases((item,), seed, dtype, sparsity=sparsity))
    return found


def files(
    c: str | os.PathLike[str],
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    dtype: str = "f16",
    seed: int = 0,
) -> Result:
    """Judge a product computed elsewhere from three .npy files (never pickles): only `accurate` can be asked.

    Raises InputError for a file that is truncated, a pickle, or no matrix, and for shapes that do not fit.
    """
    if dtype not in ("f16", "bf16"):
        raise InputError(f"unknown input format {dtype!r}: use 'f16' or 'bf16'")
    matrices = []
    for path, name in ((c, "C"), (a, "A"), (b, "B")):
        try:
            loaded = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError, MemoryError) as error:
            reason = "it holds pickled objects, which are never loaded" if "pickle" in str(error) else str(error)
            raise InputError(f"{name} from {os.fspath(path)} cannot be read: {reason}") from None
        if not isinstance(loaded, np.ndarray):
            raise InputError(f"{name} from {os.fspath(path)} is an archive: give a single .npy matrix")
        matrices.append(as_matrix(loaded, name, dtype if loaded.dtype == np.uint16 else None)[0])
    product, left, right = matrices
    verdict = judge(product, left, right, dtype=dtype if dtype == "bf16" else None, seed=seed)
    failures = (
        ()
        if verdict.first is None
        else (f"{verdict.mismatches} of {product.size} elements differ; first {verdict.first}",)
    )
    shape = int(left.shape[0]), int(right.shape[1]), int(left.shape[1])
    row = Row(
        "(elsewhere)",
        os.path.basename(os.fspath(c)),
        shape,
        None,
        verdict.accurate,
        None,
        None,
        0.0,
        {},
        failures,
        0,
        verdict.notes,
    )
    note = "Judged by the proved error bound alone: how the product was computed, and its bits, were not checked."
    return Result((row,), None, (note,))
