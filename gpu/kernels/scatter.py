"""How a warp turns a delta tile of `Adaptive` into A fragments of m16n8k16: through a small dense area of its own.

The area holds one half of a tile (32 columns) in the order of positions and is zero between halves.  Each lane takes an octet
of entries, adds its distances with dp4a, one scan over the warp tells where they start, and eight stores put the values into
place.  A fragment is then 16 consecutive bytes of each lane: one load without conflicts, after which the lane stores zeros.

Instructions: about 60 for 32 octets, where a bitmap costs 27 to 32 for every fragment.  Wavefronts: 4 to read and 4 to clear
a fragment, and the stores, whose banks are random; a bitmap needs 8.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import cuda, types, uint32
from numba.cuda.extending import intrinsic

from loadsparse.gpu.intrinsics import (
    PAIR,
    QUAD,
    U32,
    WORD,
    constant,
    emit,
    load_shared_x4,
    named,
    product,
    unpack,
)
from loadsparse.gpu.kernels.decode import operation, scan
from loadsparse.reference.formats.delta import HEADER, OCTET, STREAM

SPREAD = {
    5: (15, 4, 0x02040810, 0x10101010),
    6: (0xFFFF, 2, 0x00100001, 0x30303030),
    8: (0xFFFFFFFF, 4, 16, 0xF0F0F0F0),
}
"""width -> (mask, shift, factor, kept): how an octet's high bits h come to the bytes of its distances, as `delta.HIGH` has them.

    entries 0 to 3: (h & mask) factor & kept        entries 4 to 7: (h >> shift) factor & kept
"""


@intrinsic
def spread_rule(typing_context, kind):
    """(mask, shift, factor, kept) of a tile's width, see `SPREAD`."""
    text = "{ .reg .pred %five, %six; setp.eq.u32 %five, $4, 5; setp.eq.u32 %six, $4, 6; "
    for i, (five, six, eight) in enumerate(zip(*SPREAD.values(), strict=True)):
        text += f"selp.b32 ${i}, {six}, {eight}, %six; selp.b32 ${i}, {five}, ${i}, %five; "

    def generate(context, builder, signature, args):
        return context.make_tuple(builder, QUAD, emit(builder, [U32] * 4, text + "}", "=&r,=&r,=&r,=&r,r", args))

    return QUAD(WORD), generate


@intrinsic
def load_distances(typing_context, rule, low_at, high_at, octet, extra):
    """Distances of an octet, one a byte: entries 0 to 3, 4 to 7.  extra: bytes of high bits per octet, 1, 2 or 4."""
    text = """{ .reg .b32 %low, %high, %at, %bits, %word;
        mad.lo.u32 %at, $4, 4, $2; ld.shared.u32 %low, [%at];
        mad.lo.u32 %at, $4, $5, $3; and.b32 %word, %at, -4; ld.shared.u32 %high, [%word];
        and.b32 %at, %at, 3; shl.b32 %at, %at, 3; shl.b32 %bits, $5, 3; bfe.u32 %high, %high, %at, %bits;
        and.b32 %at, %high, $6; mul.lo.u32 %at, %at, $8; and.b32 %at, %at, $9; lop3.b32 $0, %low, 0x0F0F0F0F, %at, 0xEA;
        shr.u32 %at, %high, $7; mul.lo.u32 %at, %at, $8; and.b32 %at, %at, $9; shr.u32 %low, %low, 4;
        lop3.b32 $1, %low, 0x0F0F0F0F, %at, 0xEA; }"""

    def generate(context, builder, signature, args):
        registers = [*args[1:], *unpack(builder, args[0], 4)]
        return context.make_tuple(builder, PAIR, emit(builder, [U32] * 2, text, "=&r,=&r" + ",r" * 8, registers))

    return PAIR(QUAD, WORD, WORD, WORD, WORD), generate


@intrinsic
def scan_distances(typing_context, distances):
    """(bytes of the dense area that an octet covers, the same summed over the lanes up to and including this one)."""

    def generate(context, builder, signature, args):
        first, second = unpack(builder, args[0], 2)
        covered = ir.Constant(U32, 0)
        for word in (first, second):
            covered = operation(builder, "dp4a.u32.u32 $0, $1, $2, $3;", word, 0x02020202, covered)
        return context.make_tuple(builder, PAIR, [covered, scan(builder, covered)])

    return PAIR(PAIR), generate


@intrinsic
def last_lane(typing_context, value):
    """The value of lane 31."""

    def generate(context, builder, signature, args):
        return operation(builder, "shfl.sync.idx.b32 $0, $1, 31, 31, 0xffffffff;", args[0], pure=False, convergent=True)

    return WORD(WORD), generate


def octet_store(whole: bool) -> Any:
    """An intrinsic (distances, values, base, count, lane, middle, pair): store an octet, item 0 at base + 2 distance - 2.

    base, middle: shared addresses; lanes from `count` on have no octet.  Unless the area holds the `whole` stream it holds its
    first or its second half, as `pair` says, and what falls on the other side of `middle` is not stored.
    """
    text = "{ .reg .pred %in, %second; .reg .b32 %start, %to, %half, %high; setp.lt.u32 %in, $8, $7; "
    if whole:
        text += "mov.b32 %start, $6; "
    else:  # a lane without octet starts beyond both sides
        text += (
            "setp.ne.u32 %second, $10, 0; selp.b32 %start, 0, 0x80000000, %second; selp.b32 %start, $6, %start, %in; "
        )
    for i in range(OCTET):
        word, weights, value = i // 4, 0x02020202 >> 8 * (3 - i % 4), f"${2 + i // 2}"
        start, to = "%half" if word else "%start", "%half" if i == 3 else "%to"
        text += f"dp4a.u32.u32 {to}, ${word}, {weights}, {start}; "
        text += f"shr.u32 %high, {value}, 16; " if i % 2 else ""
        text += "" if whole else f"setp.le.xor.u32 %in, {to}, $9, %second; "
        text += f"@%in st.shared.b16 [{to}+-2], {'%high' if i % 2 else value}; "

    def define(typing_context, distances, values, base, count, lane, middle, pair):
        def generate(context, builder, signature, args):
            registers = [*unpack(builder, args[0], 2), *unpack(builder, args[1], 4), *args[2:]]
            emit(builder, [], text + "}", ",".join(["r"] * 11), registers)
            return context.get_dummy_value()

        return types.void(PAIR, QUAD, WORD, WORD, WORD, WORD, WORD), generate

    return named("store_octet", define, "Store the values of an octet, see `octet_store`.")


def scatter_rounds(whole: bool, rounds: int) -> Any:
    """A device function that scatters 32 octets of a half in each of `rounds` rounds, with these parameters:

    rule, extra: see `load_distances`; low_at, high_at, values_at: shared addresses of the tile's arrays; middle, pair: see
    `octet_store`;
    octet: the lane's in the tile, whose last is `last`; count: octets of the half still to come; base: shared address of
    their first position.  There is no branch: ptxas would guard the shuffles behind one by a slow path that spills.
    """
    store_octet, more = octet_store(whole), rounds > 1
    later = scatter_rounds(whole, rounds - 1) if more else None

    @cuda.jit(device=True, inline="always")
    def scatter(rule, extra, octet, last, count, lane, low_at, high_at, values_at, base, middle, pair):
        mine = min(octet, last)
        distances = load_distances(rule, low_at, high_at, mine, extra)
        covered, through = scan_distances(distances)
        values = load_shared_x4(uint32(values_at + uint32(mine << uint32(4))), 0)
        store_octet(distances, values, uint32(base + uint32(through - covered)), count, lane, middle, pair)
        if more:
            base, octet = uint32(base + last_lane(through)), uint32(octet + uint32(32))
            left = uint32(max(count, uint32(32)) - uint32(32))
            later(rule, extra, octet, last, left, lane, low_at, high_at, values_at, base, middle, pair)

    return scatter


def scatter_half(whole: bool, rounds: int) -> Any:
    """A device function (tile, kind, octets, first, count, lane, area, pair): scatter half a delta tile into the area.

    tile: shared address; octets: of the whole tile; first, count: of the half, at most 32 * rounds; whole: the
    area holds all four strips of the half, else only strip pair 0 or 1, `pair`.  A warp calls it together.
    """
    scatter = scatter_rounds(whole, rounds)

    @cuda.jit(device=True, inline="always")
    def all_rounds(tile, kind, octets, first, count, lane, area, pair):
        low_at = uint32(tile + uint32(HEADER))
        high_at = uint32(low_at + uint32(octets << uint32(2)))
        indexes = uint32(octets * kind + uint32(HEADER + 15)) & uint32(0xFFFFFFF0)
        values_at = uint32(tile + min(indexes, uint32(octets << uint32(4))))  # inside of the tile even without octets
        base = area if whole else uint32(area - uint32(pair * uint32(STREAM)))
        octet, last, middle = (
            uint32(first + lane),
            uint32(max(octets, uint32(1)) - uint32(1)),
            uint32(base + uint32(STREAM)),
        )
        rule, extra = spread_rule(kind), uint32(kind - uint32(4))
        scatter(rule, extra, octet, last, count, lane, low_at, high_at, values_at, base, middle, pair)

    return all_rounds


def area_bytes(strips: int) -> int:
    """Bytes of the dense area of a warp: half the columns of a tile's strips, and room for the pads of a stream."""
    return strips * 1024 + 16


def multiply(in_format: str) -> Any:
    """An intrinsic (acc, address, step, b) -> acc + A x B for step 0 or 1 (a constant) of a half, 16 deep.

    address: of the lane's first element of the half; strips lie as in `Adaptive`.  Zeros are stored where a fragment was
    read.  After step 1 the area is zero for every lane.  b: two words per panel of 8 columns; acc: 4 float32 per strip and
    panel.
    """

    def define(typing_context, acc, address, step, b):
        panels, number = b.count // 2, constant("step", step)
        strips = acc.count // (4 * panels)

        def generate(context, builder, signature, args):
            sums, right = unpack(builder, args[0], acc.count), unpack(builder, args[3], b.count)
            zero, out = ir.Constant(U32, 0), []
            for i in range(strips):
                at = i // 2 * STREAM + number * 1024 + i % 2 * 512
                text = f"ld.shared.v4.u32 {{$0, $1, $2, $3}}, [$4+{at}];"
                left = emit(builder, [U32] * 4, text, "=r,=r,=r,=r,r", [args[1]])
                emit(builder, [], f"st.shared.v4.u32 [$0+{at}], {{$1, $1, $1, $1}};", "r,r", [args[1], zero])
                if (
                    number == 1 and i == strips - 1
                ):  # before a product, whose .aligned tells ptxas that lanes are together
                    emit(builder, [], "bar.warp.sync 0xffffffff;", "", [], convergent=True)
                for j in range(panels):
                    place = 4 * (i * panels + j)
                    two = right[2 * j : 2 * j + 2]
                    out += product(builder, in_format, "m16n8k16", left, two, sums[place : place + 4])
            return context.make_tuple(builder, signature.return_type, out)

        return acc(acc, WORD, step, b), generate

    return named(f"take_and_multiply_{in_format}", define, "One 16-deep step from the dense area, see `multiply`.")


take_and_multiply = {kind: multiply(kind) for kind in ("f16", "bf16")}
"""in_format -> intrinsic, see `multiply`."""
