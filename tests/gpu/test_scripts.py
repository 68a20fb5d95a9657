"""numba.cuda scripts as they are, and a sample of numba-cuda's own tests, on the simulator."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from loadsparse.gpu.simulator.frontend.install import SEAM


def script(tmp_path: Path, source: str, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(source))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "loadsparse.gpu.simulator", *options, str(path), "one", "two"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


def test_a_script_runs_unmodified(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import sys
        import numpy as np
        from numba import cuda, float32, int32, vectorize

        assert cuda.is_available()
        assert sys.argv[1:] == ["one", "two"]
        assert cuda.get_current_device().compute_capability == (8, 0)
        assert len(cuda.gpus) == 1

        table = np.arange(32, dtype=np.int32) ** 2

        @cuda.jit(device=True)
        def shifted(value, by):
            return value + by

        @cuda.jit
        def everything(x, total, printed):
            tile = cuda.shared.array(32, int32)
            private = cuda.local.array(4, int32)
            constant = cuda.const.array_like(table)
            lane = cuda.laneid
            tile[lane] = constant[lane]
            for i in range(4):
                private[i] = tile[lane]
            cuda.syncthreads()
            value = shifted(tile[31 - lane], private[3])
            value += cuda.shfl_xor_sync(0xFFFFFFFF, value, 1)
            cuda.atomic.add(total, 0, value)
            x[cuda.grid(1)] = value
            if printed and lane == 0:
                print("block", cuda.blockIdx.x, x.size)

        stream = cuda.stream()
        begun, ended = cuda.event(), cuda.event()
        x = cuda.device_array(64, np.int32, stream=stream)
        total = cuda.to_device(np.zeros(1, np.int64), stream=stream)
        begun.record(stream)
        everything[2, 32, stream](x, total, True)
        ended.record(stream)
        ended.synchronize()
        stream.synchronize()
        assert cuda.event_elapsed_time(begun, ended) > 0

        base = table[::-1] + table
        expected = base + base[np.arange(32) ^ 1]
        assert x.copy_to_host().tolist() == expected.tolist() * 2
        assert total.copy_to_host()[0] == 2 * expected.sum()

        for make in (cuda.mapped_array, cuda.managed_array):
            host = make(32, np.int32)
            host[:] = 5
            everything[1, 32](host, total, False)
            cuda.synchronize()
            assert host.tolist() == expected.tolist()
        pinned = cuda.pinned_array(64, np.int32)
        x.copy_to_host(pinned)
        assert pinned[:32].tolist() == expected.tolist()
        ordinary = np.zeros(32, np.int32)
        with cuda.mapped(ordinary) as window:
            everything[1, 32](window, total, False)
        assert ordinary.tolist() == expected.tolist()

        @vectorize(["float32(float32, float32)"], target="cuda")
        def add(a, b):
            return a + b

        assert add(np.ones(100, np.float32), np.arange(100, dtype=np.float32)).tolist() == list(range(1, 101))
        assert cuda.reduce(lambda a, b: a + b)(np.arange(1000.0)) == 499500.0
        print("done")
        """,
    )
    assert sorted(done.stdout.splitlines()) == ["block 0 64", "block 1 64", "done"]


def test_cuda_sources_are_linked_and_globals_persist(tmp_path: Path) -> None:
    (tmp_path / "count.cu").write_text(
        "__device__ int calls;\n"
        'extern "C" __device__ int count(int *out, int by) { *out = atomicAdd(&calls, by); return 0; }\n'
    )
    script(
        tmp_path,
        f"""
        import numpy as np
        from numba import cuda, types

        count = cuda.declare_device("count", types.int32(types.int32), link={str(tmp_path / "count.cu")!r})

        @cuda.jit
        def kernel(out):
            out[0] = count(5)

        out = np.zeros(1, np.int32)
        for launch in range(3):
            kernel[1, 1](out)
            assert out[0] == 5 * launch
        """,
    )


HAZARDOUS = """
import numpy as np
from numba import cuda

@cuda.jit
def stray(x):
    x[cuda.grid(1)] = 1  # line 7

x = cuda.device_array(40, np.float32)
stray[1, 64](x)
y = cuda.device_array(4, np.float32)
stray[1, 4](y)
print("went on", y.copy_to_host().sum())
"""


def test_hazards_of_a_script_name_kernel_and_line(tmp_path: Path) -> None:
    done = script(tmp_path, HAZARDOUS, status=1)
    assert done.stdout == "went on 4.0\n"
    (line,) = done.stderr.strip().splitlines()
    assert "bounds" in line
    assert "stray" in line
    assert "array argument 0 " in line
    assert "script.py:7" in line


def test_hazards_as_json_and_without_checks(tmp_path: Path) -> None:
    done = script(tmp_path, HAZARDOUS, "--json", status=1)
    found = json.loads(done.stderr.splitlines()[-1])
    assert (found["ok"], found["launches"], len(found["hazards"])) == (False, 2, 1)
    assert found["hazards"][0]["kind"] == "bounds"
    done = script(tmp_path, HAZARDOUS, "--no-checks", "--json")
    assert json.loads(done.stderr.splitlines()[-1]) == {"ok": True, "launches": 2, "hazards": []}


def test_uninitialised_device_memory_is_found_across_launches(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import numpy as np
        from numba import cuda

        @cuda.jit
        def copy(x, y):
            i = cuda.grid(1)
            y[i] = x[i]

        x, y, z = (cuda.device_array(32, np.float32) for _ in range(3))
        x[:16] = 1.0
        copy[1, 32](x, y)
        """,
        status=1,
    )
    assert "uninitialized" in done.stderr
    assert "script.py:8" in done.stderr


def test_a_failing_script_keeps_its_traceback(tmp_path: Path) -> None:
    done = script(tmp_path, "def f():\n    raise KeyError('mine')\n\nf()\n", status=1)
    assert "KeyError: 'mine'" in done.stderr
    assert "line 4, in <module>" in done.stderr
    assert "runpy" not in done.stderr
    assert script(tmp_path, "raise SystemExit(7)", status=7).stderr == ""


def test_bad_scripts_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from loadsparse.gpu.simulator.frontend.script import main

    assert main(["nowhere.py"]) == 2
    assert capsys.readouterr().err == "no such script: nowhere.py\n"


def test_the_seam_exists_in_this_numba_cuda() -> None:
    import importlib

    for module, names in SEAM.items():
        for name in names:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


# A bounded sample of numba-cuda's own suite, of which tests/numba_suite.py runs all

SAMPLE = ("test_constmem",)


def test_a_sample_of_numbas_suite(tmp_path: Path) -> None:
    driver = Path(__file__).parents[1] / "numba_suite.py"
    for name in SAMPLE:
        done = subprocess.run(
            [sys.executable, str(driver), "--only", name, "--skip-numba", "--folder", str(tmp_path), "--seconds", "20"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


RECORDED = Path(__file__).parent / "data" / "numba_suite.json"


def test_the_recorded_run_of_numbas_suite_meets_its_bar() -> None:
    record = json.loads(RECORDED.read_text())
    launching = record["launching"]
    assert launching["passed"] / launching["tests"] >= launching["bar"] == 0.9
    assert launching["tests"] >= 850
    assert launching["passed"] + len(record["not_passed"]) == launching["tests"]
    assert all(reason for reason in record["excluded"].values())
