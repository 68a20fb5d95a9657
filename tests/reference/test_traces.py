"""The packaged routing traces, and files that are none."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadsparse.reference import routing, traces


def test_packaged_traces_are_the_routing_of_their_scores() -> None:
    """Up to tokens that the rounding of scores to float16 moved across a boundary."""
    found = traces.load()
    assert {name.split("/")[0] for name in found} >= {"none", "loss-1e-2", "sign-1e-3"}
    for name, trace in found.items():
        assert name == trace.name
        assert trace.scores.shape == (1024, 64)
        again = routing.top_k(trace.scores, trace.k, trace.bias)
        moved = (np.sort(again, axis=1) != np.sort(trace.choices, axis=1)).any(axis=1)
        assert moved.mean() < 0.05
        at = np.take_along_axis(trace.scores + trace.bias, trace.choices, axis=1)
        kept = np.take_along_axis(trace.scores + trace.bias, again, axis=1)
        assert np.abs(at - kept).max() < 2.0**-11  # half a unit of float16 below 1, at each end
        assert np.ptp(trace.bias) > 0 or not name.startswith(("sign", "quantile"))
    assert routing.max_violation(found["none/2"].loads) > 3 * routing.max_violation(found["sign-1e-3/2"].loads)
    file = Path(traces.__file__).parent / "data" / "deepseekmoe_traces.npz"
    assert file.stat().st_size <= 2_000_000


def test_saved_traces_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((9, 300)).astype(np.float16)  # more experts than uint8 counts
    one = traces.Trace("a/1", scores, routing.top_k(scores, 3), rng.normal(size=300))
    traces.save(tmp_path / "t.npz", {"a/1": one})
    back = traces.get("a/1", tmp_path / "t.npz")
    for field in ("scores", "choices", "bias"):
        np.testing.assert_array_equal(getattr(back, field), getattr(one, field))
    with pytest.raises(ValueError, match="unknown trace 'b'; known: a/1"):
        traces.get("b", tmp_path / "t.npz")


def test_a_text_names_a_trace_of_a_file(tmp_path: Path) -> None:
    one = traces.Trace("a/1", np.eye(4, dtype=np.float16), np.arange(4)[:, None], np.zeros(4))
    traces.save(tmp_path / "c:t.npz", {"a/1": one})
    assert (traces.find(f"{tmp_path / 'c:t.npz'}:a/1").scores == one.scores).all()
    with pytest.raises(ValueError, match="no file of traces"):
        traces.find(f"{tmp_path / 'none.npz'}:a/1")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("scores", np.ones((3, 4), complex), "scores has dtype complex128, expected floats"),
        ("scores", np.full((3, 4), 1e30), "scores must be finite"),
        ("choices", np.zeros((3, 2)), "choices has dtype float64, expected integers"),
        ("choices", np.ones((3, 2), int), "chooses one expert twice"),
        ("choices", np.array([[0, 4]] * 3), "must lie in 0..3"),
        ("bias", np.full(4, np.nan), "finite"),
        ("bias", np.array([None] * 4), "Object arrays"),
    ],
)
def test_bad_arrays_of_a_stranger_are_refused(name: str, value: np.ndarray, said: str, tmp_path: Path) -> None:
    """With nothing but the error: no warning about casts."""
    good = {"scores": np.eye(3, 4), "choices": np.array([[0, 1]] * 3), "bias": np.zeros(4)}
    arrays = {f"a/1/{key}": array for key, array in {**good, name: value}.items()}
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(ValueError, match=said):
        traces.load(tmp_path / "t.npz")


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = traces.Trace("a/1", np.zeros((1000, 4), np.float16), np.zeros((1000, 1), np.int64), np.zeros(4))
    traces.save(tmp_path / "t.npz", {"a/1": one})
    monkeypatch.setattr(traces, "MOST_BYTES", 5000)
    with pytest.raises(ValueError, match="unpacked it has more than 5000 bytes"):
        traces.load(tmp_path / "t.npz")


def test_what_does_not_fit_is_refused() -> None:
    scores = np.zeros((3, 4), np.float16)
    good = traces.Trace("x/1", scores, np.zeros((3, 1), np.int64), np.zeros(4))
    for wrong in (
        {"choices": np.zeros((2, 1), np.int64)},
        {"choices": np.full((3, 1), 4)},
        {"bias": np.zeros(3)},
        {"scores": np.full((3, 4), np.nan, np.float16)},
    ):
        with pytest.raises(ValueError, match=r"shape|lie|finite"):
            replace(good, **wrong)


def stored(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        stored(other=np.zeros(3)),
        stored(**{"a/1/scores": np.zeros((2, 3))}),
        stored(**{"a/1/scores": np.asarray([{}], dtype=object)}),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(ValueError, match="is no file of traces"):
        traces.load(tmp_path / "t.npz")
    with pytest.raises(ValueError, match="is no file of traces"):
        traces.load(tmp_path / "missing.npz")
