"""The opcodes both engines execute: a table that checks itself.

A row says which modifiers an opcode takes, how many of them are types, which choices must be made, how many operands
follow (destinations first), and which pipe of a multiprocessor executes it.  PTX that does not fit is refused at load:
by the table, and by what it cannot say, which modifiers go together (`forms.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Pipe = Literal["alu", "fma", "fp64", "half", "xu", "tensor", "lsu", "barrier", "branch", "special"]

INTEGERS = "u16 u32 u64 s16 s32 s64"
BITS = "b16 b32 b64"
FLOATS = "f32 f64"
HALVES = "f16 f16x2 bf16 bf16x2"
PAIRS = "s16x2 u16x2"
SCALARS = "b8 u8 s8 b16 u16 s16 b32 u32 s32 b64 u64 s64 f16 f32 f64"
ROUNDS = "rn rz rm rp"
INTEGER_ROUNDS = "rni rzi rmi rpi"
SPACES = "global shared shared::cta local const param param::entry param::func"
CACHE = (
    "ca cg cs lu cv wb wt L1::evict_normal L1::evict_unchanged L1::evict_first L1::evict_last L1::no_allocate "
    "L2::evict_normal L2::evict_first L2::evict_last L2::cache_hint L2::64B L2::128B L2::256B"
)
ORDER = "weak volatile relaxed acquire release acq_rel seq_cst cta cluster gpu sys"
COMPARE = "eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan"
ATOMIC = "add min max and or xor inc dec exch cas"
MMA_SHAPES = "m8n8k4 m8n8k16 m8n8k32 m8n8k128 m16n8k4 m16n8k8 m16n8k16 m16n8k32 m16n8k64 m16n8k128 m16n8k256"
PROXIES = "async alias global shared::cta shared::cluster"
WMMA_SHAPES = "m16n16k16 m32n8k16 m8n32k16 m16n16k8 m8n8k4 m8n8k32 m8n8k128"
SUB_BYTE = {"s4": 4, "u4": 4, "b1": 1}
"""Widths in bits of elements that only Tensor Cores know."""
ELEMENT_TYPES = frozenset(f"pred b128 tf32 e4m3 e5m2 e4m3x2 e5m2x2 {SCALARS} {HALVES} {PAIRS}".split()) | frozenset(
    SUB_BYTE
)

_VIDEO = ("vadd", "vsub", "vabsdiff", "vmin", "vmax")
VIDEO = frozenset(
    [*_VIDEO, "vshl", "vshr", "vmad", "vset", *(f"{name}{n}" for name in (*_VIDEO, "vset") for n in (2, 4))]
)
"""Video instructions, whose operands may have selectors."""
ORDERED = "eq ne lt le gt ge"
TYPE_INSIDE = frozenset({"prmt", "mma", "wmma"}) | VIDEO
"""Mnemonics that other modifiers may follow their types in."""


@dataclass(frozen=True, slots=True)
class Opcode:
    """One mnemonic.

    `types` and `flags` are the modifiers it may carry; `type_counts` how many of them may be types; of each group in
    `choices` exactly one modifier must be present; `operands` are the operand counts; the first `writes` operands are
    destinations.
    """

    name: str
    operands: tuple[int, ...]
    writes: int
    pipe: Pipe
    types: frozenset[str]
    type_counts: tuple[int, ...]
    flags: frozenset[str]
    choices: tuple[frozenset[str], ...]

    def __post_init__(self) -> None:
        if not self.types <= ELEMENT_TYPES:
            raise ValueError(f"{self.name}: unknown types {sorted(self.types - ELEMENT_TYPES)}")
        if self.types & self.flags:
            raise ValueError(f"{self.name}: {sorted(self.types & self.flags)} are both types and flags")
        if any(not group <= self.flags for group in self.choices):
            raise ValueError(f"{self.name}: a choice that is not among its modifiers")
        if not self.operands or min(self.operands) < self.writes:
            raise ValueError(f"{self.name}: more destinations than operands")
        if bool(self.types) != bool(max(self.type_counts)):
            raise ValueError(f"{self.name}: types and type counts disagree")

    def problem(self, modifiers: tuple[str, ...], operand_count: int) -> str | None:
        """Why a use of this opcode cannot be accepted, or None."""
        for modifier in modifiers:
            if "=" in modifier:
                if self.name not in VIDEO or not _selects(self.name, modifier):
                    return f"'{self.name}' has no operand with the selector '.{modifier[2:]}' in that place"
            elif modifier not in self.types and modifier not in self.flags:
                return f"'{self.name}' has no modifier '.{modifier}' that this simulator knows"
        found = sum(modifier in self.types for modifier in modifiers)
        if found not in self.type_counts:
            return f"'{self.name}' needs {either(self.type_counts)} type modifier(s), found {found}"
        if self.name not in TYPE_INSIDE and any(
            modifier in self.types for modifier in modifiers[: len(modifiers) - found]
        ):
            return f"'{self.name}' has its type modifiers last, found '.{'.'.join(modifiers)}'"
        for group in self.choices:
            if sum(modifier in group for modifier in modifiers) != 1:
                return f"'{self.name}' needs exactly one of {', '.join('.' + g for g in sorted(group))}"
        if operand_count not in self.operands:
            return f"'{self.name}' takes {either(self.operands)} operands, found {operand_count}"
        return None


def _selects(name: str, selector: str) -> bool:
    """True for a selector of a video instruction, as the parser writes it ("d=h0") among the modifiers."""
    operand, _, chosen = selector.partition("=")
    parts = int(name[-1]) if name[-1].isdigit() else 1
    if parts == 1:
        return operand in "dab" and re.fullmatch("b[0-3]|h[01]", chosen) is not None
    letter, most = ("h", 1) if parts == 2 else ("b", 3)
    if operand == "d":
        digits = "".join(f"{n}?" for n in range(most, -1, -1))
        return chosen != letter and re.fullmatch(letter + digits, chosen) is not None
    return operand in "ab" and re.fullmatch(f"{letter}[0-{2 * most + 1}]{{{parts}}}", chosen) is not None


def either(counts: tuple[int, ...]) -> str:
    return " or ".join(str(count) for count in counts)


def _row(
    name: str,
    operands: int | tuple[int, ...],
    pipe: Pipe,
    types: str = "",
    flags: str = "",
    choices: tuple[str, ...] = (),
    type_counts: tuple[int, ...] | None = None,
    writes: int = 1,
) -> Opcode:
    counts = operands if isinstance(operands, tuple) else (operands,)
    groups = tuple(frozenset(group.split()) for group in choices)
    allowed = frozenset(flags.split()).union(*groups)
    per = type_counts if type_counts is not None else ((1,) if types else (0,))
    return Opcode(name, counts, writes, pipe, frozenset(types.split()), per, allowed, groups)


_ROWS = (
    # integer and floating-point arithmetic
    _row("add", 3, "alu", f"{INTEGERS} {PAIRS} {FLOATS} {HALVES}", f"{ROUNDS} ftz sat cc"),
    _row("sub", 3, "alu", f"{INTEGERS} {FLOATS} {HALVES}", f"{ROUNDS} ftz sat cc"),
    _row("addc", 3, "alu", "u32 s32 u64 s64", "cc"),
    _row("subc", 3, "alu", "u32 s32 u64 s64", "cc"),
    _row("mul", 3, "fma", f"{INTEGERS} {FLOATS} {HALVES}", f"lo hi wide {ROUNDS} ftz sat"),
    _row("mad", 4, "fma", f"{INTEGERS} {FLOATS}", f"lo hi wide {ROUNDS} ftz sat cc"),
    _row("madc", 4, "fma", "u32 s32 u64 s64", "cc", ("lo hi",)),
    _row("mul24", 3, "fma", "u32 s32", "", ("lo hi",)),
    _row("mad24", 4, "fma", "u32 s32", "", ("lo hi",)),
    _row("fma", 4, "fma", f"{FLOATS} {HALVES}", f"{ROUNDS} ftz sat relu"),
    _row("div", 3, "xu", f"{INTEGERS} {FLOATS}", f"{ROUNDS} approx full ftz"),
    _row("rem", 3, "xu", INTEGERS),
    _row("abs", 2, "alu", f"s16 s32 s64 {FLOATS} {HALVES}", "ftz"),
    _row("neg", 2, "alu", f"s16 s32 s64 {FLOATS} {HALVES}", "ftz"),
    _row("min", (3, 4), "alu", f"{INTEGERS} {PAIRS} {FLOATS} {HALVES}", "ftz NaN relu xorsign abs"),
    _row("max", (3, 4), "alu", f"{INTEGERS} {PAIRS} {FLOATS} {HALVES}", "ftz NaN relu xorsign abs"),
    _row("sad", 4, "alu", INTEGERS),
    *(_row(v, (3, 4), "alu", "u32 s32", "sat add min max", type_counts=(3,)) for v in _VIDEO),
    *(_row(v, (3, 4), "alu", "u32 s32", "sat add min max", ("clamp wrap",), (3,)) for v in ("vshl", "vshr")),
    _row("vmad", 4, "alu", "u32 s32", "sat po shr7 shr15", type_counts=(3,)),
    _row("vset", (3, 4), "alu", "u32 s32", "add min max", (ORDERED,), (2,)),
    *(_row(f"{v}{n}", 4, "alu", "u32 s32", "sat add", type_counts=(3,)) for v in _VIDEO for n in (2, 4)),
    *(_row(f"vset{n}", 4, "alu", "u32 s32", "add", (ORDERED,), (2,)) for n in (2, 4)),
    _row("dp4a", 4, "fma", "u32 s32", type_counts=(2,)),
    _row("dp2a", 4, "fma", "u32 s32", "", ("lo hi",), type_counts=(2,)),
    _row("copysign", 3, "alu", FLOATS),
    _row("testp", 2, "alu", FLOATS, "", ("finite infinite number notanumber normal subnormal",)),
    # approximations and roots
    _row("rcp", 2, "xu", FLOATS, f"{ROUNDS} approx ftz"),
    _row("sqrt", 2, "xu", FLOATS, f"{ROUNDS} approx ftz"),
    _row("rsqrt", 2, "xu", FLOATS, "approx ftz"),
    _row("sin", 2, "xu", "f32", "approx ftz"),
    _row("cos", 2, "xu", "f32", "approx ftz"),
    _row("lg2", 2, "xu", "f32", "approx ftz"),
    _row("ex2", 2, "xu", f"f32 {HALVES}", "approx ftz"),
    _row("tanh", 2, "xu", f"f32 {HALVES}", "approx"),
    # bits
    _row("and", 3, "alu", f"pred {BITS}"),
    _row("or", 3, "alu", f"pred {BITS}"),
    _row("xor", 3, "alu", f"pred {BITS}"),
    _row("not", 2, "alu", f"pred {BITS}"),
    _row("cnot", 2, "alu", BITS),
    _row("lop3", (5, 6), "alu", "b32", "or and"),
    _row("shl", 3, "alu", BITS),
    _row("shr", 3, "alu", f"{BITS} {INTEGERS}"),
    _row("shf", 4, "alu", "b32", "", ("l r", "clamp wrap")),
    _row("prmt", 4, "alu", "b32", "f4e b4e rc8 ecl ecr rc16"),
    _row("popc", 2, "xu", "b32 b64"),
    _row("clz", 2, "xu", "b32 b64"),
    _row("bfind", 2, "xu", "u32 u64 s32 s64", "shiftamt"),
    _row("fns", 4, "xu", "b32"),
    _row("brev", 2, "xu", "b32 b64"),
    _row("bfe", 4, "alu", "u32 u64 s32 s64"),
    _row("bfi", 5, "alu", "b32 b64"),
    _row("bmsk", 3, "alu", "b32", "", ("clamp wrap",)),
    _row("szext", 3, "alu", "u32 s32", "", ("clamp wrap",)),
    # comparison, selection, movement
    _row("setp", (3, 4), "alu", f"{BITS} {INTEGERS} {FLOATS} {HALVES}", "and or xor ftz", (COMPARE,)),
    _row("set", (3, 4), "alu", f"{BITS} {INTEGERS} {FLOATS} {HALVES}", "and or xor ftz", (COMPARE,), (2,)),
    _row("selp", 4, "alu", f"{BITS} {INTEGERS} {FLOATS}"),
    _row("slct", 4, "alu", f"{BITS} {INTEGERS} {FLOATS}", "ftz", type_counts=(2,)),
    _row("mov", 2, "alu", f"pred {BITS} b128 {INTEGERS} {FLOATS} f16 f16x2 bf16 bf16x2", "v2 v4"),
    _row(
        "cvt",
        (2, 3),
        "xu",
        "u8 s8 u16 s16 u32 s32 u64 s64 f16 bf16 f16x2 bf16x2 f32 f64 tf32 e4m3x2 e5m2x2",
        f"{ROUNDS} rna {INTEGER_ROUNDS} ftz sat satfinite relu",
        type_counts=(2,),
    ),
    _row("cvta", 2, "alu", "u32 u64", "to shared::cta", ("global shared local const param",)),
    _row("isspacep", 2, "alu", "", "", ("global shared shared::cta local const param",)),
    # memory
    _row("ld", 2, "lsu", SCALARS, f"{SPACES} {ORDER} {CACHE} nc v2 v4"),
    _row("ldu", 2, "lsu", SCALARS, "global v2 v4"),
    _row("st", 2, "lsu", SCALARS, f"{SPACES} {ORDER} {CACHE} v2 v4", writes=0),
    _row("prefetch", 1, "lsu", "", "global local L1 L2 L2::evict_last L2::evict_normal", writes=0),
    _row("applypriority", 2, "lsu", "", "global L2::evict_normal", writes=0),
    _row(
        "createpolicy",
        (1, 2, 3, 4),
        "alu",
        "b64",
        "L2 L2::evict_last L2::evict_first L2::evict_normal L2::evict_unchanged global",
        ("fractional range cvt",),
    ),
    _row("prefetchu", 1, "lsu", "", "L1", writes=0),
    _row(
        "atom",
        (3, 4),
        "lsu",
        f"b16 b32 u32 s32 b64 u64 s64 b128 {FLOATS} {HALVES}",
        f"global shared shared::cta {ORDER} noftz L2::cache_hint v2 v4 v8",
        (ATOMIC,),
    ),
    _row(
        "red",
        2,
        "lsu",
        f"b32 u32 s32 b64 u64 s64 {FLOATS} {HALVES}",
        f"global shared shared::cta {ORDER} noftz L2::cache_hint v2 v4 v8",
        ("add min max and or xor inc dec",),
        writes=0,
    ),
    _row("membar", 0, "lsu", "", "", ("cta gl sys",), writes=0),
    _row("fence", 0, "lsu", "", f"sc acq_rel acquire release cta cluster gpu sys proxy {PROXIES}", writes=0),
    _row(
        "cp",
        (0, 1, 3, 4),
        "lsu",
        "",
        "async shared shared::cta global ca cg L2::64B L2::128B L2::256B L2::cache_hint commit_group wait_group "
        "wait_all mbarrier arrive noinc b64",
        writes=0,
    ),
    # control
    _row("bra", 1, "branch", "", "uni", writes=0),
    _row("brx", 2, "branch", "", "idx uni", writes=0),
    _row("call", 1, "branch", "", "uni", writes=0),
    _row("ret", 0, "branch", "", "uni", writes=0),
    _row("exit", 0, "branch", writes=0),
    _row("trap", 0, "branch", writes=0),
    _row("brkpt", 0, "branch", writes=0),
    _row("nanosleep", 1, "special", "u32", writes=0),
    _row("griddepcontrol", 0, "special", "", "", ("wait launch_dependents",), writes=0),
    _row("pmevent", 1, "special", "", "mask", writes=0),
    # warps
    _row("shfl", 5, "lsu", "b32", "", ("sync", "up down bfly idx")),
    _row("vote", 3, "alu", "pred b32", "", ("sync", "all any uni ballot")),
    _row("match", 3, "alu", "b32 b64", "", ("sync", "any all")),
    _row("redux", 3, "alu", "u32 s32 b32", "", ("sync", "add min max and or xor")),
    _row("activemask", 1, "alu", "b32"),
    _row("elect", 2, "alu", "", "", ("sync",)),
    # barriers
    _row("bar", (1, 2, 3, 4), "barrier", "pred u32", "sync arrive red warp cta popc and or", (), (0, 1), 0),
    _row("barrier", (1, 2, 3, 4), "barrier", "pred u32", "sync arrive red aligned cta popc and or", (), (0, 1), 0),
    _row(
        "mbarrier",
        (1, 2, 3, 4),
        "lsu",
        "b64",
        "shared shared::cta release acquire relaxed cta parity noComplete",
        ("init inval arrive arrive_drop test_wait try_wait pending_count",),
        writes=0,
    ),
    # Tensor Cores
    _row("ldmatrix", 2, "lsu", "b16", "trans shared shared::cta sync aligned", ("x1 x2 x4", "m8n8")),
    _row("stmatrix", 2, "lsu", "b16", "trans shared shared::cta sync aligned", ("x1 x2 x4", "m8n8"), writes=0),
    _row("movmatrix", 2, "alu", "b16", "sync aligned trans", ("m8n8",)),
    _row(
        "mma",
        (4, 6),
        "tensor",
        "f16 bf16 tf32 f32 s32 s8 u8 e4m3 e5m2 f64 s4 u4 b1",
        "sync aligned sp sp::ordered_metadata row col satfinite xor and popc",
        (MMA_SHAPES,),
        (4,),
    ),
    _row(
        "wmma",
        (2, 3, 4, 5),
        "tensor",
        "f16 bf16 tf32 f32 s32 s8 u8 f64 s4 u4 b1",
        "rn load store mma a b c d row col sync aligned global shared shared::cta satfinite xor and popc",
        (WMMA_SHAPES,),
        (1, 2, 4),
    ),
)

OPCODES: dict[str, Opcode] = {row.name: row for row in _ROWS}
if len(OPCODES) != len(_ROWS):
    raise ValueError("an opcode appears twice in the table")


def destinations(name: str, modifiers: tuple[str, ...]) -> int:
    """How many of the first operands an instruction writes; a wmma.store writes none."""
    return 0 if name == "wmma" and "store" in modifiers else OPCODES[name].writes


def pipe(name: str, modifiers: tuple[str, ...]) -> Pipe:
    """Pipe of a multiprocessor that executes an instruction, for the instruction mix."""
    row = OPCODES[name]
    if row.pipe in ("alu", "fma") and "f64" in modifiers:
        return "fp64"
    if row.pipe in ("alu", "fma") and any(modifier in HALVES.split() for modifier in modifiers) and name != "mov":
        return "half"
    if name in ("add", "sub") and "f32" in modifiers:
        return "fma"
    if name == "div" and row.pipe == "xu" and "f64" in modifiers:
        return "fp64"
    if name == "wmma" and "mma" not in modifiers:
        return "lsu"
    return row.pipe
