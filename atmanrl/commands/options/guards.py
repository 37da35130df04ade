"""What a constructor refuses by value: its own guards, `if ...: raise ...`, read from its source and evaluated.

So that a wrong value is refused before its class is imported, and by the rule and in the words of the class alone. What a
guard asks that the source does not tell is left to the constructor.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from atmanrl.commands.options.expressions import Scope, UnknownError
from atmanrl.commands.options.signatures import Signature, bases, signature, signature_of
from atmanrl.commands.options.source import Definition, find, find_function, read

CONSTRUCTORS = ("__init__", "__post_init__")


class _RefusedError(Exception):
    """A guard's message."""


class _ReturnedError(Exception):
    """The constructor has come to its end."""


def refusal(path: str, values: Mapping[str, Any]) -> str | None:
    """Return the message with which the constructor of a class refuses values; None where it does not, as far as is known.

    Args:
        path: of the class.
        values: its arguments by name, as far as they are known; those that are objects are not.

    Example:
        "data.group_size is 1; a group's advantage needs at least 2 rollouts."
    """
    definition = find(path)
    if definition is None or not isinstance(definition.node, ast.ClassDef):
        return None
    try:
        _construct(definition, definition.name, values)
    except _RefusedError as refused:
        return str(refused)
    return None


def refusal_of_call(path: str, values: Mapping[str, Any], unknown: Sequence[str] = ()) -> str | None:
    """Return the message with which a function refuses arguments; None where it does not, as far as is known.

    Args:
        path: of the function.
        values: its arguments by name, as far as they are known.
        unknown: names of arguments that are given, whether or not they are known; the others have their defaults.
    """
    function = find_function(path)
    if function is None:
        return None
    takes = signature_of(*function)
    defaults = {name: value for name, value in takes.defaults().items() if name not in unknown}
    try:
        with suppress(_ReturnedError):
            _Body(function[0], function[1].name, (), {**defaults, **values}).run(function[1].body)
    except _RefusedError as refused:
        return str(refused)
    return None


def _construct(definition: Definition, owner: str, values: Mapping[str, Any]) -> None:
    assert isinstance(definition.node, ast.ClassDef)
    for each in definition.node.body:
        if isinstance(each, ast.FunctionDef) and each.name in CONSTRUCTORS:
            names = {**values, **{f"self.{name}": value for name, value in values.items()}}
            with suppress(_ReturnedError):
                _Body(definition.module, owner, bases(definition), names).run(each.body)
            return
    for base in bases(definition):
        inherited = find(base)
        if inherited is not None and isinstance(inherited.node, ast.ClassDef):
            _construct(inherited, owner, values)


class _Body(Scope):
    """The statements of a constructor, or of a function that it calls to check its arguments."""

    def __init__(self, module: str, owner: str, parents: Sequence[str], names: Mapping[str, Any]) -> None:
        super().__init__(module, owner, names)
        self.parents = parents

    def run(self, statements: list[ast.stmt]) -> None:
        for each in statements:
            try:
                self._run(each)
            except (UnknownError, TypeError, ValueError) as error:
                if any(isinstance(node, ast.Return) for node in ast.walk(each)):
                    raise _ReturnedError from error  # what follows may never be reached
                for target in (node for node in ast.walk(each) if _is_target(node)):
                    self.forget(target)  # type: ignore[arg-type]

    def _run(self, node: ast.stmt) -> None:
        if isinstance(node, ast.If):
            self.run(node.body if self.value(node.test) else node.orelse)
        elif isinstance(node, ast.For) and not any(isinstance(n, ast.Break | ast.Continue) for n in ast.walk(node)):
            for each in list(self.value(node.iter)):
                self.bind(node.target, each)
                self.run(node.body)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.Raise):
            self._refuse(node)
        elif isinstance(node, ast.Return):
            raise _ReturnedError
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if isinstance(node.value.func, ast.Attribute):
                self.forget(node.value.func.value)  # a method may change its object
            self._go_into(node.value)
        elif not isinstance(node, ast.Expr | ast.Pass):
            raise UnknownError

    def _refuse(self, node: ast.Raise) -> None:
        if not isinstance(node.exc, ast.Call) or len(node.exc.args) != 1:
            raise _ReturnedError
        try:
            message = str(self.value(node.exc.args[0]))
        except UnknownError as error:
            raise _ReturnedError from error
        raise _RefusedError(message)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            pairs = list(zip(target.elts, value.elts, strict=True))
        for each, part in pairs:
            if isinstance(part, ast.Call):
                self._go_into(part)
            try:
                self.bind(each, self.value(part))
            except (UnknownError, ValueError, TypeError):
                self.forget(each)

    def _go_into(self, call: ast.Call) -> None:
        """Go through what is called, if it is the base's constructor, a class or a function that is known."""
        text = ast.unparse(call.func)
        place = f"{self.module}.{text}"
        if text == "super().__init__":
            for base in map(find, self.parents[:1]):
                if base is not None:
                    _construct(base, self.owner, self._handed(call, signature(base.path)))
        elif (definition := find(place)) is not None and isinstance(definition.node, ast.ClassDef):
            _construct(definition, definition.name, self._handed(call, signature(definition.path)))
        elif (function := find_function(place) or self._of_module(text)) is not None:
            module, node = function
            values = self._handed(call, signature_of(module, node))
            with suppress(_ReturnedError):
                _Body(module, node.name, (), values).run(node.body)

    def _of_module(self, text: str) -> tuple[str, ast.FunctionDef] | None:
        prefix, _, name = text.rpartition(".")
        source = read(self.module)
        known = source is not None and prefix in source.imported
        return find_function(f"{source.imported[prefix]}.{name}") if source is not None and known else None

    def _handed(self, call: ast.Call, takes: Signature) -> dict[str, Any]:
        """Return the arguments of a call by name, as far as they are known."""
        if any(isinstance(each, ast.Starred) for each in call.args) or any(each.arg is None for each in call.keywords):
            return {}
        handed = dict(zip(takes.parameters, call.args, strict=False))
        handed |= {each.arg: each.value for each in call.keywords if each.arg is not None}
        values = {name: value for name, value in takes.defaults().items() if name not in handed}
        for name, value in handed.items():
            with suppress(UnknownError):
                values[name] = self.value(value)
        return values


def _is_target(node: ast.AST) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store)
