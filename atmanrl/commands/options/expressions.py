"""Expressions of a source text, evaluated where they need nothing but values that are known. Nothing is imported or run."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from atmanrl.commands.options.source import find

_FUNCTIONS: dict[str, Any] = {
    each.__name__: each
    for each in (abs, all, any, bool, dict, float, int, isinstance, len, list, max, min, set, sorted, str, tuple)
}
_METHODS = ("isdecimal", "items", "join", "keys", "partition", "strip", "values")
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not, ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b, ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.Mod: operator.mod, ast.BitOr: operator.or_, ast.Not: operator.not_,
    ast.USub: operator.neg,
}  # fmt: skip
_CONVERSIONS: dict[int, Callable[[Any], str]] = {-1: lambda value: value, 97: ascii, 114: repr, 115: str}


class UnknownError(Exception):
    """A value that the source alone does not tell."""


class Scope:
    """The names that a piece of source text sees.

    Args:
        module: of the source; its constants are seen too.
        owner: the name of the class, for `type(self).__name__`.
        names: variables by name, attributes of the object as `self.name`; what is not there is unknown.
    """

    def __init__(self, module: str, owner: str, names: Mapping[str, Any]) -> None:
        self.module, self.owner, self.names = module, owner, dict(names)

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression.

        Raises:
            UnknownError: it depends on what the source alone does not tell, or is no expression of a simple kind.
        """
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise UnknownError
        try:
            return method(node)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise UnknownError from error

    def bind(self, target: ast.expr, value: Any) -> None:
        """Give a value to a name, to an attribute of the object, or to several of them."""
        if isinstance(target, ast.Tuple):
            for each, part in zip(target.elts, list(value), strict=True):
                self.bind(each, part)
        else:
            self.names[ast.unparse(target)] = value

    def forget(self, target: ast.expr) -> None:
        """Let a name, or several, be unknown from now on."""
        for each in target.elts if isinstance(target, ast.Tuple) else [target]:
            self.names.pop(ast.unparse(each), None)

    def _constant(self, node: ast.Constant) -> Any:
        return node.value

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.names:
            return self.names[node.id]
        if node.id in _FUNCTIONS:
            return _FUNCTIONS[node.id]
        definition = find(f"{self.module}.{node.id}")
        if definition is None or isinstance(definition.node, ast.ClassDef):
            raise UnknownError
        return Scope(definition.module, self.owner, {}).value(definition.node)

    def _attribute(self, node: ast.Attribute) -> Any:
        text = ast.unparse(node)
        if text == "type(self).__name__":
            return self.owner
        if text in ("math.inf", "math.isfinite"):
            return getattr(math, node.attr)
        return self.names[text]

    def _subscript(self, node: ast.Subscript) -> Any:
        if ast.unparse(node.value) == "Literal":
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return tuple(self.value(each) for each in parts)
        return self.value(node.value)[self.value(node.slice)]

    def _call(self, node: ast.Call) -> Any:
        arguments = [self.value(each) for each in node.args]
        if node.keywords:
            raise UnknownError
        if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            return getattr(self.value(node.func.value), node.func.attr)(*arguments)
        if ast.unparse(node.func) == "get_args":
            return arguments[0]
        function = self.value(node.func)
        if function not in (*_FUNCTIONS.values(), math.isfinite):
            raise UnknownError
        return function(*arguments)

    def _compare(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for sign, right in zip(node.ops, map(self.value, node.comparators), strict=True):
            if not _OPERATORS[type(sign)](left, right):
                return False
            left = right
        return True

    def _boolop(self, node: ast.BoolOp) -> Any:
        wanted = isinstance(node.op, ast.Or)
        value: Any = None
        for each in node.values:
            value = self.value(each)
            if bool(value) is wanted:
                break
        return value

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        return _OPERATORS[type(node.op)](self.value(node.operand))

    def _binop(self, node: ast.BinOp) -> Any:
        return _OPERATORS[type(node.op)](self.value(node.left), self.value(node.right))

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def _namedexpr(self, node: ast.NamedExpr) -> Any:
        self.bind(node.target, self.value(node.value))
        return self.names[node.target.id]

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(map(self.value, node.elts))

    def _list(self, node: ast.List) -> list[Any]:
        return list(map(self.value, node.elts))

    def _set(self, node: ast.Set) -> set[Any]:
        return set(map(self.value, node.elts))

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        whole: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            whole |= self.value(value) if key is None else {self.value(key): self.value(value)}
        return whole

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp) -> list[Any]:
        return [self.value(node.elt) for _ in self._loop(node.generators)]

    _generatorexp = _listcomp

    def _loop(self, generators: list[ast.comprehension]) -> Iterator[None]:
        (only,) = generators
        for each in list(self.value(only.iter)):
            self.bind(only.target, each)
            if all(self.value(test) for test in only.ifs):
                yield

    def _joinedstr(self, node: ast.JoinedStr) -> str:
        return "".join(self.value(each) for each in node.values)

    def _formattedvalue(self, node: ast.FormattedValue) -> str:
        value = _CONVERSIONS[node.conversion](self.value(node.value))
        return format(value, "" if node.format_spec is None else self.value(node.format_spec))
