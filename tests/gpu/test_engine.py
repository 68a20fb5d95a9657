"""The LLVM engine against the interpreter: the same request, every bit, count and hazard."""

from dataclasses import replace

import numpy as np
import pytest
from ptx_text import entry

from loadsparse.gpu.simulator import engine, interpreter, parser
from loadsparse.gpu.simulator.layout import layout
from loadsparse.gpu.simulator.request import COUNTERS, Allocation, Checks, Request


def request(text, grid, block, arguments, undefined=(), **options):
    """A request for the only entry of a module; arrays get allocations 16, 17, ..."""
    program = parser.parse(text)
    kernel = next(k for k in program.kernels.values() if k.is_entry)
    place = layout(program, kernel)
    parameters = np.zeros(max([v.offset + v.size for v in kernel.parameters], default=8), np.uint8)
    allocations = {}
    for index, (variable, argument) in enumerate(zip(kernel.parameters, arguments, strict=True)):
        value = np.array([argument])
        if isinstance(argument, np.ndarray):
            number = 16 + index
            data = argument.copy().view(np.uint8).reshape(-1)
            known = np.zeros(data.size, np.uint8) if index in undefined else None
            allocations[number] = Allocation(number, variable.name, data, known)
            value = np.array([number << 36], np.uint64)
        parameters[variable.offset : variable.offset + variable.size] = value.view(np.uint8)[: variable.size]
    options.setdefault("arch", "sm_80")
    return Request(
        program=program, kernel=kernel, grid=grid, block=block, parameters=parameters, allocations=allocations,
        static_shared_bytes=place.shared_bytes, dynamic_shared_bytes=0, local_bytes=place.local_bytes, **options,
    )  # fmt: skip


def copied(original):
    """The same request on its own memory."""
    return replace(
        original,
        allocations={
            n: Allocation(a.number, a.name, a.data.copy(), None if a.defined is None else a.defined.copy())
            for n, a in original.allocations.items()
        },
    )


def agree(original):
    """Runs both engines; returns the outcome after comparing everything."""
    fast, slow = copied(original), copied(original)
    got, expected = engine.run(fast), interpreter.run(slow)
    for number in fast.allocations:
        np.testing.assert_array_equal(fast.allocations[number].data, slow.allocations[number].data)
        if fast.allocations[number].defined is not None:
            np.testing.assert_array_equal(fast.allocations[number].defined, slow.allocations[number].defined)
    np.testing.assert_array_equal(got.executions, expected.executions)
    np.testing.assert_array_equal(got.threads, expected.threads)
    for name in COUNTERS:
        np.testing.assert_array_equal(got.counters[name], expected.counters[name], err_msg=name)
    assert got.stopped == expected.stopped

    def key(hazard):
        return (hazard.kind, hazard.instruction, -1 if hazard.other is None else hazard.other)

    assert sorted(got.hazards, key=key) == sorted(expected.hazards, key=key)
    return expected


WORDS = ".param .u64 p0, .param .u64 p1"
HEAD = (
    "ld.param.u64 %rd0, [p0]; ld.param.u64 %rd1, [p1]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4;\n"
    "add.u64 %rd3, %rd0, %rd2; add.u64 %rd4, %rd1, %rd2; ld.global.u32 %r2, [%rd3]; shl.b32 %r3, %r1, 2;\n"
)
SHARED = ".shared .align 16 .b8 s[1024];\n"

BODIES = {
    "divergent loop": (
        "and.b32 %r4, %r2, 15; mov.u32 %r5, 0; L: setp.eq.u32 %p1, %r4, 0; @%p1 bra D; add.u32 %r5, %r5, %r2;"
        "sub.u32 %r4, %r4, 1; bra L; D: st.global.u32 [%rd4], %r5;"
    ),
    "early exit and barrier": (
        SHARED + "setp.ge.u32 %p1, %r1, 40; @%p1 exit; st.shared.u32 [%r3], %r2; bar.sync 0;"
        "xor.b32 %r4, %r3, 28; ld.shared.u32 %r5, [%r4]; st.global.u32 [%rd4], %r5;"
    ),
    "race without a barrier": (
        SHARED + "st.shared.u32 [%r3], %r2; xor.b32 %r4, %r3, 4; ld.shared.u32 %r5, [%r4]; st.global.u32 [%rd4], %r5;"
    ),
    "half words and bank conflicts": (
        SHARED + "and.b32 %r4, %r2, 510; cvt.u16.u32 %h1, %r2; st.shared.u16 [%r4], %h1; bar.sync 0;"
        "mul.lo.u32 %r5, %r1, 12; and.b32 %r5, %r5, 1020; ld.shared.u32 %r6, [%r5]; st.global.u32 [%rd4], %r6;"
    ),
    "undefined values": (
        SHARED + "ld.shared.u32 %r4, [%r3]; setp.gt.u32 %p1, %r4, 3; @%p1 add.u32 %r2, %r2, 1; add.u32 %r5, %r4, %r2;"
        "st.global.u32 [%rd4], %r5; and.b32 %r7, %r4, 60; st.shared.u32 [%r7], %r2;"
    ),
    "undefined guards of parameters": (
        "setp.lt.f32 %p1, %f5, 0f00000000; @%p1 ld.param.u64 %rd5, [p1]; @!%p1 ld.param.u64 %rd6, [p0];"
    ),
    "bounds and alignment": (
        "ld.global.u32 %r4, [%rd3+128]; add.u64 %rd5, %rd4, 2; st.global.u32 [%rd5], %r4; st.global.v2.u32 [%rd4], {%r4, %r2};"
    ),
    "shuffles, votes and matches": (
        "shfl.sync.down.b32 %r4|%p1, %r2, 3, 31, -1; shfl.sync.bfly.b32 %r5, %r4, 5, 0x0c07, -1;"
        "vote.sync.ballot.b32 %r6, %p1, -1; add.u32 %r5, %r5, %r6; and.b32 %r7, %r2, 3;"
        "match.any.sync.b32 %r8, %r7, -1; redux.sync.add.s32 %r9, %r2, -1; xor.b32 %r8, %r8, %r9;"
        "add.u32 %r5, %r5, %r8; st.global.u32 [%rd4], %r5;"
    ),
    "half warps shuffle apart": (
        "and.b32 %r4, %r1, 16; setp.eq.u32 %p1, %r4, 0; selp.u32 %r5, 0xffff, 0xffff0000, %p1;"
        "shfl.sync.idx.b32 %r6, %r2, 2, 0x1000, %r5; st.global.u32 [%rd4], %r6;"
    ),
    "lane outside its mask": "bar.warp.sync 0xffff; st.global.u32 [%rd4], %r2;",
    "warp sync orders, shuffle does not": (
        SHARED + "st.shared.u32 [%r3], %r2; bar.warp.sync -1; xor.b32 %r4, %r3, 4; ld.shared.u32 %r5, [%r4];"
        "st.shared.u32 [%r3], %r5; st.global.u32 [%rd4], %r5;"
    ),
    "stuck": "setp.lt.u32 %p1, %r1, 7; @%p1 bra L; bar.sync 0; ret; L: vote.sync.any.pred %p2, %p1, -1;",
    "deadlock": "setp.lt.u32 %p1, %r1, 32; @%p1 bra L; ret; L: bar.sync 1, 64;",
    "atomics": (
        SHARED + "and.b32 %r4, %r3, 28; st.shared.u32 [%r3], %r1; bar.sync 0; atom.shared.add.u32 %r5, [%r4], %r2;"
        "and.b32 %r6, %r2, 12; cvt.u64.u32 %rd5, %r6; add.u64 %rd5, %rd1, %rd5; red.global.max.u32 [%rd5], %r2;"
        "atom.global.cas.b32 %r7, [%rd5], %r2, %r5; atom.global.add.f32 %f1, [%rd5+16], 0f3F800000; bar.sync 0;"
    ),
    "compare and swap from a volatile load": (
        SHARED + "and.b32 %r4, %r3, 12; atom.shared.exch.b32 %r5, [%r4], 0; bar.sync 0;"
        "ld.volatile.shared.u32 %r5, [%r4]; A: mov.u32 %r6, %r5; add.u32 %r7, %r6, %r2;"
        "atom.shared.cas.b32 %r5, [%r4], %r6, %r7; setp.ne.u32 %p1, %r5, %r6; @%p1 bra A; bar.sync 0;"
        "ld.shared.u32 %r5, [%r4]; st.global.u32 [%rd4], %r5;"
    ),
    "volatile, relaxed and weak": (
        SHARED + ".local .align 4 .b8 l[4]; st.volatile.local.u32 [l], %r2; ld.volatile.local.u32 %r8, [l];"
        "and.b32 %r4, %r3, 28; st.volatile.shared.u32 [%r4], %r2; ld.relaxed.cta.shared.u32 %r5, [%r4+4];"
        "and.b32 %r6, %r4, 16; ld.volatile.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r6]; ld.shared.u16 %h1, [%r6+20];"
        "st.relaxed.gpu.shared.v2.u32 [%r6+32], {%r10, %r8}; ld.shared.u32 %r7, [%r6+32]; st.shared.u32 [%r6], %r7;"
        "cvt.u64.u32 %rd5, %r4; cvta.shared.u64 %rd6, %rd5; ld.volatile.u32 %r7, [%rd6];"
        "st.volatile.u32 [%rd6+64], %r7; st.u32 [%rd6+64], %r2; ld.volatile.shared.u32 %r7, [%r4+64];"
        "st.global.u32 [%rd4], %r7;"
    ),
    "barrier reductions": (
        "and.b32 %r4, %r2, 1; setp.eq.u32 %p1, %r4, 1; bar.red.popc.u32 %r5, 0, %p1; bar.red.and.pred %p2, 1, %p1;"
        "bar.red.or.pred %p3, 0, %p1; selp.u32 %r6, 64, 0, %p2; selp.u32 %r7, 128, 0, %p3; add.u32 %r5, %r5, %r6;"
        "add.u32 %r5, %r5, %r7; st.global.u32 [%rd4], %r5;"
    ),
    "producer and consumer": (
        SHARED + "setp.ge.u32 %p1, %r1, 32; @%p1 bra C; st.shared.u32 [%r3], %r2; bar.arrive 3, 64; bra E;"
        "C: bar.sync 3, 64; sub.u32 %r4, %r3, 128; ld.shared.u32 %r5, [%r4]; st.global.u32 [%rd4], %r5; E:"
    ),
    "copies": (
        SHARED + "cp.async.ca.shared.global [%r3], [%rd3], 4; cp.async.commit_group; ld.shared.u32 %r4, [%r3];"
        "cp.async.wait_group 0; bar.sync 0; xor.b32 %r5, %r3, 64; ld.shared.u32 %r6, [%r5];"
        "cp.async.ca.shared.global [%r3+256], [%rd3], 4; st.global.u32 [%rd4], %r6;"
    ),
    "copies of which either address or the size may be undefined": (
        SHARED + "setp.lt.u32 %p1, %r1, 9; setp.gt.u32 %p2, %r1, 5; setp.ne.u32 %p3, %r1, 7; @%p1 mov.u32 %r4, %r3;"
        "@%p2 mov.u64 %rd5, %rd3; @%p3 mov.u32 %r5, 4; @%p2 cp.async.ca.shared.global [%r4], [%rd3], 4;"
        "cp.async.ca.shared.global [%r4], [%rd5], 4; cp.async.ca.shared.global [%r3], [%rd3], 4, %r5;"
        "cp.async.wait_all; ld.shared.u32 %r6, [%r3]; st.global.u32 [%rd4], %r6;"
    ),
    "copies that a wait for all but a great many groups leaves pending": (
        SHARED + "cp.async.ca.shared.global [%r3], [%rd3], 4; cp.async.commit_group;"
        "cp.async.wait_group 18446744073709551615; cp.async.wait_group -1; ld.shared.u32 %r4, [%r3];"
    ),
    "copies with a size and a cache policy": (
        SHARED + "createpolicy.fractional.L2::evict_first.b64 %rd5; and.b32 %r4, %r1, 3; st.shared.u32 [%r3], %r2;"
        "cp.async.ca.shared.global.L2::cache_hint [%r3], [%rd3], 4, %r4, %rd5; cp.async.wait_all;"
        "ld.shared.u32 %r5, [%r3]; st.global.u32 [%rd4], %r5;"
    ),
    "three-way logic with a predicate": (
        "setp.gt.u32 %p1, %r1, 20; and.b32 %r4, %r2, 1; @%p1 mov.u32 %r5, 3; @!%p1 setp.lt.u32 %p2, %r1, 9;"
        "lop3.or.b32 %r6|%p3, %r4, %r2, %r1, 0x80, %p1; lop3.and.b32 _|%p4, %r4, %r2, %r5, 0xE8, !%p1;"
        "lop3.and.b32 %r7|%p5, %r4, %r4, %r4, 0x80, %p2; selp.u32 %r8, 16, 0, %p3; selp.u32 %r9, 32, 0, %p4;"
        "selp.u32 %r10, 64, 0, %p5; add.u32 %r6, %r6, %r8; add.u32 %r9, %r9, %r10; add.u32 %r6, %r6, %r9;"
        "add.u32 %r6, %r6, %r7; st.global.u32 [%rd4], %r6;"
    ),
    "matrices": (
        SHARED + "st.shared.u32 [%r3], %r2; st.shared.u32 [%r3+256], %r1; bar.sync 0; shl.b32 %r4, %r1, 4;"
        "and.b32 %r4, %r4, 496; ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r4];"
        "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r14, %r15}, [%r4];"
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r10, %r11, %r12, %r13},"
        "{%r14, %r15}, {%f10, %f10, %f11, %f11}; mov.b32 %r5, %f1; st.global.u32 [%rd4], %r5;"
    ),
    "endless loop": "L: add.u32 %r2, %r2, 1; bra L;",
    "trap in some lanes": "setp.gt.u32 %p1, %r1, 20; st.global.u32 [%rd4], %r2; @%p1 trap; st.global.u32 [%rd4], %r1;",
    "branch table": (
        "and.b32 %r4, %r2, 3; T: .branchtargets A, B, C, A; brx.idx %r4, T; A: add.u32 %r2, %r2, 1;"
        "B: add.u32 %r2, %r2, 2; C: st.global.u32 [%rd4], %r2;"
    ),
    "generic and local": (
        SHARED + ".local .align 4 .b8 l[32]; and.b32 %r4, %r3, 28; st.local.u32 [l+4], %r2; cvt.u64.u32 %rd5, %r3;"
        "cvta.shared.u64 %rd6, %rd5; st.u32 [%rd6], %r2; bar.sync 0; and.b32 %r5, %r1, 1; setp.eq.u32 %p1, %r5, 0;"
        "selp.b64 %rd7, %rd6, %rd3, %p1; ld.u32 %r6, [%rd7]; ld.local.u32 %r7, [l+4]; ld.local.u32 %r8, [l];"
        "add.u32 %r6, %r6, %r7; st.global.u32 [%rd4], %r6;"
    ),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("threads", [64, 45])
def test_engines_agree(name, threads):
    words = np.random.default_rng(7).integers(0, 2**32, 72, dtype=np.uint32)
    options = {"budget": 100_000} if name == "endless loop" else {}
    text = entry(HEAD + BODIES[name], WORDS)
    agree(request(text, (3, 1, 1), (threads, 1, 1), [words, np.zeros(72, np.uint32)], undefined={1}, **options))


@pytest.mark.parametrize("budget", [1, 900, 10_000])
def test_the_budget_ends_a_large_grid_without_loops(budget):
    words = np.zeros(72, np.uint32)
    text = entry(HEAD + "st.global.u32 [%rd4], %r2;", WORDS)
    outcome = agree(request(text, (10_000, 1, 1), (64, 1, 1), [words, words], budget=budget))
    of_a_block = sum(agree(request(text, (1, 1, 1), (64, 1, 1), [words, words])).threads)
    hazard = outcome.hazards[-1]
    assert (outcome.stopped, hazard.kind, hazard.instruction, hazard.thread) == ("budget", "budget", 0, 0)
    assert hazard.block == budget // of_a_block + 1  # the first block that begins with more than the budget spent
    assert sum(outcome.threads) == hazard.block * of_a_block


@pytest.mark.parametrize("field", list(Checks.__dataclass_fields__))
def test_every_check_can_be_switched_off(field):
    words = np.arange(72, dtype=np.uint32)
    checks = replace(Checks(), **{field: False})
    for name in (
        "undefined values",
        "bounds and alignment",
        "race without a barrier",
        "copies",
        "lane outside its mask",
    ):
        text = entry(HEAD + BODIES[name], WORDS)
        agree(request(text, (1, 1, 1), (64, 1, 1), [words, np.zeros(72, np.uint32)], checks=checks))


def test_without_checks_memory_stays_safe():
    words = np.arange(64, dtype=np.uint32)
    body = "mov.u64 %rd5, 0x7fffffff0000; st.global.u32 [%rd5], %r2; st.global.u32 [%rd3+4096], %r2; ld.global.u32 %r4, [%rd5];"
    outcome = agree(request(entry(HEAD + body, WORDS), (2, 1, 1), (64, 1, 1), [words, words], checks=Checks.none()))
    assert not outcome.hazards


@pytest.mark.parametrize("checks", [Checks(), Checks.none()], ids=["checked", "unchecked"])
def test_wild_addresses_reach_nothing_of_the_host(checks):
    rng = np.random.default_rng(3)
    wild = rng.integers(0, 2**64, 64, dtype=np.uint64)
    wild[::3] &= np.uint64(0x13FFFFFFFF)
    wild[1::5] = (np.uint64(17) << np.uint64(36)) - rng.integers(0, 9, 13).astype(np.uint64)
    body = (
        ".shared .align 16 .b8 s[256]; .local .align 16 .b8 l[64];"
        "ld.param.u64 %rd0, [p0]; ld.param.u64 %rd1, [p1]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 8;"
        "add.u64 %rd3, %rd0, %rd2; ld.global.u64 %rd5, [%rd3]; cvt.u32.u64 %r6, %rd5; mov.u32 %r2, 7;"
        "ld.global.u32 %r3, [%rd5]; st.global.u32 [%rd5+4], %r2; ld.u32 %r3, [%rd5]; st.v4.u32 [%rd5], {%r2, %r2, %r2, %r2};"
        "ld.shared.u64 %rd6, [%rd5]; st.shared.u16 [%r6], %h1; st.shared.v2.u32 [%rd5], {%r1, %r2}; ld.local.u32 %r3, [%rd5];"
        "st.local.u32 [%r6], %r2; ld.const.u32 %r3, [%rd5]; atom.add.u32 %r3, [%rd5], %r2; red.shared.add.u32 [%r6], 1;"
        "cp.async.ca.shared.global [%r6], [%rd5], 8; cp.async.wait_all;"
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r6];"
    )
    agree(request(entry(body, WORDS), (2, 1, 1), (64, 1, 1), [wild, np.zeros(16, np.uint32)], checks=checks))


def test_stores_define_global_memory_even_without_checks():
    words = np.arange(64, dtype=np.uint32)
    body = "setp.lt.u32 %p1, %r1, 20; @%p1 st.global.u32 [%rd4], %r2; atom.global.add.u32 %r3, [%rd1+200], 1;"
    text = entry(HEAD + body, WORDS)
    agree(request(text, (1, 1, 1), (64, 1, 1), [words, words], undefined={1}, checks=Checks.none()))


def test_eager_copies():
    words = np.arange(72, dtype=np.uint32)
    text = entry(HEAD + BODIES["copies"], WORDS)
    agree(request(text, (2, 1, 1), (64, 1, 1), [words, np.zeros(72, np.uint32)], cp_async="eager"))


def test_many_blocks_give_the_same_records_on_two_threads():
    words = np.arange(64, dtype=np.uint32)
    text = entry(HEAD + BODIES["race without a barrier"], WORDS)
    outcome = agree(request(text, (37, 1, 1), (64, 1, 1), [words, words]))
    assert {hazard.block for hazard in outcome.hazards} == {0}


def test_spinning_blocks_make_progress():
    body = (
        "mov.u32 %r4, %ctaid.x; setp.ne.u32 %p1, %r4, 0; @%p1 bra S; W: ld.volatile.global.u32 %r5, [%rd1];"
        "setp.eq.u32 %p2, %r5, 0; @%p2 bra W; bra E; S: mov.u32 %r6, 9; st.volatile.global.u32 [%rd1], %r6; E:"
    )
    outcome = agree(request(entry(HEAD + body, WORDS), (2, 1, 1), (32, 1, 1), [np.zeros(64, np.uint32)] * 2))
    assert outcome.stopped is None


def test_unsupported_kernels_are_refused_before_they_run():
    words = np.zeros(64, np.uint32)
    text = entry(HEAD + "addc.u32 %r4, %r2, %r2; st.global.u32 [%rd4], %r4;", WORDS)
    with pytest.raises(engine.Unsupported, match="addc"):
        engine.run(request(text, (1, 1, 1), (32, 1, 1), [words, words]))


@pytest.mark.parametrize("type_", ["u32", "s32", "u64", "s64"])
def test_chains_of_carries(type_):
    wide = type_.endswith("64")
    words = np.random.default_rng(1).integers(0, 2**32, 160, dtype=np.uint64).astype(np.uint32)
    words[::3] = 0xFFFFFFFF
    kind, register = ("64", "%rd") if wide else ("32", "%r")
    a, b, c, d = (f"{register}{n}" for n in (10, 11, 12, 13))
    body = (
        f"mul.wide.u32 %rd9, %r2, 8; add.u64 %rd9, %rd0, %rd9; ld.global.b{kind} {a}, [%rd9];"
        f"ld.global.b{kind} {b}, [%rd9+8]; setp.lt.u32 %p1, %r2, 21; add.cc.{type_} {c}, {a}, {b}; addc.cc.{type_} {c}, {c}, {a};"
        f"@%p1 sub.cc.{type_} {d}, {b}, {a}; subc.cc.{type_} {d}, {a}, {c}; mad.lo.cc.{type_} {a}, {a}, {b}, {d};"
        f"madc.hi.{type_} {a}, {b}, {c}, {a};"
        f"xor.b{kind} {a}, {a}, {d}; st.global.b32 [%rd4], {a};"
    )
    if wide:
        body = body.replace(f"st.global.b32 [%rd4], {a};", f"st.global.b64 [%rd9], {a};")
    agree(request(entry(HEAD + body, WORDS), (1, 1, 1), (48, 1, 1), [words, words.copy()]))


@pytest.mark.parametrize("threads", [32, 40])
def test_clocks_count_the_warps_own_instructions(threads):
    words = np.zeros(64, np.uint32)
    body = (
        "mov.u32 %r4, %clock; setp.lt.u32 %p1, %r2, 5; @%p1 bra L; mov.u32 %r5, %clock_hi; mov.u64 %rd7, %clock64; L:"
        "mov.u32 %r6, %globaltimer_lo; bar.sync 0; mov.u32 %r7, %clock; add.u32 %r4, %r4, %r6; mad.lo.u32 %r4, %r7, 1000, %r4;"
        "st.global.u32 [%rd4], %r4;"
    )
    agree(request(entry(HEAD + body, WORDS), (2, 1, 1), (threads, 1, 1), [words, words]))
