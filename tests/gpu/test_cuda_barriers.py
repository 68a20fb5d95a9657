"""cuda::barrier, cuda::pipeline and cuda::memcpy_async through NVRTC: right and silent, and their misuse found."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from loadsparse.gpu import compiler, simulator

ROUNDS, N = 4, 128


@cache
def module(arch):
    return simulator.load(compiler.cuda(Path(__file__).with_name("barriers.cu").read_text(), arch), arch)


def launch(arch, name, **options):
    data = np.random.default_rng(0).integers(-1000, 1000, ROUNDS * N).astype(np.int32)
    out = np.zeros(N, np.int32)
    report = module(arch)[name].launch(1, N, out, data, ROUNDS, **options)
    return out, data.reshape(ROUNDS, N), report


def expected(name, data):
    if name == "roles":
        return np.append(data[:, : N // 2].sum(0) + data[:, N // 2 :].sum(0), np.zeros(N // 2)).astype(np.int32)
    return data[:, ::-1].sum(0)


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90"])
@pytest.mark.parametrize("name", ["split", "copy", "two_stages", "roles"])
def test_right_use_is_right_and_silent(name, arch):
    out, data, report = launch(arch, name)
    np.testing.assert_array_equal(out, expected(name, data))
    assert report.ok, report


@pytest.mark.parametrize("name", ["copy", "two_stages", "roles"])
@pytest.mark.parametrize("options", [{"cp_async": "eager"}, {"schedule": "adversarial", "seed": 1}], ids=str)
def test_right_use_under_other_schedules(name, options):
    out, data, report = launch("sm_80", name, **options)
    np.testing.assert_array_equal(out, expected(name, data))
    assert report.ok, report


@pytest.mark.parametrize(("name", "kinds", "line"), [
    ("copy_early", {"pending"}, "total += s[N - 1 - t]"),
    ("copy_over", {"race"}, None),
    ("twice", {"trap"}, None),
    ("two_stages_early", {"pending"}, "total += s[(r - 1) % 2 * N"),  # in the function that was inlined
])  # fmt: skip
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_misuse_is_found(name, kinds, line, arch):
    _, _, report = launch(arch, name)
    assert kinds <= {hazard.kind for hazard in report.hazards}, report
    if line is not None:
        source = Path(__file__).with_name("barriers.cu").read_text().splitlines()
        found = next(hazard for hazard in report.hazards if hazard.kind in kinds)
        assert line in source[found.source_line - 1], found


def test_a_thread_that_never_arrives_stops_the_launch():
    _, _, report = launch("sm_80", "absent", budget=40_000)
    assert report.hazards[-1].kind in ("budget", "deadlock")
