"""What the loader refuses and accepts, beside NVIDIA's assembler."""

import random

import ptx_forms
import pytest
from ptx_text import entry

from loadsparse.gpu import compiler
from loadsparse.gpu.simulator.forms import problem
from loadsparse.gpu.simulator.opcodes import OPCODES

ACCEPTS_MORE = frozenset([
    "add", "sub", "mul", "fma", "abs", "neg", "min", "max", "vshl", "vshr", "ex2", "setp", "set", "slct", "mov", "cvt",
    "cvta", "ld", "ldu", "st", "prefetch", "applypriority", "createpolicy", "prefetchu", "atom", "red", "fence", "cp", "vote",
    "redux", "bar", "barrier", "mbarrier", "movmatrix", "mma", "wmma",
])  # fmt: skip
"""Opcodes of which the table lets through forms that no compiler emits and the assembler refuses (`.ftz` of bf16, a cache
hint in the wrong place ...), or refuses forms that the manual does not have (`fma.rz.bf16`)."""
MOST = 6
"""Forms of each opcode that one run compares; all 1,091 agreed with the assembler of CUDA 13."""


def test_acceptance_agrees_with_nvidias_assembler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptx_forms, "problem", lambda name, modifiers, count: OPCODES[name].problem(modifiers, count))
    monkeypatch.setattr(ptx_forms, "OPCODES", {name: row for name, row in OPCODES.items() if name not in ACCEPTS_MORE})
    by_name: dict[str, list[tuple[str, bool]]] = {}
    for name, modifiers, text in ptx_forms.forms():
        ours = problem(name, modifiers, len(ptx_forms.operands_of(OPCODES[name], modifiers))) is None
        by_name.setdefault(name, []).append((text, ours))
    chosen = random.Random(0)
    compared = [pair for pairs in by_name.values() for pair in chosen.sample(pairs, min(MOST, len(pairs)))]
    assert {ours for _, ours in compared} == {True, False}
    for text, ours in compared:
        source = entry(text, ".param .u64 p0").replace(".target sm_80", ".target sm_90")
        try:
            compiler.cubin(source.replace(".version 8.0", ".version 8.8"), "sm_90")
        except compiler.CompileError:
            assert not ours, text
        else:
            assert ours, text
