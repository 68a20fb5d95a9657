"""What kernels are verified on: fresh random, adversarial and real matrices; never all ones.

Every case is a pair A[M, K], B[K, N] of the input format (`f16` as numpy.float16, `bf16` as uint16 bit patterns).
Shapes are ragged on purpose: 63, 100, 1000 and N from 1 to 9 find the edges that powers of two hide.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.verify.errors import InputError
from loadsparse.reference import pruning, weights

Matrix = NDArray[np.generic]

ADVERSARIAL = ("nan", "inf", "subnormal", "minus-zero", "tiles", "empty", "dense", "corner", "huge", "cancel", "ragged")
"""Names of the adversarial inputs, in the order in which they are judged."""

MOST_ELEMENTS = 2**30
"""Elements of a matrix that is drawn."""

KINDS = ("random", "adversarial", "real")


@dataclass(frozen=True)
class Case:
    """One pair of matrices: `a` [M, K] and `b` [K, N] in format `dtype`; `note` says what they probe."""

    name: str
    a: Matrix
    b: Matrix
    dtype: str
    note: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, K)."""
        return int(self.a.shape[0]), int(self.b.shape[1]), int(self.a.shape[1])


def to_format(values: NDArray[np.floating], dtype: str) -> Matrix:
    """Round to `f16` (numpy.float16) or `bf16` (uint16 bit patterns), both to nearest even; NaN stays NaN."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype == "f16":
            return values.astype(np.float16)
        if dtype == "bf16":
            single = values.astype(np.float32)
            word = single.view(np.uint32)
            rounded = (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            return np.where(np.isnan(single), np.uint16(0x7FC0), rounded.astype(np.uint16)).astype(np.uint16)
    raise InputError(f"unknown input format {dtype!r}: use 'f16' or 'bf16'")


def _sparse(rng: np.random.Generator, m: int, k: int, density: float) -> NDArray[np.float64]:
    values: NDArray[np.float64] = rng.standard_normal((m, k))
    values[rng.random((m, k)) >= density] = 0.0
    return values


def _sprinkle(rng: np.random.Generator, matrix: NDArray[np.float64], specials: list[float], count: int) -> None:
    """Overwrite `count` random places of `matrix` by the special values, in turn."""
    places = rng.choice(matrix.size, size=min(count, matrix.size), replace=False)
    for number, place in enumerate(places):
        matrix.flat[place] = specials[number % len(specials)]


def _nan(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = _sparse(rng, 100, 63, 0.4), rng.standard_normal((63, 9))
    _sprinkle(rng, a, [np.nan], 3)
    _sprinkle(rng, b, [np.nan], 2)
    return a, b


def _inf(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = _sparse(rng, 100, 100, 0.3), rng.standard_normal((100, 7))
    _sprinkle(rng, a, [np.inf, -np.inf], 12)
    _sprinkle(rng, b, [np.inf, -np.inf], 2)
    b[3, :2] = 0.0
    return a, b


def _subnormal(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Subnormal A against ordinary and large B: products that survive only if subnormals are not flushed."""
    a = _sparse(rng, 63, 100, 0.3) * tiny * 0.25
    b = rng.standard_normal((100, 6)) * np.where(rng.random((100, 6)) < 0.5, 1024.0, 1.0)
    b[::9] *= tiny
    return a, b


def _minus_zero(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = _sparse(rng, 63, 63, 0.2), rng.standard_normal((63, 5))
    _sprinkle(rng, a, [-0.0], 200)
    _sprinkle(rng, b, [-0.0, 0.0], 100)
    a[17] = -0.0
    return a, b


def _tiles(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """128 x 64 tiles that are empty, full, nearly empty and nearly full, side by side, with a ragged edge."""
    a = rng.standard_normal((200, 200))
    for row, col, keep in ((0, 0, 0.0), (0, 1, 1.0), (0, 2, 0.002), (1, 0, 0.99), (1, 1, 0.0), (1, 2, 1.0)):
        tile = a[128 * row : 128 * row + 128, 64 * col : 64 * col + 64]
        tile[rng.random(tile.shape) >= keep] = 0.0
    return a, rng.standard_normal((200, 8))


def _empty(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.zeros((100, 63)), rng.standard_normal((63, 3))


def _dense(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return rng.standard_normal((130, 130)) + 0.01, rng.standard_normal((130, 4))


def _corner(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The four corners of A alone: any slip of a row, a column or a tail predicate shows."""
    a = np.zeros((129, 100))
    a[0, 0], a[0, -1], a[-1, 0], a[-1, -1] = 1.5, -2.25, 3.125, -4.75
    return a, rng.standard_normal((100, 2))


def _huge(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums on both sides of the largest finite output."""
    a = _sparse(rng, 63, 63, 0.3) * np.sqrt(top) / 4
    return a, rng.standard_normal((63, 9)) * np.sqrt(top) / 2


def _cancel(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Large terms that cancel beside small ones: the order and the truncation of the sum show in the result."""
    a = _sparse(rng, 63, 1000, 0.4)
    b = rng.standard_normal((1000, 4))
    a[:, 0::50], b[0::50] = 48.0, 40.0
    a[:, 25::50], b[25::50] = -48.0, 40.0
    return a, b


def _ragged(rng: np.random.Generator, tiny: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return _sparse(rng, 1000, 65, 0.2), rng.standard_normal((65, 1))


_Maker = Callable[[np.random.Generator, float, float], tuple[NDArray[np.float64], NDArray[np.float64]]]
_MAKERS: dict[str, tuple[_Maker, str]] = {
    "nan": (_nan, "NaN in A and in B"),
    "inf": (_inf, "infinities of both signs, Inf - Inf, 0 x Inf"),
    "subnormal": (_subnormal, "subnormal values that must not be flushed"),
    "minus-zero": (_minus_zero, "stored and unstored zeros of both signs"),
    "tiles": (_tiles, "empty, full, nearly empty and nearly full tiles"),
    "empty": (_empty, "no nonzero at all"),
    "dense": (_dense, "no zero at all"),
    "corner": (_corner, "only the four corners of A"),
    "huge": (_huge, "sums on both sides of the largest finite output"),
    "cancel": (_cancel, "large terms that cancel: order and truncation show"),
    "ragged": (_ragged, "M = 1000, K = 65, N = 1"),
}


def random_case(seed: int, dtype: str = "f16", shape: tuple[int, int, int] | None = None, density: float = 0.2) -> Case:
    """Normal values, a `density` of them kept; `shape` (M, N, K) is drawn ragged when it is not given."""
    rng = np.random.default_rng(seed)
    if shape is None:
        m, n, k = int(rng.integers(65, 257)), int(rng.integers(1, 10)), int(rng.integers(65, 257))
    else:
        m, n, k = shape
    if min(m, n, k) < 1:
        raise InputError(f"shape {m},{n},{k}: M, N and K must be at least 1")
    if max(m * k, k * n, m * n) > MOST_ELEMENTS:
        raise InputError(f"shape {m},{n},{k}: a matrix would have more than {MOST_ELEMENTS} elements")
    a = np.empty((m, k), np.float16 if dtype == "f16" else np.uint16)
    step = max(1, 2**22 // k)
    for start in range(0, m, step):
        a[start : start + step] = to_format(_sparse(rng, min(step, m - start), k, density), dtype)
    b = to_format(rng.standard_normal((k, n)), dtype)
    return Case("random", a, b, dtype, f"normal values, density {density:g}, seed {seed}")


def adversarial_case(name: str, seed: int, dtype: str = "f16") -> Case:
    """One of `ADVERSARIAL`, drawn from `seed`."""
    if name not in _MAKERS:
        raise InputError(f"unknown input {name!r}: use random, real, adversarial or one of {', '.join(ADVERSARIAL)}")
    maker, note = _MAKERS[name]
    tiny, top = {"f16": (2.0**-14, 65504.0), "bf16": (2.0**-126, 2.0**100)}[dtype]
    rng = np.random.default_rng([seed, ADVERSARIAL.index(name)])
    a, b = maker(rng, tiny, top)
    return Case(name, to_format(a, dtype), to_format(b, dtype), dtype, note)


def cases(names: tuple[str, ...], seed: int, dtype: str = "f16", n: int = 16, sparsity: float = 0.8) -> Iterator[Case]:
    """The cases called `names` (a kind stands for all of its cases), in order.

    Raises InputError for an unknown name.
    """
    for name in names:
        if name == "random":
            yield random_case(seed, dtype)
        elif name == "adversarial":
            for single in ADVERSARIAL:
                yield adversarial_case(single, seed, dtype)
        elif name == "real":
            yield from real_cases(seed, dtype, n, sparsity)
        else:
            yield adversarial_case(name, seed, dtype)


def real_cases(
    seed: int, dtype: str = "f16", n: int = 16, sparsity: float = 0.8, path: str | os.PathLike[str] | None = None
) -> Iterator[Case]:
    """Real weights, pruned by magnitude, against normal activations of width `n`.

    Without a path: the packaged matrices, which are dequantised 4-bit; else every matrix of a .npy, .npz, .safetensors
    or .gguf file.  Raises InputError for a file that is truncated, a pickle, or holds NaN.
    """
    rng = np.random.default_rng([seed, 1000])
    try:
        found = weights.sample() if path is None else weights.load(Path(path))
    except (OSError, ValueError) as error:
        reason = f"{path}: {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(reason) from None
    origin = "real" if path is None else os.path.basename(path)
    note = "dequantised 4-bit weights" if path is None else "weights from a file"
    for label, dense in found.items():
        values = pruning.magnitude(dense, sparsity).astype(np.float64)
        b = to_format(rng.standard_normal((values.shape[1], n)), dtype)
        text = f"{note}, {sparsity:.0%} pruned by magnitude"
        yield Case(f"{origin}:{label}", to_format(values, dtype), b, dtype, text)
