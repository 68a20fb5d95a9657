"""The body of one `.entry` or `.func` -> `Kernel`: registers, labels and operands resolved scope by scope."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from lark import Token, Tree

from loadsparse.gpu.simulator import forms, unsimulated
from loadsparse.gpu.simulator.agreement import disagreement
from loadsparse.gpu.simulator.declarations import (
    Declared,
    Frame,
    Scope,
    Statement,
    attributes,
    declarators,
    dimensions,
    heading,
    integer,
)
from loadsparse.gpu.simulator.locations import Locations
from loadsparse.gpu.simulator.opcodes import VIDEO
from loadsparse.gpu.simulator.optimistic import relax_optimistic_reads
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
    PtxError,
    Register,
    Variable,
    Vector,
)
from loadsparse.gpu.simulator.special_registers import special_register

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.parsed_module import Module


def _take_selectors(statement: Statement) -> tuple[str, ...]:
    """Takes the selectors of a video instruction off its operands: `d.h0` leaves `d`, and "d=h0" to be a modifier."""
    taken = []
    for operand, raw in zip("dabc", statement.operands, strict=False):
        if isinstance(raw, Tree) and raw.data == "name":
            token = cast(Token, raw.children[0])
            name, _, selector = token.partition(".")
            if selector[:1] in ("b", "h"):
                raw.children[0] = Token.new_borrow_pos("NAME", name, token)
                taken.append(f"{operand}={selector}")
    return tuple(taken)


class Body:
    """Builds one `Kernel`."""

    def __init__(self, module: Module, function: Tree[Token]) -> None:
        self.module, self.function = module, function
        self.scope = Scope(module.scope)
        self.frames = {
            "param": Frame(),
            "local": Frame(),
            "shared": Frame(-(-module.frames["shared"].size // 16) * 16),
        }
        self.registers: list[Register] = []
        self.variables: list[Variable] = []
        self.pending: list[tuple[Statement, Scope, Location | None]] = []
        self.targets: dict[str, int] = {}
        self.tables: dict[str, tuple[list[Token], Scope]] = {}
        self.location: Location | None = None
        self.locations = Locations(module.files, module.inline_assembly)

    def build(self) -> Kernel:
        name, results, parameters = heading(self.function)
        is_entry = self.function.children[1] == ".entry"
        declared_results = self._parameters(results)
        declared_parameters = self._parameters(parameters)
        maximum, required = self._limits()
        body = next(child for child in self.function.children if isinstance(child, Tree) and child.data == "body")
        self._walk(body, self.scope)
        instructions = relax_optimistic_reads(tuple(self._instruction(*item) for item in self.pending))
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
        meta = self.pending[-1][0].opcode if self.pending else heading(self.function)[0]
        return Instruction("ret", (), (), None, meta.line or 0, meta.column or 0, self.location, "ret (implied)")

    def _parameters(self, tree: Tree[Token] | None) -> tuple[Variable, ...]:
        declared: list[Variable] = []
        for item in tree.children if tree is not None else ():
            if not isinstance(item, Tree):
                continue
            space = str(item.children[0])[1:]
            name = next(part for part in item.children[1:] if isinstance(part, Token))
            kind, align, vector = attributes(item.children)
            count = dimensions(item.children)
            if space == "reg" and (
                self.function.children[1] == ".entry" or vector * (count or 0) != 1 or kind == "b128"
            ):
                reason = "a parameter in a register is one number of a .func"
                raise PtxError(reason, name.line or 0, name.column or 0)
            register = self._register(str(name), kind) if space == "reg" else None
            element = max(1, WIDTH[kind] // 8) * vector
            size, align = element * (count or 0), align or element
            offset = self.frames["param"].place(size, align)
            variable = Variable(str(name), "param", kind, size, align, offset, register=register)
            if name != "_":
                self.scope.declare(name, register or variable)
            declared.append(variable)
        return tuple(declared)

    def _limits(self) -> tuple[tuple[int, int, int] | None, tuple[int, int, int] | None]:
        limits: dict[str, tuple[int, int, int]] = {}
        for child in self.function.children:
            if isinstance(child, Token) and child.type == "DIRECTIVE":
                reason = unsimulated.because(child.split()[0], unsimulated.DIRECTIVES)
                if reason and set(re.findall(r"\d+", child)) != {"1"}:
                    raise PtxError(f"'{' '.join(child.split())}'{reason}", child.line or 0, child.column or 0)
                values = [int(number) for number in re.findall(r"\d+", child.partition("ntid")[2])]
                if values:
                    padded = [*values, 1, 1][:3]
                    limits[child.split()[0]] = (padded[0], padded[1], padded[2])
        return limits.get(".maxntid"), limits.get(".reqntid")

    def _walk(self, body: Tree[Token], scope: Scope) -> None:
        for item in body.children:
            if isinstance(item, Statement):
                self.pending.append((item, scope, self.location))
            elif isinstance(item, Token):
                if item.type == "LABEL":
                    self._define(item, scope)
                elif item.type == "LOC":
                    self.location = self.locations.at(item)
            elif item.data == "declaration":
                self._declare(item, scope)
            elif item.data == "body":
                self._walk(item, Scope(scope))
            elif item.data == "branch_table":
                label, *names = (cast(Token, child) for child in item.children)
                self.tables[label.rstrip(": \t\n")] = (names, scope)

    def _define(self, token: Token, scope: Scope) -> None:
        name = token.rstrip(": \t\r\n")
        if name in scope.labels:
            raise PtxError(f"label '{name}' is defined twice", token.line or 0, token.column or 0)
        unique, number = name, 1
        while unique in self.targets:
            unique, number = f"{name}#{number}", number + 1
        self.targets[unique] = len(self.pending)
        scope.labels[name] = (unique, len(self.pending))

    def _declare(self, tree: Tree[Token], scope: Scope) -> None:
        for declared in declarators(tree):
            name = declared.name
            if declared.space == "reg":
                if declared.type == "b128" or 8 * declared.size > max(8, WIDTH[declared.type]):
                    self._declare_vector(declared, scope)
                elif declared.family is not None:
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

    def _declare_vector(self, declared: Declared, scope: Scope) -> None:
        """Several registers under one name: `v.x` to `v.w` of a vector, the two halves of 128 bits."""
        name = declared.name
        if declared.family is not None:
            raise PtxError(
                f"'{name}' is a family of vectors; declare them one by one", name.line or 0, name.column or 0
            )
        if declared.type == "b128":
            kind, parts = "b64", ["lower half", "upper half"]
        else:
            kind = declared.type
            parts = list("xyzw"[: declared.size * 8 // max(8, WIDTH[kind])])
        registers = tuple(self._register(f"{name}.{part}", kind) for part in parts)
        scope.declare(name, Vector(registers))
        scope.names.update((register.name, register) for register in registers)

    def _register(self, name: str, kind: str) -> Register:
        register = Register(name, kind, len(self.registers))
        self.registers.append(register)
        return register

    def _lookup(self, token: Token, scope: Scope) -> Any:
        name = str(token)
        search: Scope | None = scope
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

    def _label(self, token: Token, scope: Scope) -> Label:
        search: Scope | None = scope
        while search is not None:
            if str(token) in search.labels:
                return Label(*search.labels[str(token)])
            search = search.outer
        raise PtxError(f"label '{token}' is not defined", token.line or 0, token.column or 0)

    def _name(self, token: Token, scope: Scope) -> Operand:
        found = self._lookup(token, scope)
        if found is not None:
            return cast(Operand, found)
        special = special_register(token)
        if special is not None:
            return special
        if str(token) in self.tables:
            return Label(str(token), -1)
        reason = unsimulated.because(re.split(r"\d", token)[0], unsimulated.REGISTERS)
        raise PtxError(f"'{token}' is not declared{reason}", token.line or 0, token.column or 0)

    def _operand(self, raw: Any, scope: Scope) -> Operand | None:
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
        if kind == "coordinates":
            raise PtxError("texture coordinates are not simulated", getattr(raw.meta, "line", 0))
        if kind == "absolute":
            return Address(None, integer(parts[0]))
        if kind == "address":
            base = self._name(parts[0], scope)
            if not isinstance(base, Register | Variable):
                raise PtxError(f"'{parts[0]}' cannot be an address", parts[0].line, parts[0].column)
            offsets = [integer(re.sub(r"[\s+]", "", part)) for part in parts[1:] if part is not None]
            return Address(base, sum(offsets))
        raise AssertionError(kind)

    def _instruction(self, statement: Statement, scope: Scope, location: Location | None) -> Instruction:
        token = statement.opcode
        line, column = token.line or 0, token.column or 0
        name, *rest = token.split(".")
        modifiers = tuple(rest)
        if name in VIDEO:
            modifiers += _take_selectors(statement)
        if name in ("min", "max") and modifiers[-1:] == ("relu",):  # compilers write it on either side of the type
            modifiers = ("relu", *modifiers[:-1])
        if name in ("ld", "st", "atom", "red", "cp") and "L2::cache_hint" in modifiers and statement.operands:
            statement.operands.pop()  # a policy changes no result
        # before its operands are looked at: those of what is refused may have forms that are not known either
        refused = forms.problem(name, modifiers, 1 if name == "call" else len(statement.operands))
        if refused:
            raise PtxError(refused, line, column)
        guard = None
        if statement.guard is not None:
            register = self._name(statement.guard[0], scope)
            if not isinstance(register, Register) or register.type != "pred":
                raise PtxError(f"guard '{statement.guard[0]}' is no predicate register", line, column)
            guard = Guard(register, statement.guard[1])
        if name == "call":
            operands: tuple[Operand, ...] = (self._call(statement, scope, line, column),)
        elif name == "bra":
            (target,) = statement.operands
            if not (isinstance(target, Tree) and target.data == "name"):
                raise PtxError("a branch goes to a label", line, column)
            operands = (self._label(cast(Token, target.children[0]), scope),)
        else:
            operands = cast("tuple[Operand, ...]", tuple(self._operand(raw, scope) for raw in statement.operands))
        problem = disagreement(name, modifiers, operands)
        if problem:
            raise PtxError(problem, line, column)
        end = self.module.text.find(";", statement.end)
        text = " ".join(self.module.text[token.start_pos : end].split())
        if guard is not None:
            text = f"@{'!' if guard.negated else ''}{guard.register.name} {text}"
        return Instruction(name, modifiers, operands, guard, line, column, location, text)

    def _call(self, statement: Statement, scope: Scope, line: int, column: int) -> Call:
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
