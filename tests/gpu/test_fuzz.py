"""Untrusted PTX: a sample of mutants, the record of the long run, and the fuzzer tested with faults it must find."""

import ctypes
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fuzzing import corpus, guard, judge, mutate
from ptx_text import entry

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator.engine import cache, launch
from loadsparse.gpu.simulator.request import FIRST_ARRAY

SCRIPT = Path(__file__).parents[1] / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def seeds():
    return corpus.recorded()


@pytest.fixture(scope="module")
def judged(seeds):
    """400 mutants, judged in this process without guard pages: one in 40 in both engines."""
    return [judge.judge(seeds, 3, n, launched=n % 3 == 0, native=n % 40 == 0) for n in range(400)]


@pytest.mark.claim(
    id="untrusted-ptx",
    source="this project",
    phrase="untrusted PTX is refused in one line, or runs within device memory and its budget, alike in both engines",
    assumption="mutants of PTX by Numba, NVRTC and our kernels, random programs; tests/gpu/data/fuzz.json counts them",
    function="loadsparse.gpu.simulator.load",
    status="counted",
)
def test_a_sample_of_mutants_breaks_nothing(judged):
    assert [verdict for verdict in judged if verdict.failure] == []
    reached = {stage for verdict in judged for stage in verdict.stages}
    assert {"refused", "loaded", "interpreted", "native"} <= reached
    assert {verdict.kind for verdict in judged} == {kind for kind, _, _ in mutate.KINDS}
    assert 0.2 < sum("loaded" in verdict.stages for verdict in judged) / len(judged) < 0.8


def test_a_mutant_is_the_same_whenever_it_is_asked_for(seeds):
    assert mutate.mutant(seeds, 3, 17) == mutate.mutant(seeds, 3, 17)
    assert len({mutate.mutant(seeds, 3, n).text for n in range(50)}) > 45


def test_the_recorded_run(fuzz):
    """One run over one version of the code: all its mutants went through parser and load, and no failure is open."""
    record = json.loads(fuzz.RECORD.read_text(encoding="utf-8"))
    assert record["failures"] == []
    assert record["mutants"] == sum(record["kinds"].values()) == sum(record["origins"].values())
    assert record["stages"]["refused"] + record["stages"]["loaded"] == record["mutants"]
    assert record["mutants"] >= 200_000
    assert {name.partition(":")[0] for name in record["origins"]} >= {"numba", "nvrtc", "loadsparse"}
    assert set(record["versions"]) == {"python", "numpy", "llvmlite", "lark"}


class TestTheFuzzerItself:
    """Faults planted in the simulator are found, each for what it is."""

    def one(self, fuzz, seeds, monkeypatch, fault, seconds=30.0):
        """The first failure among ten mutants when `fault` runs in the place of load."""
        monkeypatch.setattr(judge.simulator, "load", fault)
        record = fuzz.run(10, fuzz.empty(5), seeds, size=10, seconds=seconds, save=None, quiet=True)
        assert record["mutants"] == 10
        return record["failures"][0]["what"]

    def test_a_crash(self, fuzz, seeds, monkeypatch):
        assert "its process died" in self.one(fuzz, seeds, monkeypatch, lambda *_: os.kill(os.getpid(), signal.SIGKILL))

    def test_a_hang(self, fuzz, seeds, monkeypatch):
        def hang(*_):
            while True:
                pass

        monkeypatch.setattr(fuzz, "LAUNCHED", 1)
        monkeypatch.setattr(judge.simulator, "load", hang)
        verdicts, following = fuzz.batch(range(7, 10), 5, seeds, 0.2)
        assert (verdicts[0].number, following) == (7, 8)
        assert "hangs" in verdicts[0].failure

    def test_an_undocumented_exception(self, fuzz, seeds, monkeypatch):
        def fault(*_):
            raise KeyError("nobody said so")

        assert "KeyError" in self.one(fuzz, seeds, monkeypatch, fault)

    def test_a_refusal_of_several_lines(self, fuzz, seeds, monkeypatch):
        def fault(*_):
            raise simulator.PtxError("one\ntwo")

        assert "several lines" in self.one(fuzz, seeds, monkeypatch, fault)

    def test_a_write_beside_a_buffer(self):
        memory = guard.GuardedMemory()
        ctypes.memset(memory.take(100) + 100 + guard.SPARE, 1, 1)
        with pytest.raises(guard.StrayWriteError):
            memory.finish()
        held = guard.GuardedMemory()
        ctypes.memset(held.hold(np.zeros(5, np.uint8)) - 1, 1, 1)
        with pytest.raises(guard.StrayWriteError):
            held.finish()

    @pytest.mark.parametrize("step", [-guard.PAGE, 64])
    def test_a_read_far_beside_a_buffer_ends_the_process(self, step):
        code = (
            "import sys, ctypes; sys.path.insert(0, sys.argv[1]); from fuzzing import guard; import numpy as np;"
            "at = guard.GuardedMemory().hold(np.zeros(64, np.uint8)); print('ready', flush=True);"
            f"ctypes.string_at(at + {step}, 1)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, check=False
        )
        assert (done.returncode, done.stdout) == (-signal.SIGSEGV, b"ready\n")

    def test_engines_that_disagree(self, monkeypatch):
        text = entry("ld.param.u64 %rd1, [p0]; st.global.u32 [%rd1], 7;", ".param .u64 p0")
        module = simulator.load(text)
        run = launch.Launch.run

        def wrong(self):
            outcome = run(self)
            self.request.allocations[FIRST_ARRAY].data[0] ^= 1
            return outcome

        monkeypatch.setattr(launch.Launch, "run", wrong)
        drawn = mutate.Launch((1,), (1,), 0, (np.zeros(4, np.uint32),), simulator.Checks(), {})
        with pytest.raises(Exception, match="engines disagree: memory"):
            judge._both(module, "k", drawn, [])


def test_guarded_launches_give_the_same_result():
    body = "ld.param.u64 %rd1, [p0]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2;"
    module = simulator.load(entry(f"{body} st.global.u32 [%rd1], %r1;", ".param .u64 p0"))
    out = np.zeros(33, np.uint32)
    with guard.guarded():
        report = module["k"].launch(1, 33, out, engine="llvm")
    assert report.ok
    np.testing.assert_array_equal(out, np.arange(33))


def test_the_fuzzer_resumes(fuzz, seeds, tmp_path):
    path = tmp_path / "record.json"
    fuzz.run(6, fuzz.empty(4), seeds, size=6, seconds=30, save=path, quiet=True)
    first = json.loads(path.read_text(encoding="utf-8"))
    again = fuzz.run(12, first, seeds, size=6, seconds=30, save=path, quiet=True)
    assert again["mutants"] == 12
    assert sum(again["kinds"].values()) == 12
    assert [item.name for item in tmp_path.iterdir()] == ["record.json"]


KILLED = """
import os, sys, signal, threading, time
os.environ["LOADSPARSE_CACHE"] = sys.argv[1]
from loadsparse.gpu.simulator.engine import cache
image = bytes(range(256)) * 4096
print("ready", flush=True)
while True:
    cache.save("kernel-x", image)
"""


def test_a_writer_killed_midway_leaves_no_corrupt_cache(tmp_path, monkeypatch):
    """What is under a final name is whole, or is not taken; leftovers are temporary files."""
    monkeypatch.setenv("LOADSPARSE_CACHE", str(tmp_path))
    for turn in range(4):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(0.002 + 0.003 * turn)
            process.kill()
        found = cache.load("kernel-x")
        assert found is None or found == bytes(range(256)) * 4096
    assert {path.suffix for path in tmp_path.iterdir()} <= {"", ".part"}


def test_launches_in_two_threads_do_not_disturb_each_other():
    """One module, launched from two threads at once with different data: each gets its own result and counts."""
    body = (
        ".shared .align 4 .b8 s[256]; ld.param.u64 %rd1, [p0]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4;"
        "add.u64 %rd1, %rd1, %rd2; ld.global.u32 %r2, [%rd1]; shl.b32 %r3, %r1, 2; mov.u32 %r5, 0;\\n"
        "L: st.shared.u32 [%r3], %r2; bar.sync 0; xor.b32 %r4, %r3, 4; ld.shared.u32 %r2, [%r4]; bar.sync 0;"
        "add.u32 %r2, %r2, 1; add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 200; @%p1 bra L; st.global.u32 [%rd1], %r2;"
    ).replace("\\n", "\n")
    module = simulator.load(entry(body, ".param .u64 p0"))
    failures = []

    def work(start, engine):
        for turn in range(3 if engine == "llvm" else 1):
            data = np.arange(64, dtype=np.uint32) + start + turn
            expected = data + 200
            report = module["k"].launch(1, 64, data, engine=engine)
            if not (report.ok and np.array_equal(data, expected) and report.instructions == 2 * (9 + 200 * 9)):
                failures.append((start, engine, report))

    threads = [
        threading.Thread(target=work, args=(1000 * n, engine)) for n, engine in enumerate(["llvm", "interpreter"] * 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
