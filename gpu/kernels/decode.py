"""How a warp turns the words and values of a `LaneBitmap` strip into A fragments of m16n8k16, as instructions.

Lane i counts the bits of word i of two strips; one scan over the warp then knows where the values of every word start.  For
each 16 x 16 tile a lane fetches its word and that start from the lane that has them (two shuffles), counts the bits of the
lanes before it (one population count) and walks its elements.  A register needs the two halfwords at its place p and a byte
selector that is linear in the two presence bits:

    select = 0x3232 + 0x43DE low - 0x2200 high,   register = prmt(halfword[p], halfword[p + 2], select)

because the upper bytes of a zero-extended halfword are the zeros that absent elements need.  dp2a computes the selector,
dp4a the next place.  The right half of a fragment has its bits one place higher, so its factors are halved.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

from loadsparse.gpu.intrinsics import U32, WORD, constant, emit, product, unpack
from loadsparse.reference.formats.lane_bitmap import BITMAP, HEADER

VALUES = HEADER + BITMAP
NO_VALUE = 0x3232
SELECT = {0x01010101: 0xDE0043DE, 0x02020202: 0xEF0021EF}  # int16 factors of (low, high), by the mask of the bits
ADVANCE = {0x01010101: (0x0202, 0x02020202), 0x02020202: (0x0101, 0x01010101)}  # bytes after one pair, after two


def operation(builder: Any, text: str, *args: Any, pure: bool = True, convergent: bool = False) -> Any:
    """One instruction with one result; integers among `args` become constants."""
    values = [ir.Constant(U32, a) if isinstance(a, int) else a for a in args]
    constraints = ",".join(["=r"] + ["n" if isinstance(a, int) else "r" for a in args])
    return emit(builder, [U32], text, constraints, values, pure=pure, convergent=convergent)[0]


def scan(builder: Any, value: Any) -> Any:
    """Sum over the lanes up to and including this one."""
    for distance in (1, 2, 4, 8, 16):
        text = (
            f"{{ .reg .pred %in; .reg .b32 %up; shfl.sync.up.b32 %up|%in, $0, {distance}, 0, 0xffffffff; "
            "@%in add.u32 $0, $0, %up; }"
        )
        value = emit(builder, [U32], text, "=r,0", [value], convergent=True)[0]
    return value


@intrinsic
def locate(typing_context, tile, words, header, count):
    """State of `count` strips, 2 or 4: (this lane's word of each, shared address where its values start, less VALUES).

    tile: shared address of the tile; words: of this lane's word in the first strip, less HEADER; header: of the strips'
    starts.  Two strips share a scan, 16 bits each.
    """
    strips = constant("count", count)
    kind = types.UniTuple(types.UniTuple(WORD, strips), 2)

    def generate(context, builder, signature, args):
        own, starts = [], []
        for i in range(0, strips, 2):
            two = [
                operation(builder, f"ld.shared.u32 $0, [$1+{HEADER + 128 * j}];", args[1], pure=False)
                for j in (i, i + 1)
            ]
            low, high = (operation(builder, "popc.b32 $0, $1;", word) for word in two)
            counts = operation(builder, "mad.lo.u32 $0, $1, 65536, $2;", high, low)
            earlier = builder.sub(scan(builder, counts), counts)
            begins = operation(builder, f"ld.shared.u32 $0, [$1+{2 * i}];", args[2], pure=False)
            places = operation(builder, "mad.lo.u32 $0, $1, 2, $2;", earlier, begins)
            for place in (builder.and_(places, ir.Constant(U32, 0xFFFF)), builder.lshr(places, ir.Constant(U32, 16))):
                starts.append(builder.add(place, args[0]))
            own += two
        parts = [context.make_tuple(builder, kind.dtype, values) for values in (own, starts)]
        return context.make_tuple(builder, kind, parts)

    return kind(WORD, WORD, WORD, count), generate


def pairs(builder: Any, place: Any, bits: Any, mask: int) -> list[Any]:
    """Two registers: the next two pairs of elements, present where `bits` & mask says, with values from `place` on."""
    present = builder.and_(bits, ir.Constant(U32, mask))
    registers = []
    for half, name in enumerate(("lo", "hi")):
        at = operation(builder, "dp4a.u32.u32 $0, $1, $2, $3;", present, ADVANCE[mask][0], place) if half else place
        select = operation(builder, f"dp2a.{name}.s32.u32 $0, $2, $1, $3;", present, SELECT[mask], NO_VALUE)
        low = operation(builder, f"ld.shared.u16 $0, [$1+{VALUES}];", at, pure=False)
        high = operation(builder, f"ld.shared.u16 $0, [$1+{VALUES + 2}];", at, pure=False)
        registers.append(operation(builder, "prmt.b32 $0, $1, $2, $3;", low, high, select))
    return registers


def shuffle(builder: Any, value: Any, first: int, size: int) -> Any:
    """The value of lane first + lane % size."""
    text = f"shfl.sync.idx.b32 $0, $1, {first}, {size - 1 << 8 | 31}, 0xffffffff;"
    return operation(builder, text, value, pure=False, convergent=True)


def fragment(builder: Any, word: Any, start: Any, tile: int, bits: int, before: Any, shift: Any) -> list[Any]:
    """The four A registers of 16 x 16 tile number `tile` of a strip, group after group."""
    registers: list[Any] = []
    for first in range(8 * tile, 8 * tile + 8, bits):
        mine, begin = shuffle(builder, word, first, bits), shuffle(builder, start, first, bits)
        earlier = operation(builder, "popc.b32 $0, $1;", builder.and_(mine, before))
        place = operation(builder, "mad.lo.u32 $0, $1, 2, $2;", earlier, begin)
        mine = builder.lshr(mine, shift)
        registers += pairs(builder, place, mine, 0x01010101)
        if bits == 8:
            left = builder.and_(mine, ir.Constant(U32, 0x01010101))
            place = operation(builder, "dp4a.u32.u32 $0, $1, $2, $3;", left, ADVANCE[0x01010101][1], place)
            registers += pairs(builder, place, mine, 0x02020202)
    return registers


def multiply(in_format: str) -> Any:
    """An intrinsic (acc, words, starts, tile, bits, before, shift, b) -> acc + A x B for one 16-deep step of every strip.

    words, starts: see `locate`; tile (0..3) and bits (of the format): constants; before: mask of the earlier lanes' bits in
    a word; shift: place of this lane's bits; b: two words per panel of 8 columns, of the first panels or all; acc: 4 float32 per
    strip and panel.
    """

    def step(typing_context, acc, words, starts, tile, bits, before, shift, b):
        number, width, used = constant("tile", tile), constant("bits", bits), b.count // 2
        panels = acc.count // (4 * words.count)
        if acc.count != 4 * words.count * panels or used > panels:
            return None

        def generate(context, builder, signature, args):
            sums, right = unpack(builder, args[0], acc.count), unpack(builder, args[7], b.count)
            own, begins = unpack(builder, args[1], words.count), unpack(builder, args[2], words.count)
            for i in range(words.count):
                left = fragment(builder, own[i], begins[i], number, width, args[5], args[6])
                for j in range(used):
                    here = slice(4 * (i * panels + j), 4 * (i * panels + j) + 4)
                    sums[here] = product(builder, in_format, "m16n8k16", left, right[2 * j : 2 * j + 2], sums[here])
            return context.make_tuple(builder, signature.return_type, sums)

        return acc(acc, words, starts, tile, bits, WORD, WORD, b), generate

    step.__name__ = step.__qualname__ = f"decode_and_multiply_{in_format}"
    return intrinsic(step)


decode_and_multiply = {kind: multiply(kind) for kind in ("f16", "bf16")}
"""in_format -> intrinsic, see `multiply`."""
