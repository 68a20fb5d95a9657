"""Mutation evidence: bugs planted into the LSCD kernel, every one found, and by which of the four fields."""

from __future__ import annotations

from functools import cache

import pytest
from mutants import ptx
from mutants.catalogue import MUTANTS, Mutant

from loadsparse.gpu import kernels, verify
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.verify.inputs import Case, adversarial_case, random_case


@cache
def case(name: str) -> Case:
    """Three tiles along K, the last of two columns; tiles with more items than are staged; M not of whole tiles."""
    if name == "cancel":
        return adversarial_case("cancel", 2024)
    return random_case(2024, shape=(100, 8, 130), density=0.35)


@cache
def planned(name: str, where: str) -> Launch:
    kernel = kernels.get("lscd")
    return kernel.plan(kernel.encode(case(name).a), case(name).b, arch="sm_80", split_k=2 if where == "split" else 1)


@pytest.mark.parametrize("where", ["direct", "split"])
@pytest.mark.parametrize("name", ["random", "cancel"])
def test_original_passes(name: str, where: str) -> None:
    """Else the mutants would prove nothing."""
    row = verify.judge_launch(planned(name, where), case(name), kernel="original")
    assert (row.exact, row.accurate, row.clean, row.complete) == (True, True, True, True), row.failures


@pytest.mark.claim(
    id="verify-mutants",
    phrase="verify finds every planted bug, and the catalogue records which field found it",
    status="proved",
    assumption="the bugs of tests/gpu/mutants/catalogue.py, one at a time",
    function="loadsparse.gpu.verify.judge_launch",
    source="loadsparse, mutation test",
)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_mutant_is_found(mutant: Mutant) -> None:
    launch = mutant.plant(planned(mutant.input, mutant.where))
    row = verify.judge_launch(
        launch, case(mutant.input), kernel=mutant.name, budget=10**8, engine="interpreter", explained=False
    )
    assert not row.ok
    assert row.failures
    assert {name for name in verify.FIELDS if getattr(row, name) is False} == mutant.fails, row.failures


def test_each_field_is_needed() -> None:
    """Some bug is seen by exactness alone, some by the checks alone, and incompleteness is named where it happens."""
    assert len(MUTANTS) >= 20
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    fails = [mutant.fails for mutant in MUTANTS]
    assert {"exact"} in fails
    assert {"clean"} in fails
    assert {"exact", "accurate"} in fails
    assert any("complete" in fields for fields in fails)


def test_a_mutation_without_a_place_is_refused() -> None:
    with pytest.raises(ptx.NoSuchPlace):
        ptx.replace("mov.u32 %r1, 0;", "bar.sync", "")
    with pytest.raises(ptx.NoSuchPlace):
        ptx.replace("mov.u32 %r1, 0;", "mov", "mov")
