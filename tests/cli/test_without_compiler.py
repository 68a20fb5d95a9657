"""Where NVIDIA's compiler is not installed (macOS, or without the extra): all of the course works, the rest says why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba_cuda", "nvidia", "cuda"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path[:] = [finder for finder in sys.meta_path if "numba" not in repr(finder).lower()]
sys.meta_path.insert(0, Hidden())
"""
TESTS = Path(__file__).parents[1]
PTX = TESTS / "gpu" / "data" / "numba_shared_sm_80.ptx"
SOLUTIONS = TESTS / "puzzles" / "solutions"

KERNEL = """
import numpy as np
from loadsparse.gpu import compiler, kernels, simulator
from numba import cuda, float32, types

assert compiler.default_backend() == "llvmlite"

@cuda.jit
def reverse(x):
    s = cuda.shared.array(64, float32)
    i = cuda.threadIdx.x
    s[i] = min(x[i], float32(50))
    cuda.syncthreads()
    x[i] = s[63 - i]

x = np.arange(64, dtype=np.float32)
report = simulator.run(reverse)[1, 64](x)
assert report.ok
assert x.tolist() == np.minimum(np.arange(64), 50)[::-1].tolist()
"""

NO_SHELF = """
import numpy as np
from pathlib import Path
from loadsparse.gpu import kernels
from loadsparse.gpu.kernels import shelf
from loadsparse.reference import spmm

shelf.SHELF = Path("not here")
rng = np.random.default_rng(1)
a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((128, 128), (128, 8)))
for name in ("bitmap", "lscd"):
    kernel = kernels.get(name)
    launch = kernel.plan(kernel.encode(a), b)
    c, report = launch.run()
    assert report.ok
    assert np.array_equal(c, spmm.lscd(a, b, arch="sm_80", splits=launch.splits))
    (line,) = [line for line in launch.steps[0].ptx.splitlines() if ".file\\t1" in line or ".file 1" in line]
    assert f"kernels/{name}.py" in line
"""


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose Python processes, children included, cannot import what NVIDIA made."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(HIDE)
    return {**os.environ, "PYTHONPATH": str(folder)}


def python(hidden: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=hidden)


def run(hidden: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return python(hidden, "-m", "loadsparse.cli.main", *words)


@pytest.mark.parametrize(
    "words",
    [
        ("balance", "skewed:64,8", "--steps", "5", "-b", "sign"),
        ("predict", "bitmap", "--shape", "36864,8,9216", "--sparsity", "0.8"),
        ("puzzle", "list"),
        ("weights", "list"),
        ("verify", "lscd", "--shape", "64,8,64"),
        ("verify", "bitmap", "--shape", "64,3,96"),
        ("verify", "grouped_lscd", "--shape", "64,8,64"),
        ("verify", f"{TESTS}/cli/kernels/mine.py:kernel", "--shape", "32,8,32"),
        ("profile", "lscd", "--shape", "128,8,64"),
        ("compare", "lscd", "bitmap", "--shape", "64,8,64"),
        ("puzzle", "check", "6", str(SOLUTIONS / "06_through_shared_memory.py")),
        ("puzzle", "check", "15", str(SOLUTIONS / "15_one_mma.py")),
    ],
    ids=lambda words: " ".join(Path(word).name for word in words),
)
def test_what_needs_no_compiler_works(hidden: dict[str, str], words: tuple[str, ...]) -> None:
    done = run(hidden, *words, "--plain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def test_profile_names_what_only_the_compiler_could_say(hidden: dict[str, str]) -> None:
    done = run(hidden, "profile", "lscd", "--shape", "128,8,64", "--plain")
    said = "no machine code: assembling PTX (registers, spills, SASS) needs NVIDIA's compiler: pip install "
    assert f'{said}"loadsparse[nvidia]"' in done.stdout


def test_cuda_source_says_what_is_missing(hidden: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "k.cu"
    source.write_text('extern "C" __global__ void k(float* x) { *x = 1; }')
    done = run(hidden, "profile", f"{source}:k", "--grid", "1", "--block", "1", "--arg", "f32[4]")
    assert done.returncode == 2
    assert 'pip install "loadsparse[nvidia]"' in done.stderr
    assert done.stderr.strip().count("\n") == 0


@pytest.mark.parametrize("program", [KERNEL, NO_SHELF], ids=["a kernel of one's own", "our kernels without the shelf"])
def test_new_kernels_compile(hidden: dict[str, str], program: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(program)
    done = python(hidden, str(path))
    assert done.returncode == 0, done.stderr


def test_ptx_that_exists_runs(hidden: dict[str, str]) -> None:
    program = f"from loadsparse.gpu import simulator; print(*simulator.load(open({str(PTX)!r}).read(), arch='sm_80'))"
    done = python(hidden, "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
