"""numba-cuda's own test suite through the simulator, beside Numba's simulator, in one run.

    python tests/numba_suite.py                       # everything, resumable; about an hour on one core
    python tests/numba_suite.py --only test_atomics   # one module, nothing recorded
    python tests/numba_suite.py --report              # the table of the recorded result

One process per module and simulator; a test that takes longer than --seconds is recorded as "timeout".  A test counts
as launching when it starts a kernel, be it in a child process, or fails before it could; the others only compile.
`EXCLUDED` lists what cannot pass without a driver, a second GPU or machine code, each with its reason.  What is measured
is written to tests/gpu/data/numba_suite.json.  Needs numba-cuda's test dependencies: pip install filecheck psutil cffi.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.metadata
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

PACKAGES = ("numba.cuda.tests.cudapy", "numba.cuda.tests.doc_examples")
RECORD = Path(__file__).parent / "gpu" / "data" / "numba_suite.json"
BAR = 0.90
LAUNCHES = "LOADSPARSE_NUMBA_SUITE_LAUNCHES"

EXCLUDED: dict[str, str] = {
    "*.test_ipc.*": "CUDA IPC: needs a second process on the same driver",
    "*.test_multigpu.*": "several GPUs: one is simulated",
    "*.CUDAAndCPUCachingTest.test_cpu_and_cuda_*": (
        "numba 0.68 stamps the shared cache index with content hashes, numba-cuda 0.30.4 with times: each overwrites the "
        "other's on any device"
    ),
}
"""Patterns of test names, and why they need something that no simulator has."""


# In the process that runs one module


class Result(unittest.TestResult):
    """Writes one JSON line per finished test."""

    def __init__(self, sink: Any, launches: Path) -> None:
        super().__init__()
        self.sink, self.launches = sink, launches
        self.outcome: tuple[str, str] = ("passed", "")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.outcome, self.began = ("passed", ""), time.perf_counter()
        self.before = self._launched()

    def _launched(self) -> int:
        return self.launches.stat().st_size if self.launches.exists() else 0

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._write(test.id(), *self.outcome, self._launched() - self.before, time.perf_counter() - self.began)

    def _write(self, name: str, outcome: str, detail: str, launches: int, seconds: float) -> None:
        line = {"test": name, "outcome": outcome, "detail": detail, "launches": launches, "seconds": round(seconds, 3)}
        self.sink.write(json.dumps(line) + "\n")
        self.sink.flush()

    def _failed(self, kind: str, error: Any) -> None:
        text = str(error[1]).strip().splitlines()
        first = next((line for line in text if line.strip()), "")
        outcome = "timeout" if error[0] is OverTime else "skipped" if error[0].__name__ == "Skipped" else kind
        self.outcome = (outcome, f"{error[0].__name__}: {first[:300]}")
        if os.environ.get("SUITE_TRACEBACK"):
            import traceback

            traceback.print_exception(*error)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        if not isinstance(test, unittest.TestCase):
            self._write(str(test), "error", f"{err[0].__name__}: {err[1]}"[:300], 0, 0.0)
        self._failed("error", err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._failed("failed", err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._failed("failed", err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        if isinstance(test, unittest.TestCase):
            self.outcome = ("skipped", reason)
        else:
            self._write(str(test), "skipped", reason, 0, 0.0)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.outcome = ("passed", "expected failure")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.outcome = ("failed", "unexpected success")


class OverTime(Exception):
    """A test took too long."""


def timed(suite: unittest.TestSuite, result: Result, seconds: int) -> None:
    """Run every test with an alarm around it; fixtures of classes and modules stay as unittest has them."""

    def late(*ignored: Any) -> None:
        signal.alarm(2)
        raise OverTime(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    original = unittest.TestCase.run

    def run(self: unittest.TestCase, given: unittest.TestResult | None = None) -> unittest.TestResult | None:
        signal.alarm(seconds)
        try:
            return original(self, given)
        except OverTime:
            return given
        finally:
            signal.alarm(0)

    unittest.TestCase.run = run  # type: ignore[method-assign]
    suite.run(result)


def count_launches() -> None:
    """Append a byte to the file named in the environment whenever a kernel is about to be launched."""
    from numba.cuda import dispatcher

    original = dispatcher._Kernel.launch

    def launch(self: Any, *arguments: Any, **options: Any) -> Any:
        with open(os.environ[LAUNCHES], "ab") as file:
            file.write(b".")
        return original(self, *arguments, **options)

    dispatcher._Kernel.launch = launch


def hazards_heard(path: Path) -> Any:
    """A listener that appends the hazards of each launch, one JSON line each, and prints what kernels print."""

    def heard(name: str, report: Any) -> None:
        if report.printed:
            sys.stdout.flush()
            os.write(1, report.printed.encode()) if sys.stdout is sys.__stdout__ else sys.stdout.write(report.printed)
        for hazard in report.hazards:
            with open(path, "a") as file:
                file.write(json.dumps({"kernel": name, "hazard": str(hazard)}) + "\n")

    return heard


def simulate() -> None:
    """Put numba.cuda of this process on the simulator; also called in child processes, by sitecustomize."""
    from loadsparse.gpu.simulator.frontend import install

    install(launched=hazards_heard(Path(os.environ[LAUNCHES] + ".hazards")))
    count_launches()


def work(module: str, sink: Path, seconds: int, ours: bool, names: list[str]) -> None:
    launches = Path(os.environ[LAUNCHES])
    if ours:
        simulate()
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromNames(names) if names else loader.loadTestsFromName(module)
    with sink.open("a") as file:
        timed(suite, Result(file, launches), seconds)


# In the process that drives


def modules() -> list[str]:
    """Names of all test modules."""
    import numba_cuda

    root = Path(numba_cuda.__file__).parent / "numba" / "cuda" / "tests"
    found = []
    for package in PACKAGES:
        folder = root / package.rpartition(".")[2]
        found += [f"{package}.{m.name}" for m in pkgutil.iter_modules([str(folder)]) if m.name.startswith("test_")]
    return found


def run_module(
    module: str, folder: Path, seconds: int, ours: bool, names: list[str] | None = None
) -> list[dict[str, Any]]:
    """The tests of one module in a process of its own; what is missing when it dies is recorded as such."""
    side = "ours" if ours else "numba"
    final = folder / f"{module}.{side}.jsonl"
    if final.exists() and not names:
        return _read(final)
    partial = final.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    launches = folder / f"{module}.{side}.launches"
    for stale in (launches, Path(f"{launches}.hazards")):
        stale.unlink(missing_ok=True)
    hook = folder / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "if os.environ.get('LOADSPARSE_NUMBA_SUITE_CHILD'):\n"
        "    import numba_suite\n"
        "    numba_suite.simulate()\n"
    )
    path = os.pathsep.join(p for p in (str(hook), os.environ.get("PYTHONPATH", "")) if p)
    environment = {**os.environ, LAUNCHES: str(launches), "PYTHONPATH": path}
    environment["NUMBA_ENABLE_CUDASIM"] = "0" if ours else "1"
    command = [sys.executable, __file__, "--worker", module, "--sink", str(partial), "--seconds", str(seconds)]
    command += ["--side", side, *(names or [])]
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["nice", *command],
            env=environment,
            cwd=folder,
            stdout=None if names else output,
            stderr=None if names else output,
            start_new_session=True,
        )
        dead, skipped = "", False
        try:
            while process.poll() is None:
                time.sleep(0.2)
                last = partial.stat().st_mtime if partial.exists() else time.time() - (time.monotonic() - began)
                if time.time() - last > 60 + 3 * seconds:
                    dead = "no test finished in time; the process was ended"
                    os.killpg(process.pid, signal.SIGKILL)
                    break
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        code = process.wait()
        if code and not names:
            output.seek(0)
            tail = output.read().decode("utf-8", "replace").strip().splitlines()[-3:]
            dead = dead or f"the process ended with status {code}: {' | '.join(tail)}"[:400]
            skipped = "Skipped: " in dead
            dead = dead[dead.index("Skipped: ") :] if skipped else dead
    rows = _read(partial)
    if dead:
        outcome = "skipped" if skipped else "died"
        rows.append({"test": f"{module}.(rest)", "outcome": outcome, "detail": dead, "launches": 0, "seconds": 0.0})
    hazards = Path(f"{launches}.hazards")
    if hazards.exists():
        rows.append({"hazards": [json.loads(line) for line in hazards.read_text().splitlines()]})
    if not names:
        temporary = final.with_suffix(".new")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
        temporary.replace(final)
    return rows


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def excluded(test: str) -> str | None:
    """Why a test is not counted, or None."""
    return next((reason for pattern, reason in EXCLUDED.items() if fnmatch.fnmatch(test, pattern)), None)


def summary(ours: list[dict[str, Any]], numba: list[dict[str, Any]]) -> dict[str, Any]:
    """The record: counts, and every test that did not pass."""
    other = {row["test"]: row["outcome"] for row in numba if "test" in row}
    tests = [row for row in ours if "test" in row]
    hazards = [h for row in ours if "hazards" in row for h in row["hazards"]]
    # What failed before it could launch would have launched.
    wanted = {r["test"] for r in tests if r["launches"] or r["outcome"] not in ("passed", "skipped")}
    counted = [row for row in tests if row["test"] in wanted and not excluded(row["test"])]
    compiling = [row for row in tests if row["test"] not in wanted and not excluded(row["test"])]
    passed = [row for row in counted if row["outcome"] == "passed"]
    versions = {name: importlib.metadata.version(name) for name in ("numba-cuda", "numba", "cuda-bindings", "numpy")}
    beside = Counter(other.get(row["test"], "absent") for row in counted)
    return {
        "versions": versions,
        "launching": {
            "tests": len(counted),
            "passed": len(passed),
            "rate": round(len(passed) / len(counted), 4) if counted else None,
            "bar": BAR,
            "outcomes": dict(Counter(row["outcome"] for row in counted)),
            "kernels_launched": sum(row["launches"] for row in counted),
            "numba_simulator": dict(beside),
        },
        "compile_only": dict(Counter(row["outcome"] for row in compiling)),
        "all_of_numba_simulator": dict(Counter(other.values())),
        "seconds": {
            "ours": round(sum(row["seconds"] for row in tests), 1),
            "numba": round(sum(row["seconds"] for row in numba if "test" in row), 1),
        },
        "hazards": _grouped(hazards),
        "not_passed": [row for row in counted if row["outcome"] != "passed"],
        "excluded": {row["test"]: excluded(row["test"]) for row in tests if excluded(row["test"])},
        "skipped": {row["test"]: row["detail"] for row in compiling if row["outcome"] == "skipped"},
    }


def _grouped(hazards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    counts = Counter((h["kernel"], h["hazard"]) for h in hazards)
    return [{"kernel": kernel, "hazard": text, "count": n} for (kernel, text), n in counts.most_common()]


def write_record(record: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    temporary.replace(path)


def show(record: dict[str, Any]) -> None:
    launching = record["launching"]
    rate = f"{launching['rate'] or 0:.1%}; bar {BAR:.0%}"
    print(f"tests that launch a kernel: {launching['tests']}, passed {launching['passed']} ({rate})")
    print(f"  the same tests on Numba's simulator: {launching['numba_simulator']}")
    print(f"tests that only compile: {record['compile_only']}")
    print(f"excluded: {len(record['excluded'])}; seconds {record['seconds']}; hazard records {len(record['hazards'])}")
    for row in record["not_passed"]:
        print(f"  {row['outcome']:8} {row['test'].removeprefix('numba.cuda.tests.')}: {row['detail'][:160]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="part of a module's name: run those modules, record nothing")
    parser.add_argument("--report", action="store_true", help="print the recorded result")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "loadsparse_numba_suite")
    parser.add_argument("--seconds", type=int, default=60, help="time limit per test (default 60)")
    parser.add_argument("--skip-numba", action="store_true", help="with --only: leave Numba's simulator out")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--sink", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", default="ours", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help="full names of tests, to see their output")
    chosen = parser.parse_args()
    if chosen.worker:
        os.environ["LOADSPARSE_NUMBA_SUITE_CHILD"] = "1" if chosen.side == "ours" else ""
        work(chosen.worker, chosen.sink, chosen.seconds, chosen.side == "ours", chosen.names)
        return 0
    if chosen.report:
        show(json.loads(RECORD.read_text()))
        return 0
    folder = chosen.folder / importlib.metadata.version("numba-cuda")
    folder.mkdir(parents=True, exist_ok=True)
    if chosen.names:
        os.environ["SUITE_TRACEBACK"] = "1"
        for row in run_module("selected", folder, chosen.seconds, True, chosen.names):
            print(json.dumps(row))
        return 0
    ours: list[dict[str, Any]] = []
    numba: list[dict[str, Any]] = []
    wanted = [m for m in modules() if not chosen.only or chosen.only in m]
    for index, module in enumerate(wanted):
        if chosen.only:
            for side in ("ours", "numba"):
                (folder / f"{module}.{side}.jsonl").unlink(missing_ok=True)
        ours += run_module(module, folder, chosen.seconds, True)
        if not chosen.skip_numba:
            numba += run_module(module, folder, chosen.seconds, False)
        outcomes = Counter(row["outcome"] for row in ours if row.get("test", "").startswith(module + "."))
        print(f"{index + 1}/{len(wanted)} {module}: {dict(outcomes)}", flush=True)
    record = summary(ours, numba)
    if not chosen.only:
        write_record(record, RECORD)
    show(record)
    rate = record["launching"]["rate"]
    return 0 if rate is not None and rate >= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
