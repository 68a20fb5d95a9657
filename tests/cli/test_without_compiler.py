"""Where NVIDIA's compiler has no wheel (macOS): kernels go through LLVM, and what needs machine code or C++ says so."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba_cuda", "nvidia", "cuda"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path[:] = [finder for finder in sys.meta_path if "numba" not in repr(finder).lower()]
sys.meta_path.insert(0, Hidden())
from numba.cuda.cudadrv import nvvm

class Nowhere:
    def __init__(self):
        raise nvvm.NvvmSupportError("libNVVM cannot be found")

nvvm.NVVM = Nowhere  # one that happens to be on this machine is not to be found either
from loadsparse.cli.main import main
main()
"""
PTX = Path(__file__).parents[1] / "gpu" / "data" / "numba_shared_sm_80.ptx"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HIDDEN, *words], capture_output=True, text=True, check=False)


def execute(code: str) -> subprocess.CompletedProcess[str]:
    """A script where the compiler is hidden; from a file, as Numba reads the source of kernels."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(HIDDEN.replace("from loadsparse.cli.main import main\nmain()\n", code))
        return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ("balance", "skewed:64,8", "--steps", "5", "-b", "sign"),
        ("predict", "bitmap", "--shape", "36864,8,9216", "--sparsity", "0.8"),
        ("puzzle", "list"),
        ("weights", "list"),
    ],
    ids=lambda words: words[0],
)
def test_what_needs_no_compiler_works(words: tuple[str, ...]) -> None:
    done = run(*words, "--plain")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "lscd", "--shape", "64,8,64"),
        ("verify", "grouped_lscd", "--shape", "64,8,64"),
        ("profile", "sputnik", "--shape", "64,8,64"),
    ],
    ids=" ".join,
)
def test_kernels_are_compiled_by_llvm(words: tuple[str, ...]) -> None:
    done = run(*words, "--plain")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_comparison_leaves_out_what_only_machine_code_tells() -> None:
    done = run("compare", "dense", "--shape", "64,8,64", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = [row for row in json.loads(done.stdout)["rows"] if row["kernel"] == "dense"]
    assert row["registers"] is None
    assert row["hazards"] == 0


NUMBA = """
import math
import numpy as np
from numba import cuda, float32
from loadsparse.gpu import simulator

@cuda.jit
def kernel(x, out):
    s = cuda.shared.array(32, float32)
    i = cuda.threadIdx.x
    s[i] = math.sqrt(x[i])
    cuda.syncthreads()
    out[i] = max(s[31 - i], float32(0.5))

x, out = np.arange(32, dtype=np.float32), np.zeros(32, np.float32)
assert simulator.run(kernel)[1, 32](x, out).ok
assert np.array_equal(out, np.maximum(np.sqrt(x[::-1]), np.float32(0.5)))

def grown(x):
    x[0] = math.exp(x[0])

try:
    simulator.run(cuda.jit(grown))[1, 1](x)
except NotImplementedError as error:
    print(error)
"""


def test_a_kernel_of_ones_own_runs_and_libdevice_is_refused_by_name() -> None:
    done = execute(NUMBA)
    assert done.returncode == 0, done.stderr
    assert "expf: these functions are in NVIDIA's libdevice" in done.stdout


@pytest.mark.parametrize("words", [("profile", "mine.cu", "--grid", "1", "--block", "32")], ids=" ".join)
def test_what_needs_it_says_so(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "mine.cu").write_text('extern "C" __global__ void f() {}')
    done = run(*(str(tmp_path / word) if word.endswith(".cu") else word for word in words))
    assert done.returncode == 2
    assert "CUDA C++ needs NVIDIA's compiler" in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_ptx_that_exists_runs() -> None:
    code = f"from loadsparse.gpu import simulator; print(*simulator.load(open({str(PTX)!r}).read(), arch='sm_80'))"
    done = execute(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
