"""Fragment layouts, ldmatrix, mma and mma.sp against PTX's formulas and plain matrix products."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from loadsparse.reference import tensorcore as tc

# the formulas of the PTX manual: g = lane >> 2, t = lane & 3, element i -> (row, column)
PTX: dict[str, tuple[tc.Fragment, int, Callable[[int, int, int], tuple[int, int]]]] = {
    "m16n8k16 A": (tc.M16N8K16.a, 8, lambda g, t, i: (g + 8 * (i >> 1 & 1), 2 * t + (i & 1) + 8 * (i >= 4))),
    "m16n8k16 B": (tc.M16N8K16.b, 4, lambda g, t, i: (2 * t + (i & 1) + 8 * (i >= 2), g)),
    "m16n8k16 C": (tc.M16N8K16.c, 4, lambda g, t, i: (g + 8 * (i >= 2), 2 * t + (i & 1))),
    "m16n8k16 C f16": (tc.M16N8K16.c16, 4, lambda g, t, i: (g + 8 * (i >= 2), 2 * t + (i & 1))),
    "m16n8k8 A": (tc.M16N8K8.a, 4, lambda g, t, i: (g + 8 * (i >= 2), 2 * t + (i & 1))),
    "m16n8k8 B": (tc.M16N8K8.b, 2, lambda g, t, i: (2 * t + i, g)),
    "m16n8k8 tf32 A": (tc.M16N8K8_TF32.a, 4, lambda g, t, i: (g + 8 * (i & 1), t + 4 * (i >= 2))),
    "m16n8k8 tf32 B": (tc.M16N8K8_TF32.b, 2, lambda g, t, i: (t + 4 * i, g)),
    "m16n8k32 sparse A": (
        tc.SPARSE_M16N8K32.a,
        8,
        lambda g, t, i: (g + 8 * (i >> 1 & 1), 2 * (t + 4 * (i >= 4)) + (i & 1)),
    ),
    "m16n8k32 sparse B": (tc.SPARSE_M16N8K32.b, 8, lambda g, t, i: (2 * t + (i & 1) + 8 * (i >> 1), g)),
}
REGISTERS = {"m16n8k16": (4, 2, 4, 2), "m16n8k8": (2, 1, 4, 2), "m16n8k32": (4, 4, 4, 2)}


@pytest.mark.parametrize("name", PTX)
def test_layout_is_ptx_s(name: str) -> None:
    fragment, elements, formula = PTX[name]
    assert fragment.row.shape == (32, elements)
    for lane in range(32):
        for i in range(elements):
            assert (fragment.row[lane, i], fragment.column[lane, i]) == formula(lane >> 2, lane & 3, i)


@pytest.mark.parametrize("name", PTX)
def test_scatter_and_gather_are_inverse(name: str) -> None:
    fragment = PTX[name][0]
    rng = np.random.default_rng(1)
    matrix = rng.permutation(1 << 10)[: fragment.shape[0] * fragment.shape[1]].astype(f"u{fragment.width // 8}")
    matrix = matrix.reshape(fragment.shape)  # all different
    registers = fragment.to_registers(matrix)
    assert registers.shape == (32, fragment.registers)
    assert registers.dtype == np.uint32
    np.testing.assert_array_equal(fragment.to_matrix(registers), matrix)
    lane, i = 13, fragment.row.shape[1] - 1
    word = int(registers[lane, i * fragment.width // 32])
    held = word >> 16 if fragment.width == 16 else word  # an odd element sits in the high half
    assert held == matrix[fragment.row[lane, i], fragment.column[lane, i]]
    batch = np.stack([matrix, matrix[::-1]])
    np.testing.assert_array_equal(fragment.to_matrix(fragment.to_registers(batch)), batch)


def test_register_counts() -> None:
    for shape in (tc.M16N8K16, tc.M16N8K8, tc.SPARSE_M16N8K32):
        counts = (shape.a.registers, shape.b.registers, shape.c.registers, shape.c16.registers)
        assert counts == REGISTERS[shape.name]
    assert (tc.M16N8K8_TF32.a.registers, tc.M16N8K8_TF32.b.registers) == (4, 2)


A = tc.M16N8K16.a


@pytest.mark.parametrize(
    ("lane", "element", "message"),
    [
        (("k1", "k2", "m0", "m1", "m2"), ("k0", "m3", "m3"), "do not place"),
        (("k1", "k2", "m0", "m1", "m2"), ("k0", "m3", "k4"), "do not place"),
        (("k2", "k1", "m0", "m1", "m2"), A.element, "ascend"),
        (("k1", "k2", "m1", "m0", "m2"), A.element, "ascend"),
        (("k1", "k2", "m0", "m1", "m3"), ("k0", "m2", "k3"), "must hold m = g"),
        (("m0", "m1", "m2", "k1", "k2"), A.element, "must hold m = g"),
        (("k1", "k3", "m0", "m1", "m2"), ("k0", "m3", "k2"), "ascend|must hold"),
        (("k0", "k1", "m0", "m1", "m2"), ("k2", "m3", "k3"), "must hold m = g"),
        (A.lane, ("k0", "k3", "m3"), "registers must go over m before k"),
        (A.lane[:4], ("k0", "m2", "m3"), "5 lane bits"),
    ],
)
def test_a_wrong_table_cannot_be_built(lane: tuple[str, ...], element: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(A, lane=lane, element=element)


def test_every_swap_of_two_bits_is_refused() -> None:
    """A mutation test of the proofs: no layout survives the exchange of any two of its bits."""
    for fragment, _, _ in PTX.values():
        bits = list(fragment.lane + fragment.element)
        for i in range(len(bits)):
            for j in range(i):
                swapped = bits.copy()
                swapped[i], swapped[j] = bits[j], bits[i]
                with pytest.raises(ValueError, match=r"ascend|must hold|must go"):
                    replace(fragment, lane=tuple(swapped[:5]), element=tuple(swapped[5:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": tc.M16N8K8.b}, "do not multiply"),
        ({"name": "m16n8k8"}, "has the fragments of m16n8k16"),
        ({"c": tc.M16N8K16.a}, "do not multiply"),
        ({"sparse": True}, "do not multiply"),
    ],
)
def test_fragments_that_do_not_fit_make_no_shape(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tc.M16N8K16, **change)


def test_ldmatrix_is_ptx_s() -> None:
    shared = np.random.default_rng(2).integers(0, 256, 4096, dtype=np.uint8)
    halves = shared.view("<u2")
    addresses = 16 * np.random.default_rng(3).permutation(256)[:32]
    for count in (1, 2, 4):
        for transpose in (False, True):
            got = tc.ldmatrix(shared, addresses, count, transpose)
            assert got.shape == (32, count)
            for lane in range(32):
                for j in range(count):
                    row, column = lane >> 2, 2 * (lane & 3)
                    places = [(column, row), (column + 1, row)] if transpose else [(row, column), (row, column + 1)]
                    low, high = (int(halves[addresses[8 * j + r] // 2 + c]) for r, c in places)
                    assert got[lane, j] == low | high << 16


def test_ldmatrix_refuses_bad_addresses() -> None:
    shared = np.zeros(256, np.uint8)
    rows = np.arange(32) * 16 % 256
    with pytest.raises(ValueError, match="lane 5: address 88 is not a multiple of 16"):
        tc.ldmatrix(shared, np.where(np.arange(32) == 5, 88, rows), 4)
    with pytest.raises(IndexError, match=r"lane 3: bytes 256\.\.271 are outside 256 bytes"):
        tc.ldmatrix(shared, np.where(np.arange(32) == 3, 256, rows), 1)
    tc.ldmatrix(shared, np.where(np.arange(32) == 20, 7, rows), 2)  # lane 20 supplies no row of .x2
    with pytest.raises(ValueError, match="1, 2 or 4"):
        tc.ldmatrix(shared, rows, 3)


def test_ldmatrix_feeds_mma() -> None:
    """x4 on a row-major A and x2.trans on a row-major B give exactly mma's operand registers."""
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 1 << 16, (16, 16), np.uint16), rng.integers(0, 1 << 16, (16, 8), np.uint16)
    shared = np.concatenate([a.view(np.uint8).ravel(), b.view(np.uint8).ravel()])
    lane = np.arange(32)
    a_rows = 32 * (lane % 16) + 16 * (lane // 16)  # matrices: rows 0-7, rows 8-15, then the right half
    np.testing.assert_array_equal(tc.ldmatrix(shared, a_rows, 4), tc.M16N8K16.a.to_registers(a))
    b_rows = 512 + 16 * (lane % 16)
    np.testing.assert_array_equal(tc.ldmatrix(shared, b_rows, 2, transpose=True), tc.M16N8K16.b.to_registers(b))
    np.testing.assert_array_equal(tc.ldmatrix(shared, 32 * (lane % 16), 2), tc.M16N8K8.a.to_registers(a[:, :8]))


def integers(rng: np.random.Generator, shape: tuple[int, ...], fmt: str) -> tuple[np.ndarray, np.ndarray]:
    """Small integers as float64 and as patterns of a format: their products and sums are exact everywhere."""
    values = rng.integers(-8, 9, shape).astype(np.float32)
    bits = values.view(np.uint32)
    patterns = {"f16": values.astype(np.float16).view(np.uint16), "bf16": (bits >> 16).astype(np.uint16), "tf32": bits}
    return values.astype(np.float64), patterns[fmt]


@pytest.mark.parametrize(
    ("shape", "fmt", "arch"),
    [
        (tc.M16N8K16, "f16", "sm_80"),
        (tc.M16N8K16, "bf16", "sm_90"),
        (tc.M16N8K8, "f16", "sm_75"),
        (tc.M16N8K8, "bf16", "sm_80"),
        (tc.M16N8K8_TF32, "tf32", "sm_80"),
    ],
)
def test_mma_multiplies(shape: tc.Shape, fmt: str, arch: str) -> None:
    rng = np.random.default_rng(6)
    (a, a_bits), (b, b_bits) = integers(rng, shape.a.shape, fmt), integers(rng, shape.b.shape, fmt)
    c = rng.integers(-99, 100, shape.c.shape).astype(np.float32)
    operands = (shape.a.to_registers(a_bits), shape.b.to_registers(b_bits), shape.c.to_registers(c.view(np.uint32)))
    d = tc.mma(*operands, shape=shape.name, arch=arch, in_format=fmt)
    np.testing.assert_array_equal(shape.c.to_matrix(d).view(np.float32), a @ b + c)
    if fmt == "f16":
        c16 = shape.c16.to_registers(c.astype(np.float16).view(np.uint16))
        d16 = tc.mma(*operands[:2], c16, shape=shape.name, arch=arch, out_format="f16")
        np.testing.assert_array_equal(shape.c16.to_matrix(d16).view(np.float16), (a @ b + c).astype(np.float16))


def test_mma_is_dot_add_in_every_bit() -> None:
    rng = np.random.default_rng(7)
    a, b, c = (rng.integers(0, 1 << 32, (32, n), dtype=np.uint32) for n in (4, 2, 4))
    for arch in ("sm_80", "sm_90"):
        d = tc.M16N8K16.c.to_matrix(tc.mma(a, b, c, shape="m16n8k16", arch=arch))
        A, B, C = tc.M16N8K16.a.to_matrix(a), tc.M16N8K16.b.to_matrix(b), tc.M16N8K16.c.to_matrix(c)
        for n in range(8):
            column = np.broadcast_to(B[:, n], (16, 16))
            want = tc.dot_add(A, column, C[:, n].copy(), arch=arch, in_format="f16", out_format="f32")
            np.testing.assert_array_equal(d[:, n], want)


def test_metadata_word() -> None:
    """0x8888 means positions 0 and 2 in each of four groups; lanes t = 2f and 2f + 1 of each quad supply the words."""
    for selector in (0, 1):
        metadata = np.full(32, 0xFFFFFFFF, np.uint32)  # invalid where it must not be read
        suppliers = [4 * g + 2 * selector + p for g in range(8) for p in (0, 1)]
        metadata[suppliers] = 0x88888888
        positions = tc.decode_metadata(metadata, selector)
        assert (positions == [0, 2]).all()
        want = np.zeros(32, np.uint32)
        want[suppliers] = 0x88888888
        np.testing.assert_array_equal(tc.encode_metadata(positions, selector), want)
    with pytest.raises(ValueError, match="row 0, group 0: metadata names one position twice"):
        tc.decode_metadata(np.zeros(32, np.uint32), 0)
    with pytest.raises(ValueError, match="is 0 or 1, not 2"):
        tc.decode_metadata(np.zeros(32, np.uint32), 2)


def test_metadata_places() -> None:
    """Supplier p holds groups 4p..4p+3 of row g in its low half and of row g + 8 in its high half."""
    metadata = np.full(32, 0x44444444, np.uint32)  # positions 0, 1
    metadata[4 * 3 + 1] = 0x4444_4444 ^ (0x4 ^ 0xE) << (16 + 4 * 2)  # lane t=1 of quad 3: high half, third nibble
    positions = tc.decode_metadata(metadata, 0)
    changed = np.argwhere(positions[..., 1] != 1)
    np.testing.assert_array_equal(changed, [[3 + 8, 4 + 2]])
    np.testing.assert_array_equal(positions[11, 6], [2, 3])


@pytest.mark.parametrize("selector", [0, 1])
def test_mma_sp_multiplies_the_selected_elements(selector: int) -> None:
    rng = np.random.default_rng(8)
    a, a_bits = integers(rng, (16, 16), "f16")  # compressed
    b, b_bits = integers(rng, (32, 8), "f16")
    positions = np.array([np.sort(rng.permutation(4)[:2]) for _ in range(128)]).reshape(16, 8, 2)
    expanded = np.zeros((16, 32))
    for row in range(16):
        for s in range(16):
            expanded[row, 4 * (s // 2) + positions[row, s // 2, s % 2]] = a[row, s]
    c = rng.integers(-99, 100, (16, 8)).astype(np.float32)
    shape = tc.SPARSE_M16N8K32
    operands = (shape.a.to_registers(a_bits), shape.b.to_registers(b_bits), shape.c.to_registers(c.view(np.uint32)))
    d = tc.mma_sp(*operands, tc.encode_metadata(positions, selector), selector, arch="sm_80")
    np.testing.assert_array_equal(shape.c.to_matrix(d).view(np.float32), expanded @ b + c)


def test_mma_sp_does_not_read_what_is_not_selected() -> None:
    shape = tc.SPARSE_M16N8K32
    b = np.full((32, 8), 0x7E00, np.uint16)  # NaN ...
    b[0::4] = b[2::4] = 0x3C00  # ... but 1 at positions 0 and 2
    a = np.full((16, 16), 0x3C00, np.uint16)
    c = np.zeros((32, 4), np.uint32)
    metadata = np.full(32, 0x88888888, np.uint32)
    d = tc.mma_sp(shape.a.to_registers(a), shape.b.to_registers(b), c, metadata, 0, arch="sm_90")
    assert (d.view(np.float32) == 16).all()


def test_selected_terms_follow_the_dense_rule() -> None:
    """The stated assumption: on sm_80 the first eight selected products form one block, the last eight the next."""
    shape = tc.SPARSE_M16N8K32
    a = np.zeros((16, 16), np.float16)
    a[0] = [2.0**12, *[0.0] * 6, -(2.0**12), 2.0**-8, *[0.0] * 7]
    b = np.ones((32, 8), np.float16)
    b[0] = b[14] = 2.0**12  # stored elements 0 and 7 are at k = 0 and 14 (positions 0 and 2)
    exact = Fraction(2) ** -8
    d = tc.mma_sp(
        shape.a.to_registers(a.view(np.uint16)),
        shape.b.to_registers(b.view(np.uint16)),
        np.zeros((32, 4), np.uint32),
        np.full(32, 0x88888888, np.uint32),
        0,
        arch="sm_80",
    )
    assert shape.c.to_matrix(d).view(np.float32)[0, 0] == exact  # in one block of 16, 2^-8 under 2^24 would be cut


@pytest.mark.parametrize(
    ("shape", "arch", "fmt", "message"),
    [
        ("m16n8k16", "sm_75", "f16", "needs sm_80"),
        ("m16n8k8", "sm_70", "f16", "needs sm_75"),
        ("m16n8k16", "sm_80", "tf32", "no mma m16n8k16 for tf32"),
        ("m16n8k32", "sm_80", "f16", "no mma m16n8k32"),
        ("m16n8k16", "volta", "f16", "unknown architecture"),
    ],
)
def test_instructions_that_do_not_exist(shape: str, arch: str, fmt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tc.mma(*(np.zeros((32, n), np.uint32) for n in (4, 2, 4)), shape=shape, arch=arch, in_format=fmt)


def test_operands_of_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"expected uint32 \(32, 2\), not uint32 \(32, 4\)"):
        tc.mma(*(np.zeros((32, 4), np.uint32),) * 3, shape="m16n8k16", arch="sm_80")
    with pytest.raises(ValueError, match=r"expected unsigned integers \(16, 16\), not float16"):
        tc.M16N8K16.a.to_registers(np.zeros((16, 16), np.float16))
