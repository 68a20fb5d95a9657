"""Where NVIDIA's compiler has no wheel (macOS): what does not need it works, and what does says so in one line."""

from __future__ import annotations

import subprocess
import sys
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
from loadsparse.cli.main import main
main()
"""
PTX = Path(__file__).parents[1] / "gpu" / "data" / "numba_shared_sm_80.ptx"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HIDDEN, *words], capture_output=True, text=True, check=False)


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
        ("verify",),
        ("verify", "lscd"),
        ("verify", "grouped_lscd"),
        ("profile", "lscd"),
        ("compare", "--shape", "64,8,64"),
    ],
    ids=" ".join,
)
def test_what_needs_it_says_so(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert "numba-cuda" in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_ptx_that_exists_runs() -> None:
    code = f"from loadsparse.gpu import simulator; print(*simulator.load(open({str(PTX)!r}).read(), arch='sm_80'))"
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN.replace("from loadsparse.cli.main import main\nmain()", code)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
