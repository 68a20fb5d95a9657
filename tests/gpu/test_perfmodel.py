"""The kernel model: its description of GPUs, its counts, its bars on published measurements, and what it must refuse."""

import json
import math
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from loadsparse.gpu import kernels
from loadsparse.gpu.perfmodel import PerfError, count, fit, load, predict, replay, roofline, sensitivities
from loadsparse.gpu.perfmodel import gpu as gpus
from loadsparse.gpu.perfmodel import tile as tiles
from loadsparse.gpu.perfmodel.constants import fitted
from loadsparse.gpu.perfmodel.kernel import NAMES, Work, norm, tiled
from loadsparse.gpu.perfmodel.mine import predict_mine

A100 = load("a100-80gb")
BARS = {"cublas": 0.08, "flash-llm": 0.08, "sputnik": 0.15, "sparta": 0.15}


def errors(kernel: str, constants=None) -> list[float]:
    return [abs(e) for e in fit.errors(kernel, fit.calibration(), constants or fitted())]


@pytest.mark.parametrize("kernel", BARS)
def test_calibration_rows_within_bar(kernel: str) -> None:
    assert fmean(errors(kernel)) <= BARS[kernel]


def test_packaged_constants_are_what_the_script_fits() -> None:
    found = fit.fit(fit.calibration())
    for name in asdict(found):
        if name != "spread":
            assert getattr(found, name) == pytest.approx(getattr(fitted(), name), rel=2e-3), name


def test_left_out_shapes_within_bar() -> None:
    away = fit.left_out(fit.calibration())
    for kernel, shapes in away.items():
        everything = [abs(e) for each in shapes.values() for e in each]
        assert fmean(everything) <= 0.12, kernel
        assert fitted().spread[kernel] == pytest.approx(max(everything), abs=2e-3)


def test_flash_llm_sweep_that_was_never_fitted() -> None:
    points = [p for p in replay.sweep_points() if p.what.startswith("flash-llm")]
    assert len(points) == 9
    assert max(abs(p.error) for p in points) <= 0.10


def test_published_speedups_better_than_the_roofline() -> None:
    points = [*replay.average_points(), *replay.spinfer_points()]
    ours, plain = ([abs(v / p.published - 1) for p in points for v in (pick(p),)] for pick in (
        lambda p: p.predicted, lambda p: p.roofline))  # fmt: skip
    assert fmean(ours) <= 0.15
    assert fmean(ours) < fmean(plain) / 2


def test_wrong_constants_miss_the_bars() -> None:
    """The bars can fail: a model of bytes alone, or one without the fixed cost of a call, does."""
    bytes_alone = replace(fitted(), issue_latency=0.01, exposed_share=0.0, call=0.0)
    assert fmean(errors("flash-llm", bytes_alone)) > BARS["flash-llm"]
    assert fmean(errors("cublas", replace(fitted(), call=60e-6))) > BARS["cublas"]


def test_fit_reads_no_other_published_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise AssertionError("a kept-aside number was read")

    monkeypatch.setattr(replay, "published", refused)
    original = Path.read_text

    def guarded(self: Path, *args: object, **options: object) -> str:
        assert self.name != "published.json"
        return original(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", guarded)
    fit.fit(fit.calibration())


# --- arithmetic of the model


def test_norm_is_a_soft_maximum() -> None:
    assert norm({"a": 3.0, "b": 4.0}, 2) == pytest.approx(5.0)
    assert norm({"a": 3e-300, "b": 4e-300}, 60) == pytest.approx(4e-300, rel=1e-6)
    assert norm({}, 3) == 0.0


def test_tiled_time_by_hand() -> None:
    """One block per multiprocessor, two waves, one pipe at a time."""
    shape = tiles.Tile(
        128, 8, 64, 128, 32, 160 * 1024, 1, tiles.Counts(400, 100, 8, 0, 0), tiles.Counts(), "by hand", True, 4
    )
    constants = replace(fitted(), issue_latency=2.0, exposed_share=0.0)
    m, steps = 128 * 109, 10  # 109 blocks on 108 multiprocessors
    work = tiled(shape, 0.0, m, 8, 64 * steps, A100, constants, 1)
    hertz = 1410e6
    assert work.resident_blocks == 1
    assert work.overlapping["issue"] == pytest.approx(
        2 * steps * 400 / 4 / 0.5 / hertz
    )  # 1 warp a scheduler, every 2 cycles
    assert work.overlapping["shared"] == pytest.approx(2 * steps * 100 / hertz)
    assert work.overlapping["tensor"] == pytest.approx(2 * steps * 8 * 8 / 4 / hertz)
    assert work.added == {"call": constants.call, "reduction": 0.0}


def test_barriers_cost_latency_that_depth_hides() -> None:
    shape = tiles.Tile(128, 8, 64, 128, 32, 1024, 1, tiles.Counts(barriers=8), tiles.Counts(), "by hand", True, 4)
    one = tiled(shape, 0.0, 128, 8, 640, A100, fitted(), 1).overlapping["issue"]
    three = tiled(replace(shape, ahead=3), 0.0, 128, 8, 640, A100, fitted(), 1).overlapping["issue"]
    assert one == pytest.approx(10 * 2 * fitted().exposed_share * 560 / 1410e6)
    assert three == pytest.approx(one / 3)


@pytest.mark.parametrize(("threads", "registers", "shared", "blocks"), [
    (128, 154, 71680, 2),  # shared memory: 164 KB / 71 KB
    (128, 168, 1024, 3),  # registers: 168 x 32 = 5376 a warp, 3 warps in each quarter
    (1024, 32, 1024, 2),  # warps
    (32, 16, 0, 32),  # blocks
    (128, 32, 163 * 1024 + 1, 0),  # more than a block may have
])  # fmt: skip
def test_occupancy_by_the_published_rules(threads: int, registers: int, shared: int, blocks: int) -> None:
    assert A100.resident_blocks(threads, registers, shared) == blocks


def test_whole_waves_are_cheaper_than_one_block_more() -> None:
    full = predict("flash-llm", 256 * 216, 8, 9216, 0.8, split_k=1).seconds
    over = predict("flash-llm", 256 * 217, 8, 9216, 0.8, split_k=1).seconds
    assert over > 1.1 * full


@pytest.mark.parametrize("kernel", ["flash-llm", "sputnik", "sparta"])
def test_sparser_is_never_slower(kernel: str) -> None:
    times = [predict(kernel, 9216, 16, 9216, s).seconds for s in np.linspace(0, 1, 21)]
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(times))


def test_everything_is_positive_and_ordered() -> None:
    for kernel in NAMES:
        for m, n, k in ((1, 1, 1), (100, 3, 77), (9216, 64, 4096), (4096, 4096, 4096)):
            found = predict(kernel, m, n, k, 0.7)
            assert 0 < found.low < found.seconds < found.high < math.inf
            assert found.bound in found.parts
            assert found.roofline_seconds > 0


def test_sparta_is_its_two_parts() -> None:
    """With nothing beyond 2:4 left, SparTA is the 2:4 kernel and a second call."""
    both, first = predict("sparta", 9216, 8, 9216, 1.0), predict("twofour", 9216, 8, 9216, 1.0)
    assert both.seconds == pytest.approx(first.seconds + fitted().call)


def test_two_of_four_cannot_hold_more_than_half() -> None:
    assert predict("twofour", 9216, 8, 9216, 0.5).seconds > 0
    with pytest.raises(PerfError, match=r"at least 0\.5, not 0\.4; sparta"):
        predict("twofour", 9216, 8, 9216, 0.4)


def test_every_pipe_is_a_part_and_can_bind() -> None:
    """A GPU with little of one pipe is bound by it, and a what-if leaves the range of GPUs that exist."""
    device = load("a100-80gb")
    for pipe, lanes in (("alu", "alu_lanes_per_clock"), ("fma", "fma_lanes_per_clock"), ("lsu", "lsu_lanes_per_clock"),
                        ("popc", "popc_lanes_per_clock")):  # fmt: skip
        found = predict("bitmap", 36864, 16, 9216, 0.8, device.changed(**{lanes: 1}))
        assert found.bound == pipe
    assert sensitivities("bitmap", 36864, 16, 9216, 0.8, replace(device, alu_lanes_per_clock=1024))


@pytest.mark.parametrize(
    ("lanes", "what"),
    [
        ("alu_lanes_per_clock", "integer and logic"), ("lsu_lanes_per_clock", "load and store"),
        ("popc_lanes_per_clock", "population counts"),
    ],
)  # fmt: skip
def test_more_of_the_pipe_that_binds_helps_most(lanes: str, what: str) -> None:
    found = sensitivities("bitmap", 36864, 16, 9216, 0.8, replace(A100, **{lanes: 1}))
    hardware = {name: gain for name, gain in found.items() if name not in ("clock", "multiprocessors")}
    assert min(hardware, key=lambda name: hardware[name]) == what
    assert found[what] < -0.05


def test_roofline_by_hand() -> None:
    assert roofline("cublas", 1024, 8, 1024, 0.5) == pytest.approx(2 * (1024 * 1024 + 2 * 1024 * 8) / 2039e9)
    assert roofline("cublas", 8192, 8192, 8192, 0.5) == pytest.approx(2 * 8192**3 / 312e12)


def test_sensitivities_name_the_bound() -> None:
    dense = sensitivities("cublas", 36864, 8, 9216, 0.8)
    assert min(dense, key=lambda name: dense[name]) == "dram bandwidth"
    assert -0.10 < dense["dram bandwidth"] < -0.08
    floor = sensitivities("flash-llm", 36864, 8, 9216, 0.99)
    assert min(floor, key=lambda name: floor[name]) == "clock"
    assert all(change <= 1e-9 for found in (dense, floor) for change in found.values())


def test_sensitivities_know_every_resource() -> None:
    """Each what-if moves the kernel that it binds."""
    found = {kernel: sensitivities(kernel, 36864, 8, 9216, 0.9) for kernel in ("spinfer", "flash-llm", "cublas")}
    assert found["spinfer"]["population counts"] < 0 == found["flash-llm"]["population counts"]
    assert found["flash-llm"]["shared memory"] < 0
    assert found["flash-llm"]["multiprocessors"] < 0
    assert found["cublas"]["l2 bandwidth"] < 0


def test_warm_cache_helps_only_what_fits() -> None:
    assert predict("cublas", 1024, 8, 1024, 0).seconds < predict("cublas", 1024, 8, 1024, 0, l2="flushed").seconds
    assert predict("cublas", 36864, 8, 9216, 0) == predict("cublas", 36864, 8, 9216, 0, l2="flushed")


def test_outside_of_the_tested_range_says_so() -> None:
    assert predict("flash-llm", 36864, 8, 9216, 0.8).tested
    for found, word in (
        (predict("flash-llm", 36864, 64, 9216, 0.8), "N = 64"),
        (predict("flash-llm", 36864, 8, 9216, 0.3), "sparsity 0.3"),
        (predict("cublas", 36864, 8, 9216, 0.8, "h100-sxm"), "H100"),
        (predict("lscd", 36864, 8, 9216, 0.8), "never timed"),
        (predict("cublas", 512, 8, 9216, 0.8), "M = 512"),
        (predict("sputnik", 9216, 8, 1024, 0.8), "K = 1024"),
        (predict("flash-llm", 9216, 8, 9216, 0.95, l2="flushed"), "flushed"),
    ):
        assert not found.tested
        assert any(word in note for note in found.notes)
        assert found.high / found.seconds >= 1.3 - 1e-9


@pytest.mark.parametrize(("arguments", "word"), [
    (("nosuch", 8, 8, 8, 0.5), "known are cublas"),
    (("cublas", 0, 8, 8, 0.5), "M must be"),
    (("cublas", 8, 8.5, 8, 0.5), "N must be"),
    (("cublas", 8, 8, 8, 1.5), "sparsity"),
    (("cublas", 8, 8, 8, math.nan), "sparsity"),
    (("cublas", 8, 8, 8, "half"), "sparsity"),
    (("cublas", math.nan, 8, 8, 0.5), "M must be"),
    (("cublas", "8", 8, 8, 0.5), "M must be"),
    (("cublas", True, 8, 8, 0.5), "M must be"),
    (("cublas", 8, 8, 8, 0.5, "nosuch"), "known are a100-40gb"),
])  # fmt: skip
def test_bad_questions_are_refused(arguments: tuple, word: str) -> None:
    with pytest.raises(PerfError, match=word):
        predict(*arguments)


def test_options_are_checked_and_numpy_integers_welcome() -> None:
    shape = (np.int64(9216), np.int32(8), np.int64(9216))
    assert predict("flash-llm", *shape, np.float64(0.8)).seconds == predict("flash-llm", 9216, 8, 9216, 0.8).seconds
    with pytest.raises(PerfError, match="split_k"):
        predict("flash-llm", 9216, 8, 9216, 0.8, split_k=0)
    with pytest.raises(PerfError, match="l2 must be"):
        predict("flash-llm", 9216, 8, 9216, 0.8, l2="cold")


def test_a_changed_a100_is_not_the_tested_one() -> None:
    assert not predict("flash-llm", 9216, 8, 9216, 0.8, replace(A100, clock_mhz=1200)).tested


# --- GPU descriptions


@pytest.mark.parametrize("name", gpus.names())
def test_packaged_gpus_cite_their_sources(name: str) -> None:
    found = load(name)
    assert {"peak", "latency", "occupancy", "dram_read_gbs"} <= set(found.sources)
    assert predict("flash-llm", 9216, 8, 9216, 0.8, name).seconds > 0


def described(**changes: object) -> dict[str, object]:
    return {**json.loads((gpus.DATA / "gpu_a100-80gb.json").read_text()), **changes}


@pytest.mark.parametrize(("changes", "word"), [
    ({"sms": 0}, "sms = 0 is impossible"),
    ({"sms": 108.5}, "whole number"),
    ({"sms": True}, "whole number"),
    ({"clock_mhz": 14.1}, "clock_mhz"),
    ({"clock_mhz": "fast"}, "number"),
    ({"dram_read_gbs": 2100}, "exceeds dram_peak_gbs"),
    ({"l2_gbs": 1000}, "below dram_read_gbs"),
    ({"shared_per_block": 165 * 1024}, "exceeds shared_per_sm"),
    ({"mma_interval": 4}, "more than tensor_tflops"),
    ({"fp32_tflops": 40}, "give 19.5 TFLOP/s, but fp32_tflops is 40"),
    ({"fma_lanes_per_clock": 128}, "give 39.0 TFLOP/s"),
    ({"alu_lanes_per_clock": 0}, "alu_lanes_per_clock = 0 is impossible"),
    ({"lsu_lanes_per_clock": True}, "must be a number"),
    ({"dram_peak_gbs": math.nan}, "impossible"),
    ({"name": ""}, "must be a text"),
    ({"colour": "green"}, "unknown field 'colour'"),
    ({"sources": ["x"]}, "sources"),
])  # fmt: skip
def test_impossible_gpus_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(PerfError, match=word):
        gpus.parse(described(**changes), "mine")


def test_a_gpu_of_ones_own(tmp_path: Path) -> None:
    as_json = tmp_path / "twice.json"
    as_json.write_text(json.dumps(described(name="twice", dram_peak_gbs=4078, dram_read_gbs=3440)))
    as_toml = tmp_path / "twice.toml"
    fields = {k: v for k, v in json.loads(as_json.read_text()).items() if k != "sources"}
    as_toml.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in fields.items()))
    for path in (as_json, as_toml):
        faster = predict("cublas", 36864, 8, 9216, 0.0, str(path)).parts["dram"]
        assert faster == pytest.approx(predict("cublas", 36864, 8, 9216, 0.0).parts["dram"] / 2)


@pytest.mark.parametrize(("name", "text", "word"), [
    ("a.json", "{", "not valid JSON"),
    ("a.toml", "= 3", "not valid TOML"),
    ("a.json", "[1]", "one table"),
    ("a.json", "{}", "is missing"),
    ("a.json", "[" * 100_000, "not valid JSON"),
    ("a.yaml", "", "known are"),
])  # fmt: skip
def test_broken_files_are_refused_in_one_line(tmp_path: Path, name: str, text: str, word: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PerfError, match=word) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for name in ("a.json", "b.json"):
        with pytest.raises(PerfError, match="cannot be read"):
            load(tmp_path / name)


# --- counts of our kernels


def test_work_bound_names_the_longest_part() -> None:
    assert Work({"dram": 2.0, "issue": 1.0}, {"call": 0.5}).bound == "dram"
    assert Work({"dram": 2.0}, {"call": 2.5}).bound == "call"


def test_packaged_counts_are_current() -> None:
    """Run `python -m loadsparse.gpu.perfmodel.count` after changing a kernel."""
    entry = json.loads((gpus.DATA / "counts.json").read_text())["kernels"]["lscd"]["1"]
    packaged = next(point for point in entry if point["density"] == 0.2)
    fresh = count.measure(kernels.get("lscd"), 1, 0.2)
    assert {key: fresh[key] for key in ("step", "block", "shared_bytes", "ahead")} == {
        key: packaged[key] for key in ("step", "block", "shared_bytes", "ahead")
    }


@pytest.mark.parametrize(("kernel", "m", "n", "k", "sparsity", "splits"), [("lscd", 640, 8, 1088, 0.75, 1)])
def test_scaled_counts_equal_full_counts(kernel: str, m: int, n: int, k: int, sparsity: float, splits: int) -> None:
    """Another shape and density than those that were counted; the benchmark splits K too."""
    one = kernels.get(kernel)
    a = count.random_weights(m, k, 1 - sparsity, seed=5)
    b = np.random.default_rng(6).standard_normal((k, n)).astype(np.float16)
    launch = one.plan(one.encode(a), b, split_k=splits)
    _, report = launch.run()
    shape = tiles.tile(kernel, n, np.count_nonzero(a) / a.size)
    blocks = -(-m // shape.rows) * -(-n // shape.columns) * splits
    steps = -(-k // 64) / splits
    scaled = blocks * (shape.block + steps * shape.step)
    full = count.counted(report.steps[0])
    assert scaled.mma == full.mma
    assert scaled.barriers == full.barriers
    assert scaled.instructions == pytest.approx(full.instructions, rel=0.02)
    assert scaled.wavefronts == pytest.approx(full.wavefronts, rel=0.02)


@pytest.mark.parametrize("kernel", ["lscd", "bitmap"])
def test_encoded_bytes_of_random_weights(kernel: str) -> None:
    for sparsity in (0.0, 0.5, 0.8, 1.0):
        a = count.random_weights(300, 500, 1 - sparsity)
        encoded = kernels.get(kernel).encode(a).nbytes
        # padding to whole tiles holds no items: only the edges of the grid of tiles differ
        assert tiles.encoded_bytes(kernel, 300, 500, np.count_nonzero(a) / a.size) == pytest.approx(
            encoded, rel=0.02, abs=8
        )


def test_a_kernel_of_ones_own_is_counted_and_predicted() -> None:
    """Handing over our kernel as an object gives what its packaged counts give."""
    mine = predict_mine(kernels.get("lscd"), 36864, 8, 9216, 0.8)
    known = predict("lscd", 36864, 8, 9216, 0.8, split_k=mine.split_k)
    assert mine.seconds == pytest.approx(known.seconds, rel=0.01)
    assert (mine.bound, mine.resident_blocks) == (known.bound, known.resident_blocks)
    assert not mine.tested
    small = predict_mine(kernels.get("lscd"), 256, 8, 512, 0.5)
    assert [any(word in note for note in small.notes) for word in ("M = 256", "K = 512", "sparsity 0.5")] == [True] * 3
