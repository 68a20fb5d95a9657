"""Every format: bit-exact round trips, exact bytes, refusals, corruption.

Ranges: M in 1..300, K in 1..200 (up to 3 x 4 tiles, ragged), any 16-bit pattern (NaN payloads, -0, subnormals), every
density from 0 to 1 including tiles that are all zero and all dense.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.reference import formats
from loadsparse.reference.formats import CSR, Bitmap, FormatError, SparseFormat, TiledCSL, TwoFour, container

FORMATS: list[type[SparseFormat]] = [TiledCSL, CSR, Bitmap, TwoFour]


@st.composite
def matrices(draw: st.DrawFn) -> Any:
    """uint16[M, K] patterns: M <= 300, K <= 200; a density per 128 x 64 tile, 0 and 1 among them."""
    rows, columns = draw(st.integers(1, 300)), draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from([0.0, 0.001, 0.1, 0.2, 0.5, 0.9, 1.0]), min_size=1, max_size=4))
    values = rng.integers(1, 2**16, (rows, columns), dtype=np.uint16)
    special = np.array([0x8000, 0x0001, 0x83FF, 0x7C00, 0xFC00, 0x7E01, 0xFFFF, 0x7C01], np.uint16)
    values = np.where(rng.random((rows, columns)) < 0.2, rng.choice(special, (rows, columns)), values)
    density = rng.choice(kinds, (3, 4)).repeat(128, axis=0).repeat(64, axis=1)[:rows, :columns]
    return np.where(rng.random((rows, columns)) < density, values, 0).astype(np.uint16)


def random_matrix(rows: int, columns: int, density: float, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((rows, columns)).astype(np.float16)
    dense[rng.random((rows, columns)) >= density] = 0
    return dense


def encodable(cls: type[SparseFormat], dense: Any, dtype: str = "f16") -> Any:
    """The matrix itself, or its 2:4 part where the format holds nothing else."""
    return TwoFour.split(dense, dtype)[0] if cls is TwoFour else dense


@pytest.mark.parametrize("cls", FORMATS)
@settings(max_examples=60, deadline=None)
@given(bits=matrices(), dtype=st.sampled_from(["f16", "bf16"]))
def test_round_trip_keeps_every_bit(cls: type[SparseFormat], bits: Any, dtype: str) -> None:
    dense = encodable(cls, bits.view(np.float16) if dtype == "f16" else bits, dtype)
    bits = dense.view(np.uint16)
    before = dense.copy()
    encoded = cls.encode(dense, dtype)
    encoded.validate()
    decoded = encoded.decode()
    assert decoded.dtype == dense.dtype
    assert np.array_equal(decoded.view(np.uint16), bits)
    assert np.array_equal(dense.view(np.uint16), before.view(np.uint16))


@pytest.mark.parametrize("cls", FORMATS)
def test_non_contiguous_input(cls: type[SparseFormat]) -> None:
    dense = np.asfortranarray(encodable(cls, random_matrix(70, 260, 0.3)[:, ::2].T))
    assert np.array_equal(cls.encode(dense).decode(), dense)


@pytest.mark.parametrize("cls", FORMATS)
@pytest.mark.parametrize(
    ("dense", "dtype", "message"),
    [
        (np.ones((2, 2), np.float32), "f16", "float16"),
        (np.ones((2, 2), np.float16), "bf16", "uint16"),
        (np.ones(4, np.float16), "f16", "M, K"),
        (np.ones((0, 4), np.float16), "f16", "M, K"),
        (np.ones((2, 2), np.float16), "e4m3", "e4m3"),
    ],
)
def test_encode_refuses(cls: type[SparseFormat], dense: Any, dtype: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        cls.encode(dense, dtype)


@pytest.mark.parametrize("cls", FORMATS)
def test_save_and_load(cls: type[SparseFormat], tmp_path: Path) -> None:
    encoded = cls.encode(encodable(cls, random_matrix(150, 100, 0.3)))
    path = tmp_path / "a.sparse"
    encoded.save(path)
    encoded.save(path)  # overwrites
    loaded = cls.load(path)
    assert (loaded.shape, loaded.dtype, loaded.nbytes) == (encoded.shape, encoded.dtype, encoded.nbytes)
    assert all(np.array_equal(getattr(loaded, name), getattr(encoded, name)) for name in cls.arrays)
    assert [file.name for file in tmp_path.iterdir()] == ["a.sparse"]


@pytest.mark.parametrize("cls", FORMATS)
def test_every_truncation_of_a_file_is_refused(cls: type[SparseFormat], tmp_path: Path) -> None:
    path, cut = tmp_path / "a.sparse", tmp_path / "cut.sparse"
    cls.encode(encodable(cls, random_matrix(20, 30, 0.3))).save(path)
    whole = path.read_bytes()
    for length in [*range(0, 80), *range(80, len(whole), 7), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(FormatError) as error:
            cls.load(cut)
        assert re.fullmatch(r".*cut\.sparse: .*", str(error.value))


@pytest.mark.parametrize("cls", FORMATS)
def test_corrupt_bytes_are_refused_or_decode(cls: type[SparseFormat], tmp_path: Path) -> None:
    """A flipped byte is either noticed (FormatError) or leaves a valid structure, which decodes."""
    path = tmp_path / "a.sparse"
    cls.encode(encodable(cls, random_matrix(20, 30, 0.3))).save(path)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        broken = whole.copy()
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        try:
            loaded = cls.load(path)
        except FormatError:
            refused += 1
        else:
            assert loaded.decode().shape == loaded.shape
    assert refused > 50


def test_load_refuses_strangers(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content, message in [
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00.", "pickle"),
        (b"PK\x03\x04" + bytes(60), "zip"),
        (b"", "truncated"),
        (b"\x93NUMPY" + bytes(100), "truncated"),
        ((2**62).to_bytes(8, "little") + b"{}", "truncated"),
        ((2).to_bytes(8, "little") + b"[]", "object"),
        ((9000).to_bytes(8, "little") + b"[" * 9000, "JSON"),
    ]:
        path.write_bytes(content)
        with pytest.raises(FormatError, match=message):
            TiledCSL.load(path)
    encoded = TiledCSL.encode(np.ones((2, 2), np.float16))
    arrays = {name: getattr(encoded, name) for name in TiledCSL.arrays}
    good = {"format": "TiledCSL", "version": "1", "shape": "[2, 2]", "dtype": "f16"}
    for wrong, message in [
        ({"version": "2"}, "version 2"),
        ({"format": "CSR"}, "holds CSR"),
        ({"shape": "[2]"}, "shape"),
        ({"shape": "[2, 2.0]"}, "shape"),
        ({"shape": "[2, true]"}, "shape"),
        ({"shape": "{}"}, "shape"),
        ({"shape": "[99999999999, 99999999999]"}, "shape"),
        ({"shape": "[2147483647, 2147483647]"}, "tile_offsets"),
        ({"dtype": "f32"}, "dtype"),
    ]:
        container.write(path, arrays, good | wrong)
        with pytest.raises(FormatError, match=message):
            TiledCSL.load(path)
    container.write(path, {"items": encoded.items}, good)
    with pytest.raises(FormatError, match="arrays"):
        TiledCSL.load(path)
    container.write(path, arrays, good)
    assert TiledCSL.load(path).decode().sum() == 4


def test_hostile_headers_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def entry(text: str) -> None:
        header = text.encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))

    for text, message in [
        ('{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4000000000000]}}', "truncated"),
        ('{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 16]}}', "wants 4000000000000"),
        ('{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}', "shape"),
        ('{"a": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}}', "shape"),
        ('{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}', "shape"),
        ('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}', "offsets"),
        ('{"a": {"dtype": "object", "shape": [4], "data_offsets": [0, 16]}}', "object"),
        ('{"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]},'
         '"b": {"dtype": "U8", "shape": [9], "data_offsets": [7, 16]}}', "overlap"),
        ('{"a": 5}', "shape"),
        ('{"__metadata__": {"a": 5}}', "__metadata__"),
    ]:  # fmt: skip
        entry(text)
        with pytest.raises(FormatError, match=message):
            container.read(path)


@pytest.mark.claim(
    id="format-bytes",
    source="ours",
    phrase="bytes per element at density d: Tiled-CSL 4 d, bitmap 2 d + 1/8, CSR 6 d or 4 d, 2:4 9/8",
    assumption="offsets and pads come on top: under 0.01 for tiles of these sizes, 4 / K for CSR's row pointers",
    function="loadsparse.reference.formats.SparseFormat.nbytes",
    status="counted",
)
@pytest.mark.parametrize("density", [0.5, 0.3, 0.2, 0.1])
def test_bytes_per_element(density: float) -> None:
    dense = random_matrix(512, 1024, density)
    d = np.count_nonzero(dense.view(np.uint16)) / dense.size
    for encoded, wanted, more in [
        (TiledCSL.encode(dense), 4 * d, 0.002),
        (Bitmap.encode(dense), 2 * d + 0.125, 0.005),
        (CSR.encode(dense), 6 * d, 0.005),
        (CSR.encode(dense, index_dtype=np.uint16), 4 * d, 0.005),
        (TwoFour.encode(TwoFour.split(dense)[0]), 1.125, 0.0),
    ]:
        assert 0 <= encoded.nbytes / dense.size - wanted <= more


def test_csr_too_large_to_decode(tmp_path: Path) -> None:
    """A small file may describe a matrix beyond any memory; it is refused in one line."""
    rows = 2**20
    csr = CSR((rows, 2**31 - 1), "f16", np.zeros(rows + 1, np.int32), np.zeros(0, np.int32), np.zeros(0, np.uint16))
    csr.save(tmp_path / "x")
    with pytest.raises(FormatError, match="fit into memory"):
        CSR.load(tmp_path / "x").decode()


def test_header_of_any_length_is_read(tmp_path: Path) -> None:
    """Lengths are multiples of 64: one that ends in the byte 0x80 must not be taken for the start of a pickle."""
    lengths = set()
    for size in range(0, 1000, 50):
        container.write(tmp_path / "x", {"a": np.arange(3)}, {"note": "n" * size})
        lengths.add(int.from_bytes((tmp_path / "x").read_bytes()[:8], "little") % 256)
        assert container.read(tmp_path / "x")[1] == {"note": "n" * size}
    assert 0x80 in lengths


def test_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="object"):
        container.write(tmp_path / "x", {"a": np.array([None])}, {})

    def stop(file: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        container.replace_file(tmp_path / "x", stop)
    assert list(tmp_path.iterdir()) == []


def test_names() -> None:
    assert {cls.__name__ for cls in FORMATS} <= set(formats.__all__)
    assert all(dataclasses.is_dataclass(cls) for cls in FORMATS)
