"""The LSCD and bitmap kernels equal the Tensor-Core-exact oracle in every bit, without a hazard, on ragged shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loadsparse.gpu import kernels
from loadsparse.reference import spmm

NAMES = ("bitmap", "lscd")


def matrices(m: int, n: int, k: int, density: float, dtype: str, seed: int) -> tuple[Any, Any]:
    """Random A[m, k] of that density with one empty and one full corner, and B[k, n]."""
    rng = np.random.default_rng(seed)
    a = np.where(rng.random((m, k)) < density, rng.standard_normal((m, k)), 0).astype(np.float32)
    a[: m // 3, : k // 3] = 0
    a[-(m // 4) :, -(k // 4) :] = rng.standard_normal((m, k))[-(m // 4) :, -(k // 4) :]
    b = rng.standard_normal((k, n)).astype(np.float32)
    if dtype == "f16":
        return a.astype(np.float16), b.astype(np.float16)
    return (a.view(np.uint32) >> 16).astype(np.uint16), (b.view(np.uint32) >> 16).astype(np.uint16)


def assert_exact(name: str, a: Any, b: Any, dtype: str = "f16", arch: str = "sm_80", split_k: int | None = None) -> Any:
    kernel = kernels.get(name)
    launch = kernel.plan(kernel.encode(a, dtype), b, arch, split_k)
    c, report = launch.run("interpreter")
    assert report.ok, report.hazards
    wanted = spmm.lscd(a, b, arch=arch, splits=launch.splits, in_format=dtype, out_format=dtype)
    assert np.array_equal(c.view(np.uint16), wanted.view(np.uint16))
    return launch


SHAPES = [
    # m, n, k, density, dtype, arch, split_k: together every copy width, 1 to 8 panels, both outputs, ragged and whole tiles
    (1, 1, 1, 1.0, "f16", "sm_80", None),
    (70, 5, 100, 0.3, "f16", "sm_90", 2),
    (130, 8, 64, 0.5, "bf16", "sm_80", 1),
    (64, 12, 130, 0.1, "f16", "sm_80", 3),
    (40, 18, 70, 0.9, "bf16", "sm_90", 1),
    (33, 72, 65, 0.2, "f16", "sm_80", 1),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("m", "n", "k", "density", "dtype", "arch", "split_k"), SHAPES)
def test_exact_and_clean(
    name: str, m: int, n: int, k: int, density: float, dtype: str, arch: str, split_k: int | None
) -> None:
    a, b = matrices(m, n, k, density, dtype, m + n)
    assert_exact(name, a, b, dtype, arch, split_k)


@pytest.mark.parametrize("name", NAMES)
def test_infinities_meet_absent_zeros(name: str) -> None:
    """The declared semantics is "dense": zero times infinity is NaN, also where nothing is stored."""
    a, b = matrices(20, 3, 40, 0.3, "f16", 7)
    a[3, 5], a[4, 6], b[9, 1], b[11, 2] = np.inf, -0.0, np.inf, np.nan
    assert_exact(name, a, b)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_and_a_full_matrix(name: str) -> None:
    rng = np.random.default_rng(8)
    b = rng.standard_normal((64, 2)).astype(np.float16)
    assert_exact(name, np.zeros((17, 64), np.float16), b)
    assert_exact(name, rng.standard_normal((20, 64)).astype(np.float16), b)


@pytest.mark.parametrize("name", [*NAMES, "dense"])
@pytest.mark.parametrize("k", [16, 40, 64, 80])
def test_padded_steps_are_declared(name: str, k: int) -> None:
    """-2^-150 is less than any float32: an mma leaves -0, which the all-zero steps up to a whole tile turn into +0."""
    tiny, small = np.uint16(0x1A00), np.uint16(0x9A00)  # 2^-75, -2^-75 in bf16
    a, b = np.zeros((3, k), np.uint16), np.zeros((k, 2), np.uint16)
    a[0, k - 1], b[k - 1, 0] = tiny, small
    assert_exact(name, a, b, "bf16", "sm_90", 1)


@pytest.mark.parametrize("name", NAMES)
def test_splits_declare_the_order_of_k(name: str) -> None:
    a, b = matrices(10, 4, 1000, 0.1, "f16", 9)
    kernel = kernels.get(name)
    launch = kernel.plan(kernel.encode(a), b, split_k=100)
    assert len(launch.splits) == 16  # no more than tiles of 64
    assert launch.splits[0] == (0, 64)
    assert launch.splits[-1] == (960, 1024)  # zeros fill the last tile
    assert all(stop == start for (_, stop), (start, _) in zip(launch.splits, launch.splits[1:], strict=False))
    whole = kernel.plan(kernel.encode(np.zeros((36864, 64), np.float16)), b[:64])
    assert whole.splits == ((0, 64),)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("b", "options", "message"),
    [
        (np.zeros((9, 2), np.float16), {}, "B has 9 rows but the weights 4 x 8 need K = 8"),
        (np.zeros(8, np.float16), {}, "B must be a matrix"),
        (np.zeros((8, 2), np.float32), {}, "B must be float16 like the f16 weights, got float32"),
        (np.zeros((8, 2), np.uint16), {}, "B must be float16"),
        (np.zeros((8, 0), np.float16), {}, "B has no columns"),
        (np.zeros((8, 2), np.float16), {"split_k": 0}, "split_k must be a positive integer or None, got 0"),
        (np.zeros((8, 2), np.float16), {"arch": "sm_75"}, "sm_75 has no cp.async"),
        (np.zeros((8, 2), np.float16), {"arch": "sm_99"}, "unknown architecture"),
    ],
)
def test_bad_input_is_one_line(name: str, b: Any, options: dict[str, Any], message: str) -> None:
    kernel = kernels.get(name)
    encoded = kernel.encode(np.ones((4, 8), np.float16))
    with pytest.raises(ValueError, match=message) as refusal:
        kernel.plan(encoded, b, **options)
    assert "\n" not in str(refusal.value)


def test_unknown_kernel() -> None:
    with pytest.raises(ValueError, match="unknown kernel 'x': known are bitmap, lscd"):
        kernels.get("x")


@pytest.mark.claim(
    id="lscd-overlap",
    source="Flash-LLM, arXiv 2309.10285, section 4.3",
    phrase="loads of the next tile are issued before the products of this one and waited for after them",
    assumption="order in which a warp issues them when simulated; how much time that hides is not measured",
    function="loadsparse.gpu.kernels.lscd.Lscd.plan",
    status="counted",
)
def test_the_next_tile_travels_while_this_one_is_multiplied() -> None:
    """Two tiles of K: items and B of the second are asked for before the products of the first, waited for after them."""
    a, b = matrices(16, 8, 128, 0.5, "f16", 10)
    kernel, order = kernels.get("lscd"), []
    marks = {"ld.global.nc.v4": "items", "cp.async.cg": "copy", "mma": "mma", "cp.async.wait_group": "wait"}

    def observe(event: Any) -> None:
        for opcode, mark in marks.items():
            if event.warp == 0 and event.instruction.opcode.startswith(opcode) and order[-1:] != [mark]:
                order.append(mark)

    launch = kernel.plan(kernel.encode(a), b, split_k=1)
    launch.run("interpreter", observer=observe)
    assert order == ["items", "copy", "wait", "items", "copy", "mma", "wait", "mma"]
