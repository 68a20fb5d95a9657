"""Blocks of instructions for kernels: intrinsics that emit a whole row of loads, stores or products.

Numba unrolls a loop only if it likes, and cannot index a tuple of registers with a loop variable; these are unrolled by
construction.  Counts and offsets are constants.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

from loadsparse.gpu.intrinsics import F32, U32, U64, WIDE, WORD, constant, emit, unpack


@intrinsic
def load_while(typing_context, address, count, stride, remaining):
    """`count` 16-byte global loads at address + i*stride, the i-th only if remaining > i*stride/16 (signed).

    Returns 4*count words; those not loaded are undefined.
    """
    times, step = constant("count", count), constant("stride", stride)
    kind = types.UniTuple(WORD, 4 * times)

    def generate(context, builder, signature, args):
        out = []
        for i in range(times):
            text = (
                f"{{ .reg .pred %more; setp.gt.s32 %more, $5, {i * step // 16}; "
                f"@%more ld.global.nc.v4.u32 {{$0, $1, $2, $3}}, [$4+{i * step}]; }}"
            )
            out += emit(builder, [U32] * 4, text, "=r,=r,=r,=r,l,r", [args[0], args[3]])
        return context.make_tuple(builder, kind, out)

    return kind(WIDE, count, stride, WORD), generate


@intrinsic
def copy_while(typing_context, shared, address, count, stride, remaining):
    """`count` asynchronous 16-byte copies at shared and address + i*stride, the i-th only if remaining > i*stride/16 (signed)."""
    times, step = constant("count", count), constant("stride", stride)

    def generate(context, builder, signature, args):
        for i in range(times):
            text = (
                f"{{ .reg .pred %more; setp.gt.s32 %more, $2, {i * step // 16}; "
                f"@%more cp.async.cg.shared.global [$0+{i * step}], [$1+{i * step}], 16; }}"
            )
            emit(builder, [], text, "r,l,r", [args[0], args[1], args[4]])
        return context.get_dummy_value()

    return types.void(WORD, WIDE, count, stride, WORD), generate


@intrinsic
def scatter_items(typing_context, tile, items, threads, remaining):
    """Store tiled-CSL items into the shared tile: the i-th four of them only if remaining > i*threads (signed).

    The tile starts at a multiple of its size, 16 KB, so that the location can be or-ed in.
    """
    step = constant("threads", threads)

    def generate(context, builder, signature, args):
        words = unpack(builder, args[1], items.count)

        def store(i):
            if i == items.count // 4:
                return
            with builder.if_then(builder.icmp_signed(">", args[3], ir.Constant(U32, i * step))):
                for item in words[4 * i : 4 * i + 4]:
                    location = builder.and_(builder.lshr(item, ir.Constant(U32, 15)), ir.Constant(U32, 0x1FFFE))
                    emit(builder, [], "st.shared.b16 [$0], $1;", "r,r", [builder.add(args[0], location), item])
                store(i + 1)

        store(0)
        return context.get_dummy_value()

    return types.void(WORD, items, threads, WORD), generate


@intrinsic
def clear_shared(typing_context, address, count, stride):
    """`count` 16-byte zero stores at address + i*stride."""
    times, step = constant("count", count), constant("stride", stride)

    def generate(context, builder, signature, args):
        zero = ir.Constant(U32, 0)
        for i in range(times):
            emit(builder, [], f"st.shared.v4.u32 [$0+{i * step}], {{$1, $1, $1, $1}};", "r,r", [args[0], zero])
        return context.get_dummy_value()

    return types.void(WORD, count, stride), generate


@intrinsic
def load_rows(typing_context, address, offset, count, stride):
    """`count` ldmatrix.x4 at address + offset + i*stride, all constants: A fragments of `count` row tiles, as one tuple."""
    times, step = constant("count", count), constant("stride", stride)
    kind = types.UniTuple(WORD, 4 * times)

    def generate(context, builder, signature, args):
        out = []
        for i in range(times):
            text = f"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{$0, $1, $2, $3}}, [$4+$5+{i * step}];"
            out += emit(builder, [U32] * 4, text, "=r,=r,=r,=r,r,n", args[:2], convergent=True)
        return context.make_tuple(builder, kind, out)

    return kind(WORD, types.int32, count, stride), generate


@intrinsic
def load_panels(typing_context, address, offset, count, stride):
    """B fragments of one k16 step of `count` panels of 8 columns, `stride` bytes apart: two words per panel.

    `address` is the lane's: row lane % 16 of panel lane / 16.  Two panels at a time by ldmatrix.x4.trans.
    """
    times, step = constant("count", count), constant("stride", stride)
    kind = types.UniTuple(WORD, 2 * times)

    def generate(context, builder, signature, args):
        out = []
        for j in range(0, times, 2):
            many = 4 if j + 1 < times else 2
            names = ", ".join(f"${i}" for i in range(many))
            text = f"ldmatrix.sync.aligned.m8n8.x{many}.trans.shared.b16 {{{names}}}, [${many}+${many + 1}+{j * step}];"
            out += emit(builder, [U32] * many, text, ",".join(["=r"] * many + ["r", "n"]), args[:2], convergent=True)
        return context.make_tuple(builder, kind, out)

    return kind(WORD, types.int32, count, stride), generate


@intrinsic
def load_deep_panels(typing_context, address, offset, count, stride):
    """B fragments of one k32 step of `count` panels: four words per panel.  `address` is the lane's: row lane of panel 0."""
    times, step = constant("count", count), constant("stride", stride)
    kind = types.UniTuple(WORD, 4 * times)

    def generate(context, builder, signature, args):
        out = []
        for j in range(times):
            text = f"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {{$0, $1, $2, $3}}, [$4+$5+{j * step}];"
            out += emit(builder, [U32] * 4, text, "=r,=r,=r,=r,r,n", args[:2], convergent=True)
        return context.make_tuple(builder, kind, out)

    return kind(WORD, types.int32, count, stride), generate


def sparse_product(in_format: str) -> Any:
    """An intrinsic (acc, a, metadata, b) -> acc + A x B by mma.sp.m16n8k32, 2:4 sparse A.

    acc: 4*p*q float32, a: 4 words and metadata: 1 word per fragment of A (p), b: 4 words per panel of B (q).
    """
    text = (
        f"mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.{in_format}.{in_format}.f32 "
        "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9, $10, $11}, {$12, $13, $14, $15}, $16, 0x0;"
    )
    constraints = ",".join(["=f"] * 4 + ["r"] * 8 + ["f"] * 4 + ["r"])

    def multiply(typing_context, acc, a, metadata, b):
        columns = b.count // 4
        if acc.count != 4 * metadata.count * columns or a.count != 4 * metadata.count:
            return None

        def generate(context, builder, signature, args):
            sums, left = unpack(builder, args[0], acc.count), unpack(builder, args[1], a.count)
            meta, right = unpack(builder, args[2], metadata.count), unpack(builder, args[3], b.count)
            out = []
            for i in range(metadata.count):
                for j in range(columns):
                    at = 4 * (i * columns + j)
                    operands = [*left[4 * i : 4 * i + 4], *right[4 * j : 4 * j + 4], *sums[at : at + 4], meta[i]]
                    out += emit(builder, [F32] * 4, text, constraints, operands, pure=True, convergent=True)
            return context.make_tuple(builder, signature.return_type, out)

        return acc(acc, a, metadata, b), generate

    multiply.__name__ = multiply.__qualname__ = f"mma_sp_{in_format}"
    return intrinsic(multiply)


mma_sparse = {kind: sparse_product(kind) for kind in ("f16", "bf16")}
"""in_format -> intrinsic, see `sparse_product`."""


@intrinsic
def store_partials(typing_context, address, acc, columns, used):
    """Float32 accumulators of the first `used` panels of 8 columns to a row-major [16*p, 8*columns] array.

    `address` is that of the lane's first value.
    """
    panels = constant("columns", columns)
    if acc.count % (4 * panels):
        return None

    def generate(context, builder, signature, args):
        values = unpack(builder, args[1], acc.count)
        for across in range(panels):
            with builder.if_then(builder.icmp_unsigned(">", args[3], ir.Constant(U32, across))):
                for row in range(acc.count // (2 * panels)):  # two to a fragment, 8 apart
                    i = 4 * (row // 2 * panels + across) + 2 * (row % 2)
                    at = row * 8 * panels * 32 + across * 32
                    emit(
                        builder, [], f"st.global.v2.f32 [$0+{at}], {{$1, $2}};", "l,f,f", [args[0], *values[i : i + 2]]
                    )
        return context.get_dummy_value()

    return types.void(WIDE, acc, columns, WORD), generate


def store_results(out_format: str) -> Any:
    """An intrinsic that rounds accumulators to `out_format` and stores those inside a row-major [m, n] matrix.

    (address, acc, columns, paired, rows, width, pitch): `address` is that of the lane's first element, rows and width how
    many rows and columns of the matrix lie at and beyond it, pitch its row length in bytes; `columns` (8-wide panels) and
    `paired` (1 where n is even, so that two elements make an aligned word) are constants.
    """
    convert = f"cvt.rn.{out_format}x2.f32 $0, $2, $1;"

    def store(typing_context, address, acc, columns, paired, rows, width, pitch):
        panels, even = constant("columns", columns), constant("paired", paired)

        def generate(context, builder, signature, args):
            base, values = args[0], unpack(builder, args[1], acc.count)
            rows_left, columns_left, row_bytes = args[4:]

            def put(ok, kind, row, at, word):
                text = f"{{ .reg .pred %ok; setp.ne.u32 %ok, $2, 0; @%ok st.global.{kind} [$0+{at}], $1; }}"
                emit(builder, [], text, "l,r,r", [row, word, builder.zext(ok, U32)])

            for i in range(0, acc.count, 2):
                fragment, half = divmod(i // 2, 2)
                down, across = divmod(fragment, panels)
                down = down * 16 + half * 8
                row = builder.add(base, builder.mul(builder.zext(row_bytes, U64), ir.Constant(U64, down)))
                inside = builder.icmp_unsigned(">", rows_left, ir.Constant(U32, down))
                word = emit(builder, [U32], convert, "=r,f,f", values[i : i + 2], pure=True)[0]
                for part in range(1 if even else 2):
                    column = builder.icmp_unsigned(">", columns_left, ir.Constant(U32, across * 8 + part))
                    put(builder.and_(inside, column), "b32" if even else "b16", row, across * 16 + part * 2, word)
                    word = builder.lshr(word, ir.Constant(U32, 16))
            return context.get_dummy_value()

        return types.void(WIDE, acc, columns, paired, WORD, WORD, WORD), generate

    store.__name__ = store.__qualname__ = f"store_results_{out_format}"
    return intrinsic(store)


store_rounded = {kind: store_results(kind) for kind in ("f16", "bf16")}
"""out_format -> intrinsic, see `store_results`."""
