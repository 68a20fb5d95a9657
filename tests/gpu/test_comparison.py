"""Comparisons: scaled counts against executed ones, the limit of redundant products, published counts, sweeps that resume."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadsparse.gpu import comparison, perfmodel, sweep
from loadsparse.gpu.verify.errors import InputError
from loadsparse.reference import pruning, weights

FIXED = {
    "kernel", "bytes_a", "bytes_a_floor", "dram_bytes", "shared_wavefronts", "bank_conflicts", "warp_instructions",
    "registers", "spill_bytes", "hazards", "predicted_seconds",
}  # fmt: skip
COUNTS = ("bytes_a", "sectors", "shared_wavefronts", "warp_instructions", "mma_per_output", "useful_multiply_adds")


@pytest.mark.claim(
    id="compare-scaled",
    source="ours",
    phrase="counts of a large product are scaled from four small executions and lie within 2% of those executed in full",
    assumption="random weights; M a multiple of 256 and K of 64 times the splits; bank conflicts, which are rare, within 25%",
    function="loadsparse.gpu.comparison.compare",
    status="counted",
)
@pytest.mark.parametrize("kernel", ["lscd", "sputnik"])
def test_scaled_counts_equal_executed_ones(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (1024, 8, 2560)
    (counted,) = comparison.compare(shape, 0.8, names=[kernel], exact=True)
    monkeypatch.setattr(comparison, "EXACT", 0)
    (scaled,) = comparison.compare(shape, 0.8, names=[kernel])
    assert (counted["origin"], scaled["origin"]) == ("counted", "scaled")
    assert counted["splits"] == scaled["splits"]
    assert counted["hazards"] == scaled["hazards"] == 0
    for name in COUNTS:
        assert scaled[name] == pytest.approx(counted[name], rel=0.02), name
    assert scaled["bank_conflicts"] == pytest.approx(counted["bank_conflicts"], rel=0.25, abs=20)
    for name in ("registers", "spill_bytes", "resident_blocks", "predicted_seconds", "roofline_seconds"):
        assert scaled[name] == counted[name]


def test_real_weights_keep_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of scaled real weights are those of the whole matrix, exactly."""
    from loadsparse.gpu import kernels

    real = weights.sample()["attn_output"]
    monkeypatch.setattr(comparison, "EXACT", 0)
    (row,) = comparison.compare((*real.shape[:1], 8, real.shape[1]), 0.8, names=["sputnik"], weights=real)
    stripes = [pruning.magnitude(real[top : top + 128], 0.8) for top in range(0, len(real), 128)]
    assert row["bytes_a"] == kernels.get("sputnik").encode(np.concatenate(stripes)).nbytes
    assert row["origin"] == "scaled"


def test_rows_have_the_fixed_keys() -> None:
    rows = comparison.compare((512, 16, 1024), 0.6, names=["dense-4bit", "flash-llm", "spinfer"])
    assert all(set(row) >= FIXED for row in rows)
    timed = [row for row in rows if row["predicted_seconds"] is not None]
    assert timed
    assert all(any("outside the tested range" in note for note in row["untested"]) for row in timed)
    four_bit, flash_llm, spinfer = rows
    assert four_bit["bytes_per_element"] == 0.625
    assert flash_llm["instructions_per_output"] == pytest.approx(375, rel=0.01)  # the authors' kernels, as published
    assert spinfer["instructions_per_output"] == pytest.approx(1160, rel=0.01)
    assert flash_llm["mma_per_output"] == 1024 / (16 * 16 * 8) * 1.0


@pytest.mark.parametrize("kernel", ["lscd", "twofour", "dense-4bit"])
def test_limit_of_redundant_products(kernel: str) -> None:
    """One column earlier DRAM takes longer than the Tensor Cores, at the limit no more."""
    m, k = 36864, 9216
    bytes_a = perfmodel.tile.encoded_bytes("lscd", m, k, 0.2)
    limit = comparison.redundant_limit(kernel, m, k, bytes_a)
    device, share = perfmodel.load("a100-80gb"), 0.5 if kernel == "twofour" else 1.0
    assert limit is not None
    for n, sooner in ((limit - 1, False), (limit, True)):
        memory = (bytes_a + 2 * n * (m + k)) / device.dram_bytes_per_second
        assert (2 * share * m * n * k / (device.tensor_tflops * 1e12) >= memory) is sooner
    assert comparison.redundant_limit("sputnik", m, k, bytes_a) is None
    assert comparison.redundant_limit("lscd", 8, 8, 64) is None  # B and C outweigh every product


BAD: list[tuple[dict[str, Any], str]] = [
    ({"shape": (64, 0, 64)}, "N = 0 is impossible: our kernels take every M, N and K from 1 on"),
    ({"shape": (64, 12, 64), "names": ["flash-llm"]}, "flash-llm takes N = 8, 16, 32, 64 or a multiple of 128, not 12"),
    ({"shape": (2**20, 8, 2**20)}, "more than 2"),
    ({"sparsity": 1.5}, "a sparsity lies between 0 and 1, not 1.5"),
    ({"names": ["nix"]}, "unknown kernel 'nix': known are dense, lscd"),
    ({"gpu": "nix"}, "unknown GPU 'nix'"),
    ({"weights": np.zeros((4, 4), np.float32)}, r"weights are float32 \(4, 4\), expected float16 \(64, 64\)"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        comparison.compare(**{"shape": (64, 8, 64), "names": ["dense-4bit"], **options})
    assert "\n" not in str(refusal.value)


def test_sweeps_name_their_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADSPARSE_CACHE", str(tmp_path))
    assert len(sweep.matrices("opt")) == 12
    shapes = {one.label: (one.m, one.k) for one in sweep.matrices("opt") + sweep.matrices("llama")}
    assert shapes["opt-175b down"] == (12288, 49152)
    assert shapes["llama-3-8b qkv"] == (6144, 4096)
    assert shapes["llama-2-7b up"] == (22016, 4096)
    assert [one.label for one in sweep.matrices("smollm2")] == ["smollm2 ffn_down", "smollm2 attn_output"]
    assert all(one.values is not None and one.values.shape == (one.m, one.k) for one in sweep.matrices("smollm2"))


@pytest.mark.claim(
    id="compare-resumes",
    source="ours",
    phrase="a sweep that was killed goes on where it stopped: no row is lost and none is computed twice",
    assumption="killed at any byte of the file; a second process that would write it is refused",
    function="loadsparse.gpu.sweep.sweep",
    status="proved",
)
def test_a_killed_sweep_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["dense-4bit", "flash-llm"]
    whole = tmp_path / "whole.jsonl"
    rows = sweep.sweep("opt", whole, (8, 16), kernels=names)
    assert len(rows) == 12 * 2 * 2
    text = whole.read_bytes()
    assert [json.loads(line) for line in text.splitlines()] == rows

    computed: list[Any] = []
    original = comparison.compare

    def watched(shape: Any, sparsity: Any, gpu: Any, kernels: Any, **how: Any) -> Any:
        computed.extend(kernels)
        return original(shape, sparsity, gpu, kernels, **how)

    monkeypatch.setattr(comparison, "compare", watched)
    cut = tmp_path / "cut.jsonl"
    for size in (0, 1, 5, 200, len(text) // 2, len(text) - 1, len(text)):
        cut.write_bytes(text[:size])
        computed.clear()
        assert sweep.sweep("opt", cut, (8, 16), kernels=names) == rows
        assert cut.read_bytes() == text
        assert len(computed) == len(rows) - text[:size].count(b"\n")


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"hello\n",
        b"[1]\n",
        b'{"matrix": 1}\n',
        b'{"sweep": "opt", "matrix": "x", "shape": 3}\n',
        b"\xff\xfe\n",
    ],
)
def test_a_foreign_file_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="give another --out"):
        sweep.sweep("opt", path, kernels=["dense-4bit"])
    assert path.read_bytes() == content


def test_rows_of_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    sweep.sweep("opt", path, kernels=["dense-4bit"])
    before = path.read_bytes()
    with pytest.raises(InputError, match="line 1: of another sweep or other settings"):
        sweep.sweep("opt", path, sparsity=0.7, kernels=["dense-4bit"])
    with pytest.raises(InputError, match="holds dense-4bit on opt-30b qkv, N = 16, which this sweep does not ask for"):
        sweep.sweep("opt", path, (8,), kernels=["dense-4bit"])
    assert path.read_bytes() == before


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    """A second sweep into a file that is being written is refused and changes nothing; after a kill the file is free."""
    path = tmp_path / "rows.jsonl"
    holder = (
        "import sys, time; from loadsparse.gpu import sweep\n"
        "def wait(*_): print('writing', flush=True); time.sleep(60)\n"
        "sweep.sweep('opt', sys.argv[1], kernels=['dense-4bit'], progress=wait)"
    )
    with subprocess.Popen([sys.executable, "-c", holder, str(path)], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"writing\n"
        with pytest.raises(InputError, match="another sweep is writing it") as refusal:
            sweep.sweep("opt", path, kernels=["dense-4bit"])
        first.kill()
    assert "\n" not in str(refusal.value)
    assert path.read_bytes() == b""
    assert len(sweep.sweep("opt", path, kernels=["dense-4bit"])) == 12


def test_every_kernel_has_a_predicted_time() -> None:
    rows = comparison.compare((256, 8, 128), 0.9)
    times = {row["kernel"]: row["predicted_seconds"] for row in rows}
    assert times.pop("dense-4bit") is None
    assert all(row["predicted_seconds"] or "no time is predicted" in row["untested"][0] for row in rows)
    assert set(times) == {*comparison.DEFAULT} - {comparison.FOUR_BIT}
    assert all(seconds > 0 for seconds in times.values())
