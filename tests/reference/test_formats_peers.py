"""CSR, bitmap and 2:4: layouts against scalar re-statements, refusals by field and position."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from loadsparse.reference.formats import CSR, Bitmap, FormatError, TwoFour, entropy_floor


def random_matrix(rows: int, columns: int, density: float, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((rows, columns)).astype(np.float16)
    dense[rng.random((rows, columns)) >= density] = 0
    return dense


@pytest.mark.parametrize("index_dtype", [np.int32, np.uint16])
def test_csr_layout(index_dtype: Any) -> None:
    dense = random_matrix(23, 70, 0.2)
    csr = CSR.encode(dense, index_dtype=index_dtype)
    csr.validate()
    bits = dense.view(np.uint16)
    for row in range(23):
        part = slice(csr.row_pointers[row], csr.row_pointers[row + 1])
        wanted = [(column, bits[row, column]) for column in range(70) if bits[row, column]]
        assert list(zip(csr.columns[part].tolist(), csr.values[part].tolist(), strict=True)) == wanted
    assert csr.nbytes == 4 * 24 + np.count_nonzero(bits) * (2 + np.dtype(index_dtype).itemsize)
    assert np.array_equal(csr.decode(), dense)


def test_csr_refuses_wide_short_indices() -> None:
    wide = np.ones((1, 65537), np.float16)
    assert CSR.encode(wide[:, 1:], index_dtype=np.uint16).columns[-1] == 65535
    with pytest.raises(FormatError, match="K = 65537"):
        CSR.encode(wide, index_dtype=np.uint16)
    with pytest.raises(FormatError, match="int64"):
        CSR.encode(wide, index_dtype=np.int64)


def test_bitmap_layout() -> None:
    dense = random_matrix(100, 130, 0.3)
    dense[:64, 64:128] = 0
    dense[64:, :64] = 1
    bitmap = Bitmap.encode(dense)
    padded = np.zeros((128, 192), np.uint16)
    padded[:100, :130] = dense.view(np.uint16)
    at = 0
    words, values, offsets = [], [], [0]
    for group_row in range(2):
        for group_column in range(3):
            for strip in range(4):
                for tile in range(4):
                    for right, low in ((0, 0), (0, 1), (1, 0), (1, 1)):
                        top = 64 * group_row + 16 * strip + 8 * low
                        left = 64 * group_column + 16 * tile + 8 * right
                        block = padded[top : top + 8, left : left + 8].ravel().tolist()
                        words.append(sum(1 << i for i, value in enumerate(block) if value))
                        values += [value for value in block if value]
            values += [0] * (-len(values) % 8)
            at = len(values) // 8
            offsets.append(at)
    assert bitmap.bitmaps.tolist() == words
    assert bitmap.values.tolist() == values
    assert bitmap.offsets.tolist() == offsets
    assert bitmap.nbytes == 8 * len(words) + 2 * len(values) + 4 * 7


@pytest.mark.parametrize("density", [0.5, 0.4, 0.3, 0.2])
def test_bitmap_bytes_are_near_the_entropy_floor(density: float) -> None:
    dense = random_matrix(512, 1024, density)
    exact = np.count_nonzero(dense.view(np.uint16)) / dense.size
    assert Bitmap.encode(dense).nbytes / dense.size <= 1.10 * entropy_floor(exact)


def test_entropy_floor() -> None:
    assert (entropy_floor(0), entropy_floor(1), entropy_floor(0.5)) == (0, 2, 1.125)
    assert math.isclose(entropy_floor(0.25), 0.5 + (2 - 0.75 * math.log2(3)) / 8)
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="density"):
            entropy_floor(wrong)


def test_two_four_layout() -> None:
    """Every chunk of a 16 x 32 tile read back as lane 4 g + p would: nibbles say where the two values belong."""
    dense = TwoFour.split(random_matrix(40, 70, 0.6))[0]
    two_four = TwoFour.encode(dense)
    padded = np.zeros((48, 96), np.uint16)
    padded[:40, :70] = dense.view(np.uint16)
    values = two_four.values.reshape(48, 48)
    for tile in range(9):
        for word in range(16):
            g, p = divmod(word, 2)
            bits = int(two_four.metadata[16 * tile + word])
            for half in range(2):
                for chunk in range(4):
                    nibble = bits >> (16 * half + 4 * chunk) & 15
                    low, high = nibble & 3, nibble >> 2
                    row = 16 * (tile // 3) + g + 8 * half
                    column = 32 * (tile % 3) + 16 * p + 4 * chunk
                    wanted = [0, 0, 0, 0]
                    wanted[low], wanted[high] = values[row, column // 2 : column // 2 + 2].tolist()
                    assert low < high
                    assert padded[row, column : column + 4].tolist() == wanted
    assert two_four.nbytes == 48 * 96 * 1.125


def test_two_four_names_the_first_bad_chunk() -> None:
    dense = np.zeros((20, 50), np.float16)
    dense[7, 12:15] = 1
    dense[9, 0:4] = 1
    with pytest.raises(FormatError, match=r"row 7, columns 12\.\.15 hold 3 items"):
        TwoFour.encode(dense)


def test_split_is_exact_and_leaves_what_theory_says() -> None:
    for density in (0.5, 0.2):
        dense = random_matrix(512, 512, density)
        part, rest = TwoFour.split(dense)
        a, b, c = (x.view(np.uint16) for x in (dense, part, rest))
        assert np.array_equal(b | c, a)
        assert not (b & c).any()
        TwoFour.encode(part)
        expected = (4 * density**3 * (1 - density) + 2 * density**4) / 4
        assert abs(np.count_nonzero(c) / c.size - expected) < 4 * math.sqrt(expected / c.size)
    assert not TwoFour.split(part)[1].any()


def replaced(at: int, value: int) -> Any:
    def change(array: Any) -> Any:
        array = array.copy()
        array[at] = value
        return array

    return change


@pytest.mark.parametrize(
    ("cls", "field", "change", "message"),
    [
        (CSR, "row_pointers", replaced(0, 1), r"row_pointers\[0\]"),
        (CSR, "row_pointers", replaced(3, 99), r"row_pointers\[3\]: 99"),
        (CSR, "row_pointers", replaced(3, -1), r"row_pointers\[3\]"),
        (CSR, "row_pointers", lambda x: x[:-1], "row_pointers: 20 entries"),
        (CSR, "columns", lambda x: x[:-1], "columns: "),
        (CSR, "columns", lambda x: x.astype(np.int64), "columns: wants int32 or uint16"),
        (CSR, "columns", replaced(2, 30), r"columns\[2\]: 30 outside"),
        (CSR, "columns", replaced(2, -1), r"columns\[2\]: -1 outside"),
        (CSR, "columns", replaced(1, 0), r"columns\[[12]\]: 0 after"),
        (CSR, "values", replaced(4, 0), r"values\[4\]"),
        (CSR, "values", lambda x: x[:-1], "values: "),
        (Bitmap, "bitmaps", lambda x: x[:-1], "bitmaps: 63 entries"),
        (Bitmap, "bitmaps", replaced(63, 1), r"bitmaps\[63\]: a bit"),
        (Bitmap, "bitmaps", replaced(0, 0), r"offsets\[1\]: does not fit"),
        (Bitmap, "offsets", lambda x: x + 1, r"offsets\[0\]"),
        (Bitmap, "offsets", replaced(1, 999), r"offsets\[1\]: 999"),
        (Bitmap, "values", lambda x: x[:-1], "values: "),
        (Bitmap, "values", replaced(5, 0), r"values\[5\]: \+0"),
        (Bitmap, "values", replaced(-1, 7), r"values\[\d+\]: a pad holds 7"),
        (TwoFour, "metadata", lambda x: x[:-1], "metadata: "),
        (TwoFour, "metadata", replaced(5, 0x44440444), r"metadata\[5\]: nibble 0000 of row 2, columns 28\.\.31"),
        (TwoFour, "metadata", replaced(18, 0xF4444444), r"metadata\[18\]: nibble 1111 of row 25, columns 12\.\.15"),
        (TwoFour, "values", lambda x: x[:-1], "values: "),
        (TwoFour, "values", replaced(320, 1), r"values\[320\]: 1 outside"),
        (TwoFour, "values", replaced(511, 1), r"values\[511\]: 1 outside"),
    ],
)
def test_validate_names_field_and_position(cls: Any, field: str, change: Any, message: str) -> None:
    dense = TwoFour.split(random_matrix(20, 30, 0.35, seed=5))[0]
    encoded = cls.encode(dense)
    encoded.validate()
    with pytest.raises(FormatError, match=message):
        dataclasses.replace(encoded, **{field: change(getattr(encoded, field))}).validate()


def test_two_four_refuses_a_value_beyond_the_last_column() -> None:
    one = TwoFour.encode(np.ones((1, 1), np.float16))
    with pytest.raises(FormatError, match=r"values\[1\]: 5 outside"):
        dataclasses.replace(one, values=replaced(1, 5)(one.values)).validate()


def test_csr_refuses_a_fall_by_one_and_a_column_twice() -> None:
    csr = CSR.encode(np.ones((4, 4), np.float16))
    with pytest.raises(FormatError, match=r"row_pointers\[2\]: 3 after 4"):
        dataclasses.replace(csr, row_pointers=replaced(2, 3)(csr.row_pointers)).validate()
    with pytest.raises(FormatError, match=r"columns\[6\]: 1 after 1 in row 1"):
        dataclasses.replace(csr, columns=replaced(6, 1)(csr.columns)).validate()
