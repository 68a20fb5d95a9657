"""Triton kernels: compiled without a GPU, executed by both engines, bugs named by their line; one line for every refusal."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import triton_builds

from loadsparse.gpu import compiler, simulator
from loadsparse.gpu.triton_kernel import types_of


@pytest.fixture(params=["recorded", "fresh"])
def build(request):
    """Compiles by name; what was recorded is executed everywhere, and compiled anew where Triton is installed."""
    if request.param == "fresh":
        pytest.importorskip("triton", reason='needs pip install "loadsparse[triton]"')
    return getattr(triton_builds, request.param)


def launched(built, grid, *arguments, **options):
    """The report of the fast engine, after both engines agreed, and its arrays."""
    found = []
    for engine in ("llvm", "interpreter"):
        arrays = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        kernel = simulator.load(built.ptx, built.arch)[built.name]
        options |= {"shared_bytes": built.shared_bytes, "engine": engine}
        found.append((kernel.launch(grid, built.threads, *arrays, *built.scratch, **options), arrays))
    (first, one), (second, two) = found
    assert first.metrics == second.metrics
    assert sorted(map(str, first.hazards)) == sorted(map(str, second.hazards))
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return first, one


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90"])
def test_vector_addition(build, arch):
    built = build(f"add {arch}")
    assert built.threads == 64
    x, y = np.random.default_rng(0).standard_normal((2, 700)).astype(np.float32)
    report, (_, _, z, _) = launched(built, 3, x, y, np.zeros_like(x), x.size)
    assert report.ok, report
    np.testing.assert_array_equal(z, x + y)


@pytest.mark.parametrize("arch", ["sm_80", "sm_89"])
def test_pipelined_product(build, arch):
    rng = np.random.default_rng(1)
    a = rng.integers(-3, 4, (32, 96)).astype(np.float16)
    b = rng.integers(-3, 4, (96, 32)).astype(np.float16)
    built = build(f"multiply {arch}")
    assert all(word in built.ptx for word in ("cp.async.wait_group", "ldmatrix", "mma.sync"))
    report, (_, _, c, _) = launched(built, 1, a, b, np.zeros((32, 32), np.float32), 96)
    assert report.ok, report
    np.testing.assert_array_equal(c, a.astype(np.float32) @ b.astype(np.float32))


def test_a_missing_mask_is_found_at_its_line(build):
    report, _ = launched(build("double_without_mask"), 4, np.zeros(1000, np.float32), np.zeros(1000, np.float32))
    source = Path(__file__).with_name("triton_programs.py").read_text(encoding="utf-8").splitlines()
    line = next(number for number, text in enumerate(source, 1) if "2 * tl.load" in text)
    assert {(h.kind, h.block, h.source_line) for h in report.hazards} == {("bounds", (3, 0, 0), line)}


def test_triton_refuses_in_one_line():
    pytest.importorskip("triton", reason='needs pip install "loadsparse[triton]"')
    import triton_programs

    with pytest.raises(compiler.CompileError, match="Triton: ") as caught:
        compiler.triton(triton_programs.wrong_types, "*fp32, fp32")
    assert "\n" not in str(caught.value)
    with pytest.raises(compiler.CompileError, match=r"is no function decorated with @triton\.jit"):
        compiler.triton(len, "*fp32")


KERNEL = SimpleNamespace(arg_names=["x", "n", "BLOCK"])


def test_types_are_given_in_order():
    assert types_of(KERNEL, " *fp16:16,i32", {"BLOCK": 4}) == {"x": "*fp16:16", "n": "i32"}
    assert types_of(KERNEL, "", {"x": 1, "n": 2, "BLOCK": 4}) == {}


@pytest.mark.parametrize(
    ("signature", "constants", "reason"),
    [
        ("*fp16", {"BLOCK": 4}, "1 types for the 2 parameters"),
        ("*fp16, i32", {"SIZE": 4}, "no parameter 'SIZE'"),
        ("*fp16:8, i32", {"BLOCK": 4}, "type '*fp16:8'"),
        ("fp16 *, i32", {"BLOCK": 4}, "type 'fp16 *'"),
    ],
)
def test_types_that_do_not_fit(signature, constants, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        types_of(KERNEL, signature, constants)


def test_without_triton_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setitem(sys.modules, "triton.compiler", None)
    with pytest.raises(compiler.NoCompilerError, match=r"pip install \"loadsparse\[triton\]\""):
        compiler.triton(KERNEL, "*fp16, i32", {"BLOCK": 4})
    with pytest.raises(ValueError, match="unknown architecture"):
        compiler.triton(KERNEL, "*fp16, i32", {"BLOCK": 4}, "sm_1")
