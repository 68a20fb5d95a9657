"""The subset of Python in which the engine's run-time is written, and its translation to LLVM IR.

A run-time function is an ordinary typed Python function whose parameters, locals and result are 64-bit integers
(`int`).  It may use assignments, `if`, `while`, `for i in range(...)`, `break`, `continue`, `return`, conditional
expressions, comparisons (signed), `and`/`or`/`not`, the integer operators (`//` and `%` are unsigned, `>>` is
arithmetic), module constants, other run-time functions and the primitives below, which touch memory by address.
So the scheduler, the checks and the slow paths read like Python and run as native code; a whole run-time compiles in
a fraction of a second, without a second compiler.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, TypeVar

from loadsparse.gpu.simulator.engine import vectors

F = TypeVar("F", bound=Callable[..., Any])


def inline(function: F) -> F:
    """Marks a run-time function that is always inlined, so that constant arguments specialise it."""
    function.__dict__["always_inline"] = True
    return function


def _primitive(*_: int) -> int:
    raise NotImplementedError("run-time primitives exist only in native code")


load8 = load16 = load32 = load64 = load32s = _primitive
store8 = store16 = store32 = store64 = _primitive
ult = ule = ugt = uge = lshr = umin = smin = smax = popcount = ctz = umul_high = _primitive
copy = fill = invoke = invoke2 = _primitive
busy_2 = busy_4 = busy_8 = _primitive
note_reads_2 = note_reads_4 = note_reads_8 = _primitive
mark_writes_2 = mark_writes_4 = mark_writes_8 = bank_waves = row_banks = stride_of = outside_of = _primitive

_BINARY = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor",
    ast.LShift: "shl", ast.RShift: "ashr", ast.FloorDiv: "udiv", ast.Mod: "urem",
}  # fmt: skip
_COMPARE = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge"}
_UNSIGNED = {"ult": "ult", "ule": "ule", "ugt": "ugt", "uge": "uge"}
_INTRINSICS = {"umin": "umin", "smin": "smin", "smax": "smax"}

DECLARATIONS = (
    vectors.text()
    + """\
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.ctpop.i64(i64)
declare i64 @llvm.cttz.i64(i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""
)


class _Translator:
    """One function: emits text into `lines`; every local is an alloca that LLVM promotes."""

    def __init__(self, tree: ast.FunctionDef, scope: dict[str, Any], linkage: str, prefix: str) -> None:
        self.tree, self.scope, self.prefix = tree, scope, prefix
        self.lines: list[str] = []
        self.locals: dict[str, str] = {}
        self.counter = 0
        self.loops: list[tuple[str, str]] = []
        self.open = True
        self.linkage = linkage

    def fresh(self, stem: str = "v") -> str:
        self.counter += 1
        return f"{stem}.{self.counter}"

    def emit(self, text: str) -> None:
        if self.open:
            self.lines.append("  " + text)

    def value(self, text: str) -> str:
        name = "%" + self.fresh()
        self.emit(f"{name} = {text}")
        return name

    def label(self, name: str) -> None:
        if self.open:
            self.lines.append(f"  br label %{name}")
        self.lines.append(f"{name}:")
        self.open = True

    def jump(self, text: str) -> None:
        self.emit(text)
        self.open = False

    def pointer(self, address: str) -> str:
        return self.value(f"inttoptr i64 {address} to ptr")

    def refuse(self, node: ast.AST) -> TypeError:
        return TypeError(f"{self.tree.name}: {ast.unparse(node)!r} is outside the run-time subset")

    def run(self) -> str:
        names = [a.arg for a in self.tree.args.args]
        assigned = {n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        for name in dict.fromkeys([*names, *sorted(assigned)]):
            self.locals[name] = f"%{name}.slot"
            self.emit(f"%{name}.slot = alloca i64")
        for name in names:
            self.emit(f"store i64 %{name}, ptr %{name}.slot")
        self.body(self.tree.body)
        if self.open:
            self.jump("ret i64 0")
        inlined = getattr(self.scope.get(self.tree.name), "always_inline", False)
        attributes = "alwaysinline nounwind" if inlined else "nounwind"
        signature = ", ".join(f"i64 %{name}" for name in names)
        linkage = "internal" if inlined else self.linkage
        head = f"define {linkage} i64 @{self.prefix}{self.tree.name}({signature}) {attributes} {{\nbegin.0:"
        return "\n".join([head, *self.lines, "}", ""])

    def body(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self.open:
                self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=expression)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as expression)
            ):
                value = self.integer(expression)
                self.emit(f"store i64 {value}, ptr {self.locals[name]}")
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=expression):
                value = self.integer(ast.BinOp(ast.Name(name, ast.Load()), op, expression))
                self.emit(f"store i64 {value}, ptr {self.locals[name]}")
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(value=expression):
                self.integer(expression)
            case ast.Return(value=expression):
                self.jump(f"ret i64 {self.integer(expression) if expression else 0}")
            case ast.If(test=test, body=body, orelse=orelse):
                then, other, end = self.fresh("then"), self.fresh("else"), self.fresh("end")
                self.branch(test, then, other)
                self.label_closed(then)
                self.body(body)
                self.jump(f"br label %{end}")
                self.label_closed(other)
                self.body(orelse)
                self.label(end)
            case ast.While(test=test, body=body):
                head, inside, end = self.fresh("head"), self.fresh("body"), self.fresh("end")
                self.label(head)
                self.branch(test, inside, end)
                self.label_closed(inside)
                self.loops.append((head, end))
                self.body(body)
                self.loops.pop()
                self.jump(f"br label %{head}")
                self.label_closed(end)
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=bounds), body=body):
                self.count(name, bounds, body)
            case ast.Break():
                self.jump(f"br label %{self.loops[-1][1]}")
            case ast.Continue():
                self.jump(f"br label %{self.loops[-1][0]}")
            case _:
                raise self.refuse(node)

    def label_closed(self, name: str) -> None:
        self.open = False
        self.label(name)

    def count(self, name: str, bounds: list[ast.expr], body: list[ast.stmt]) -> None:
        start = "0" if len(bounds) == 1 else self.integer(bounds[0])
        stop = self.integer(bounds[0] if len(bounds) == 1 else bounds[1])
        step = self.integer(bounds[2]) if len(bounds) == 3 else "1"
        slot = self.locals[name]
        head, inside, advance, end = (self.fresh(s) for s in ("head", "body", "next", "end"))
        self.emit(f"store i64 {start}, ptr {slot}")
        self.label(head)
        index = self.value(f"load i64, ptr {slot}")
        test = self.value(f"icmp slt i64 {index}, {stop}")
        self.jump(f"br i1 {test}, label %{inside}, label %{end}")
        self.label(inside)
        self.loops.append((advance, end))
        self.body(body)
        self.loops.pop()
        self.label(advance)
        index = self.value(f"load i64, ptr {slot}")
        index = self.value(f"add i64 {index}, {step}")
        self.emit(f"store i64 {index}, ptr {slot}")
        self.jump(f"br label %{head}")
        self.label(end)

    def branch(self, test: ast.expr, yes: str, no: str) -> None:
        match test:
            case ast.BoolOp(op=op, values=[*first, last]):
                for value in first:
                    middle = self.fresh("and" if isinstance(op, ast.And) else "or")
                    self.branch(value, *((middle, no) if isinstance(op, ast.And) else (yes, middle)))
                    self.label_closed(middle)
                self.branch(last, yes, no)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.branch(operand, no, yes)
            case _:
                self.jump(f"br i1 {self.truth(test)}, label %{yes}, label %{no}")

    def truth(self, node: ast.expr) -> str:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                a, b = self.integer(left), self.integer(right)
                return self.value(f"icmp {_COMPARE[type(op)]} i64 {a}, {b}")
            case ast.Call(func=ast.Name(id=name), args=[left, right]) if name in _UNSIGNED:
                a, b = self.integer(left), self.integer(right)
                return self.value(f"icmp {_UNSIGNED[name]} i64 {a}, {b}")
        return self.value(f"icmp ne i64 {self.integer(node)}, 0")

    def integer(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=bool() | int() as value):
                return str(int(value))
            case ast.Name(id=name) if name in self.locals:
                return self.value(f"load i64, ptr {self.locals[name]}")
            case ast.Name() | ast.Attribute():
                return str(self.constant(node))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                a, b = self.integer(left), self.integer(right)
                return self.value(f"{_BINARY[type(op)]} i64 {a}, {b}")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.value(f"sub i64 0, {self.integer(operand)}")
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                return self.value(f"xor i64 {self.integer(operand)}, -1")
            case ast.IfExp(test=test, body=body, orelse=orelse) if not _has_effects(node):
                flag, a, b = self.truth(test), self.integer(body), self.integer(orelse)
                return self.value(f"select i1 {flag}, i64 {a}, i64 {b}")
            case ast.Compare(ops=[op]) if type(op) in _COMPARE:
                return self.value(f"zext i1 {self.truth(node)} to i64")
            case ast.BoolOp() | ast.UnaryOp(op=ast.Not()) | ast.IfExp():
                return self.chosen(node)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self.call(name, arguments)
        raise self.refuse(node)

    def chosen(self, node: ast.expr) -> str:
        test, body, orelse = (
            (node.test, node.body, node.orelse)
            if isinstance(node, ast.IfExp)
            else (node, ast.Constant(1), ast.Constant(0))
        )
        then, other, end = self.fresh("then"), self.fresh("else"), self.fresh("end")
        self.branch(test, then, other)
        ways = []
        for name, value in ((then, body), (other, orelse)):
            self.label_closed(name)
            result, last = self.integer(value), self.fresh("way")
            self.label(last)
            ways.append(f"[ {result}, %{last} ]")
            self.jump(f"br label %{end}")
        self.label_closed(end)
        return self.value("phi i64 " + ", ".join(ways))

    def constant(self, node: ast.expr) -> int:
        if isinstance(node, ast.Name):
            value = self.scope.get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            value = getattr(self.scope.get(node.value.id), node.attr, None)
        else:
            value = None
        if not isinstance(value, int):
            raise self.refuse(node)
        return int(value)

    def call(self, name: str, arguments: list[ast.expr]) -> str:
        args = [self.integer(a) for a in arguments]
        if name in _UNSIGNED:
            return self.value(f"zext i1 {self.value(f'icmp {_UNSIGNED[name]} i64 {args[0]}, {args[1]}')} to i64")
        if name in _INTRINSICS:
            return self.value(f"call i64 @llvm.{_INTRINSICS[name]}.i64(i64 {args[0]}, i64 {args[1]})")
        match name:
            case "load8" | "load16" | "load32" | "load32s":
                bits = name[4:].rstrip("s")
                loaded = self.value(f"load i{bits}, ptr {self.pointer(args[0])}, align 1")
                return self.value(f"{'sext' if name.endswith('s') else 'zext'} i{bits} {loaded} to i64")
            case "load64":
                return self.value(f"load i64, ptr {self.pointer(args[0])}, align 1")
            case "store8" | "store16" | "store32":
                narrow = self.value(f"trunc i64 {args[1]} to i{name[5:]}")
                self.emit(f"store i{name[5:]} {narrow}, ptr {self.pointer(args[0])}, align 1")
            case "store64":
                self.emit(f"store i64 {args[1]}, ptr {self.pointer(args[0])}, align 1")
            case "lshr":
                return self.value(f"lshr i64 {args[0]}, {args[1]}")
            case "popcount":
                return self.value(f"call i64 @llvm.ctpop.i64(i64 {args[0]})")
            case "ctz":
                return self.value(f"call i64 @llvm.cttz.i64(i64 {args[0]}, i1 false)")
            case "copy":
                to, source = self.pointer(args[0]), self.pointer(args[1])
                self.emit(f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {source}, i64 {args[2]}, i1 false)")
            case "fill":
                byte = self.value(f"trunc i64 {args[1]} to i8")
                to = self.pointer(args[0])
                self.emit(f"call void @llvm.memset.p0.i64(ptr {to}, i8 {byte}, i64 {args[2]}, i1 false)")
            case "invoke" | "invoke2":
                passed = ", ".join(f"i64 {a}" for a in args[1:])
                return self.value(f"call i64 {self.pointer(args[0])}({passed})")
            case _ if name in vectors.ARITY:
                return self.value(f"call i64 @{name}({', '.join(f'i64 {a}' for a in args)})")
            case _:
                if not inspect.isfunction(self.scope.get(name)):
                    raise TypeError(f"{self.tree.name}: {name} is not a run-time function")
                passed = ", ".join(f"i64 {a}" for a in args)
                return self.value(f"call i64 @{self.prefix}{name}({passed})")
        return "0"


def _has_effects(node: ast.IfExp) -> bool:
    parts = (node.body, node.orelse, node.test)
    return any(isinstance(n, ast.Call | ast.BoolOp | ast.IfExp) for part in parts for n in ast.walk(part))


def translate(modules: Iterable[ModuleType], prefix: str, only_inline: bool = False) -> str:
    """LLVM IR text of the functions in `modules` (which may call each other); names are prefixed with `prefix`.

    With `only_inline` the functions marked `inline` are defined and all others declared: what a kernel's module needs.
    """
    parts = []
    for module in modules:
        tree = ast.parse(inspect.getsource(module))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef):
                continue
            inlined = getattr(vars(module)[node.name], "always_inline", False)
            if only_inline and not inlined:
                parts.append(f"declare i64 @{prefix}{node.name}({', '.join(['i64'] * len(node.args.args))})\n")
            else:
                parts.append(_Translator(node, vars(module), "", prefix).run())
    return "\n".join(parts)


def exported(modules: Iterable[ModuleType]) -> tuple[str, ...]:
    """Names of the functions that are not inlined."""
    return tuple(
        name
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and "always_inline" not in value.__dict__
    )
