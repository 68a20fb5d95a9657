"""The grouped kernel: every expert's columns equal its own oracle in every bit, in one launch, with the work shared out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from loadsparse.gpu import kernels, targets, verify
from loadsparse.gpu.kernels import parts, worklist
from loadsparse.gpu.perfmodel.moe import Routing, loads
from loadsparse.gpu.verify.experts import ExpertCase, deal, judge_experts
from loadsparse.gpu.verify.inputs import random_case
from loadsparse.reference import spmm

GROUPED = pytest.mark.claim(
    id="grouped-exact",
    source="ours",
    phrase="the products of all experts of a layer in one launch, bit for bit, whatever number of tokens each has",
    assumption="executed by the simulator, not by a GPU; the inputs judged",
    function="loadsparse.gpu.kernels.grouped.Grouped.plan",
    status="proved",
)


def layer(e: int, m: int, k: int, tokens: int, density: float, dtype: str = "f16", seed: int = 0) -> tuple[Any, Any]:
    """E sparse matrices [E, M, K] and tokens [K, N]."""
    rng = np.random.default_rng(seed)
    a = np.where(rng.random((e, m, k)) < density, rng.standard_normal((e, m, k)), 0).astype(np.float32)
    b = rng.standard_normal((k, tokens)).astype(np.float32)
    if dtype == "f16":
        return a.astype(np.float16), b.astype(np.float16)
    return (a.view(np.uint32) >> 16).astype(np.uint16), (b.view(np.uint32) >> 16).astype(np.uint16)


def judged(name: str, a: Any, b: Any, counts: Sequence[int], dtype: str = "f16", **how: Any) -> verify.Row:
    kernel = kernels.get(name)
    arch, split_k = how.pop("arch", "sm_80"), how.pop("split_k", None)
    launch = kernel.plan(kernel.encode(a, dtype), b, counts, arch, split_k)  # type: ignore[arg-type, call-arg]
    case = ExpertCase("experts", a, b, dtype, "", tuple(counts))
    row = verify.judge_launch(launch, case, kernel=name, engine="interpreter", **how)
    assert [getattr(row, field) for field in verify.FIELDS] == [True] * 4, row.failures
    assert row.rows_exact == a.shape[1]
    return row


CASES = [
    # m, k, density, counts, dtype, arch, split_k: empty experts, one expert, all tokens on one, ragged rows and tiles
    ("lscd", 70, 100, 0.3, (3, 0, 17, 1), "f16", "sm_80", 2),
    ("bitmap", 70, 100, 0.3, (3, 0, 1), "f16", "sm_80", 2),
    ("lscd", 130, 65, 0.5, (9,), "f16", "sm_90", 1),
    ("bitmap", 40, 130, 0.1, (0, 12, 0), "bf16", "sm_80", 1),
    ("lscd", 128, 64, 0.2, (2, 8, 4), "f16", "sm_80", 1),
    ("lscd", 20, 64, 0.2, (70, 1), "f16", "sm_80", 1),
    ("bitmap", 1, 1, 1.0, (1, 0, 1), "f16", "sm_80", None),
]


@GROUPED
@pytest.mark.parametrize(("kind", "m", "k", "density", "counts", "dtype", "arch", "split_k"), CASES)
def test_exact_accurate_clean_complete(
    kind: str, m: int, k: int, density: float, counts: tuple[int, ...], dtype: str, arch: str, split_k: int | None
) -> None:
    a, b = layer(len(counts), m, k, sum(counts), density, dtype, seed=m + k)
    judged(f"grouped_{kind}", a, b, counts, dtype, arch=arch, split_k=split_k)


@pytest.mark.parametrize("name", kernels.GROUPED)
def test_infinities_stay_with_their_expert(name: str) -> None:
    """Columns of another expert, which share a tile of B's buffer with nothing, must not see its NaN."""
    a, b = layer(3, 20, 40, 6, 0.3)
    a[1, 3, 5], b[9, 3] = np.inf, np.nan
    kernel = kernels.get(name)
    launch = kernel.plan(kernel.encode(a), b, [3, 2, 1])  # type: ignore[arg-type]
    c, report = launch.run("interpreter")
    assert report.ok, report.hazards
    assert np.array_equal(c, spmm.grouped(a, b, [3, 2, 1], arch="sm_80", splits=launch.splits), equal_nan=True)
    assert np.isfinite(c[:, [0, 1, 2, 5]]).all()
    assert np.isnan(c[3, 3:5]).any()


@pytest.mark.parametrize("name", ["grouped_lscd"])
def test_a_wrong_work_list_is_found(name: str) -> None:
    """The judge must see a block that takes another expert's weights, columns or rows, or that is missing."""
    a, b = layer(2, 30, 64, 6, 0.3)
    counts = (4, 2)
    kernel = kernels.get(name)
    launch = kernel.plan(kernel.encode(a), b, counts, split_k=1)  # type: ignore[call-arg, arg-type]
    case = ExpertCase("experts", a, b, "f16", "", counts)

    def broken(row: int, word: int, value: int) -> verify.Row:
        work = launch.buffers["work"].copy()
        work[row, word] = value
        wrong = dataclasses.replace(launch, buffers={**launch.buffers, "work": work})
        return verify.judge_launch(wrong, case, kernel=name, engine="interpreter", explained=False)

    assert launch.buffers["work"][1].tolist() in ([1, 0, 8, 4, 256 + 2, 0, 1, 0], [0, 0, 0, 0, 256 + 4, 0, 1, 0])
    other = 1 - int(launch.buffers["work"][1, 0])
    assert not broken(1, 0, other).accurate  # the other expert's weights
    assert not broken(1, 2, 8 - int(launch.buffers["work"][1, 2])).accurate  # the other expert's tokens
    unwritten = broken(1, 4, 256)  # no columns of its one panel
    assert (unwritten.complete, unwritten.clean) == (False, True)


def test_judge_names_the_expert_column() -> None:
    a, b = layer(2, 5, 8, 4, 1.0)
    c = spmm.grouped(a, b, [1, 3], arch="sm_80")
    assert judge_experts(c, a, b, [1, 3], arch="sm_80", splits=[[(0, 8)]] * 2).ok
    c[2, 3] += np.float16(1)
    found = judge_experts(c, a, b, [1, 3], arch="sm_80", splits=[[(0, 8)]] * 2)
    assert (found.exact, found.accurate, found.mismatches) == (False, False, 1)
    assert found.first is not None
    assert (found.first.row, found.first.column) == (2, 3)


@pytest.mark.parametrize("experts", [1, 2, 4])
def test_dealt_cases_keep_every_token(experts: int) -> None:
    for seed in range(20):
        case = deal(random_case(seed), seed, experts)
        assert sum(case.counts) == case.b.shape[1]
        assert len(case.counts) == len(case.a) == experts
        assert experts == 1 or 0 in case.counts


@pytest.mark.claim(
    id="grouped-balance",
    source="ours",
    phrase="however unequal the experts' tokens, the busiest multiprocessor has at most one block more to do than the mean",
    assumption="work is counted instructions of blocks, handed out in order of the list to whoever is free; caches and "
    "latency are not simulated; tests/benchmarks/bench_grouped.py has a layer of 64 experts on 108 multiprocessors",
    function="loadsparse.gpu.kernels.grouped.Grouped.plan",
    status="counted",
)
def test_unequal_experts_share_the_multiprocessors() -> None:
    """Six experts with 0 to 150 tokens on 5 multiprocessors; an expert each would leave most of them idle."""
    counts, sms = (1, 0, 150, 3, 9, 2), 5
    a, b = layer(6, 256, 64, sum(counts), 0.2)
    kernel = kernels.get("grouped_lscd")
    launch = kernel.plan(kernel.encode(a), b, counts, split_k=1)  # type: ignore[call-arg]
    panels, counted = launch.buffers["work"][:, 4] // 256, {}
    for width in np.unique(panels).tolist():
        item = int(np.flatnonzero(panels == width)[0])
        buffers = {**launch.buffers, "work": launch.buffers["work"][item : item + 1]}
        one = dataclasses.replace(launch.steps[0], grid=(1, 1, 1))
        _, report = dataclasses.replace(launch, buffers=buffers, steps=(one,)).run("interpreter")
        counted[width] = report.instructions
    costs = [counted[width] for width in panels.tolist()]
    _, work = worklist.schedule(costs, sms)
    assert work.max() <= work.mean() + max(costs)
    by_expert = np.bincount(launch.buffers["work"][:, 0] // 2, weights=costs, minlength=6)
    assert worklist.imbalance(by_expert) > 2
    narrow, half, whole = (counted[width] for width in (1, 4, 8))
    assert narrow + 60 < half < whole - 60  # empty panels are skipped


def test_profile_and_trace_know_grouped_kernels() -> None:
    job, sources = targets.resolve("grouped_lscd", shape=(64, 6, 64))
    assert "lscd.py" in sources
    assert job.steps[0].entry == "grouped_lscd"


def planned(counts: Sequence[int], m: int, k: int, sms: int, format: str = "lscd") -> tuple[Any, float]:
    """Factor of K for every expert, and the busiest of `sms` multiprocessors over the mean; costs as `grouped` has them, with
    the partials' left out of the work."""
    rows, resident, overhead = {"lscd": (128, 3, 7.5), "bitmap": (512, 1, 15.0)}[format]
    panels = min(-(-max(counts) // 8), 8)
    items = worklist.divide(counts, m, rows, 8 * panels)
    owner = np.array([item.expert for item in items])
    used = np.array([parts.narrowest(worklist.panels(item), panels) for item in items])
    step = overhead + used
    splits = worklist.choose_splits(owner, step, 0.4 * used * step, -(-k // 64), sms, resident)
    item, first, last = worklist.parts_of(splits[owner], -(-k // 64)).T
    _, work = worklist.schedule(np.sort(step[item] * (last - first))[::-1].tolist(), sms)
    return splits, worklist.imbalance(work)


def test_split_fills_what_few_items_leave_idle() -> None:
    assert (planned([8] * 128, 2816, 2048, 108)[0] == 1).all()  # 2816 items are more than enough
    assert planned([9], 512, 2048, 108)[0].tolist()[0] > 4
    assert planned([1], 128, 64, 108)[0].tolist() == [1]
    long, short = planned([64, 1], 512, 4096, 108)[0].tolist()
    assert long > short > 1  # each expert as its own items need


@pytest.mark.parametrize("sms", [108, 132])
@pytest.mark.parametrize("experts", [8, 64])
def test_skewed_loads_are_shared_evenly(experts: int, sms: int) -> None:
    rank = 1 / np.arange(1, experts + 1)
    loads = [
        (512, *[1] * (experts - 1)),
        (3, *[0] * (experts - 2), 1),
        tuple(np.random.default_rng(experts).multinomial(512, rank / rank.sum()).tolist()),
    ]
    for counts in loads:
        assert planned(counts, 2816, 2048, sms)[1] < 1.1, counts


def test_tall_blocks_that_end_last_together_are_split() -> None:
    """3 or 4 blocks for each of 108 multiprocessors: that one of many ends sooner does not help yet."""
    counts = loads(64, 64, 6, Routing("1/rank")).tolist()
    assert planned(counts, 2816, 512, 108, "bitmap")[1] < 1.1


def test_every_form_of_a_wide_kernel_is_exact() -> None:
    """Experts of one to eight panels in one launch, some with K split and some without."""
    counts = (60, 1, 30, 0, 12, 7)
    a, b = layer(len(counts), 130, 192, sum(counts), 0.3)
    kernel = kernels.get("grouped_lscd")
    launch = kernel.plan(kernel.encode(a), b, counts, split_k=3)  # type: ignore[call-arg, arg-type]
    c, report = launch.run()
    assert report.ok, report.hazards
    assert set((launch.buffers["work"][:, 4] // 256).tolist()) == {1, 2, 4, 8}
    assert np.array_equal(c, spmm.grouped(a, b, counts, arch="sm_80", splits=launch.splits))


BAD = [
    ([1, 2, 3], "counts must be 2 integers"),
    ([1, 2], "add up to the 4 columns"),
    ([5, -1], "at least 0"),
    ([1.5, 2.5], "counts must be 2 integers"),
    (4, "counts must be 2 integers"),
]


@pytest.mark.parametrize(("counts", "message"), BAD)
def test_bad_counts_are_one_line(counts: Any, message: str) -> None:
    a, b = layer(2, 4, 8, 4, 0.5)
    kernel = kernels.get("grouped_lscd")
    with pytest.raises(ValueError, match=message) as refusal:
        kernel.plan(kernel.encode(a), b, counts)
    assert "\n" not in str(refusal.value)


def test_bad_experts_are_one_line() -> None:
    kernel = kernels.get("grouped_bitmap")
    with pytest.raises(ValueError, match="expert 1 is 4 x 9 but expert 0 is 4 x 8"):
        kernel.encode([np.zeros((4, 8), np.float16), np.zeros((4, 9), np.float16)])
    with pytest.raises(ValueError, match="one expert or more"):
        kernel.encode([])
    with pytest.raises(ValueError, match="B has no columns"):
        kernel.plan(kernel.encode([np.ones((4, 8), np.float16)]), np.zeros((8, 0), np.float16), [0])


def test_items_cover_every_product_once() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        counts = rng.integers(0, 30, rng.integers(1, 9)).tolist()
        m, rows, columns = (int(rng.integers(1, 300)), 128, 8 * int(rng.integers(1, 4)))
        covered = [np.zeros((m, count), int) for count in counts]
        for item in worklist.divide(counts, m, rows, columns):
            covered[item.expert][item.top : item.top + rows, item.first : item.first + item.columns] += 1
        assert all((one == 1).all() for one in covered)


def test_longest_first_ends_within_four_thirds() -> None:
    """Graham's bound, against the best of all assignments."""
    rng = np.random.default_rng(4)
    for _ in range(30):
        slots = int(rng.integers(1, 4))
        costs = np.sort(rng.integers(1, 50, rng.integers(1, 7)))[::-1].astype(float)
        every = itertools.product(range(slots), repeat=len(costs))
        best = min(np.bincount(one, weights=costs, minlength=slots).max() for one in every)
        slot, work = worklist.schedule(costs, slots)
        assert np.array_equal(np.bincount(slot, weights=costs, minlength=slots), work)
        assert best <= work.max() <= 4 / 3 * best
