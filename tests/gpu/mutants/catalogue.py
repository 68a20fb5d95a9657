"""The bugs that `verify` must find in the LSCD kernel, each with the fields that turn false.

`where` is the plan: "direct" writes C in one kernel, "split" adds float32 partials of two halves of K in a second one
(step 1).  `fails` is what was observed, and the test holds verify to it: a bug that only one field sees shows what that
field is for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from loadsparse.gpu.launch import Launch
from mutants import ptx
from mutants.ptx import changes, permutes_mma

SHARED_ITEM = r"st\.shared\.b16 \[(%r\d+)\], (%r\d+);"
ROUNDING = r"cvt\.rn\.f16x2\.f32 (%r\d+), (%f\d+), (%f\d+);"
CLEAR = r"st\.shared\.v4\.u32 \[(%r\d+)\+(\d+)\], \{([^}]*)\};"
WAIT = r"cp\.async\.wait_group 0;"
ADD = r"add\.f32\s+(%f\d+), (%f\d+), %f\d+;"
OTHER_BUFFER = r"xor\.b32(\s+%r\d+, %r\d+), 16384;"
LOOP_ENTRY = r"setp\.ge\.u32(\s+%p\d+, %r\d+, %r\d+;)"
LOOP_SKIP = r"(setp\.ge\.u32\s+(%p\d+), %r\d+, %r\d+;\s+)@\2 bra"
STRIDE = r"shl\.b32(\s+%r\d+, %r\d+), 1;"
PARTIAL = r"st\.global\.v2\.f32 \[([^\]]+)\], \{(%f\d+), (%f\d+)\};"


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    name: str
    fails: frozenset[str]
    change: ptx.Mutation | None = None
    where: Literal["direct", "split"] = "direct"
    step: int = 0
    relaunch: Callable[[Launch], Launch] | None = None
    input: Literal["random", "cancel"] = "random"

    def plant(self, launch: Launch) -> Launch:
        """The launch with this bug in it."""
        if self.relaunch is not None:
            return self.relaunch(launch)
        assert self.change is not None
        steps = list(launch.steps)
        steps[self.step] = replace(steps[self.step], ptx=self.change(steps[self.step].ptx))
        return replace(launch, steps=tuple(steps))


def _with_grid(step: int, axis: int, blocks: int) -> Callable[[Launch], Launch]:
    def relaunch(launch: Launch) -> Launch:
        steps = list(launch.steps)
        grid = list(steps[step].grid)
        grid[axis] = blocks
        steps[step] = replace(steps[step], grid=(grid[0], grid[1], grid[2]))
        return replace(launch, steps=tuple(steps))

    return relaunch


def _claims_one_chain(launch: Launch) -> Launch:
    return replace(launch, splits=((0, launch.shape[2]),))


def _f16_partials(match: object) -> str:
    text = ""
    for register in (match[2], match[3]):  # type: ignore[index]
        text += f"{{ .reg .b16 %half; cvt.rn.f16.f32 %half, {register}; cvt.f32.f16 {register}, %half; }}\n\t"
    return text + match[0]  # type: ignore[index]


WRONG = frozenset({"exact", "accurate"})
UNCLEAN = frozenset({"clean"})
INCOMPLETE = frozenset({"complete"})

MUTANTS = (
    # fragments and registers
    Mutant("wrong A fragment", WRONG, permutes_mma(ptx.A, (0, 2, 1, 3))),
    Mutant("swapped B registers", WRONG, permutes_mma(ptx.B, (1, 0))),
    Mutant("swapped accumulators", WRONG, permutes_mma(ptx.D, (1, 0, 3, 2), -1)),
    Mutant("accumulator rows exchanged", WRONG, permutes_mma(ptx.D, (2, 3, 0, 1), -1)),
    Mutant("A of the neighbouring row tile", WRONG, ptx.takes_neighbours_a),
    Mutant("columns exchanged at the store", WRONG, changes(ROUNDING, r"cvt.rn.f16x2.f32 \1, \3, \2;")),
    Mutant("B not transposed", WRONG, changes(r"(ldmatrix\S*)\.trans", r"\1")),
    Mutant("A chunk beside the right one", WRONG, changes(r"\+0\+0\]", "+0+16]", 1)),
    Mutant("misaligned ldmatrix", WRONG | UNCLEAN, changes(r"\+0\+2048\]", "+0+2056]")),
    Mutant("wrong swizzle of A", WRONG, changes(r"(and\.b32\s+%r\d+, %r\d+), 112;", r"\1, 48;")),
    # arithmetic
    Mutant("mma left out", WRONG, changes(ptx.MMA, "", -1)),
    Mutant("chain restarted", WRONG, ptx.restarts_chain),
    Mutant("bf16 mma on f16 data", WRONG, changes(r"f32\.f16\.f16\.f32", "f32.bf16.bf16.f32")),
    Mutant("f16 accumulation", WRONG, ptx.rounds_after_mma),
    Mutant("rounds toward zero", WRONG, changes(ROUNDING, r"cvt.rz.f16x2.f32 \1, \2, \3;", None)),
    Mutant("accumulator starts at one", WRONG, changes("0f00000000", "0f3F800000")),
    Mutant("accumulator never set", UNCLEAN, changes(r"mov\.f32\s+%f\d+, 0f00000000;", "")),
    Mutant("sign of an item lost", WRONG, changes(SHARED_ITEM, r"and.b32 \2, \2, 32767; st.shared.b16 [\1], \2;")),
    # pipeline
    Mutant("barrier after the copy missing", WRONG | UNCLEAN, changes(r"bar\.sync\s+0;", "", 0)),
    Mutant("barrier after the zeros missing", WRONG | UNCLEAN, changes(r"bar\.sync\s+0;", "", 1)),
    Mutant("barrier in divergent code", UNCLEAN, ptx.splits_barrier),
    Mutant("wait dropped", WRONG | UNCLEAN, changes(WAIT, "")),
    Mutant("wait for one group too few", WRONG | UNCLEAN, changes(WAIT, "cp.async.wait_group 1;")),
    Mutant("commit dropped", WRONG | UNCLEAN, changes(r"cp\.async\.commit_group;", "")),
    Mutant("buffer off by one stage", WRONG | UNCLEAN, changes(OTHER_BUFFER, r"xor.b32\1, 0;")),
    Mutant("stale tile", WRONG | UNCLEAN, changes(CLEAR, "", 3)),
    Mutant("never cleared", WRONG | UNCLEAN, changes(CLEAR, "", None)),
    Mutant("clears the wrong rows", WRONG | UNCLEAN, changes(CLEAR, r"st.shared.v4.u32 [\1+0], {\3};", 3)),
    # ends
    Mutant("last tile of K left out", WRONG, changes(r"(add\.s32\s+%r\d+, %r\d+), 63;", r"\1, 0;")),
    Mutant("one tile of K too many", UNCLEAN, changes(r"(add\.s32\s+%r\d+, %r\d+), 63;", r"\1, 127;")),
    Mutant("items beyond the staged ones lost", WRONG, changes(LOOP_SKIP, r"\1bra", -1)),
    Mutant("first items skipped", WRONG, changes(r"setp\.lt\.s32(\s+%p\d+, %r\d+), 1;", r"setp.lt.s32\1, 2;")),
    Mutant("one vector too many", WRONG | UNCLEAN, changes(LOOP_ENTRY, r"setp.gt.u32\1", -1)),
    Mutant("tail predicate dropped", UNCLEAN, changes(r"@%ok st\.global", "st.global", -1)),
    Mutant("row of C never written", WRONG | INCOMPLETE, changes(r"@%ok st\.global\.b32 [^;]*;", "", 1)),
    Mutant(
        "wrong row stride of C",
        WRONG | UNCLEAN | INCOMPLETE,
        changes(STRIDE, r"shl.b32\1, 2;", -1),
    ),
    Mutant("warp leaves early", WRONG | UNCLEAN | INCOMPLETE, ptx.leaves_early(96)),
    Mutant("input overwritten", WRONG | INCOMPLETE, ptx.writes_parameter(2)),
    # split-K
    Mutant("split left out", WRONG, changes(ADD, r"mov.f32 \1, \2;", None), "split", 1),
    Mutant("split added twice", WRONG, changes(ADD, r"add.f32 \1, \2, \2;"), "split", 1),
    Mutant("split not launched", WRONG, None, "split", relaunch=_with_grid(0, 2, 1)),
    Mutant("partials rounded to f16", WRONG, changes(PARTIAL, _f16_partials, None), "split"),
    Mutant("last rows not reduced", WRONG | INCOMPLETE, None, "split", relaunch=_with_grid(1, 0, 1)),
    Mutant(
        "another K order than declared", frozenset({"exact"}), None, "split", relaunch=_claims_one_chain, input="cancel"
    ),
)
