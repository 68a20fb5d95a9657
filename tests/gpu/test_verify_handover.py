"""A stranger's kernel file: only data comes back, within limits, and every fault is one line that names its place."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadsparse.gpu.verify import InputError, child, handover

PTX = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f(.param .u64 p){ ret; }\n"
GOOD: dict[str, Any] = {"ptx": PTX, "grid": (2, 3), "block": 64, "args": ["a", "b", "c", 7, 1.5]}
A = np.arange(12, dtype=np.float16).reshape(3, 4)

BAD: list[tuple[Any, str]] = [
    (None, "return a dict"),
    ({**GOOD, "pxt": ""}, "unknown key 'pxt'"),
    ({key: GOOD[key] for key in ("grid", "block", "args")}, "lacks 'ptx'"),
    ({**GOOD, "ptx": b"x"}, "ptx is a bytes"),
    ({**GOOD, "ptx": PTX + PTX.replace("f(", "g(")}, "2 entries"),
    ({**GOOD, "entry": "a b"}, "no PTX name"),
    ({**GOOD, "grid": 0}, "grid is 0"),
    ({**GOOD, "grid": (1, 70000)}, "grid is 70000"),
    ({**GOOD, "grid": (1, 1, 1, 1)}, "1 to 3 integers"),
    ({**GOOD, "block": 2048}, "block is 2048"),
    ({**GOOD, "block": True}, "block is True"),
    ({**GOOD, "shared": -1}, "shared is -1"),
    ({**GOOD, "args": ["d"]}, "names 'd'"),
    ({**GOOD, "args": [object()]}, "args.0. is a object"),
    ({**GOOD, "args": ["a", "b"]}, "no step takes 'c'"),
    ({**GOOD, "arrays": {"b": A}}, "are taken"),
    ({**GOOD, "arrays": {"w": [1, 2]}}, "is list"),
    ({**GOOD, "arrays": {"w": np.array([None])}}, "is object"),
    ({**GOOD, "scratch": {"w": ("float32", 0)}}, "scratch.'w'. is 0"),
    ({**GOOD, "scratch": {"w": ("str", 4)}}, "has type"),
    ({**GOOD, "steps": []}, "both steps and"),
    ({"steps": []}, "1 to 16 dicts"),
    ({"steps": [3]}, "is a int"),
    ({**GOOD, "out": "f64"}, "out is 'f64'"),
    ({**GOOD, "semantics": "magic"}, "semantics is"),
    ({**GOOD, "splits": [(0, 2)]}, "cover columns 0 to 4"),
    ({**GOOD, "splits": [(0, 2), (3, 4)]}, "without gaps"),
    ({**GOOD, "splits": [(0, 5000)]}, "they end at 5000"),
    ({**GOOD, "splits": 4}, "list of"),
    ({**GOOD, "out": np.arange(3)}, r"out is array\(\[0, 1, 2\]\)"),
    ({**GOOD, "semantics": np.array([])}, "semantics is array"),
    ({**GOOD, "block": np.ma.array([1, 2])}, "block is masked_array"),  # whose repr has several lines
    ({**GOOD, "entry": "x" * 10_000}, r"entry 'x+\.\.\. is no PTX name"),
]


@pytest.mark.parametrize(("raw", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_description_is_refused(raw: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        handover.check(raw, 4)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_description_survives_the_process_boundary(tmp_path: Path) -> None:
    raw = {
        **GOOD,
        "arrays": {"packed": np.arange(5, dtype=np.uint32)},
        "scratch": {"partials": ("float32", 12)},
        "out": "f32",
        "semantics": "stored",
        "splits": [(0, 2), (2, 4)],
    }
    sent = handover.check(raw, 4)
    handover.write(sent, tmp_path)
    read = handover.read(tmp_path, 4)
    assert read.steps == sent.steps
    assert (read.scratch, read.out, read.semantics, read.splits) == (sent.scratch, "f32", "stored", sent.splits)
    np.testing.assert_array_equal(read.arrays["packed"], np.arange(5))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda folder: (folder / "launch.json").write_text("{"), "no JSON"),
        (lambda folder: (folder / "launch.json").write_text("[" * 100_000), "no JSON"),
        (lambda folder: (folder / "launch.json").write_text("[]"), "no dict"),
        (lambda folder: (folder / "launch.json").unlink(), "no launch description"),
        (lambda folder: (folder / "0.npy").write_bytes((folder / "0.npy").read_bytes()[:-1]), "cannot be read"),
        (lambda folder: np.save(folder / "0.npy", np.array([{}]), allow_pickle=True), "cannot be read"),
        (lambda folder: (folder / "0.npy").unlink(), "no file of the hand-over"),
    ],
)
def test_tampered_hand_over_is_refused(edit: Any, message: str, tmp_path: Path) -> None:
    """The child writes these files: the parent trusts none of them."""
    handover.write(handover.check({**GOOD, "arrays": {"w": np.arange(9)}}, 4), tmp_path)
    edit(tmp_path)
    with pytest.raises(InputError, match=message):
        handover.read(tmp_path, 4)


def test_paths_outside_the_folder_are_refused(tmp_path: Path) -> None:
    handover.write(handover.check({**GOOD, "arrays": {"w": np.arange(9)}}, 4), tmp_path)
    description = json.loads((tmp_path / "launch.json").read_text())
    for name in ("../0.npy", "/etc/passwd", "0.npy/../0.npy"):
        (tmp_path / "launch.json").write_text(json.dumps({**description, "arrays": {"w": name}}))
        with pytest.raises(InputError, match="no file of the hand-over"):
            handover.read(tmp_path, 4)


FILE = f"""
PTX = {PTX!r}
def good(a, n, arch):
    print("noise on stdout")
    m, k = a.shape
    return dict(ptx=PTX, grid=(m, n), block=64, args=["a", "b", "c", m, n, k], arrays={{"packed": a[a != 0]}})
def endless(a, n, arch):
    while True:
        pass
def hungry(a, n, arch):
    return bytearray(64 << 30)
def failing(a, n, arch):
    return dict(ptx=PTX, grid=(rows, n), block=64)
def dying(a, n, arch):
    import os
    os._exit(7)
def leaving(a, n, arch):
    raise SystemExit(0)
def second(a, n, arch):
    if n == 2:
        raise ValueError("N must be odd")
    return good(a, n, arch)
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_submission_is_handed_over(mine: Path) -> None:
    first, second = child.submissions(mine, "good", [(A, 2), (A[:2], 5)], "sm_80")
    assert first.steps[0].grid == (3, 2, 1)
    assert second.steps[0].args == ("a", "b", "c", 2, 5, 4)
    np.testing.assert_array_equal(first.arrays["packed"], A[A != 0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("failing", "mine.py:failing on A 3 x 4, N = 2: line 13: NameError: name 'rows' is not defined"),
        ("dying", "ended with exit code 7"),
        ("leaving", "line 18: SystemExit"),
        ("second", "line 21: ValueError: N must be odd"),
        ("nothing", "no function 'nothing'; it has dying, endless, failing"),
    ],
)
def test_failing_submission_is_one_line(name: str, message: str, mine: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        child.submissions(mine, name, [(A, 1), (A, 2)] if name == "second" else [(A, 2)], "sm_80")
    assert "\n" not in str(caught.value)


def test_syntax_error_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("x = 1\ndef kernel(:\n")
    with pytest.raises(InputError, match="line 2: SyntaxError"):
        child.submissions(path, "kernel", [(A, 2)], "sm_80")


def test_time_limit_ends_the_process(mine: Path) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=r"longer than 1\.5 s"):
        child.submissions(mine, "endless", [(A, 2)], "sm_80", time_limit=1.5)
    assert time.monotonic() - started < 30


@pytest.mark.skipif(os.name != "posix", reason="Windows has no limit of address space")
def test_memory_limit_ends_the_attempt(mine: Path) -> None:
    with pytest.raises(InputError, match="line 11: MemoryError"):
        child.submissions(mine, "hungry", [(A, 2)], "sm_80", memory_limit=2**32)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        child.submissions(tmp_path / "none.py", "kernel", [(A, 2)], "sm_80")
