"""The tokens road judges: right parts pass, and each broken part is seen by the field that is named after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loadsparse.reference.balancing import SignBias
from loadsparse.theory import assignment, lagrangian, linear_program, road


@pytest.mark.parametrize("seed", range(3))
def test_the_road_is_sound(seed: int) -> None:
    found = road.judge_tokens(seed)
    assert found.ok
    assert found.violation_after < found.violation_before
    assert 0 <= found.dual_gap < 0.01


def test_indivisible_loads_are_judged_too() -> None:
    found = road.judge_tokens(1, tokens=30, experts=4, k=1, steps=10)
    assert found.bounded_by_dual
    assert found.step_identity


def broken(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, edit: Any) -> road.Road:
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given, **options: edit(right(*given, **options)))
    return road.judge_tokens(2, tokens=32, experts=4, steps=5)


def test_a_wrong_assignment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token moved: the loads or the value no longer fit."""

    def edit(best: assignment.Assignment) -> assignment.Assignment:
        choices = np.array(best.choices)
        choices[0, 0] = next(e for e in range(4) if e not in choices[0])
        return replace(best, choices=choices)

    assert not broken(monkeypatch, assignment, "solve", edit).optimum_certified


def test_another_optimum_than_the_program_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not broken(monkeypatch, linear_program, "solve", lambda found: replace(found, value=found.value + 1)).ok


def test_a_dual_below_the_optimum_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = broken(monkeypatch, lagrangian, "step", lambda seen: replace(seen, before=seen.before - 10**6))
    assert not found.bounded_by_dual
    assert not found.step_identity


def test_a_balancer_that_pushes_the_wrong_way_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = SignBias.step

    def away(self: SignBias, state: Any, loads: Any) -> Any:
        moved = right(self, state, loads)
        return replace(moved, bias=2 * state.bias - moved.bias)

    monkeypatch.setattr(SignBias, "step", away)
    assert not road.judge_tokens(2, tokens=64, experts=4, steps=5, rate=40).preference_rule
