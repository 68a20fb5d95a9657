"""How Tensor Cores add: bit-exact fused dot products, per architecture.

One hardware block computes d = c + sum_k a_k b_k like this (numbers per architecture in MODELS):

1. Subnormals keep the smallest exponent of their format, so a significand may be below 1.
2. Products are exact and are not renormalised: exponent e_a + e_b, significand below 4.
3. E = the largest exponent among the nonzero products and c, but at least a floor.
4. Every term is truncated toward zero to F fraction bits under 2^E; the resulting integers add exactly.
5. The sum is normalised, then truncated to 23 fraction bits (f32 out), to 13 (fp8 on Ada), or rounded to nearest even
   (f16 out), subnormals included. What is then too large is infinity.
6. NaN and infinity follow IEEE 754. A NaN result is always 0x7FFFFFFF (f32) or 0x7FFF (f16); a zero sum is +0.

A longer K is a chain of blocks, each result being the next block's c.

Here a term is a float64. That is exact: a product has at most 48 significant bits and an exponent within +-266, and a
sum of at most 33 truncated terms stays below 2^53 units, so no step of NumPy's ever rounds.

Sources: Xie et al., "MMA-Sim" (arXiv 2511.10909); Khattak and Mikaitis (arXiv 2510.15884, 2512.07004); Fasi, Higham,
Mikaitis and Pranesh (PeerJ CS 7:e330, 2021).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[Any]  # unsigned integers that hold bit patterns
Floats = NDArray[np.float64]

ZERO_EXPONENT = -4096  # of a zero: two of them still fit in int16, and the largest is below every floor
NO_FLOOR = -300  # below the smallest exponent of any product (2 x -126), so it never acts
CHUNK_TERMS = 1 << 17  # products held at once: 1 MB of float64


@dataclass(frozen=True)
class Format:
    """A binary floating-point format; `fraction` counts stored fraction bits, `ignored` low bits that hold nothing."""

    name: str
    exponent: int
    fraction: int
    ignored: int = 0
    has_infinity: bool = True

    @property
    def storage(self) -> np.dtype[Any]:
        """The unsigned integer type that carries one pattern."""
        return np.dtype(f"u{(1 + self.exponent + self.fraction + self.ignored) // 8}")

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number, which subnormals share."""
        return 2 - (1 << (self.exponent - 1))

    @property
    def nan(self) -> int:
        """The NaN that Tensor Cores write: all bits set but the sign."""
        return int(np.iinfo(self.storage).max >> 1)


FORMATS = {
    f.name: f
    for f in (
        Format("f16", exponent=5, fraction=10),
        Format("bf16", exponent=8, fraction=7),
        Format("tf32", exponent=8, fraction=10, ignored=13),
        Format("e4m3", exponent=4, fraction=3, has_infinity=False),
        Format("e5m2", exponent=5, fraction=2),
        Format("f32", exponent=8, fraction=23),
    )
}


@dataclass(frozen=True)
class Model:
    """Parameters of one block: F fraction bits, K_b products, the floor of E, fraction bits kept in an f32 result."""

    fraction: int
    block: int
    floor: int
    kept: int = 23


# generation -> (F, {input: K_b}, {output: floor of E}). Turing's floors are not published: Ampere's are assumed.
GENERATIONS: dict[str, tuple[int, dict[str, int], dict[str, int]]] = {
    "volta": (23, {"f16": 4}, {"f32": NO_FLOOR, "f16": -19}),
    "turing": (24, {"f16": 8}, {"f32": -132, "f16": -20}),
    "ampere": (24, {"f16": 8, "bf16": 8, "tf32": 4}, {"f32": -132, "f16": -20}),
    "ada": (24, {"f16": 8, "bf16": 8, "tf32": 4, "e4m3": 16, "e5m2": 16}, {"f32": -132, "f16": -20}),
    "hopper": (25, {"f16": 16, "bf16": 16, "tf32": 8, "e4m3": 32, "e5m2": 32}, {"f32": -133, "f16": -21}),
    "blackwell": (25, {"f16": 16, "bf16": 16, "tf32": 8}, {"f32": -133, "f16": -21}),
}
ARCHITECTURES = {
    "sm_70": "volta",
    "sm_75": "turing",
    "sm_80": "ampere",
    "sm_86": "ampere",
    "sm_87": "ampere",
    "sm_89": "ada",
    "sm_90": "hopper",
    "sm_100": "blackwell",
}


def model(arch: str, in_format: str, out_format: str) -> Model:
    """Return the block parameters of `arch` for these formats.

    Raises ValueError where the architecture is unknown, or has no such instruction, or none that is understood.
    fp8 on Hopper is mma.sync (a published model, no recorded words); wgmma adds with fewer bits.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}: choose one of {', '.join(ARCHITECTURES)}")
    generation = ARCHITECTURES[arch]
    fraction, blocks, floors = GENERATIONS[generation]
    if in_format not in blocks:
        raise ValueError(f"no {in_format!r} input on {arch} ({generation}): choose one of {', '.join(blocks)}")
    if out_format not in floors or (out_format == "f16" and in_format in ("bf16", "tf32")):
        raise ValueError(f"no {out_format!r} output for {in_format} input on {arch}: choose 'f32'")
    kept = 23
    if generation == "ada" and in_format in ("e4m3", "e5m2"):
        fraction = kept = 13
    return Model(fraction, blocks[in_format], floors[out_format], kept)


@dataclass(frozen=True)
class Operand:
    """Decoded numbers: float64 values and their unnormalised exponents (int16; ZERO_EXPONENT for zeros)."""

    values: Floats
    exponents: NDArray[np.int16]

    def __getitem__(self, index: Any) -> "Operand":
        return Operand(self.values[index], self.exponents[index])


def _exponents(values: Floats, fmt: Format) -> NDArray[np.int32]:
    """Unnormalised exponents, 0 for infinity and NaN (for which frexp's is unspecified)."""
    normal = np.where(np.isfinite(values), np.frexp(values)[1] - 1, 0)
    return np.maximum(normal, fmt.min_exponent)


def operand(values: Floats, fmt: Format) -> Operand:
    """Pair float64 values that `fmt` can hold with the exponents hardware gives them."""
    exponents = _exponents(values, fmt)
    return Operand(values, np.where(values == 0, ZERO_EXPONENT, exponents).astype(np.int16))


def _decode_fields(bits: Bits, fmt: Format) -> Floats:
    """(-1)^sign x significand x 2^exponent, field by field."""
    word = bits.astype(np.int64) >> fmt.ignored
    fraction = word & ((1 << fmt.fraction) - 1)
    field = (word >> fmt.fraction) & ((1 << fmt.exponent) - 1)
    significand = np.where(field > 0, fraction + (1 << fmt.fraction), fraction)
    exponent = np.maximum(field, 1) - 1 + fmt.min_exponent - fmt.fraction
    values = np.ldexp(significand.astype(np.float64), exponent)
    top = field == (1 << fmt.exponent) - 1
    if fmt.has_infinity:
        values[top] = np.where(fraction[top] == 0, np.inf, np.nan)
    else:
        values[top & (fraction == (1 << fmt.fraction) - 1)] = np.nan
    sign = np.where((word >> (fmt.exponent + fmt.fraction)) & 1, -1.0, 1.0)
    signed: Floats = np.copysign(values, sign)
    return signed


@cache
def _decode_table(name: str) -> Floats:
    fmt = FORMATS[name]
    return _decode_fields(np.arange(1 << (8 * fmt.storage.itemsize), dtype=np.int64), fmt)


def decode(bits: Bits, fmt: str) -> Floats:
    """Return the float64 values of bit patterns of format `fmt` (any shape)."""
    f = FORMATS[fmt]
    if f.storage.itemsize == 4:
        return _decode_fields(bits, f)
    values: Floats = _decode_table(fmt)[bits]
    return values


def encode(values: Floats, fmt: str) -> Bits:
    """Return bit patterns ("f32" or "f16") of float64 values that the format can hold; NaN as hardware writes it."""
    f = FORMATS[fmt]
    bits: Bits = values.astype(np.float32 if fmt == "f32" else np.float16).view(f.storage)
    return np.where(np.isnan(values), f.storage.type(f.nan), bits)


def _finish(values: Floats, kept: int, out_format: str) -> Floats:
    """Step 5: round the exact sum to the output format; results stay in float64."""
    fmt = FORMATS[out_format]
    exponents = _exponents(values, fmt)
    if out_format == "f16":
        unit = np.ldexp(1.0, exponents - fmt.fraction)
        rounded = np.rint(values / unit) * unit
    else:
        unit = np.ldexp(1.0, exponents - kept)
        rounded = np.trunc(values / unit) * unit
    too_large = np.abs(rounded) >= 2.0 ** (2 - fmt.min_exponent)
    return np.where(too_large, np.copysign(np.inf, rounded), rounded)


def add_block(a: Operand, b: Operand, c: Floats, m: Model, out_format: str) -> Floats:
    """One hardware block, steps 2 to 6: a, b [K_b, ...] (broadcast against each other), c [...] -> [...].

    c and the result are float64 values that `out_format` can hold. Call it under np.errstate(invalid="ignore").
    """
    addend = operand(c, FORMATS[out_format])
    top = (a.exponents + b.exponents).max(axis=0)
    top = np.maximum(np.maximum(top, addend.exponents), m.floor).astype(np.int32)
    scale = np.ldexp(1.0, m.fraction - top)  # 2^(F - E): from here on, integers
    terms = a.values * b.values
    terms *= scale
    total = np.trunc(terms, out=terms).sum(axis=0) + np.trunc(c * scale)
    total += 0.0  # -0 becomes +0
    return _finish(total / scale, m.kept, out_format)


def chain(a: Operand, b: Operand, c: Floats, m: Model, out_format: str) -> Floats:
    """Blocks of K_b in ascending k; a and b have k first, and as many as a multiple of K_b."""
    for k in range(0, len(a.values), m.block):
        c = add_block(a[k : k + m.block], b[k : k + m.block], c, m, out_format)
    return c


def patterns(bits: Bits, fmt: str, name: str) -> Bits:
    """Check that an argument holds bit patterns of `fmt` and return it in the format's storage type."""
    array = np.asarray(bits)
    storage = FORMATS[fmt].storage
    if array.dtype.kind != "u":
        raise TypeError(f"{name} must hold bit patterns (unsigned integers), not {array.dtype}: view it as {storage}")
    if array.dtype.itemsize > storage.itemsize and array.size and int(array.max()) > np.iinfo(storage).max:
        raise ValueError(f"{name} holds a value above {np.iinfo(storage).max:#x}, the largest {fmt} pattern")
    return array.astype(storage)


def dot_add(a: Bits, b: Bits, c: Bits, *, arch: str, in_format: str, out_format: str) -> Bits:
    """c + sum_k a[:, k] b[:, k] on bit patterns, as the Tensor Cores of `arch` compute it.

    a, b: uint[rows, K]; c: uint[rows]; returns uint[rows] (uint32 for "f32", uint16 for "f16"). `in_format` is "f16",
    "bf16", "tf32", "e4m3" or "e5m2", `out_format` (of c and the result) "f32" or "f16". K is split into the hardware's
    blocks, zero-padded to a multiple of the block. tf32 ignores the low 13 bits of its 32.

    Raises ValueError for shapes that do not match or an architecture without such an instruction, TypeError for arrays
    that are not unsigned integers.

    >>> import numpy as np
    >>> one = np.float16([[1.0, 2.0]]).view(np.uint16)
    >>> c = np.float32([0.5]).view(np.uint32)
    >>> float(dot_add(one, one, c, arch="sm_80", in_format="f16", out_format="f32").view(np.float32)[0])
    5.5
    """
    m = model(arch, in_format, out_format)
    a, b, c = patterns(a, in_format, "a"), patterns(b, in_format, "b"), patterns(c, out_format, "c")
    if a.ndim != 2 or a.shape != b.shape or c.shape != a.shape[:1]:
        raise ValueError(f"a and b must be [rows, K] and c [rows], not {a.shape}, {b.shape} and {c.shape}")
    rows, depth = a.shape
    padding = ((0, -depth % m.block), (0, 0))
    result = np.empty(rows, FORMATS[out_format].storage)
    step = max(1, CHUNK_TERMS // max(depth, 1))
    fmt = FORMATS[in_format]
    with np.errstate(invalid="ignore"):  # infinity minus infinity is a value here, not a mishap
        for start in range(0, rows, step):
            part = slice(start, start + step)
            left = operand(np.pad(decode(a[part].T, in_format), padding), fmt)
            right = operand(np.pad(decode(b[part].T, in_format), padding), fmt)
            result[part] = encode(chain(left, right, decode(c[part], out_format), m, out_format), out_format)
    return result
