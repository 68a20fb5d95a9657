"""The packaged kernels are what the compiler makes of today's sources; a damaged or foreign archive is one error."""

from __future__ import annotations

import ast
import json
import pickle
import random
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import shelf as maker

from loadsparse.gpu import compiler, kernels
from loadsparse.gpu.kernels import parts, shelf
from loadsparse.reference import spmm

MEND = "the shelf of compiled kernels is not current: make shelf"


@pytest.fixture
def other_shelf(tmp_path, monkeypatch):
    """A shelf of the test's own, not there yet."""
    monkeypatch.setattr(shelf, "SHELF", tmp_path / "shelf.zip")
    monkeypatch.setattr(shelf, "entries", shelf.entries.__wrapped__)
    return tmp_path / "shelf.zip"


def write(path: Path, **members: object) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in members.items():
            archive.writestr(f"{name}.compiled.json", value if isinstance(value, (bytes, str)) else json.dumps(value))


def test_it_holds_what_is_wanted_in_the_current_form() -> None:
    assert shelf.member("about.json") == maker.compilers(), MEND
    held = {name: sorted(shelf.entries(name)) for name in maker.FUNCTIONS}
    assert held == maker.wanted(), MEND
    assert shelf.SHELF.stat().st_size < 500_000


@pytest.mark.parametrize("name", maker.FUNCTIONS)
def test_a_fresh_compilation_makes_the_same_bytes(name: str) -> None:
    key = random.Random(f"shelf {name}").choice(sorted(shelf.entries(name)))
    assert not maker.stale(name, key), f"{MEND} ({name} {key})"


def test_no_folder_of_the_maker_is_in_it() -> None:
    for name in maker.FUNCTIONS:
        for text in shelf.entries(name).values():
            files = [line.split('"')[1] for line in text.splitlines() if line.lstrip().startswith(".file")]
            assert files
            assert all(file.startswith("gpu/") and (shelf.PACKAGE / file).exists() for file in files)
            assert str(shelf.PACKAGE) in shelf.with_places(text)
            assert shelf.without_places(shelf.with_places(text)) == text


def imports(path: Path) -> set[str]:
    """Modules of gpu/kernels that a source imports, from its syntax tree."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            found |= {
                name.removeprefix("loadsparse.gpu.kernels.").partition(".")[0] for name in names if "kernels." in name
            }
    return {name for name in found if (shelf.PACKAGE / "gpu" / "kernels" / f"{name}.py").exists()}


@pytest.mark.parametrize("module", sorted({name.partition(".")[0] for name in maker.FUNCTIONS}))
def test_the_digest_covers_every_module_that_a_kernel_imports(module: str, tmp_path, monkeypatch) -> None:
    folder, reached, waiting = shelf.PACKAGE / "gpu" / "kernels", set(), {module}
    while waiting:
        reached |= waiting
        waiting = {name for one in waiting for name in imports(folder / f"{one}.py")} - reached
    covered = shelf.sources(module)
    assert {path.stem for path in covered if path.parent == folder} == reached - {"shelf"}
    assert {"compiler.py", "intrinsics.py", "tiled_csl.py", "lane_bitmap.py"} <= {path.name for path in covered}
    for path in covered:
        copy = tmp_path / path.relative_to(shelf.PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    before = shelf.digest(module)
    monkeypatch.setattr(shelf, "PACKAGE", tmp_path)
    assert shelf.digest(module) == before
    for path in shelf.sources(module):
        text = path.read_text()
        path.write_text(f"{text} ")
        assert shelf.digest(module) != before, path
        path.write_text(text)


def test_what_is_stale_or_missing_is_compiled(other_shelf) -> None:
    key = '{"dtype": "f16", "panels": 1, "splits": 2, "paired": true, "arch": "sm_80"}'
    build = parts.reduction.__wrapped__
    assert ".entry reduce_splits" in build("f16", 1, 2, True, "sm_80")
    member = {"digest": shelf.digest("parts"), "ptx": {key: "from the shelf"}}
    with zipfile.ZipFile(other_shelf, "w") as archive:
        archive.writestr("parts.reduction.json", json.dumps(member))
    assert build("f16", 1, 2, True, "sm_80") == "from the shelf"
    assert ".entry reduce_splits" in build("f16", 1, 2, False, "sm_80")
    with zipfile.ZipFile(other_shelf, "w") as archive:
        archive.writestr("parts.reduction.json", json.dumps({**member, "digest": "0" * 64}))
    assert ".entry reduce_splits" in build("f16", 1, 2, True, "sm_80")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", b"PK\x03\x04" + bytes(60), pickle.dumps(Trap())],
    ids=["empty", "text", "head alone", "pickle"],
)
def test_what_is_no_archive_is_one_error(other_shelf, content: bytes) -> None:
    other_shelf.write_bytes(content)
    refused()


@pytest.mark.parametrize(
    "member",
    ["", "[]", "{}", '{"digest": 1, "ptx": {}}', '{"digest": "", "ptx": []}', '{"digest": "", "ptx": {"a": 1}}', "[" * 100_000,
     b"\xff\xfe", pickle.dumps(Trap())],
    ids=["empty", "list", "no keys", "digest", "ptx", "text", "deep", "bytes", "pickle"],
)  # fmt: skip
def test_a_member_that_is_no_table_is_one_error(other_shelf, member: str | bytes) -> None:
    write(other_shelf, lscd=member)
    refused()


def test_damage_anywhere_is_one_error_or_none(other_shelf) -> None:
    whole = (Path(shelf.__file__).parent / "shelf.zip").read_bytes()
    rng = np.random.default_rng(3)
    for cut in rng.integers(1, len(whole), 10).tolist():
        other_shelf.write_bytes(whole[:cut])
        refused()
    errors = 0
    for at in rng.integers(0, len(whole), 40).tolist():
        changed = bytearray(whole)
        changed[at] ^= 1 << int(rng.integers(8))
        other_shelf.write_bytes(bytes(changed))
        with suppress(compiler.CompileError):
            shelf.entries("lscd.compiled")
            continue
        refused()
        errors += 1
    assert errors


def test_a_member_that_unpacks_to_too_much_is_refused(other_shelf, monkeypatch) -> None:
    monkeypatch.setattr(shelf, "LARGEST", 1000)
    write(other_shelf, lscd=json.dumps({"digest": "", "ptx": {"a": "x" * 2000}}))
    refused("would unpack to")


def refused(reason: str = "") -> None:
    with pytest.raises(compiler.CompileError, match=rf"shelf\.zip.* is damaged: .*{reason}.*reinstall") as caught:
        shelf.entries("lscd.compiled")
    assert "\n" not in str(caught.value)


def test_a_kernel_from_the_shelf_computes(monkeypatch) -> None:
    monkeypatch.setattr(compiler, "numba", None)
    maker.forget()
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((128, 128), (128, 8)))
    lscd = kernels.get("lscd")
    launch = lscd.plan(lscd.encode(a), b)
    product, report = launch.run()
    maker.forget()
    assert report.ok
    assert np.array_equal(product, spmm.lscd(a, b, arch="sm_80", splits=launch.splits))
