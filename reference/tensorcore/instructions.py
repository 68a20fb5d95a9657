"""ldmatrix, mma.sync and mma.sp on a warp's registers (uint32 [32 lanes, registers]), as pure functions.

Source: PTX ISA 9.1, "Warp-level matrix instructions".
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference.tensorcore.arithmetic import ARCHITECTURES, Bits, dot_add
from loadsparse.reference.tensorcore.fragments import LANES, SHAPES, SPARSE_M16N8K32, Fragment, Registers, Shape

_LANE = np.arange(LANES)


def ldmatrix(shared: NDArray[np.uint8], addresses: NDArray[Any], count: int, transpose: bool = False) -> Registers:
    """Load `count` (1, 2 or 4) 8x8 matrices of 16-bit elements from shared memory: uint32 [32, count].

    shared: uint8 [bytes]; addresses: int [32], of which lanes 8j..8j+7 give the 16-byte rows of matrix j. Lane l gets
    row l/4, columns 2(l mod 4) and +1; with `transpose` rows 2(l mod 4) and +1 of column l/4.
    Raises ValueError for a misaligned row, IndexError for one outside shared memory (the lane is named).
    """
    if count not in (1, 2, 4):
        raise ValueError(f"ldmatrix loads 1, 2 or 4 matrices, not {count}")
    rows = np.asarray(addresses)[: 8 * count].astype(np.int64)
    if rows.shape != (8 * count,):
        raise ValueError(f"ldmatrix.x{count} takes an address from each of {8 * count} lanes, not {rows.shape}")
    for lane, address in enumerate(rows):
        if address % 16:
            raise ValueError(f"lane {lane}: address {address} is not a multiple of 16")
        if not 0 <= address <= shared.size - 16:
            raise IndexError(f"lane {lane}: bytes {address}..{address + 15} are outside {shared.size} bytes")
    held = shared[rows[:, None] + np.arange(16)].copy().view("<u2").astype(np.uint32).reshape(count, 8, 8)
    if transpose:
        held = held.swapaxes(1, 2)
    low: Registers = held[:, _LANE >> 2, 2 * (_LANE & 3)]
    high: Registers = held[:, _LANE >> 2, 2 * (_LANE & 3) + 1]
    return (low | high << np.uint32(16)).T


def find_shape(name: str, in_format: str, arch: str, sparse: bool = False) -> Shape:
    """Return the shape called `name` for `in_format`; ValueError where there is none or `arch` is too old."""
    for shape in SHAPES:
        if shape.name == name and in_format in shape.inputs and shape.sparse == sparse:
            if arch in ARCHITECTURES and int(arch[3:]) < shape.since:
                raise ValueError(f"{name} needs sm_{shape.since}, not {arch}")
            return shape
    known = ", ".join(f"{s.name} ({'/'.join(s.inputs)})" for s in SHAPES if s.sparse == sparse)
    raise ValueError(f"no {'sparse ' if sparse else ''}mma {name} for {in_format}: there are {known}")


def mma(
    a: Registers, b: Registers, c: Registers, *, shape: str, arch: str, in_format: str = "f16", out_format: str = "f32"
) -> Registers:
    """D = A B + C of one mma.sync: each operand uint32 [32, registers] in its fragment layout (see fragments.py).

    `shape` is "m16n8k16" or "m16n8k8"; formats as in dot_add. Raises ValueError for an instruction that `arch` lacks.
    """
    layout = find_shape(shape, in_format, arch)
    left, right = layout.a.to_matrix(a), layout.b.to_matrix(b)
    return _multiply(left, right[None], c, _accumulators(layout, out_format), arch, in_format, out_format)


def mma_sp(
    a: Registers,
    b: Registers,
    c: Registers,
    metadata: NDArray[np.uint32],
    selector: int,
    *,
    arch: str,
    in_format: str = "f16",
    out_format: str = "f32",
) -> Registers:
    """D = A B + C of one mma.sp.m16n8k32 with A 2:4 sparse: a, b, c, result uint32 [32, 4], metadata uint32 [32].

    The order in which hardware adds the products is not published. Assumed: the dense rule for the 16 selected k's in
    ascending order; rows of B that are not selected are not read.
    """
    layout = find_shape("m16n8k32", in_format, arch, sparse=True)
    positions = decode_metadata(metadata, selector)  # [16, 8, 2]
    k = (4 * np.arange(8)[:, None] + positions).reshape(16, 16)
    selected = layout.b.to_matrix(b)[k]  # [m, 16, n]
    return _multiply(layout.a.to_matrix(a), selected, c, _accumulators(layout, out_format), arch, in_format, out_format)


def _accumulators(layout: Shape, out_format: str) -> Fragment:
    return layout.c16 if out_format == "f16" else layout.c


def _multiply(
    left: Bits, right: Bits, c: Registers, layout: Fragment, arch: str, in_format: str, out_format: str
) -> Registers:
    """dot_add for every element of C: left [m, k], right [m or 1, k, n]."""
    start = layout.to_matrix(c)
    full = (*start.shape, left.shape[1])
    rows = np.broadcast_to(left[:, None, :], full).reshape(-1, full[2])
    columns = np.broadcast_to(right.swapaxes(1, 2), full).reshape(-1, full[2])
    d = dot_add(rows, columns, start.ravel(), arch=arch, in_format=in_format, out_format=out_format)
    return layout.to_registers(d.reshape(start.shape))


def decode_metadata(metadata: NDArray[np.uint32], selector: int) -> NDArray[np.intp]:
    """Positions (0..3) of the two stored elements of every group of four k's: [16 rows, 8 groups, 2].

    Lanes 4g + 2 selector + p supply the groups 4p..4p+3 of row g (low half word) and row g+8 (high): a nibble per
    group, the first position in its low two bits. Raises ValueError where the selector is not 0 or 1 or two positions
    are equal.
    """
    if selector not in (0, 1):
        raise ValueError(f"the sparsity selector of {SPARSE_M16N8K32.name} is 0 or 1, not {selector}")
    row, group = np.arange(16)[:, None], np.arange(8)[None, :]
    word = np.asarray(metadata)[4 * (row % 8) + 2 * selector + group // 4].astype(np.int64)
    nibble = word >> (16 * (row // 8) + 4 * (group % 4)) & 0xF
    positions = np.stack([nibble & 3, nibble >> 2], axis=-1).astype(np.intp)
    bad = np.argwhere(positions[..., 0] == positions[..., 1])
    if len(bad):
        raise ValueError(f"row {bad[0, 0]}, group {bad[0, 1]}: metadata names one position twice")
    return positions


def encode_metadata(positions: NDArray[Any], selector: int) -> NDArray[np.uint32]:
    """Pack positions [16, 8, 2] into the words of the supplying lanes: uint32 [32], other lanes 0."""
    words = np.zeros(LANES, np.uint32)
    for row in range(16):
        for group in range(8):
            nibble = int(positions[row, group, 0]) | int(positions[row, group, 1]) << 2
            lane = 4 * (row % 8) + 2 * selector + group // 4
            words[lane] |= np.uint32(nibble << (16 * (row // 8) + 4 * (group % 4)))
    return words
