"""The comparison that `loadsparse balance` prints, against the slow oracles."""

from pathlib import Path

import numpy as np
import pytest

from loadsparse.reference import balancing, routing
from loadsparse.theory import compare, lagrangian, linear_program, score_laws


def test_rows_against_the_oracles() -> None:
    rng = np.random.default_rng(0)
    scores = score_laws.skewed(6).sample(rng, 40)
    rows = compare.compare(scores, 2, ["sign", "proportional"], steps=5)
    best = linear_program.solve(scores, 2, 13, 14).value
    for name in ("sign", "proportional"):
        balancer = balancing.get(name, 2)
        state, step = balancer.init(6), 0
        for row in [r for r in rows if r.balancer == name]:
            while step < row.step:
                state = balancer.step(state, routing.loads(routing.top_k(scores, 2, state.bias), 6))
                step += 1
            choices = routing.top_k(scores, 2, state.bias)
            assert row.max_violation == routing.max_violation(routing.loads(choices, 6))
            assert row.score == pytest.approx(lagrangian.value(scores, choices), rel=1e-12)
            assert row.dual == pytest.approx(lagrangian.dual(scores, 2, state.bias), rel=1e-12)
            assert row.dual_gap == pytest.approx(row.dual / best - 1, abs=1e-9)
            assert row.kept == pytest.approx(row.score / best, rel=1e-9)
    assert rows[-1].balancer == "optimum"
    assert rows[-1].kept == 1.0
    assert rows[-1].dual_gap == pytest.approx(0, abs=1e-12)


def test_every_balancer_improves_a_skewed_matrix() -> None:
    scores = score_laws.skewed(16).sample(np.random.default_rng(1), 2000)
    calls: list[tuple[int, int]] = []
    rows = compare.compare(
        scores, 4, steps=40, batch=500, seed=3, progress=lambda done, total: calls.append((done, total))
    )
    for name in balancing.BALANCERS:
        mine = [r for r in rows if r.balancer == name]
        assert mine[0].step == 0
        assert mine[-1].step == 40
        assert mine[-1].max_violation < mine[0].max_violation
        assert mine[-1].dual_gap >= -1e-12
    assert calls[-1] == (240, 240)
    again = compare.compare(scores, 4, ["sign"], steps=40, batch=500, seed=3)
    assert again[:-1] == [r for r in rows if r.balancer == "sign"]


def test_streams_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = score_laws.Uniform(8).sample(np.random.default_rng(2), 1000)
    np.save(tmp_path / "s.npy", scores)
    whole = compare.compare(scores, 2, ["quantile"], steps=3)
    monkeypatch.setattr(compare, "BLOCK", 64)
    mapped = score_laws.load(tmp_path / "s.npy")
    assert isinstance(mapped, np.memmap)
    parts = compare.compare(mapped, 2, ["quantile"], steps=3)
    for a, b in zip(whole, parts, strict=True):
        assert (a.balancer, a.step, a.max_violation) == (b.balancer, b.step, b.max_violation)
        assert a.dual == pytest.approx(b.dual, rel=1e-12)
    assert compare.compare(mapped, 2, ["sign"], steps=1, exact=False)[-1].kept is None


def test_files_are_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 3)), b=np.ones((2, 3)))
    assert score_laws.load(tmp_path / "two.npz", "b").sum() == 6
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "object.npy", np.asarray([[{}]], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'")
    for name, key, message in [
        ("two.npz", None, "holds 2 arrays"),
        ("two.npz", "c", "c"),
        ("flat.npy", None, "shape"),
        ("object.npy", None, "cannot read"),
        ("cut.npy", None, "cannot read"),
        ("none.npy", None, "cannot read"),
    ]:
        with pytest.raises(ValueError, match=message):
            score_laws.load(tmp_path / name, key)


@pytest.mark.parametrize(
    ("scores", "k", "options", "message"),
    [
        (np.zeros((3, 4)), 4, {}, "below the number of experts"),
        (np.full((3, 4), np.nan), 1, {}, r"scores\[0, 0\] is nan"),
        (np.zeros(3), 1, {}, "matrix"),
        (np.zeros((0, 4)), 1, {}, "no tokens"),
        (np.zeros((3, 4)), 1, {"balancers": ["magic"]}, "unknown balancer"),
        (np.zeros((3, 4)), 1, {"steps": -1}, "steps"),
    ],
)
def test_bad_input_is_refused_by_name(scores: np.ndarray, k: int, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare.compare(scores, k, **options)  # type: ignore[arg-type]
