"""The peers equal their own oracles in every bit, without a hazard: dense, 2:4, Sputnik, SparTA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loadsparse.gpu import kernels
from loadsparse.reference import spmm
from loadsparse.reference.formats import FormatError

ORACLES: dict[str, Any] = {
    "dense": spmm.dense,
    "twofour": spmm.two_four,
    "sputnik": lambda a, b, arch, **how: spmm.sputnik(a, b, **how),
    "sparta": spmm.sparta,
}


def matrices(name: str, m: int, n: int, k: int, dtype: str, seed: int) -> tuple[Any, Any]:
    """A[m, k] with empty and full rows (2:4 for twofour), B[k, n] with an infinity where A stores nothing."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n)).astype(np.float32)
    a[rng.random((m, k)) < 0.5] = 0
    a[m // 2], a[-1] = 0, 1.5
    if name == "twofour":
        groups = np.pad(a, ((0, 0), (0, -k % 4))).reshape(m, -1, 4)
        groups[..., 2:] = 0
        a = rng.permuted(groups, axis=2).reshape(m, -1)[:, :k]
    a = np.ascontiguousarray(a).astype(np.float32)
    if dtype == "f16":
        return a.astype(np.float16), b.astype(np.float16)
    return (a.view(np.uint32) >> 16).astype(np.uint16), (b.view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize(
    ("m", "n", "k", "dtype", "arch"),
    [
        (1, 1, 1, "f16", "sm_80"),
        (130, 8, 128, "f16", "sm_80"),
        (33, 19, 77, "bf16", "sm_90"),
        (20, 36, 66, "f16", "sm_90"),
    ],
)
def test_exact_and_clean(name: str, m: int, n: int, k: int, dtype: str, arch: str) -> None:
    a, b = matrices(name, m, n, k, dtype, m + k)
    kernel = kernels.get(name)
    launch = kernel.plan(kernel.encode(a, dtype), b, arch, 1)
    c, report = launch.run("interpreter")
    assert report.ok, report.hazards
    wanted = ORACLES[name](a, b, arch=arch, in_format=dtype, out_format=dtype)
    assert np.array_equal(c.view(np.uint16), wanted.view(np.uint16))


@pytest.mark.parametrize("name", ["dense", "twofour"])
def test_split_k(name: str) -> None:
    a, b = matrices(name, 18, 6, 200, "f16", 5)
    kernel = kernels.get(name)
    launch = kernel.plan(kernel.encode(a), b, split_k=3)
    assert launch.splits == ((0, 64), (64, 128), (128, 256))  # zeros fill the last tile
    c, report = launch.run("interpreter")
    assert report.ok, report.hazards
    assert np.array_equal(c, ORACLES[name](a, b, arch="sm_80", splits=launch.splits))


def test_padded_steps_are_declared() -> None:
    """-2^-150 leaves -0 in an mma.sp, which the steps of zeros up to a whole tile turn into +0."""
    a, b = np.zeros((3, 28), np.uint16), np.zeros((28, 2), np.uint16)
    a[0, 24], b[24, 0] = 0x1A00, 0x9A00  # 2^-75, -2^-75 in bf16
    kernel = kernels.get("twofour")
    launch = kernel.plan(kernel.encode(a, "bf16"), b, "sm_80", 1)
    assert launch.splits == ((0, 64),)
    c, _ = launch.run()
    formats = {"in_format": "bf16", "out_format": "bf16"}
    assert np.array_equal(c, spmm.two_four(a, b, arch="sm_80", splits=launch.splits, **formats))
    assert not np.array_equal(c, spmm.two_four(a, b, arch="sm_80", splits=((0, 28),), **formats))


def test_unstored_zeros_meet_infinity_without_harm() -> None:
    """Sputnik skips what is not stored, also the neighbours that its vectors of four read."""
    a, b = np.zeros((3, 9), np.float16), np.full((9, 2), np.inf, np.float16)
    a[0, 5], a[2, 1] = 1, 2
    b[5], b[1] = 3, 4
    kernel = kernels.get("sputnik")
    c, report = kernel.plan(kernel.encode(a), b).run("interpreter")
    assert report.ok, report.hazards
    assert c.tolist() == [[3, 3], [0, 0], [8, 8]]


@pytest.mark.parametrize("name", ORACLES)
def test_encoded_weights_decode(name: str) -> None:
    a, _ = matrices(name, 37, 1, 45, "f16", 6)
    encoded = kernels.get(name).encode(a)
    assert np.array_equal(encoded.decode().view(np.uint16), a.view(np.uint16))
    assert encoded.nbytes > 0


def test_refusals() -> None:
    ones = np.ones((4, 8), np.float16)
    with pytest.raises(FormatError, match="not 2:4"):
        kernels.get("twofour").encode(ones)
    for name in ("sputnik", "sparta"):
        kernel = kernels.get(name)
        with pytest.raises(ValueError, match=f"kernel {name} does not split K"):
            kernel.plan(kernel.encode(ones), ones.T.copy(), split_k=2)
