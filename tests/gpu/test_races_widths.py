"""Races in shared memory by accesses of every width: the engine against pairs of threads, byte by byte."""

import random
from collections import defaultdict

import pytest
from ptx_text import run

THREADS, BYTES = 64, 2048
PROGRAMS = range(24)
KINDS = {"b8": ("%r20", 1), "b16": ("%h1", 2), "b32": ("%r20", 4), "b64": ("%rd9", 8)} | {
    "v2.b32": ("{%r20, %r21}", 8),
    "v4.b32": ("{%r20, %r21, %r22, %r23}", 16),
}
GUARDS = {"": lambda t: True, "@%p1 ": lambda t: t < 32, "@!%p1 ": lambda t: t >= 32, "@%p2 ": lambda t: t == 5}
SETUP = (
    f".shared .align 16 .b8 s[{BYTES}]; mov.u32 %r1, %tid.x; mov.u32 %r2, s; setp.lt.u32 %p1, %r1, 32;"
    "setp.eq.u32 %p2, %r1, 5; mov.u32 %r20, %r1; mov.u32 %r21, %r1; mov.u32 %r22, %r1; mov.u32 %r23, %r1;"
    "cvt.u16.u32 %h1, %r1; cvt.u64.u32 %rd9, %r1;"
)


def draw(seed):
    """(PTX body, whether two threads touch a byte between two barriers and one of them writes it)."""
    rng = random.Random(seed)
    narrowest = rng.choice([0, 1, 2])  # of KINDS: what one access takes part as is a granule of this many bytes
    text, races, touched = [SETUP], False, defaultdict(set)
    for _ in range(rng.randint(3, 6)):
        if rng.random() < 0.5:
            text.append("bar.sync 0;")
            touched.clear()
        kind = rng.choice(list(KINDS)[narrowest:])
        register, size = KINDS[kind]
        guard, writing = rng.choice(list(GUARDS)), rng.random() < 0.5
        shift = rng.choice([0, 0, 0, 32, 64])
        where = f"mad.lo.u32 %r3, %r1, {size}, {shift * size}; rem.u32 %r3, %r3, {BYTES}; add.u32 %r3, %r3, %r2;"
        text.append(where + guard + (f"st.shared.{kind} [%r3], {register};" if writing else ""))
        if not writing:
            text[-1] += f"ld.shared.{kind} {register}, [%r3];"
        for thread in filter(GUARDS[guard], range(THREADS)):
            start = (thread + shift) * size % BYTES
            for byte in range(start, start + size):
                races |= any(other != thread and (writing or wrote) for other, wrote in touched[byte])
                touched[byte].add((thread, writing))
    return "".join(text), races


@pytest.mark.parametrize("seed", PROGRAMS)
def test_races_of_every_width(seed):
    body, races = draw(seed)
    report = run(body, block=THREADS, engine="llvm")
    assert any(hazard.kind == "race" for hazard in report.hazards) == races, report


def test_the_programs_are_of_both_kinds():
    racing = sum(draw(seed)[1] for seed in PROGRAMS)
    assert 8 <= racing <= 18, racing
