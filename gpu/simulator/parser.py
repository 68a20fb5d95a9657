"""PTX text -> `Program`: the grammar of ptx.lark, then names resolved scope by scope."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from lark import Lark, Token, Transformer, Tree, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from loadsparse.gpu.simulator import opcodes
from loadsparse.gpu.simulator.program import (
    WIDTH,
    Address,
    Call,
    FunctionName,
    Guard,
    Immediate,
    Instruction,
    Kernel,
    Label,
    Location,
    Negated,
    Operand,
    Pair,
    Program,
    PtxError,
    Register,
    Space,
    Special,
    Variable,
    Vector,
)

SPECIAL_VECTORS = frozenset({"tid", "ntid", "ctaid", "nctaid"})
SPECIAL_SCALARS = frozenset(
    [
        "laneid",
        "warpid",
        "nwarpid",
        "smid",
        "nsmid",
        "gridid",
        "lanemask_eq",
        "lanemask_le",
        "lanemask_lt",
        "lanemask_ge",
        "lanemask_gt",
        "clock",
        "clock_hi",
        "clock64",
        "globaltimer",
        "globaltimer_lo",
        "globaltimer_hi",
        "dynamic_smem_size",
        "total_smem_size",
        "WARP_SZ",
    ]
)
LOCATION = re.compile(r"\.loc\s+(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})\s*(?:$|,|//)")
ENVIRONMENT = re.compile(r"envreg(\d|[12]\d|3[01])$")
MAXIMUM_TEXT = 64 << 20
"""Longest PTX text accepted, in characters."""

_TERMINALS = {"NAME": "a name", "INT": "a number", "FLOAT": "a number", "SEMICOLON": "';'", "COMMA": "','"}


@dataclass(slots=True)
class _Statement:
    """An instruction before its names are resolved."""

    opcode: Token
    guard: tuple[Token, bool] | None
    operands: list[Any]
    end: int


@v_args(inline=True)
class _Shape(Transformer[Token, Any]):
    """Turns instructions into `_Statement`s while the parser runs, so that no tree is built for them."""

    def integer(self, token: Token) -> Immediate:
        return Immediate(_integer(token))

    def float(self, token: Token) -> Immediate:
        if token[:2] in ("0f", "0F"):
            return Immediate(int(token[2:], 16), 32)
        if token[:2] in ("0d", "0D"):
            return Immediate(int(token[2:], 16), 64)
        return Immediate(struct.unpack("<Q", struct.pack("<d", float(token)))[0], 64)

    def instruction(self, *parts: Any) -> _Statement:
        guard = parts[0] if isinstance(parts[0], tuple) else None
        start = 1 if parts[0] is None or guard else 0
        opcode = parts[start]
        operands = [part for part in parts[start + 1 :] if part is not None]
        return _Statement(opcode, guard, operands, opcode.end_pos or 0)

    def guard(self, *parts: Token | None) -> tuple[Token, bool]:
        return cast(Token, parts[-1]), len(parts) == 2 and parts[0] is not None


def _integer(token: str) -> int:
    digits = token.rstrip("U").replace(" ", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
        return sign * int(digits, 8) if set(digits) <= set("01234567") else sign * int(digits)
    return sign * int(digits, 0)


@lru_cache(maxsize=1)
def _lark() -> Lark:
    grammar = Path(__file__).with_name("ptx.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", transformer=_Shape(), maybe_placeholders=True)


def parse(text: str) -> Program:
    """The typed program of a PTX module.

    Raises `PtxError`, naming line and column, for text that is not PTX, an opcode or modifier that is not in
    `opcodes.OPCODES`, an undeclared or twice declared name, and recursive calls.  Newer `.version` lines are accepted.
    """
    if len(text) > MAXIMUM_TEXT:
        raise PtxError(f"{len(text)} characters of PTX; at most {MAXIMUM_TEXT} are accepted")
    text = text.rstrip("\0 \n") + "\n"
    try:
        tree = _lark().parse(text)
    except UnexpectedToken as error:
        raise _syntax_error(text, error.token, error.accepts or error.expected) from None
    except UnexpectedCharacters as error:
        raise PtxError(f"unexpected {error.char!r} in '{_line(text, error.line)}'", error.line, error.column) from None
    except UnexpectedEOF:
        raise PtxError("the text ends inside a statement", text.count("\n") + 1, 1) from None
    except RecursionError:
        raise PtxError("nesting is too deep") from None
    return _Module(text).build(tree)


def _line(text: str, line: int) -> str:
    lines = text.splitlines()
    return lines[line - 1].strip()[:80] if 0 < line <= len(lines) else ""


def _syntax_error(text: str, token: Token, expected: set[str]) -> PtxError:
    if token.type == "$END":
        return PtxError("the text ends inside a statement", text.count("\n") + 1, 1)
    wanted = sorted({_TERMINALS.get(name, name.lower()) for name in expected})
    hint = f"; expected {' or '.join(wanted)}" if 0 < len(wanted) <= 4 else ""
    shown = " ".join(str(token).split())[:40]
    return PtxError(
        f"unexpected '{shown}' in '{_line(text, token.line or 0)}'{hint}", token.line or 0, token.column or 0
    )


@dataclass(slots=True)
class _Scope:
    """Names of one pair of braces; `families` holds `%r<10>` as (type, count)."""

    outer: _Scope | None = None
    names: dict[str, Any] = field(default_factory=dict)
    families: dict[str, tuple[str, int]] = field(default_factory=dict)
    labels: dict[str, tuple[str, int]] = field(default_factory=dict)

    def declare(self, name: Token, value: Any) -> None:
        if name in self.names:
            raise PtxError(f"'{name}' is declared twice", name.line or 0, name.column or 0)
        self.names[str(name)] = value


@dataclass(slots=True)
class _Frame:
    """Bytes laid out so far in one state space."""

    size: int = 0

    def place(self, size: int, align: int) -> int:
        offset = -(-self.size // align) * align
        self.size = offset + size
        return offset


@dataclass(slots=True)
class _Declared:
    """One declarator: everything that is known without the frame it goes into."""

    name: Token
    space: Space
    type: str
    size: int
    align: int
    family: int | None
    initial: Any
    dynamic: bool


class _Module:
    """Builds a `Program` from the tree."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.files = {int(n): name for n, name in re.findall(r'^\s*\.file\s+(\d+)\s+"([^"\n]*)"', text, re.M)}
        self.scope = _Scope()
        self.frames = {space: _Frame() for space in ("global", "shared")}
        self.kernels: dict[str, Kernel] = {}

    def build(self, tree: Tree[Token]) -> Program:
        version, target = "", ""
        functions: list[Tree[Token]] = []
        for item in tree.children:
            if isinstance(item, Token):
                if item.type == "VERSION":
                    version = item.split()[1]
                elif item.type == "TARGET":
                    target = re.split(r"[\s,/]+", item.strip())[1]
            elif item.data == "declaration":
                self._global(item)
            else:
                functions.append(item)
                name, _, _ = _heading(item)
                self.scope.names.setdefault(str(name), FunctionName(str(name)))
        for function in functions:
            if any(isinstance(child, Tree) and child.data == "body" for child in function.children):
                kernel = _Body(self, function).build()
                if kernel.name in self.kernels:
                    raise PtxError(
                        f"'{kernel.name}' is defined twice", function.meta.line if hasattr(function.meta, "line") else 0
                    )
                self.kernels[kernel.name] = kernel
        self._refuse_recursion()
        variables = [value for value in self.scope.names.values() if isinstance(value, Variable)]
        return Program(version, target, self.kernels, tuple(variables), self.text)

    def _global(self, tree: Tree[Token]) -> None:
        for declared in _declarators(tree):
            if declared.space not in ("global", "const", "shared"):
                raise PtxError(
                    f".{declared.space} '{declared.name}' cannot stand outside a function",
                    declared.name.line or 0,
                    declared.name.column or 0,
                )
            frame = self.frames["shared" if declared.space == "shared" else "global"]
            offset = 0 if declared.dynamic else frame.place(declared.size, declared.align)
            variable = self.variable(declared, offset)
            if variable.name in self.scope.names and declared.dynamic:
                continue
            self.scope.declare(declared.name, variable)

    def variable(self, declared: _Declared, offset: int) -> Variable:
        data = None if declared.initial is None else self._bytes(declared)
        return Variable(
            str(declared.name),
            declared.space,
            declared.type,
            declared.size,
            declared.align,
            offset,
            data,
            declared.dynamic,
        )

    def _bytes(self, declared: _Declared) -> bytes:
        width = WIDTH[declared.type] // 8
        data = b"".join(self._scalar(value, width) for value in _flatten(declared.initial))
        if len(data) > declared.size:
            raise PtxError(
                f"'{declared.name}' has more initial values than room",
                declared.name.line or 0,
                declared.name.column or 0,
            )
        return data.ljust(declared.size, b"\0")

    def _scalar(self, value: Any, width: int) -> bytes:
        if isinstance(value, Immediate):
            bits = value.value
            if value.float_bits == 64 and width == 4:
                bits = struct.unpack("<I", struct.pack("<f", struct.unpack("<d", struct.pack("<Q", bits))[0]))[0]
            return (bits & (1 << 8 * width) - 1).to_bytes(width, "little")
        name, offset = value.children[0], value.children[1]
        target = self.scope.names.get(str(name))
        if not isinstance(target, Variable) or target.space not in ("global", "const"):
            raise PtxError(
                f"'{name}' is no global variable whose address could be stored", name.line or 0, name.column or 0
            )
        address = (3 << 36) + target.offset + (_integer(offset) if offset else 0)
        return (address & (1 << 8 * width) - 1).to_bytes(width, "little")

    def _refuse_recursion(self) -> None:
        calls = {
            name: {
                operand.callee.name: instruction
                for instruction in kernel.instructions
                for operand in instruction.operands
                if isinstance(operand, Call)
            }
            for name, kernel in self.kernels.items()
        }
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> None:
            for callee, instruction in calls.get(name, {}).items():
                if callee in path:
                    raise PtxError(
                        f"'{callee}' calls itself; recursion is not simulated", instruction.line, instruction.column
                    )
                if callee not in done:
                    visit(callee, (*path, callee))
            done.add(name)

        for name in self.kernels:
            visit(name, (name,))


def _flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, Tree) and value.data == "initials":
        for child in value.children:
            if child is not None:
                yield from _flatten(child)
    else:
        yield value


def _attributes(parts: list[Any]) -> tuple[str, int, int]:
    """(element type, alignment in bytes or 0, vector length) from the attributes of a declaration."""
    kind, align, vector, pointer = "b8", 0, 1, False
    for part in parts:
        if not (isinstance(part, Tree) and part.data == "attribute"):
            continue
        token = cast(Token, part.children[0])
        if token.type == "ALIGN":
            align = align if pointer else int(token.split()[1])
        elif token == ".ptr":
            pointer = True
        elif token in (".v2", ".v4"):
            vector = int(token[2:])
        elif token.type == "ATTRIBUTE" and token[1:] in WIDTH:
            kind = token[1:]
        elif token.type == "ATTRIBUTE" and not token.startswith(".attribute"):
            raise PtxError(f"unknown type or attribute '{token}'", token.line or 0, token.column or 0)
    return kind, align, vector


def _dimensions(parts: list[Any]) -> int | None:
    """Product of the array dimensions; None when one is left open; 1 without any."""
    count: int | None = 1
    for part in parts:
        if isinstance(part, Tree) and part.data == "dimension":
            size = part.children[0]
            count = None if size is None or count is None else count * _integer(cast(Token, size))
    return count


def _declarators(tree: Tree[Token]) -> Iterator[_Declared]:
    linkage, space, *rest = tree.children
    kind, align, vector = _attributes(rest)
    extern = isinstance(linkage, Tree) and ".extern" in linkage.children
    for part in rest:
        if not (isinstance(part, Tree) and part.data == "declarator"):
            continue
        name = cast(Token, part.children[0])
        family = next((c for c in part.children if isinstance(c, Tree) and c.data == "family"), None)
        initial = part.children[-1] if len(part.children) > 1 else None
        if isinstance(initial, Tree) and initial.data in ("family", "dimension"):
            initial = None
        element = max(1, WIDTH[kind] // 8) * vector
        count = _dimensions(part.children)
        dynamic = False
        if count is None:
            dynamic = initial is None and extern
            count = 0 if initial is None else len(list(_flatten(initial)))
        size = element * count
        if size >= 1 << 36:
            raise PtxError(f"'{name}' is too large", name.line or 0, name.column or 0)
        if align & (align - 1):
            raise PtxError(f"alignment {align} of '{name}' is not a power of two", name.line or 0, name.column or 0)
        yield _Declared(
            name,
            cast(Space, str(space)[1:]),
            kind,
            size,
            align or element,
            _integer(cast(Token, family.children[0])) if family else None,
            initial,
            dynamic,
        )


def _heading(function: Tree[Token]) -> tuple[Token, Tree[Token] | None, Tree[Token] | None]:
    """(name, results, parameters) of a function."""
    _, kind, first, name, second = function.children[:5]
    if kind == ".entry" and first is not None:
        raise PtxError("an .entry returns nothing", cast(Token, name).line or 0, cast(Token, name).column or 0)
    return cast(Token, name), cast("Tree[Token] | None", first), cast("Tree[Token] | None", second)


class _Body:
    """Builds one `Kernel`."""

    def __init__(self, module: _Module, function: Tree[Token]) -> None:
        self.module, self.function = module, function
        self.scope = _Scope(module.scope)
        self.frames = {
            "param": _Frame(),
            "local": _Frame(),
            "shared": _Frame(-(-module.frames["shared"].size // 16) * 16),
        }
        self.registers: list[Register] = []
        self.variables: list[Variable] = []
        self.pending: list[tuple[_Statement, _Scope, Location | None]] = []
        self.targets: dict[str, int] = {}
        self.tables: dict[str, tuple[list[Token], _Scope]] = {}
        self.location: Location | None = None

    def build(self) -> Kernel:
        name, results, parameters = _heading(self.function)
        is_entry = self.function.children[1] == ".entry"
        declared_results = self._parameters(results)
        declared_parameters = self._parameters(parameters)
        maximum, required = self._limits()
        body = next(child for child in self.function.children if isinstance(child, Tree) and child.data == "body")
        self._walk(body, self.scope)
        instructions = tuple(self._instruction(*item) for item in self.pending)
        last_ends = instructions and instructions[-1].guard is None and instructions[-1].name in ("ret", "exit")
        if not last_ends or len(instructions) in self.targets.values():
            instructions += (self._final_return(),)
        tables = {
            label: tuple(self._label(target, scope).name for target in names)
            for label, (names, scope) in self.tables.items()
        }
        return Kernel(
            str(name),
            is_entry,
            declared_parameters,
            declared_results,
            tuple(self.registers),
            tuple(self.variables),
            instructions,
            self.targets,
            tables,
            maximum,
            required,
        )

    def _final_return(self) -> Instruction:
        """Running past the last statement returns."""
        meta = self.pending[-1][0].opcode if self.pending else _heading(self.function)[0]
        return Instruction("ret", (), (), None, meta.line or 0, meta.column or 0, self.location, "ret (implied)")

    def _parameters(self, tree: Tree[Token] | None) -> tuple[Variable, ...]:
        declared: list[Variable] = []
        for item in tree.children if tree is not None else ():
            if not isinstance(item, Tree):
                continue
            space = str(item.children[0])[1:]
            name = next(part for part in item.children[1:] if isinstance(part, Token))
            kind, align, vector = _attributes(item.children)
            count = _dimensions(item.children)
            if space == "reg":
                raise PtxError(
                    "parameters in registers are not simulated; declare them .param", name.line or 0, name.column or 0
                )
            element = max(1, WIDTH[kind] // 8) * vector
            size, align = element * (count or 0), align or element
            variable = Variable(str(name), "param", kind, size, align, self.frames["param"].place(size, align))
            if name != "_":
                self.scope.declare(name, variable)
            declared.append(variable)
        return tuple(declared)

    def _limits(self) -> tuple[tuple[int, int, int] | None, tuple[int, int, int] | None]:
        limits: dict[str, tuple[int, int, int]] = {}
        for child in self.function.children:
            if isinstance(child, Token) and child.type == "DIRECTIVE":
                values = [int(number) for number in re.findall(r"\d+", child.partition("ntid")[2])]
                if values:
                    padded = [*values, 1, 1][:3]
                    limits[child.split()[0]] = (padded[0], padded[1], padded[2])
        return limits.get(".maxntid"), limits.get(".reqntid")

    def _walk(self, body: Tree[Token], scope: _Scope) -> None:
        for item in body.children:
            if isinstance(item, _Statement):
                self.pending.append((item, scope, self.location))
            elif isinstance(item, Token):
                if item.type == "LABEL":
                    self._define(item, scope)
                elif item.type == "LOC":
                    self.location = self._locate(item)
            elif item.data == "declaration":
                self._declare(item, scope)
            elif item.data == "body":
                self._walk(item, _Scope(scope))
            elif item.data == "branch_table":
                label, *names = (cast(Token, child) for child in item.children)
                self.tables[label.rstrip(": \t\n")] = (names, scope)

    def _define(self, token: Token, scope: _Scope) -> None:
        name = token.rstrip(": \t\r\n")
        if name in scope.labels:
            raise PtxError(f"label '{name}' is defined twice", token.line or 0, token.column or 0)
        unique, number = name, 1
        while unique in self.targets:
            unique, number = f"{name}#{number}", number + 1
        self.targets[unique] = len(self.pending)
        scope.labels[name] = (unique, len(self.pending))

    def _locate(self, token: Token) -> Location | None:
        found = LOCATION.match(token)
        if found is None:
            shown = " ".join(token.split())[:60]
            raise PtxError(f"'{shown}' is no .loc file line column", token.line or 0, token.column or 0)
        numbers = [int(number) for number in found.groups()]
        if numbers[1] == 0:
            return None
        inlined = re.search(r"inlined_at\s+(\d+)\s+(\d+)\s+(\d+)", token)
        caller = None
        if inlined:
            file, line, column = (int(number) for number in inlined.groups())
            caller = Location(self.module.files.get(file, f"file {file}"), line, column)
        return Location(self.module.files.get(numbers[0], f"file {numbers[0]}"), numbers[1], numbers[2], caller)

    def _declare(self, tree: Tree[Token], scope: _Scope) -> None:
        for declared in _declarators(tree):
            name = declared.name
            if declared.space == "reg":
                if declared.type in ("b8", "u8", "s8", "b128") and declared.type == "b128":
                    raise PtxError("128-bit registers are not simulated", name.line or 0, name.column or 0)
                if declared.family is not None:
                    scope.families[str(name)] = (declared.type, declared.family)
                else:
                    scope.declare(name, self._register(str(name), declared.type))
                continue
            if declared.space in ("global", "const"):
                offset = self.module.frames["global"].place(declared.size, declared.align)
                variable = self.module.variable(declared, offset)
                unique = f"{name}@{offset}" if str(name) in self.module.scope.names else str(name)
                self.module.scope.names[unique] = variable
            else:
                frame = self.frames[declared.space]
                offset = 0 if declared.dynamic else frame.place(declared.size, declared.align)
                variable = self.module.variable(declared, offset)
                self.variables.append(variable)
            scope.declare(name, variable)

    def _register(self, name: str, kind: str) -> Register:
        register = Register(name, kind, len(self.registers))
        self.registers.append(register)
        return register

    def _lookup(self, token: Token, scope: _Scope) -> Any:
        name = str(token)
        search: _Scope | None = scope
        while search is not None:
            if name in search.names:
                return search.names[name]
            if search.families:
                prefix = name.rstrip("0123456789")
                family = search.families.get(prefix)
                digits = name[len(prefix) :]
                if family is not None and digits and int(digits) < family[1] and (digits == "0" or digits[0] != "0"):
                    register = search.names[name] = self._register(name, family[0])
                    return register
            search = search.outer
        return None

    def _label(self, token: Token, scope: _Scope) -> Label:
        search: _Scope | None = scope
        while search is not None:
            if str(token) in search.labels:
                return Label(*search.labels[str(token)])
            search = search.outer
        raise PtxError(f"label '{token}' is not defined", token.line or 0, token.column or 0)

    def _name(self, token: Token, scope: _Scope) -> Operand:
        found = self._lookup(token, scope)
        if found is not None:
            return cast(Operand, found)
        bare, _, component = token.lstrip("%").partition(".")
        if bare in SPECIAL_VECTORS and component in ("x", "y", "z") and token.startswith("%"):
            return Special(bare, component)
        known = bare in SPECIAL_SCALARS or ENVIRONMENT.match(bare)
        if known and not component and (token.startswith("%") or bare == "WARP_SZ"):
            return Special(bare)
        if str(token) in self.tables:
            return Label(str(token), -1)
        raise PtxError(f"'{token}' is not declared", token.line or 0, token.column or 0)

    def _operand(self, raw: Any, scope: _Scope) -> Operand | None:
        if isinstance(raw, Immediate):
            return raw
        kind, parts = raw.data, raw.children
        if kind == "name":
            return None if parts[0] == "_" else self._name(parts[0], scope)
        if kind == "vector":
            return Vector(tuple(self._operand(part, scope) for part in parts))
        if kind == "pair":
            return Pair(self._operand(parts[0], scope), self._operand(parts[1], scope))
        if kind == "negated":
            register = self._name(parts[1], scope)
            if not isinstance(register, Register):
                raise PtxError(f"'!{parts[1]}' negates no register", parts[1].line, parts[1].column)
            return Negated(register)
        if kind == "absolute":
            return Address(None, _integer(parts[0]))
        if kind == "address":
            base = self._name(parts[0], scope)
            if not isinstance(base, Register | Variable):
                raise PtxError(f"'{parts[0]}' cannot be an address", parts[0].line, parts[0].column)
            offsets = [_integer(re.sub(r"[\s+]", "", part)) for part in parts[1:] if part is not None]
            return Address(base, sum(offsets))
        raise AssertionError(kind)

    def _instruction(self, statement: _Statement, scope: _Scope, location: Location | None) -> Instruction:
        token = statement.opcode
        line, column = token.line or 0, token.column or 0
        name, *rest = token.split(".")
        modifiers = tuple(rest)
        guard = None
        if statement.guard is not None:
            register = self._name(statement.guard[0], scope)
            if not isinstance(register, Register) or register.type != "pred":
                raise PtxError(f"guard '{statement.guard[0]}' is no predicate register", line, column)
            guard = Guard(register, statement.guard[1])
        if name == "call":
            operands: tuple[Operand, ...] = (self._call(statement, scope, line, column),)
        elif name == "bra":
            targets = [raw for raw in statement.operands if isinstance(raw, Tree) and raw.data == "name"]
            operands = tuple(self._label(cast(Token, raw.children[0]), scope) for raw in targets)
        else:
            operands = cast("tuple[Operand, ...]", tuple(self._operand(raw, scope) for raw in statement.operands))
        problem = opcodes.problem(name, modifiers, len(operands))
        if problem:
            raise PtxError(problem, line, column)
        end = self.module.text.find(";", statement.end)
        text = " ".join(self.module.text[token.start_pos : end].split())
        if guard is not None:
            text = f"@{'!' if guard.negated else ''}{guard.register.name} {text}"
        return Instruction(name, modifiers, operands, guard, line, column, location, text)

    def _call(self, statement: _Statement, scope: _Scope, line: int, column: int) -> Call:
        groups: list[tuple[Operand, ...]] = []
        callee: FunctionName | None = None
        before = 0
        for raw in statement.operands:
            if isinstance(raw, Tree) and raw.data == "group":
                groups.append(
                    tuple(cast(Operand, self._operand(part, scope)) for part in raw.children if part is not None)
                )
            elif isinstance(raw, Tree) and raw.data == "name" and callee is None:
                found = self._name(cast(Token, raw.children[0]), scope)
                if not isinstance(found, FunctionName):
                    raise PtxError("calls through a register are not simulated", line, column)
                callee, before = found, len(groups)
            else:
                raise PtxError("a call is `call (results), function, (arguments);`", line, column)
        if callee is None:
            raise PtxError("a call names no function", line, column)
        results = groups[0] if before else ()
        arguments = groups[before] if len(groups) > before else ()
        return Call(results, callee, arguments)
