"""PTX instructions for kernels written in Numba-CUDA.

Numba has no names for Tensor Cores, ldmatrix or cp.async; these intrinsics emit them as inline assembly.  Conventions:

- A *shared address* is a uint32 offset into the block's shared memory, a *global address* a uint64.
- `offset` arguments (bytes) must be compile-time constants; they become immediates and cost nothing.
- Fragments are tuples of registers in the element order of the PTX manual (`loadsparse.reference.tensorcore` has the tables).
- Everything that touches memory clobbers memory, so the compiler keeps program order among these calls.

Intrinsics work only inside a kernel; called from Python they raise NotImplementedError.  Source: PTX ISA 9.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

try:
    from numba.cuda.core import errors
except ImportError:  # Numba's own CUDA target, where numba-cuda is not installed
    from numba.core import errors

U32, U64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
MEMORY = "~{memory}"
UNIFORM = "// uniform"  # marks a move for `compiler.numba`, which makes branches on its result bra.uni


def emit(
    builder: Any,
    results: Sequence[ir.Type],
    text: str,
    constraints: str,
    args: Sequence[ir.Value],
    *,
    pure: bool = False,
    convergent: bool = False,
) -> list[ir.Value]:
    """Emit one inline assembly statement and return its result registers.

    `text` names the results $0, $1, ... and then the operands.  `pure` statements may be moved, merged and dropped;
    the others clobber memory and stay in order.  `convergent` ones may not be moved into divergent code.
    """
    if not results:
        returned: ir.Type = ir.VoidType()
    elif len(results) == 1:
        returned = results[0]
    else:
        returned = ir.LiteralStructType(results)
    function = ir.FunctionType(returned, [a.type for a in args])
    if not pure:
        constraints = f"{constraints},{MEMORY}" if constraints else MEMORY
    asm = ir.InlineAsm(function, text, constraints, side_effect=not pure)
    call = builder.call(asm, list(args), attrs=("convergent",) if convergent else ())
    if len(results) <= 1:
        return [call] * len(results)
    return [builder.extract_value(call, i) for i in range(len(results))]


def unpack(builder: Any, value: ir.Value, count: int) -> list[ir.Value]:
    """The registers of a homogeneous tuple."""
    return [builder.extract_value(value, i) for i in range(count)]


def fixed(returns: Any, parameters: Sequence[Any], text: str, constraints: str, **how: bool) -> Callable[..., Any]:
    """Code generator of an instruction with fixed operand types: (signature, generator), as @intrinsic wants it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        many = isinstance(returns, types.UniTuple)
        kinds = [] if returns == types.void else [returns.dtype] * returns.count if many else [returns]
        out = emit(builder, [context.get_value_type(k) for k in kinds], text, constraints, args, **how)
        if many:
            return context.make_tuple(builder, returns, out)
        return out[0] if out else context.get_dummy_value()

    return returns(*parameters), generate  # type: ignore[return-value]


WORD, WIDE = types.uint32, types.uint64
PAIR, QUAD = types.UniTuple(WORD, 2), types.UniTuple(WORD, 4)


@intrinsic
def shared_base(typing_context):
    """Shared address of the block's dynamic shared memory (aligned to 128 bytes)."""

    def generate(context, builder, signature, args):
        module, name = builder.module, "loadsparse_shared"
        symbol = module.globals.get(name)
        if symbol is None:
            symbol = ir.GlobalVariable(module, ir.ArrayType(ir.IntType(8), 0), name, addrspace=3)
            symbol.linkage, symbol.align = "external", 128
        return builder.ptrtoint(symbol, U32)

    return WORD(), generate


@intrinsic
def keep(typing_context, value):
    """The same value in a register of its own: the compiler computes it here, once, and not again inside of a loop."""
    bits = value.bitwidth
    kind, register = (WIDE, "l") if bits == 64 else (WORD, "r")
    return fixed(kind, (kind,), f"mov.b{bits} $0, $1;", f"={register},{register}")


@intrinsic
def uniform(typing_context, value):
    """The same word, of which the caller knows that it is equal in all lanes: a branch on it keeps the warp together.

    ptxas cannot know that of a value from memory, and would guard every shuffle under the branch by a slow path.
    """
    return fixed(WORD, (WORD,), f"mov.b32 $0, $1; {UNIFORM}", "=r,r")


def listed(count: int, first: int = 0) -> str:
    """ "$0", or "{$0, $1, ...}": the registers of an operand in assembly text."""
    names = ", ".join(f"${first + i}" for i in range(count))
    return names if count == 1 else f"{{{names}}}"


def named(name: str, define: Any, doc: str) -> Any:
    """The intrinsic that `define` defines, under a name and a docstring of its own."""
    define.__name__ = define.__qualname__ = name
    define.__doc__ = doc
    return intrinsic(define)


def load(name: str, space: str, count: int = 1, element: str = "u32") -> Any:
    """An intrinsic (address, offset) -> `count` elements, aligned to their whole size; halfwords are zero-extended."""
    real, vector = element == "f32", f".v{count}" if count > 1 else ""
    one, address, letter = (
        (types.float32 if real else WORD),
        (WORD if space == "shared" else WIDE),
        "f" if real else "r",
    )
    kind = one if count == 1 else types.UniTuple(one, count)
    where = f"[${count}+${count + 1}]"
    text = f"ld.{space}{vector}.{element} {listed(count)}, {where};"
    constraints = ",".join([f"={letter}"] * count + ["r" if space == "shared" else "l", "n"])

    def define(typing_context, address_of, offset):
        return fixed(kind, (address, types.int32), text, constraints)

    return named(name, define, f"ld.{space}{vector}.{element}: what lies at address + offset.")


def store(name: str, space: str, count: int = 1, element: str = "u32") -> Any:
    """An intrinsic (address, offset, value) that stores `count` elements; of a word a "b16" store takes the low half."""
    real, vector = element == "f32", f".v{count}" if count > 1 else ""
    one, address, letter = (
        (types.float32 if real else WORD),
        (WORD if space == "shared" else WIDE),
        "f" if real else "r",
    )
    kind = one if count == 1 else types.UniTuple(one, count)
    text = f"st.{space}{vector}.{element} [$0+$1], {listed(count, 2)};"
    constraints = ",".join(["r" if space == "shared" else "l", "n", *[letter] * count])

    def define(typing_context, address_of, offset, value):
        def generate(context, builder, signature, args):
            values = [args[2]] if count == 1 else unpack(builder, args[2], count)
            emit(builder, [], text, constraints, [*args[:2], *values])
            return context.get_dummy_value()

        return types.void(address, types.int32, kind), generate

    return named(name, define, f"st.{space}{vector}.{element}: the value to address + offset.")


load_shared, load_shared_half = load("load_shared", "shared"), load("load_shared_half", "shared", element="u16")
load_shared_byte = load("load_shared_byte", "shared", element="u8")
load_shared_x2, load_shared_x4 = load("load_shared_x2", "shared", 2), load("load_shared_x4", "shared", 4)
store_shared, store_shared_half = store("store_shared", "shared"), store("store_shared_half", "shared", element="b16")
store_shared_x4 = store("store_shared_x4", "shared", 4)

# Global loads marked nc are for memory that the kernel never writes.
load_global, load_global_half = load("load_global", "global.nc"), load("load_global_half", "global.nc", element="u16")
load_global_x2, load_global_x4 = load("load_global_x2", "global.nc", 2), load("load_global_x4", "global.nc", 4)
load_global_f32 = load("load_global_f32", "global.nc", element="f32")
load_global_x4_f32 = load("load_global_x4_f32", "global", 4, "f32")
store_global, store_global_half = store("store_global", "global"), store("store_global_half", "global", element="b16")
store_global_f32 = store("store_global_f32", "global", element="f32")


def copy(size: int) -> Any:
    """An intrinsic (shared, shared offset, address, offset, bytes) that copies `size` bytes global -> shared asynchronously.

    Only the first `bytes` (0..size) of them are read; the rest become zeros.
    """
    text = f"cp.async.{'cg' if size == 16 else 'ca'}.shared.global [$0+$1], [$2+$3], {size}, $4;"

    def define(typing_context, shared, shared_offset, address, offset, size):
        return fixed(types.void, (WORD, types.int32, WIDE, types.int32, WORD), text, "r,n,l,n,r")

    return named(f"cp_async_{size}", define, f"cp.async of {size} bytes with zero-fill.")


cp_async_16, cp_async_8, cp_async_4 = copy(16), copy(8), copy(4)


@intrinsic
def cp_async_commit(typing_context):
    """Close this thread's issued copies into a group."""
    return fixed(types.void, (), "cp.async.commit_group;", "")


@intrinsic
def cp_async_wait(typing_context, pending):
    """Wait until at most `pending` (a constant) most recent groups of this thread are under way."""
    return fixed(types.void, (types.int32,), "cp.async.wait_group $0;", "n")


@intrinsic
def barrier(typing_context):
    """bar.sync 0: every thread of the block arrives, and sees what the others wrote before."""
    return fixed(types.void, (), "bar.sync 0;", "", convergent=True)


@intrinsic
def warp_barrier(typing_context):
    """bar.warp.sync: every lane arrives, and sees what the others wrote before."""
    return fixed(types.void, (), "bar.warp.sync 0xffffffff;", "", convergent=True)


def ldmatrix(count: int, transposed: bool = False) -> Any:
    """An intrinsic (address, offset) -> `count` 8x8 matrices of 16-bit elements; lanes 8j..8j+7 give the rows of matrix j."""
    text = f"ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.shared.b16 "
    text += "{" + ", ".join(f"${i}" for i in range(count)) + f"}}, [${count}+${count + 1}];"
    kind, constraints = (WORD if count == 1 else types.UniTuple(WORD, count)), ",".join(["=r"] * count + ["r", "n"])

    def define(typing_context, address, offset):
        return fixed(kind, (WORD, types.int32), text, constraints, convergent=True)

    name = f"ldmatrix_x{count}{'_trans' if transposed else ''}"
    return named(name, define, f"ldmatrix.x{count}{', transposed' if transposed else ''}.")


ldmatrix_x1, ldmatrix_x2, ldmatrix_x4 = ldmatrix(1), ldmatrix(2), ldmatrix(4)
ldmatrix_x1_trans, ldmatrix_x2_trans, ldmatrix_x4_trans = ldmatrix(1, True), ldmatrix(2, True), ldmatrix(4, True)


def product(builder: Any, in_format: str, shape: str, a: list[Any], b: list[Any], c: list[Any]) -> list[Any]:
    """One mma.sync: the four float32 results of a x b + c."""
    operands, at, groups = [*a, *b, *c], 4, ["$0, $1, $2, $3"]
    for part in (a, b, c):
        groups.append(", ".join(f"${at + i}" for i in range(len(part))))
        at += len(part)
    text = f"mma.sync.aligned.{shape}.row.col.f32.{in_format}.{in_format}.f32 " + ", ".join(f"{{{g}}}" for g in groups)
    constraints = ",".join(["=f"] * 4 + ["r"] * (len(a) + len(b)) + ["f"] * 4)
    return emit(builder, [F32] * 4, text + ";", constraints, operands, pure=True, convergent=True)


def mma(in_format: str, shape: str, a_registers: int, b_registers: int) -> Any:
    """An intrinsic that multiplies every A fragment with every B fragment.

    acc: 4*p*q float32, a: p * `a_registers` words, b: up to q * `b_registers` words -> new acc; the four values that start
    at acc[4*(i*q + j)] gain A fragment i x B fragment j, where there is one.
    """

    def multiply(typing_context, acc, a, b):
        rows, used = a.count // a_registers, b.count // b_registers
        columns = acc.count // (4 * rows) if rows else 0
        if (4 * rows * columns, a_registers * rows, b_registers * used) != (
            acc.count,
            a.count,
            b.count,
        ) or used > columns:
            return None

        def generate(context, builder, signature, args):
            sums, left = unpack(builder, args[0], acc.count), unpack(builder, args[1], a.count)
            right = unpack(builder, args[2], b.count)
            for i in range(rows):
                for j in range(used):
                    here = slice(4 * (i * columns + j), 4 * (i * columns + j) + 4)
                    a_part = left[a_registers * i : a_registers * (i + 1)]
                    b_part = right[b_registers * j : b_registers * (j + 1)]
                    sums[here] = product(builder, in_format, shape, a_part, b_part, sums[here])
            return context.make_tuple(builder, signature.return_type, sums)

        return acc(acc, a, b), generate

    return named(f"mma_{shape}_{in_format}", multiply, f"mma.{shape} of {in_format}, float32 accumulators.")


mma_m16n8k16 = {kind: mma(kind, "m16n8k16", 4, 2) for kind in ("f16", "bf16")}
"""in_format -> intrinsic(acc, a, b): D = A[16,16] x B[16,8] + C on Tensor Cores, float32 accumulators."""


def constant(name: str, kind: Any) -> int:
    """The value of an argument that must be a compile-time constant."""
    if not isinstance(kind, types.IntegerLiteral):
        raise errors.RequireLiteralValue(f"{name} must be a constant")
    return int(kind.literal_value)


@intrinsic
def zeros(typing_context, count):
    """A tuple of `count` (a constant) float32 zeros: empty accumulators."""
    kind = types.UniTuple(types.float32, constant("count", count))

    def generate(context, builder, signature, args):
        return context.make_tuple(builder, kind, [ir.Constant(F32, 0.0)] * kind.count)

    return kind(count), generate


@intrinsic
def zero_words(typing_context, count):
    """A tuple of `count` (a constant) zero words."""
    kind = types.UniTuple(WORD, constant("count", count))

    def generate(context, builder, signature, args):
        return context.make_tuple(builder, kind, [ir.Constant(U32, 0)] * kind.count)

    return kind(count), generate


@intrinsic
def popc(typing_context, value):
    """Number of set bits."""
    return fixed(WORD, (WORD,), "popc.b32 $0, $1;", "=r,r", pure=True)


@intrinsic
def prmt(typing_context, low, high, selector):
    """Byte permutation: nibble i of `selector` picks the byte of high:low that becomes byte i."""
    return fixed(WORD, (WORD, WORD, WORD), "prmt.b32 $0, $1, $2, $3;", "=r,r,r,r", pure=True)


@intrinsic
def fma(typing_context, a, b, c):
    """a b + c, rounded once."""
    real = types.float32
    return fixed(real, (real, real, real), "fma.rn.f32 $0, $1, $2, $3;", "=f,f,f,f", pure=True)


def widen(name: str, text: str) -> Any:
    """An intrinsic that turns a word of two 16-bit floats into (low, high) float32."""

    def unpack_pair(typing_context, word):
        return fixed(types.UniTuple(types.float32, 2), (WORD,), text, "=f,=f,r", pure=True)

    return named(name, unpack_pair, "The exact float32 values of the low and the high half.")


unpack_halves = {
    "f16": widen(
        "unpack_f16",
        "{ .reg .b16 %l, %h; mov.b32 {%l, %h}, $2; cvt.f32.f16 $0, %l; cvt.f32.f16 $1, %h; }",
    ),
    "bf16": widen(
        "unpack_bf16",
        "{ .reg .b32 %w; shl.b32 %w, $2, 16; mov.b32 $0, %w; and.b32 %w, $2, 0xffff0000; mov.b32 $1, %w; }",
    ),
}
"""format -> intrinsic(word): the exact float32 values of the low and the high half."""


def narrow(name: str, text: str) -> Any:
    """An intrinsic that rounds two float32 to 16-bit formats: first argument in the low half, second in the high half."""

    def pack(typing_context, low, high):
        return fixed(WORD, (types.float32, types.float32), text, "=r,f,f", pure=True)

    return named(name, pack, "One word of two values rounded to nearest, ties to even.")


pack_halves = {
    "f16": narrow("pack_f16", "cvt.rn.f16x2.f32 $0, $2, $1;"),
    "bf16": narrow("pack_bf16", "cvt.rn.bf16x2.f32 $0, $2, $1;"),
}
"""format -> intrinsic(low, high): one word of two values rounded to nearest, ties to even."""


@intrinsic
def redux_max(typing_context, value):
    """Largest uint32 over the 32 lanes of a warp, in every lane (sm_80 and newer)."""
    return fixed(WORD, (WORD,), "redux.sync.max.u32 $0, $1, 0xffffffff;", "=r,r", convergent=True)


@intrinsic
def redux_min(typing_context, value):
    """Smallest uint32 over the 32 lanes of a warp, in every lane (sm_80 and newer)."""
    return fixed(WORD, (WORD,), "redux.sync.min.u32 $0, $1, 0xffffffff;", "=r,r", convergent=True)


@intrinsic
def add_shared(typing_context, address, value):
    """Atomic addition to one word of shared memory."""
    return fixed(types.void, (WORD, WORD), "red.shared.add.u32 [$0], $1;", "r,r")


@intrinsic
def add_global(typing_context, address, value):
    """Atomic addition to one word of global memory; returns what was there."""
    return fixed(WORD, (WIDE, WORD), "atom.global.add.u32 $0, [$1], $2;", "=r,l,r")


@intrinsic
def fence(typing_context):
    """Order this thread's accesses before the fence before those after it, for the whole GPU."""
    return fixed(types.void, (), "fence.acq_rel.gpu;", "")


@intrinsic
def load_global_f64(typing_context, address):
    """One float64 from global memory."""
    return fixed(types.float64, (WIDE,), "ld.global.f64 $0, [$1];", "=d,l")


@intrinsic
def store_global_f64(typing_context, address, value):
    """One float64 to global memory."""
    return fixed(types.void, (WIDE, types.float64), "st.global.f64 [$0], $1;", "l,d")


@intrinsic
def bits_of_f64(typing_context, value):
    """The bit pattern of a float64."""
    return fixed(WIDE, (types.float64,), "mov.b64 $0, $1;", "=l,d", pure=True)
