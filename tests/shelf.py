"""Fill the shelf of compiled kernels, gpu/kernels/shelf.zip, or check that a fresh compilation makes the same.

    make shelf                          compiles what is missing or no longer current, and writes the archive
    python tests/shelf.py --check       compiles every variant anew and compares it with the archive, byte by byte
    python tests/shelf.py --both        compiles every launch by llvmlite, too, and compares the products, word by word
    python tests/shelf.py --ask         runs the kernels' tests and writes down which other variants they use

On the shelf is what `verify`, `profile`, `trace`, `compare` and the course ask for as they stand, float16 on sm_80, and what
the tests use: they would compile for minutes.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadsparse.gpu import compiler, kernels
from loadsparse.gpu.kernels import router, shelf
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.verify import experts, inputs
from loadsparse.gpu.verify.run import DEALT

Plan = Callable[[], Launch]

ARCH = "sm_80"
MADE = Path(__file__).parents[1] / "gpu" / "kernels" / "shelf.zip"
TESTS = Path(__file__).parent / "gpu"
ASKED = TESTS / "data" / "variants.json"
"""Arguments of every variant that the tests use, by function; what is missing there is compiled by the test."""
ASKING = (
    "bitmap", "comparison", "compiler", "grouped", "lscd", "moe_layer", "peers", "promises", "router", "verify_explain",
    "verify_kernels", "verify_mutants",
)  # fmt: skip
COMPILERS = ("numba-cuda", "numba", "nvidia-nvvm")
FUNCTIONS = (
    "bitmap.compiled", "dense.compiled", "grouped.reduction", "lscd.compiled", "parts.reduction", "router.compiled",
    "sputnik.compiled", "twofour.compiled",
)  # fmt: skip
DATE = (1980, 1, 1, 0, 0, 0)  # the archive depends on its contents alone


def plans() -> Iterator[Plan]:
    """Each makes a launch whose kernels belong on the shelf."""
    cases = list(inputs.cases(("adversarial", "real"), 0))
    cases += [inputs.random_case(n, shape=(160, n, 160)) for n in range(1, 10)]
    shown = [inputs.random_case(0, shape=(256, 16, 256)), inputs.random_case(0, shape=(1024, 16, 1024))]
    taught = inputs.random_case(0, shape=(384, 8, 1088))  # as in tutorials/20
    yield partial(kernels.get("lscd").plan, kernels.get("lscd").encode(taught.a), taught.b, ARCH, 1)
    for case in cases + shown:
        for name in kernels.names():
            kernel = kernels.get(name)
            encoded = kernel.encode(case.a, case.dtype)
            yield partial(kernel.plan, encoded, case.b, ARCH)
            if any(case is one for one in shown):
                yield partial(kernel.plan, encoded, case.b, ARCH, 1)
        if case.name in DEALT:
            dealt = experts.deal(case, 0)
            for name in kernels.GROUPED:
                grouped = kernels.get(name)
                yield partial(grouped.plan, grouped.encode(dealt.a, dealt.dtype), dealt.b, dealt.counts, ARCH)


class Wanted(dict[str, str]):
    """Stands for one function's entries: notes what is asked for, and has it."""

    def get(self, key: str, default: Any = None) -> str:
        self[key] = ""
        return ""


class Noting(dict[str, str]):
    """One function's entries, and all keys that were asked for."""

    def __init__(self, texts: dict[str, str]) -> None:
        super().__init__(texts)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


@contextmanager
def in_place_of_the_shelf(found: Any) -> Iterator[None]:
    """Let kernels take their PTX from `found(name)`."""
    before, shelf.entries = shelf.entries, found
    try:
        yield
    finally:
        shelf.entries = before


def wanted() -> dict[str, list[str]]:
    """Arguments as JSON of every variant that belongs on the shelf, by function."""
    asked: dict[str, Wanted] = {}
    forget()
    with in_place_of_the_shelf(lambda name: asked.setdefault(name, Wanted())):
        for plan in plans():
            plan()
        for per_lane, k in ((1, 2), (2, 6), (8, 8)):  # experts / 32, choices: up to DeepSeek-V3's 256 and 8
            for gate in ("none", "sigmoid", "softmax"):
                router.compiled(per_lane, k, gate, ARCH)
    forget()
    for name, keys in json.loads(ASKED.read_text()).items():
        asked.setdefault(name, Wanted()).update(dict.fromkeys(keys, ""))
    return {name: sorted(keys) for name, keys in sorted(asked.items())}


def ask() -> None:
    """Run the tests ASKING for kernels, and write down the variants they use."""
    held, noted = shelf.entries, dict[str, Noting]()

    def found(name: str) -> Noting:
        return noted.setdefault(name, Noting(held(name)))

    forget()
    with in_place_of_the_shelf(found):
        status = pytest.main(["-q", *(str(TESTS / f"test_{name}.py") for name in ASKING)])
    if status:
        raise SystemExit(f"some tests failed: {ASKED.name} stays as it was")
    made = {name: sorted(one.asked) for name, one in sorted(noted.items()) if name in FUNCTIONS}
    ASKED.write_text(json.dumps(made, indent=0) + "\n")


def compiled(name: str, key: str) -> str:
    """PTX of one variant from NVIDIA's compiler, without this installation's folders."""
    module, _, function = name.partition(".")
    build = inspect.unwrap(getattr(importlib.import_module(f"loadsparse.gpu.kernels.{module}"), function))
    return shelf.without_places(build(**json.loads(key)))


def compilers() -> dict[str, str]:
    """Versions of what makes the PTX."""
    return {package: metadata.version(package) for package in COMPILERS}


def write(members: dict[str, Any]) -> None:
    """The archive with these JSON members."""
    part = MADE.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_LZMA) as archive:
        for name, value in members.items():
            archive.writestr(zipfile.ZipInfo(name, DATE), json.dumps(value, indent=0), zipfile.ZIP_LZMA)
    os.replace(part, MADE)


def fill() -> None:
    """Write the archive; what is current stays."""
    same = shelf.SHELF.exists() and shelf.member("about.json") == compilers()
    members: dict[str, Any] = {"about.json": compilers()}
    with ProcessPoolExecutor(2) as pool:
        for name, keys in wanted().items():
            kept = shelf.entries(name) if same else {}
            missing = [key for key in keys if key not in kept]
            print(f"{name}: {len(keys)} variants, {len(missing)} to compile", flush=True)
            kept |= dict(zip(missing, pool.map(partial(compiled, name), missing), strict=True))
            texts = {key: kept[key] for key in keys}
            members[f"{name}.json"] = {"digest": shelf.digest(name.partition(".")[0]), "ptx": texts}
            write(members)  # after each, so that a run that was stopped need not begin anew
    print(f"{MADE.name}: {MADE.stat().st_size / 1e3:.0f} kB")


def stale(name: str, key: str) -> bool:
    """Whether a fresh compilation differs from what is on the shelf."""
    return shelf.entries(name).get(key) != compiled(name, key)


def by_llvmlite(plan: Plan) -> Launch:
    """The launch with kernels that llvmlite compiled."""
    before = compiler.default_backend
    forget()
    compiler.default_backend = lambda: "llvmlite"  # type: ignore[assignment]
    try:
        with in_place_of_the_shelf(lambda name: {}):
            return plan()
    finally:
        compiler.default_backend = before
        forget()


def forget() -> None:
    """Empty the kernels' caches."""
    for module, function in (name.split(".") for name in FUNCTIONS):
        getattr(importlib.import_module(f"loadsparse.gpu.kernels.{module}"), function).cache_clear()


def different(plan: Plan) -> str:
    """Why the launch computes something else when llvmlite compiles its kernels; "" if every word is equal."""
    usual, other = plan(), by_llvmlite(plan)
    if [step.ptx for step in usual.steps] == [step.ptx for step in other.steps]:
        return "both are the same PTX: nothing was compared"
    (expected, _), (found, report) = usual.run(), other.run()
    wrong = int((expected.view(np.uint16) != found.view(np.uint16)).sum())
    return f"{wrong} of {found.size} words differ" if wrong else "" if report.ok else f"{report.hazards[:1]}"


def each_kernel_once() -> Iterator[tuple[Plan, Launch]]:
    """Those of `plans` with a kernel that none before had."""
    seen: set[str] = set()
    for plan in plans():
        launch = plan()
        if new := {step.ptx for step in launch.steps} - seen:
            seen |= new
            yield plan, launch


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Fill or check the shelf of compiled kernels.")
    parser.add_argument("--check", action="store_true", help="compile everything anew and compare")
    parser.add_argument("--ask", action="store_true", help="note the variants that the tests use")
    parser.add_argument("--both", action="store_true", help="compile everything by llvmlite, too, run and compare")
    chosen = parser.parse_args(words)
    wrong: list[str] = []
    if chosen.check:
        wrong += [f"{name} {key}" for name, keys in wanted().items() for key in keys if stale(name, key)]
    if chosen.both:
        for plan, launch in each_kernel_once():
            if reason := different(plan):
                wrong.append(f"{launch.kernel}, {launch.shape}, {len(launch.splits)} splits: {reason}")
    if chosen.ask:
        ask()
    if not (chosen.check or chosen.both or chosen.ask):
        fill()
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
