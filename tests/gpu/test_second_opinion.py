"""Random programs compiled by Numba to PTX and to the CPU give equal results.

Neither side knows the other: LLVM's x86 back end and the host's arithmetic judge our reading of the PTX manual.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba.cuda")

from numba import cuda, njit

from loadsparse.gpu import simulator

PROGRAMS = int(os.environ.get("LOADSPARSE_PROGRAMS", "1"))
"""Programs per type; a long run asks for more."""

COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
INTEGER = (
    "({0} + {1})", "({0} - {1})", "({0} * {1})", "({0} & {1})", "({0} | {1})", "({0} ^ {1})", "({0} << ({1} & 31))",
    "({0} >> ({1} & 31))", "min({0}, {1})", "max({0}, {1})", "({0} // 7)", "({0} % 13)", "(-{0})", "(~{0})", "abs({0})",
    "({0} if {0} {2} {1} else {1})", "np.{3}({0})", "({0} * 5 + {1})",
)  # fmt: skip
# A product next to a sum may be contracted on the GPU, so a program has one or the other.  An integral float loses its
# sign of zero on the way through an integer, unless the compiler leaves out the way: + 0.0.
SUMS = ("({0} + {1})", "({0} - {1})", "(-{0})", "abs({0})", "({0} if {0} {2} {1} else {1})", "({0} / {1})",
        "math.copysign({0}, {1})", "np.{3}(np.{4}({0}))",
        "(np.float64(math.{5}({0}) if abs({0}) < 1e9 else 7) + 0.0)")  # fmt: skip
PRODUCTS = ("({0} * {1})", "({0} / {1})", "(-{0})", "abs({0})", "({0} if {0} {2} {1} else {1})", "math.sqrt(abs({0}))",
            "math.copysign({0}, {1})")  # fmt: skip
WIDTHS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


def expression(draw: random.Random, forms: tuple[str, ...], depth: int) -> str:
    if depth == 0 or draw.random() < 0.1:
        return draw.choice(("a", "b", "c"))
    return draw.choice(forms).format(
        expression(draw, forms, depth - 1),
        expression(draw, forms, depth - 1),
        draw.choice(COMPARISONS),
        draw.choice(WIDTHS if forms is INTEGER else ("float32", "float64")),
        draw.choice(("float32", "float64")),
        draw.choice(("floor", "ceil", "trunc")),
    )


def program(draw: random.Random, forms: tuple[str, ...], outputs: int = 12) -> str:
    lines = [f"    out[{i}, t] = {expression(draw, forms, draw.randint(1, 4))}" for i in range(outputs)]
    loop = f"    for i in range({draw.randint(2, 5)}):\n        c = {expression(draw, forms, 2)}\n"
    return "def body(t, x, y, z, out):\n    a, b, c = x[t], y[t], z[t]\n" + loop + "\n".join(lines) + "\n"


def compiled(source: str, path: Path) -> Callable[..., Any]:
    """The function `body` of a source that lies in a file, where Numba looks for its lines."""
    path.write_text(source)
    names: dict[str, Any] = {"np": np, "math": math, "cuda": cuda}
    exec(compile(source, str(path), "exec"), names)
    body: Callable[..., Any] = names["body"]
    return body


def values(draw: random.Random, dtype: type[np.generic], count: int) -> np.ndarray:
    source = np.random.default_rng(draw.getrandbits(32))
    if issubclass(dtype, np.integer):
        info = np.iinfo(dtype)
        whole = source.integers(info.min, info.max, count, dtype, endpoint=True)
        return np.where(source.random(count) < 0.3, source.integers(0, 9, count).astype(dtype), whole)
    exponents = source.integers(-40, 40, count) * (source.random(count) < 0.7)
    return (source.normal(size=count) * 2.0**exponents).astype(dtype)


def both(
    source: str, dtype: type[np.generic], draw: random.Random, folder: Path
) -> tuple[np.ndarray, list[np.ndarray]]:
    """What the program computes for 32 random inputs: on the CPU, and on the simulator's two engines."""
    cpu = njit(error_model="numpy")(compiled(source, folder / "cpu.py"))
    inputs = [values(draw, dtype, 32) for _ in range(3)]
    wide = np.int64 if issubclass(dtype, np.integer) else np.float64
    expected = np.zeros((12, 32), wide)
    with np.errstate(all="ignore"):
        for t in range(32):
            cpu(t, *inputs, expected)
    kernel = source.replace("def body(t, ", "def body(")
    kernel = compiled(kernel.replace("    a, b, c", "    t = cuda.threadIdx.x\n    a, b, c", 1), folder / "gpu.py")
    results = []
    for engine in ("interpreter", "llvm"):
        results.append(np.zeros_like(expected))
        report = simulator.run(kernel, engine=engine)[1, 32](*inputs, results[-1])
        assert report.ok, (source, report.hazards)
    return expected, results


@pytest.mark.parametrize("seed", range(PROGRAMS))
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_integer_programs(dtype: type[np.generic], seed: int, tmp_path: Path) -> None:
    draw = random.Random(f"{dtype.__name__} {seed}")
    source = program(draw, INTEGER)
    expected, results = both(source, dtype, draw, tmp_path)
    for got in results:
        np.testing.assert_array_equal(got, expected, err_msg=source)


@pytest.mark.parametrize("seed", range(PROGRAMS))
@pytest.mark.parametrize("forms", [SUMS, PRODUCTS], ids=["sums", "products"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_programs(dtype: type[np.generic], forms: tuple[str, ...], seed: int, tmp_path: Path) -> None:
    draw = random.Random(f"{dtype.__name__} {len(forms)} {seed}")
    source = program(draw, forms)
    expected, results = both(source, dtype, draw, tmp_path)
    finite = ~np.isnan(expected)
    for got in results:
        np.testing.assert_array_equal(got, expected, err_msg=source)
        np.testing.assert_array_equal(np.signbit(got[finite]), np.signbit(expected[finite]), err_msg=source)
