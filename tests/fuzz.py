"""PTX is untrusted input: mutants of real kernels and random programs through parser, load and both engines.

    python tests/fuzz.py                        # 200,000 mutants, resumable; 11 CPU minutes
    python tests/fuzz.py --count 2000 --seed 7 --record here.json
    python tests/fuzz.py --only 1234            # one mutant in this process: its text and what became of it

Mutants run in child processes of `--batch` mutants each.  A mutant fails when its process dies or needs longer than
`--seconds`, when anything but the documented errors is raised, when native code touches a byte outside the buffers it
was given (guard pages, canaries), or when the two engines disagree.  Every mutant goes through parser and load; of those that
load, one in `LAUNCHED` is launched in the interpreter, and one in `NATIVE` three times in both engines.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "gpu"))

from fuzzing import corpus, guard, judge, mutate  # noqa: E402

RECORD = TESTS / "gpu" / "data" / "fuzz.json"
LAUNCHED, NATIVE = 6, 128
PATIENCE = 30
"""A mutant that neither computes nor ends is given so many times `--seconds` on the clock."""
MEMORY = 6 << 30
"""Address space of a child, in bytes."""


def code(seeds: corpus.Corpus) -> str:
    """Hash of the simulator's sources and of the kernels that mutants descend from: what a record is about."""
    import loadsparse.gpu.simulator as package

    folder = Path(package.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".lark")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    for seed in seeds.seeds:
        digest.update(seed.text.encode())
    return digest.hexdigest()[:16]


def empty(seed: int) -> dict[str, Any]:
    """A record of nothing yet."""
    packages = ("numpy", "llvmlite", "lark")
    versions = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
    return {
        "seed": seed, "launched_one_in": LAUNCHED, "native_one_in": NATIVE, "mutants": 0, "cpu_seconds": 0.0,
        "versions": versions, "code": [], "kinds": {}, "origins": {}, "stages": {}, "failures": [],
        "mended": [],
    }  # fmt: skip


def child(pipe: Connection, now: Synchronized[int], numbers: range, seed: int, seeds: corpus.Corpus) -> None:
    """Judges a range of mutants; `now` holds the one at work."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["LOADSPARSE_CACHE"] = ""
    with guard.guarded():
        for number in numbers:
            now.value = number
            native, launched = number % NATIVE == 0, number % LAUNCHED == 0
            pipe.send(judge.judge(seeds, seed, number, launched=launched, native=native))
    pipe.send(None)


def cpu_seconds(process: int | None) -> float:
    """What a process has computed so far; where /proc does not say, its clock."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def batch(numbers: range, seed: int, seeds: corpus.Corpus, seconds: float) -> tuple[list[judge.Verdict], int]:
    """Verdicts of a range in a child process, and the number after the last one judged: a mutant that ends or hangs its
    child is a failure of its own, and the next child begins behind it."""
    context = multiprocessing.get_context("fork")
    now = context.Value("q", numbers.start)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(theirs, now, numbers, seed, seeds))
    process.start()
    theirs.close()
    verdicts: list[judge.Verdict] = []
    what = "no answer"
    try:
        while True:
            began, spent = time.monotonic(), cpu_seconds(process.pid)
            while not ours.poll(1):
                if cpu_seconds(process.pid) - spent > seconds or time.monotonic() - began > PATIENCE * seconds:
                    what = f"hangs: no end within {seconds:g} s of computing"
                    raise TimeoutError
            verdict = ours.recv()
            if verdict is None:
                process.join()
                return verdicts, numbers.stop
            verdicts.append(verdict)
    except TimeoutError:
        pass
    except EOFError:
        process.join()
        what = f"its process died: exit code {process.exitcode}"
    finally:
        if process.is_alive():
            process.kill()
        process.join()
    number = now.value
    mutant = mutate.mutant(seeds, seed, number)
    verdicts.append(judge.Verdict(number, mutant.kind, mutant.origin, (), what))
    return verdicts, number + 1


def add(record: dict[str, Any], verdicts: list[judge.Verdict]) -> None:
    """Counts verdicts into a record."""
    for verdict in verdicts:
        record["mutants"] += 1
        for field, names in (("kinds", [verdict.kind]), ("origins", [verdict.origin]), ("stages", set(verdict.stages))):
            counts = Counter(record[field])
            counts.update(names)
            record[field] = dict(sorted(counts.items()))
        if verdict.failure is not None:
            record["failures"].append(
                {"number": verdict.number, "kind": verdict.kind, "origin": verdict.origin, "what": verdict.failure}
            )


def run(count: int, record: dict[str, Any], seeds: corpus.Corpus, *, size: int, seconds: float, save: Path | None,
        quiet: bool = False) -> dict[str, Any]:  # fmt: skip
    """Judges mutants until the record holds `count`; saves it after every batch, by a temporary file."""
    from loadsparse.gpu.simulator.engine import runtime

    runtime.library()  # children inherit the compiled run-time
    if (version := code(seeds)) not in record["code"]:
        record["code"].append(version)
    _judge_again(record, seeds, seconds)
    start, before = time.monotonic(), record["mutants"]
    while (first := record["mutants"]) < count:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        numbers = range(first, min(count, first + size))
        verdicts, _ = batch(numbers, record["seed"], seeds, seconds)
        add(record, verdicts)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime - spent.ru_utime - spent.ru_stime
        record["cpu_seconds"] = round(record["cpu_seconds"] + cpu, 1)
        if save is not None:
            part = save.with_suffix(".part")
            part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            os.replace(part, save)
        if not quiet:
            rate = (record["mutants"] - before) / (time.monotonic() - start)
            print(
                f"{record['mutants']:,} of {count:,}, {len(record['failures'])} failures, {rate:.0f} a second",
                flush=True,
            )
    return record


def _judge_again(record: dict[str, Any], seeds: corpus.Corpus, seconds: float) -> None:
    """Mutants that failed before: those that pass by now become "mended"."""
    for failure in list(record["failures"]):
        verdicts, _ = batch(range(failure["number"], failure["number"] + 1), record["seed"], seeds, seconds)
        if verdicts[0].failure is None:
            record["failures"].remove(failure)
            record["mended"].append(failure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0, help="longest that one mutant may compute")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--fresh", action="store_true", help="forget what was recorded")
    parser.add_argument("--only", type=int, help="judge one mutant in this process and print it")
    chosen = parser.parse_args()
    seeds = corpus.everything()
    if chosen.only is not None:
        mutant = mutate.mutant(seeds, chosen.seed, chosen.only)
        print(mutant.text)
        with guard.guarded():
            print(judge.judge(seeds, chosen.seed, chosen.only, launched=True, native=True))
        return 0
    record = empty(chosen.seed)
    if chosen.record.exists() and not chosen.fresh:
        held = json.loads(chosen.record.read_text(encoding="utf-8"))
        record = {**record, **held} if held["seed"] == chosen.seed else record
    run(chosen.count, record, seeds, size=chosen.batch, seconds=chosen.seconds, save=chosen.record)
    print(json.dumps({key: record[key] for key in ("mutants", "stages", "cpu_seconds")}, indent=1))
    for failure in record["failures"]:
        print(failure)
    return 1 if record["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
