"""LLVM IR of the vector primitives that run-time functions call by name: rows of race entries, banks, addresses."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine import layout

ROWS = (2, 4, 8)
"""Numbers of neighbouring granules that one vector operation handles."""

ARITY = {
    **{f"busy_{n}": 3 for n in ROWS},
    **{f"note_reads_{n}": 3 for n in ROWS},
    **{f"mark_writes_{n}": 2 for n in ROWS},
    "bank_waves": 2,
    "row_banks": 2,
    "stride_of": 2,
    "outside_of": 4,
}
"""Arguments (all i64) of every primitive."""

_COMMON = "internal i64 @{name}({arguments}) alwaysinline nounwind"


def _define(name: str, arguments: str, body: str) -> str:
    head = _COMMON.format(name=name, arguments=", ".join(f"i64 %{a}" for a in arguments.split()))
    return f"define {head} {{\n{body}\n}}\n"


def _splat(vector: str, count: int, element: str, name: str, value: str) -> str:
    """Lines that broadcast an i64 value truncated to `element`."""
    return (
        f"  %{name}.n = {'add i64 0, %' + value if element == 'i64' else f'trunc i64 %{value} to {element}'}\n"
        f"  %{name}.i = insertelement {vector} poison, {element} %{name}.n, i64 0\n"
        f"  %{name} = shufflevector {vector} %{name}.i, {vector} poison, <{count} x i32> zeroinitializer"
    )


def _pointers(*names: str) -> str:
    return "\n".join(f"  %{n}.p = inttoptr i64 %{n} to ptr" for n in names)


def _marks(n: int) -> str:
    """Lines that load the cells of n granules, %c, and find those at or above the floor that tell of more than the thread
    of `mine`, %bad: write, reads, write, reads ..."""
    v = f"<{2 * n} x i32>"
    return f"""\
{_pointers("cells")}
{_splat(v, 2 * n, "i32", "f", "floor")}
{_splat(v, 2 * n, "i32", "me", "mine")}
  %c = load {v}, ptr %cells.p, align 8
  %late = icmp uge {v} %c, %f
  %x = xor {v} %c, %me
  %who = and {v} %x, splat (i32 {layout.MANY | layout.THREAD_MASK})
  %other = icmp ne {v} %who, zeroinitializer
  %bad = and <{2 * n} x i1> %late, %other"""


def _busy(n: int) -> str:
    """1 if any cell of a row is such."""
    return _define(
        f"busy_{n}",
        "cells floor mine",
        f"""{_marks(n)}
  %bits = bitcast <{2 * n} x i1> %bad to i{2 * n}
  %any = icmp ne i{2 * n} %bits, 0
  %r = zext i1 %any to i64
  ret i64 %r""",
    )


def _note_reads(n: int) -> str:
    """`mine` becomes the last read, with MANY where others read since the floor; 1 if any write is such."""
    v = f"<{2 * n} x i32>"
    reads, writes = (", ".join(f"i1 {bit}" for bit in row * n) for row in ((0, 1), (1, 0)))
    return _define(
        f"note_reads_{n}",
        "cells floor mine",
        f"""{_marks(n)}
  %many = or {v} %me, splat (i32 {layout.MANY})
  %noted = select <{2 * n} x i1> %bad, {v} %many, {v} %me
  %new = select <{2 * n} x i1> <{reads}>, {v} %noted, {v} %c
  store {v} %new, ptr %cells.p, align 8
  %wrote = and <{2 * n} x i1> %bad, <{writes}>
  %bits = bitcast <{2 * n} x i1> %wrote to i{2 * n}
  %any = icmp ne i{2 * n} %bits, 0
  %r = zext i1 %any to i64
  ret i64 %r""",
    )


def _mark_writes(n: int) -> str:
    """`mine` becomes the last write; the reads are forgotten."""
    v = f"<{n} x i64>"
    return _define(
        f"mark_writes_{n}",
        "cells mine",
        f"""{_pointers("cells")}
{_splat(v, n, "i64", "me", "mine")}
  store {v} %me, ptr %cells.p, align 8
  ret i64 0""",
    )


_ACTIVE = """\
  %m = trunc i64 %mask to i32
  %flags = bitcast i32 %m to <32 x i1>
  %place = inttoptr i64 %addresses to ptr
  %a = load <32 x i64>, ptr %place, align 8"""


def _bank_waves() -> str:
    """Wavefronts << 32 | distinct words of accesses of at most 4 bytes.

    Each round lets one word per bank through: the one that a scatter by bank left there.
    """
    v = "<32 x i32>"
    gather = f"call {v} @llvm.masked.gather.v32i32.v32p0(<32 x ptr> %slots, <32 x i1> %left, {v} zeroinitializer)"
    return (
        "declare <32 x i32> @llvm.masked.gather.v32i32.v32p0(<32 x ptr>, <32 x i1>, <32 x i32>)\n"
        "declare void @llvm.masked.scatter.v32i32.v32p0(<32 x i32>, <32 x ptr>, <32 x i1>)\n"
        "declare i32 @llvm.vector.reduce.or.v32i32(<32 x i32>)\ndeclare i32 @llvm.ctpop.i32(i32)\n"
        "declare i32 @llvm.vector.reduce.umax.v32i32(<32 x i32>)\n"
        "declare i32 @llvm.vector.reduce.umin.v32i32(<32 x i32>)\n"
    ) + _define(
        "bank_waves",
        "addresses mask",
        f"""  %table = alloca [32 x i32], align 64
{_ACTIVE}
  %short = trunc <32 x i64> %a to <32 x i32>
  %words = lshr <32 x i32> %short, splat (i32 2)
  %banks = and <32 x i32> %words, splat (i32 31)
  %bit = shl <32 x i32> splat (i32 1), %banks
  %used = select <32 x i1> %flags, <32 x i32> %bit, <32 x i32> zeroinitializer
  %all = call i32 @llvm.vector.reduce.or.v32i32(<32 x i32> %used)
  %banked = call i32 @llvm.ctpop.i32(i32 %all)
  %lanes = call i32 @llvm.ctpop.i32(i32 %m)
  %easy = icmp eq i32 %banked, %lanes
  br i1 %easy, label %free, label %more.than.one
more.than.one:
  ; words less than 32 apart never meet in a bank
  %high.in = select <32 x i1> %flags, <32 x i32> %words, <32 x i32> zeroinitializer
  %low.in = select <32 x i1> %flags, <32 x i32> %words, <32 x i32> splat (i32 -1)
  %highest = call i32 @llvm.vector.reduce.umax.v32i32(<32 x i32> %high.in)
  %lowest = call i32 @llvm.vector.reduce.umin.v32i32(<32 x i32> %low.in)
  %spread = sub i32 %highest, %lowest
  %near = icmp ult i32 %spread, 32
  br i1 %near, label %free, label %hard
free:
  %free.w = zext i32 %banked to i64
  %free.r = or i64 %free.w, 4294967296
  ret i64 %free.r
hard:
  %slots = getelementptr i32, ptr %table, <32 x i32> %banks
  br label %round
round:
  %left = phi <32 x i1> [ %flags, %hard ], [ %rest, %round ]
  %waves = phi i64 [ 0, %hard ], [ %waves.1, %round ]
  %distinct = phi i64 [ 0, %hard ], [ %distinct.1, %round ]
  call void @llvm.masked.scatter.v32i32.v32p0(<32 x i32> %words, <32 x ptr> %slots, <32 x i1> %left)
  %seen = {gather}
  %other = icmp ne <32 x i32> %seen, %words
  %rest = and <32 x i1> %other, %left
  %now = select <32 x i1> %left, <32 x i32> %bit, <32 x i32> zeroinitializer
  %or = call i32 @llvm.vector.reduce.or.v32i32(<32 x i32> %now)
  %here = call i32 @llvm.ctpop.i32(i32 %or)
  %here.w = zext i32 %here to i64
  %distinct.1 = add i64 %distinct, %here.w
  %waves.1 = add i64 %waves, 1
  %bits = bitcast <32 x i1> %rest to i32
  %more = icmp ne i32 %bits, 0
  br i1 %more, label %round, label %done
done:
  %high = shl i64 %waves.1, 32
  %r = or i64 %high, %distinct.1
  ret i64 %r""",
    )


def _row_banks() -> str:
    """Which of the 8 sixteen-byte bank groups the lanes of each quarter warp touch: 8 bits per quarter."""
    offsets = ", ".join(f"i32 {8 * (lane // 8)}" for lane in range(32))
    return _define(
        "row_banks",
        "addresses mask",
        f"""{_ACTIVE}
  %short = trunc <32 x i64> %a to <32 x i32>
  %rows = lshr <32 x i32> %short, splat (i32 4)
  %groups = and <32 x i32> %rows, splat (i32 7)
  %by = add <32 x i32> %groups, <{offsets}>
  %bit = shl <32 x i32> splat (i32 1), %by
  %used = select <32 x i1> %flags, <32 x i32> %bit, <32 x i32> zeroinitializer
  %all = call i32 @llvm.vector.reduce.or.v32i32(<32 x i32> %used)
  %r = zext i32 %all to i64
  ret i64 %r""",
    )


def _stride_of() -> str:
    """The constant distance of neighbouring lanes' addresses over a full warp, or -1."""
    previous = ", ".join(f"i32 {max(0, lane - 1)}" for lane in range(32))
    return _define(
        "stride_of",
        "addresses unused",
        f"""  %place = inttoptr i64 %addresses to ptr
  %a = load <32 x i64>, ptr %place, align 8
  %b = shufflevector <32 x i64> %a, <32 x i64> poison, <32 x i32> <{previous}>
  %d = sub <32 x i64> %a, %b
  %step = extractelement <32 x i64> %d, i64 1
  %s.i = insertelement <32 x i64> poison, i64 %step, i64 0
  %s = shufflevector <32 x i64> %s.i, <32 x i64> poison, <32 x i32> zeroinitializer
  %odd = icmp ne <32 x i64> %d, %s
  %bits = bitcast <32 x i1> %odd to i32
  %rest = and i32 %bits, -2
  %same = icmp eq i32 %rest, 0
  %r = select i1 %same, i64 %step, i64 -1
  ret i64 %r""",
    )


def _outside_of() -> str:
    """Mask of the lanes whose address is not in [base, base + span] or not aligned (`bits`: size - 1)."""
    v = "<32 x i64>"

    def broadcast(name: str, value: str) -> str:
        return (
            f"  %{name}.i = insertelement {v} poison, i64 %{value}, i64 0\n"
            f"  %{name} = shufflevector {v} %{name}.i, {v} poison, <32 x i32> zeroinitializer"
        )

    return _define(
        "outside_of",
        "addresses base span bits",
        f"""  %place = inttoptr i64 %addresses to ptr
  %a = load {v}, ptr %place, align 8
{broadcast("first", "base")}
{broadcast("most", "span")}
{broadcast("low", "bits")}
  %d = sub {v} %a, %first
  %far = icmp ugt {v} %d, %most
  %crooked.b = and {v} %d, %low
  %crooked = icmp ne {v} %crooked.b, zeroinitializer
  %bad = or <32 x i1> %far, %crooked
  %r.n = bitcast <32 x i1> %bad to i32
  %r = zext i32 %r.n to i64
  ret i64 %r""",
    )


def text() -> str:
    """All primitives."""
    parts = [f(n) for n in ROWS for f in (_busy, _note_reads, _mark_writes)]
    return "\n".join([*parts, _bank_waves(), _row_banks(), _stride_of(), _outside_of()])
