"""A product against its oracles: exact (bit for bit) and accurate (within a proved bound), element by element."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.verify.errors import InputError
from loadsparse.reference import spmm
from loadsparse.reference.spmm.matrices import check_semantics, check_splits, round_f32
from loadsparse.reference.tensorcore import arithmetic as tensorcore

Matrix = NDArray[Any]

ALGORITHMS = ("lscd", "dense", "two_four", "sputnik", "sparta")
"""Oracles a kernel may be compared with, by their names in `reference.spmm`."""

EXACT_PRODUCTS = 2**25
"""Products M N K up to which every row is judged bit for bit; above it a seeded sample of rows is."""

SAMPLE_ROWS = 64
HEAD_ROWS = 256
"""Rows that are asked whether the data can tell a wrong product from the right one."""


@dataclass(frozen=True)
class Mismatch:
    """One element that is wrong: place, bit patterns, values, and the bound where accuracy failed."""

    row: int
    column: int
    expected_bits: int
    got_bits: int
    expected: float
    got: float
    bound: float | None
    """None when the element is within the bound and only its bits differ."""
    width: int
    """Bits of an element."""

    def __str__(self) -> str:
        digits = self.width // 4
        text = (
            f"C[{self.row}, {self.column}]: expected {self.expected:.9g} (0x{self.expected_bits:0{digits}x}), "
            f"got {self.got:.9g} (0x{self.got_bits:0{digits}x})"
        )
        if self.bound is None:
            return f"{text}, within the error bound"
        return f"{text}, beyond the error bound of {self.bound:.3g}"


@dataclass(frozen=True)
class Judgement:
    """What is known about one product; None means that the question could not be asked."""

    exact: bool | None
    accurate: bool
    mismatches: int
    """Elements that are inaccurate or, where bits were compared, differ."""
    first: Mismatch | None
    worst: float
    """Largest error over its bound, over the finite elements."""
    rows_exact: int
    """Rows that were compared bit for bit."""
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.exact is not False and self.accurate


@dataclass(frozen=True)
class Oracles:
    """The reference functions, bound to what a kernel declared about itself."""

    in_format: str
    out_format: str
    semantics: str = "dense"
    algorithm: str = "lscd"
    arch: str | None = None
    splits: tuple[tuple[int, int], ...] | None = None

    @property
    def declared(self) -> bool:
        """Whether the order of additions is known, so that bits can be compared."""
        return self.arch is not None and self.splits is not None

    def product(self, a: Matrix, b: Matrix) -> NDArray[np.float64]:
        return spmm.dense64(a, b, in_format=self.in_format, semantics=self.semantics)

    def bound(self, a: Matrix, b: Matrix) -> NDArray[np.float64]:
        """Of the declared order, or of any order."""
        formats = {"in_format": self.in_format, "out_format": self.out_format, "semantics": self.semantics}
        if self.arch is None or self.splits is None:
            return spmm.order_free_bound(a, b, **formats)
        return spmm.error_bound(a, b, arch=self.arch, splits=self.splits, algorithm=self.algorithm, **formats)

    def exact(self, a: Matrix, b: Matrix) -> Matrix:
        options: dict[str, Any] = {"splits": self.splits, "in_format": self.in_format, "out_format": self.out_format}
        if self.algorithm != "sputnik":
            options["arch"] = self.arch
        if self.algorithm == "lscd":
            options["semantics"] = self.semantics
        oracle: Matrix = getattr(spmm, self.algorithm)(a, b, **options)
        return oracle

    def expected(self, a: Matrix, b: Matrix) -> Matrix:
        """The exact oracle's element where there is one, else the float64 product rounded."""
        if self.declared:
            return self.exact(a, b)
        with np.errstate(over="ignore", invalid="ignore"):
            return round_f32(self.product(a, b).astype(np.float32), self.out_format)


def as_matrix(value: Any, name: str, dtype: str | None = None) -> tuple[Matrix, str]:
    """A 2-D array and its format from a NumPy array or anything with `__dlpack__`.

    float16, float32 and ml_dtypes' bfloat16 are recognised; uint16 is bf16 where `dtype` says so.  Raises InputError.
    """
    if not isinstance(value, np.ndarray):
        if not hasattr(value, "__dlpack__"):
            raise InputError(f"{name} is a {type(value).__name__}: give a NumPy array or a tensor with __dlpack__")
        try:
            value = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{name} cannot be read through DLPack ({error}): move it to the CPU, detach it, and hand bf16 over as "
                "uint16 bit patterns with dtype='bf16'"
            ) from None
    if value.dtype.name == "bfloat16":
        value, dtype = value.view(np.uint16), "bf16"
    if value.ndim != 2 or min(value.shape) < 1:
        raise InputError(f"{name} has shape {value.shape}: it must have two dimensions, each at least 1")
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    if value.dtype == np.uint16 and dtype == "bf16":
        return value, "bf16"
    found = {np.dtype(np.float16): "f16", np.dtype(np.float32): "f32"}.get(value.dtype)
    if found is None:
        hint = "; bf16 bit patterns need dtype='bf16'" if value.dtype == np.uint16 else ""
        raise InputError(f"{name} has type {value.dtype}: float16 and float32 are judged{hint}")
    return value, found


def bits(matrix: Matrix) -> NDArray[Any]:
    """Bit patterns: uint16 or uint32 of the same shape."""
    return np.ascontiguousarray(matrix).view(np.uint16 if matrix.dtype.itemsize == 2 else np.uint32)


def values(matrix: Matrix, dtype: str) -> NDArray[np.float64]:
    """float64 values of a matrix in format f16, f32 or bf16."""
    if dtype == "bf16":
        matrix = (np.ascontiguousarray(matrix).astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(invalid="ignore"):
        return matrix.astype(np.float64)


def sample_rows(m: int, n: int, k: int, seed: int) -> NDArray[np.int64]:
    """Rows judged bit for bit: all of a small product, else `SAMPLE_ROWS` by `seed`, first and last included."""
    if m * n * k <= EXACT_PRODUCTS or m <= SAMPLE_ROWS:
        return np.arange(m)
    drawn = np.random.default_rng([seed, m, n, k]).choice(m - 2, size=SAMPLE_ROWS - 2, replace=False) + 1
    return np.concatenate([[0], np.sort(drawn), [m - 1]])


def judge(
    c: Any,
    a: Any,
    b: Any,
    *,
    dtype: str | None = None,
    arch: str | None = None,
    splits: Sequence[tuple[int, int]] | None = None,
    semantics: str = "dense",
    algorithm: str = "lscd",
    seed: int = 0,
) -> Judgement:
    """Judge C[M, N] as the product of A[M, K] and B[K, N], wherever it was computed.

    c, a, b: NumPy arrays or anything with `__dlpack__` (tensors of other frameworks, on the CPU); dtype="bf16" reads
    uint16 as bf16 bit patterns.  `accurate`: every element lies within the proved bound of the float64 product.
    `exact`: every bit equals the Tensor Core oracle of `arch` with the K order that `splits` declares; without them it
    is None.  Of large products a sample of rows, drawn from `seed`, is compared bit for bit: `rows_exact` of them.

    Raises InputError where the three cannot belong together.

    >>> a, b = np.float16([[1, 0, 2]]), np.float16([[3], [4], [5]])
    >>> judge(np.float16([[13]]), a, b).ok, judge(np.float16([[0]]), a, b).ok
    (True, False)
    """
    if algorithm not in ALGORITHMS:
        raise InputError(f"unknown algorithm {algorithm!r}: the oracles are {', '.join(ALGORITHMS)}")
    c, out = as_matrix(c, "C", dtype)
    a, in_format = as_matrix(a, "A", dtype)
    b, in_b = as_matrix(b, "B", dtype)
    if in_format != in_b:
        raise InputError(f"A is {in_format} and B is {in_b}: both must have one format")
    if in_format == "f32":
        raise InputError("A and B are float32: give them as float16 or bf16 bit patterns, as the product consumed them")
    (m, k), n = a.shape, int(b.shape[1])
    if b.shape[0] != k:
        raise InputError(f"A is {m} x {k} and B is {b.shape[0]} x {n}: A's columns must equal B's rows")
    if c.shape != (m, n):
        raise InputError(f"C is {c.shape[0]} x {c.shape[1]}, but A B is {m} x {n}")
    try:
        check_semantics(semantics)
        declared = None if splits is None else check_splits(splits, k)
        if arch is not None:
            tensorcore.model(arch, in_format, "f32")
    except ValueError as error:
        raise InputError(str(error)) from None
    oracles = Oracles(in_format, out, semantics, algorithm, arch, declared)
    differ = np.zeros((m, n), np.bool_)
    rows = sample_rows(m, n, k, seed) if oracles.declared else np.arange(0)
    if rows.size:
        differ[rows] = bits(oracles.exact(a[rows], b)) != bits(c[rows])
    inaccurate = np.zeros((m, n), np.bool_)
    worst, unbounded = 0.0, 0
    head = oracles.product(a[:HEAD_ROWS], b), oracles.bound(a[:HEAD_ROWS], b)
    for block in _row_blocks(m, k):
        product, bound = oracles.product(a[block], b), oracles.bound(a[block], b)
        inaccurate[block] = ~spmm.accurate(c[block], product, bound, out_format=out)
        unbounded += int(np.isinf(bound).sum())
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            share = np.abs(values(c[block], out) - product) / bound
        worst = max(worst, float(np.max(share, where=np.isfinite(share), initial=0.0)))
    notes = []
    blind = _cannot_tell(*head)
    if blind:
        notes.append(f"narrow data: these inputs cannot tell the product from {' or '.join(blind)}")
    if unbounded:
        notes.append(f"{unbounded} elements may overflow on the way: no bound holds for them")
    if 0 < rows.size < m:
        notes.append(f"{rows.size} of {m} rows compared bit for bit (seed {seed}), every row against the bound")
    faults = differ | inaccurate
    first = None
    if faults.any():
        row, column = (int(place) for place in np.argwhere(faults)[0])
        first = _mismatch(
            c, a[row : row + 1], b[:, column : column + 1], (row, column), inaccurate[row, column], oracles
        )
    exact = not differ.any() if rows.size else None
    return Judgement(exact, not inaccurate.any(), int(faults.sum()), first, worst, int(rows.size), tuple(notes))


def _mismatch(
    c: Matrix, a: Matrix, b: Matrix, place: tuple[int, int], inaccurate: np.bool_, oracles: Oracles
) -> Mismatch:
    """The facts about one wrong element: its row of A [1, K] and its column of B [K, 1]."""
    row, column = place
    expected, element = oracles.expected(a, b), c[row : row + 1, column : column + 1]
    return Mismatch(
        row,
        column,
        int(bits(expected)[0, 0]),
        int(bits(element)[0, 0]),
        float(values(expected, oracles.out_format)[0, 0]),
        float(values(element, oracles.out_format)[0, 0]),
        float(oracles.bound(a, b)[0, 0]) if inaccurate else None,
        element.dtype.itemsize * 8,
    )


def _cannot_tell(product: NDArray[np.float64], bound: NDArray[np.float64]) -> list[str]:
    """Wrong products that would be accurate, too: all zeros, rows or columns moved by one (all-ones data hide these)."""
    wrong = {"zeros": np.zeros_like(product)}
    if product.shape[0] > 1:
        wrong["one with its rows moved"] = np.roll(product, 1, axis=0)
    if product.shape[1] > 1:
        wrong["one with its columns moved"] = np.roll(product, 1, axis=1)
    with np.errstate(invalid="ignore"):
        return [name for name, other in wrong.items() if not (np.abs(other - product) > bound).any()]


def _row_blocks(m: int, k: int) -> Iterator[slice]:
    """Slices of rows whose float64 copy of A stays near 64 MB."""
    step = max(1, 2**23 // k)
    for start in range(0, m, step):
        yield slice(start, min(m, start + step))
