"""Indices of the large elements of a vector, eight at a time: LLVM's vector compression, for Numba functions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8


@intrinsic
def append_reaching(_: Any, values: Any, start: Any, least: Any, picked: Any, found: Any) -> Any:
    """Writes those of start .. start + 7 with values[index] >= least to picked[found:], ascending, and returns the new
    count of found ones.

    values float64 [>= start + 8], picked int64 [>= found + 8] (what lies behind the new count is overwritten), both
    contiguous.
    """
    signature = types.intp(values, types.intp, types.float64, picked, types.intp)

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        floats, longs = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(ir.IntType(64), LANES)
        mask = ir.VectorType(ir.IntType(1), LANES)
        data = [context.make_array(signature.args[n])(context, builder, arguments[n]).data for n in (0, 3)]
        at, bound, count = arguments[1], arguments[2], arguments[4]

        def splat(scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            return builder.shuffle_vector(one, one, zeros)

        loaded = builder.load(builder.bitcast(builder.gep(data[0], [at]), floats.as_pointer()), align=8)
        large = builder.fcmp_ordered(">=", loaded, splat(bound, floats))
        indices = builder.add(splat(at, longs), ir.Constant(longs, list(range(LANES))))
        compress = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(longs, [longs, mask, longs]), "llvm.experimental.vector.compress.v8i64"
        )
        kept = builder.call(compress, [indices, large, ir.Constant(longs, ir.Undefined)])
        builder.store(kept, builder.bitcast(builder.gep(data[1], [count]), longs.as_pointer()), align=8)
        number = builder.ctpop(builder.bitcast(large, ir.IntType(LANES)))
        return builder.add(count, builder.zext(number, count.type))

    return signature, emit
