"""The first slice: a Tensor Core kernel, executed and judged; three mutants found, each for its own reason."""

from __future__ import annotations

import pytest
from mutants import catalogue

from loadsparse.gpu import kernels, verify
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.verify.inputs import random_case

CASE = random_case(2024, shape=(100, 8, 130), density=0.35)


def planned(split_k: int = 1) -> Launch:
    kernel = kernels.get("lscd")
    return kernel.plan(kernel.encode(CASE.a), CASE.b, arch="sm_80", split_k=split_k)


def test_kernel_equals_its_oracle() -> None:
    row = verify.judge_launch(planned(), CASE, kernel="lscd")
    assert (row.exact, row.accurate, row.clean, row.complete) == (True, True, True, True), row.failures
    assert row.rows_exact == 100


@pytest.mark.parametrize("name", ["wrong A fragment", "wait dropped", "accumulator never set"])
def test_mutant_is_found(name: str) -> None:
    (mutant,) = (mutant for mutant in catalogue.MUTANTS if mutant.name == name)
    row = verify.judge_launch(mutant.plant(planned()), CASE, kernel=name)
    assert not row.ok
    assert {field for field in verify.FIELDS if getattr(row, field) is False} == mutant.fails
