"""Forms of opcodes: which modifiers go together, and how many operands with them, as far as the table of opcodes cannot say it.

`problem` asks the table (`opcodes.py`) first, then the rules of the opcode; PTX that breaks one is refused at load.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadsparse.gpu.simulator import unsimulated
from loadsparse.gpu.simulator.opcodes import (
    COMPARE,
    HALVES,
    INTEGER_ROUNDS,
    MMA_SHAPES,
    OPCODES,
    PROXIES,
    ROUNDS,
    VIDEO,
    WMMA_SHAPES,
    either,
)
from loadsparse.gpu.simulator.program import WIDTH

MMA_VARIANTS = frozenset(
    {("m16n8k8", d, "f16", "f16", c) for d, c in (("f32", "f32"), ("f16", "f16"), ("f16", "f32"), ("f32", "f16"))}
    | {("m16n8k16", d, "f16", "f16", c) for d, c in (("f32", "f32"), ("f16", "f16"), ("f16", "f32"), ("f32", "f16"))}
    | {(shape, "f32", "bf16", "bf16", "f32") for shape in ("m16n8k8", "m16n8k16")}
    | {(shape, "f32", "tf32", "tf32", "f32") for shape in ("m16n8k4", "m16n8k8")}
    | {
        (shape, "s32", a, b, "s32")
        for shape in ("m8n8k16", "m16n8k16", "m16n8k32")
        for a in ("s8", "u8")
        for b in ("s8", "u8")
    }
    | {("m16n8k32", "f32", a, b, "f32") for a in ("e4m3", "e5m2") for b in ("e4m3", "e5m2")}
    | {
        (shape, "s32", a, b, "s32")
        for shape in ("m8n8k32", "m16n8k32", "m16n8k64")
        for a in ("s4", "u4")
        for b in ("s4", "u4")
    }
    | {(shape, "s32", "b1", "b1", "s32") for shape in ("m8n8k128", "m16n8k128", "m16n8k256")}
    | {(shape, "f64", "f64", "f64", "f64") for shape in ("m8n8k4", "m16n8k4", "m16n8k8", "m16n8k16")}
)
"""(shape, D, A, B, C) of every dense `mma.sync`."""

WMMA_TYPES = {
    **dict.fromkeys(("m16n16k16", "m32n8k16", "m8n32k16"), frozenset(["f16", "bf16", "f32", "s8", "u8", "s32"])),
    "m16n16k8": frozenset({"tf32", "f32"}),
    "m8n8k4": frozenset({"f64"}),
    "m8n8k32": frozenset({"s4", "u4", "s32"}),
    "m8n8k128": frozenset({"b1", "s32"}),
}
"""What the matrices of each `wmma` shape may hold."""

SPARSE_MMA_VARIANTS = frozenset(
    {(shape, d, "f16", "f16", d) for shape in ("m16n8k16", "m16n8k32") for d in ("f32", "f16")}
    | {(shape, "f32", "bf16", "bf16", "f32") for shape in ("m16n8k16", "m16n8k32")}
)
"""(shape, D, A, B, C) of every `mma.sp.sync`."""


EIGHT_BIT_PAIRS = frozenset({"e4m3x2", "e5m2x2"})
EIGHT_BIT_CONVERSIONS = frozenset(
    {(pair, source) for pair in EIGHT_BIT_PAIRS for source in ("f32", "f16x2")}
    | {("f16x2", pair) for pair in EIGHT_BIT_PAIRS}
)
"""(target, source) of every `cvt` of 8-bit floats."""

COPIES: dict[str, tuple[int, ...]] = {
    "ca": (3, 4), "cg": (3, 4), "commit_group": (0,), "wait_all": (0,), "wait_group": (1,), "mbarrier": (1,),
}  # fmt: skip
"""Operands of each kind of cp.async, a cache policy apart."""

ATOMIC_TYPES: dict[str, str] = {
    **dict.fromkeys(("and", "or", "xor"), "b32 b64"), "exch": "b32 b64 b128", "cas": "b16 b32 b64 b128",
    **dict.fromkeys(("inc", "dec"), "u32"), "add": "u32 s32 u64 f32 f64 f16 f16x2 bf16 bf16x2",
    **dict.fromkeys(("min", "max"), "u32 s32 u64 s64 f16 f16x2 bf16 bf16x2"),
}  # fmt: skip
"""What each atomic operation combines; minima and maxima of halves only in vectors."""

ON_BARRIERS: dict[str, tuple[int, ...]] = {
    "init": (2,), "inval": (1,), "arrive": (2, 3), "arrive_drop": (2, 3),
    "test_wait": (3,), "try_wait": (3, 4), "pending_count": (2,),
}  # fmt: skip
"""Operands of each operation on an mbarrier, which its first modifier names."""

_OF_FLOATS = frozenset({*ROUNDS.split(), "ftz", "approx", "full", "NaN", "xorsign"})
_OF_UNSIGNED = frozenset({"lo", "ls", "hi", "hs"})
_UNORDERED = frozenset({"equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"})


@dataclass(frozen=True, slots=True)
class Form:
    """An opcode with its modifiers, of which `kinds` are types, and how many operands follow."""

    name: str
    modifiers: tuple[str, ...]
    kinds: tuple[str, ...]
    operands: int

    @property
    def kind(self) -> str:
        """The last type; "" if it has none."""
        return self.kinds[-1] if self.kinds else ""

    @property
    def is_float(self) -> bool:
        return self.kind.startswith(("f", "bf"))

    def among(self, words: str) -> list[str]:
        """Its modifiers that are among `words`."""
        return [modifier for modifier in self.modifiers if modifier in words.split()]


Rule = Callable[[Form], str | None]
"""Why a form is refused, as what follows its name in the message; None if this rule has nothing against it."""
RULES: dict[str, list[Rule]] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule of these opcodes; the first that has something against a form speaks."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES.setdefault(name, []).append(function)
        return function

    return register


def problem(name: str, modifiers: tuple[str, ...], operand_count: int) -> str | None:
    """Why ``name.modifiers`` with so many operands cannot be executed, in one sentence, or None."""
    opcode, row = ".".join((name, *modifiers)), OPCODES.get(name)
    if row is None:
        return f"unknown opcode '{opcode}'{unsimulated.because(name, unsimulated.OPCODES)}"
    if found := row.problem(modifiers, operand_count):
        return found
    form = Form(name, modifiers, tuple(m for m in modifiers if m in row.types), operand_count)
    against = next(filter(None, (each(form) for each in RULES.get(name, ()))), None)
    return against and f"'{opcode}'{against}"


def _one_of(form: Form, words: str) -> str | None:
    """A refusal unless exactly one of these modifiers is there."""
    return None if len(form.among(words)) == 1 else f" needs one of {', '.join('.' + word for word in words.split())}"


def _counted(form: Form, *counts: int) -> str | None:
    """A refusal unless the form has so many operands."""
    return None if form.operands in counts else f" takes {either(counts)} operands, found {form.operands}"


@rule("setp", "set")
def _comparison(form: Form) -> str | None:
    (how,) = form.among(COMPARE)
    if how in _OF_UNSIGNED and form.is_float:
        return f": .{how} compares unsigned integers"
    if how in _UNORDERED and not form.is_float:
        return f": .{how} compares floating-point numbers"
    if form.kind.startswith("b") and not form.is_float and how not in ("eq", "ne"):
        return ": bits are equal or not, and nothing else"
    return None


@rule("add", "sub", "mad", "addc", "subc", "madc")
def _carry(form: Form) -> str | None:
    if ("cc" in form.modifiers or form.name.endswith("c")) and (form.is_float or not form.kind.endswith(("32", "64"))):
        return ": carries go with integers of 32 and 64 bits"
    return None


_APPROXIMATIONS = ("sin", "cos", "ex2", "lg2", "rsqrt", "tanh")


@rule(*_APPROXIMATIONS, "div", "sqrt", "rcp", "fma", "mad")
def _precision(form: Form) -> str | None:
    if not form.is_float:
        return None
    if form.name in _APPROXIMATIONS:
        return None if "approx" in form.modifiers else " needs .approx"
    or_less = "approx full" if form.name == "div" else "approx" if form.name in ("sqrt", "rcp") else ""
    if form.kind == "f64":
        or_less = "approx" if form.name == "rcp" and "ftz" in form.modifiers else ""
    return _one_of(form, f"{ROUNDS} {or_less}")


@rule("ld", "st")
def _ordered_access(form: Form) -> str | None:
    order, scope = form.among("relaxed acquire release"), form.among("cta cluster gpu sys")
    if len(order) != len(scope) or len(order) > 1:
        return ": an order (.relaxed, .acquire, .release) goes with one scope (.cta, .cluster, .gpu, .sys)"
    return None


@rule("add", "sub", "mul", "fma")
def _rounding_of_halves(form: Form) -> str | None:
    if form.kind in HALVES.split() and form.among("rz rm rp"):
        return ": half precision is rounded to nearest"
    return None


@rule("add", "sub", "mul", "mad")
def _saturation(form: Form) -> str | None:
    if "sat" not in form.modifiers or form.is_float:
        return None
    if form.kind != "s32":
        return ": of integers only .s32 saturates"
    if form.name == "mul" or (form.name == "mad" and "hi" not in form.modifiers):
        return ": of integer products only that of mad.hi saturates"
    return None


@rule("cvt")
def _conversion(form: Form) -> str | None:
    target, source = form.kinds
    pairs = ("f16x2", "bf16x2")
    if ("tf32" in form.kinds or "rna" in form.modifiers) and form.kinds != ("tf32", "f32"):
        return ": .tf32 comes from .f32, and only it is rounded by .rna"
    if target in ("tf32", *pairs) and form.among(INTEGER_ROUNDS):
        return ": rounding to an integer needs a single result of 16, 32 or 64 bits"
    if target in pairs and source not in ("f32", *EIGHT_BIT_PAIRS):
        return ": pairs of halves come from two .f32"
    if source in pairs and target not in EIGHT_BIT_PAIRS:
        return ": pairs of halves only become 8-bit floats"
    if EIGHT_BIT_PAIRS.isdisjoint(form.kinds):
        return _rounding_of_conversion(form, target, source)
    if (target, source) not in EIGHT_BIT_CONVERSIONS or "rn" not in form.modifiers:
        return ": 8-bit floats come from .f32 or .f16x2 and go to .f16x2, with .rn"
    if ("satfinite" in form.modifiers) != (target in EIGHT_BIT_PAIRS):
        return ": conversions to 8-bit floats need .satfinite, those from them have none"
    return None


def _rounding_of_conversion(form: Form, target: str, source: str) -> str | None:
    real = [kind.startswith(("f", "bf", "tf")) for kind in (target, source)]
    if real == [False, True]:
        return _one_of(form, INTEGER_ROUNDS)
    loses = real == [True, False] or (real == [True, True] and WIDTH[target] < WIDTH[source])
    return _one_of(form, f"{ROUNDS} rna" if target == "tf32" else ROUNDS) if loses else None


@rule("set")
def _comparison_of_pairs(form: Form) -> str | None:
    target, source = form.kinds
    if any(kind.endswith("x2") for kind in form.kinds) and target not in (source, "u32", "s32"):
        return ": comparing pairs gives a pair of the same kind, .u32 or .s32, and nothing else gives pairs"
    return None


@rule("slct")
def _decision(form: Form) -> str | None:
    return None if form.kind in ("s32", "f32") else ": slct decides by .s32 or .f32"


@rule("add", "sub", "mul", "mad", "div", "abs", "neg", "min", "max", "setp", "set")
def _of_floats(form: Form) -> str | None:
    wrong = next((modifier for modifier in form.modifiers if modifier in _OF_FLOATS), None)
    return f": .{wrong} is for floating-point numbers" if wrong is not None and not form.is_float else None


@rule("fence")
def _fence(form: Form) -> str | None:
    return (
        ": what follows .proxy goes with it only" if bool(form.among(PROXIES)) != ("proxy" in form.modifiers) else None
    )


@rule("mov")
def _move(form: Form) -> str | None:
    return ": predicates have no vectors" if form.kind == "pred" and form.among("v2 v4") else None


@rule("atom", "red")
def _combination(form: Form) -> str | None:
    (operation,) = form.among(" ".join(ATOMIC_TYPES))
    is_half, is_vector = form.kind in HALVES.split(), bool(form.among("v2 v4 v8"))
    if is_vector and (not form.is_float or form.kind == "f64" or "global" not in form.modifiers):
        return ": vectors in global memory, of .f32 and halves, are what is added, .min and .max"
    if form.kind not in ATOMIC_TYPES[operation].split() or (is_half and operation != "add" and not is_vector):
        return f": .{operation} does not combine .{form.kind}" + (" but in vectors" if is_half else "")
    if is_half != ("noftz" in form.modifiers):
        return ": .noftz goes with 16-bit floats, and they need it"
    return None


@rule("mma", "wmma")
def _product_of_bits(form: Form) -> str | None:
    logic = form.among("xor and popc")
    of_bits = "b1" in form.kinds and (form.name == "mma" or "mma" in form.modifiers)
    if (len(logic) == 2 and logic[-1] == "popc") != of_bits or len(logic) not in (0, 2):
        return ": products of .b1 are .xor.popc or .and.popc, and no others are"
    return None


@rule("mma", "wmma")
def _product(form: Form) -> str | None:
    (shape,) = form.among(MMA_SHAPES if form.name == "mma" else WMMA_SHAPES)
    if form.name == "wmma":
        known = set(form.kinds) <= WMMA_TYPES[shape]
    else:
        sparse = any(modifier.startswith("sp") for modifier in form.modifiers)
        known = (shape, *form.kinds) in (SPARSE_MMA_VARIANTS if sparse else MMA_VARIANTS)
    return None if known else " is not a Tensor Core shape that this simulator knows"


@rule("prmt")
def _permutation(form: Form) -> str | None:
    return None if form.modifiers[0] == "b32" else ": prmt has its type before its mode"


@rule("bar", "barrier")
def _barrier(form: Form) -> str | None:
    if "warp" not in form.modifiers and len(form.among("sync arrive red")) != 1:
        return " needs exactly one of .sync, .arrive, .red"
    if len(form.among("popc and or")) != ("red" in form.modifiers):
        return ": .red needs one of .popc, .and, .or, and nothing else has one"
    return None


@rule("mul", "mad")
def _part_of_product(form: Form) -> str | None:
    parts = form.among("lo hi wide")
    if len(parts) != (not form.is_float):
        return ": integers need one of .lo, .hi, .wide, floating-point numbers none"
    if parts == ["wide"] and form.kind in ("u64", "s64"):
        return ": .wide products are of 16 or 32 bits"
    return None


@rule("setp", "set")
def _operands_of_comparison(form: Form) -> str | None:
    return _counted(form, 4 if form.among("and or xor") else 3)


@rule("lop3")
def _operands_of_logic(form: Form) -> str | None:
    return _counted(form, 6 if form.among("and or") else 5)


@rule("bar", "barrier")
def _operands_of_barrier(form: Form) -> str | None:
    if "warp" in form.modifiers:
        return _counted(form, 1)
    return _counted(form, *{"sync": (1, 2), "arrive": (2,), "red": (3, 4)}[form.among("sync arrive red")[0]])


@rule("mbarrier")
def _operands_of_mbarrier(form: Form) -> str | None:
    counts = ON_BARRIERS.get(form.modifiers[0])
    return _counted(form, *counts) if counts else " has its operation first"


@rule("createpolicy")
def _operands_of_policy(form: Form) -> str | None:
    return _counted(form, *(4,) if "range" in form.modifiers else (1, 2))


@rule("mma")
def _operands_of_product(form: Form) -> str | None:
    return _counted(form, 6 if any(modifier.startswith("sp") for modifier in form.modifiers) else 4)


@rule("wmma")
def _operands_of_fragments(form: Form) -> str | None:
    return _counted(form, *(4,) if form.modifiers[0] == "mma" else (2, 3))


@rule("cp")
def _copy(form: Form) -> str | None:
    found = form.among(" ".join(COPIES))
    if "async" not in form.modifiers or len(found) != 1:
        return f" needs .async and exactly one of {', '.join('.' + kind for kind in COPIES)}"
    return _counted(form, *COPIES[found[0]])


@rule(*(name for name in VIDEO if not name[-1].isdigit() and name != "vmad"))
def _third_source(form: Form) -> str | None:
    takes_c = any(modifier in ("add", "min", "max") or modifier.startswith("d=") for modifier in form.modifiers)
    if takes_c != (form.operands == 4):
        return ": a third source comes with .add, .min, .max or a selected destination, and only then"
    return None
