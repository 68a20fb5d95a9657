"""The explained mismatch names the thread that stored the element: a bug is planted into one thread."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from mutants import ptx

from loadsparse.gpu import kernels, verify
from loadsparse.gpu.launch import Launch
from loadsparse.gpu.verify import explain
from loadsparse.gpu.verify.inputs import random_case

CASE = random_case(7, shape=(200, 12, 70), density=0.2)


def planned(split_k: int) -> Launch:
    kernel = kernels.get("lscd")
    return kernel.plan(kernel.encode(CASE.a), CASE.b, arch="sm_80", split_k=split_k)


def spoil(launch: Launch, step: int, block: int, thread: int) -> Launch:
    """One thread of one block (along x) stores zeros to C instead of its values."""

    def edit(match: re.Match[str]) -> str:
        return (
            "{ .reg .b32 %me, %mine; .reg .pred %bad; mov.u32 %me, %tid.x; mov.u32 %mine, %ctaid.x; "
            f"setp.eq.u32 %bad, %me, {thread}; setp.eq.and.u32 %bad, %mine, {block}, %bad; "
            f"selp.b32 {match[2]}, 0, {match[2]}, %bad; }} {match[0]}"
        )

    steps = list(launch.steps)
    store = r"@?%?\w*\s?st\.global\.[bu]32 \[([^\]]+)\], (%r\d+);"
    steps[step] = replace(steps[step], ptx=ptx.replace(steps[step].ptx, store, edit, 0))
    return replace(launch, steps=tuple(steps))


@pytest.mark.parametrize(("split_k", "step", "block", "thread"), [(1, 0, 0, 37), (1, 0, 1, 64), (2, 1, 1, 5)])
def test_the_guilty_thread_is_named(split_k: int, step: int, block: int, thread: int) -> None:
    launch = spoil(planned(split_k), step, block, thread)
    row = verify.judge_launch(launch, CASE, kernel="spoiled", engine="interpreter")
    assert (row.exact, row.clean, row.complete) == (False, True, True)
    pattern = r"C\[(\d+), (\d+)\].*tile \((\d+), (\d+)\).*by block \((\d+), .*warp (\d+), lane (\d+) of"
    found = re.search(pattern, row.failures[0])
    assert found is not None, row.failures[0]
    at_row, at_column, tile_row, tile_column, written_block, warp, lane = (int(text) for text in found.groups())
    assert (tile_row, tile_column) == (at_row // 16, at_column // 8)
    assert (written_block, 32 * warp + lane) == (block, thread)


def test_unstored_element_is_said_to_be_unstored() -> None:
    launch = planned(1)
    silent = replace(launch.steps[0], ptx=ptx.replace(launch.steps[0].ptx, r"@%ok st\.global\.b32 [^;]*;", "", None))
    assert explain.origin(replace(launch, steps=(silent,)), 3, 1) == "no thread stored it"
