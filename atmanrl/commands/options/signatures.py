"""What the constructor of a class takes: names, types, defaults and descriptions, read from its source."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache, reduce
from operator import or_

from docstring_parser import parse

from atmanrl.commands.options.source import Definition, find, read, subclasses

_SCALARS = ("int", "float", "bool", "str", "None")
_UNIONS = ("Union", "Optional")
_CALLABLES = {"LRSchedulerCallable": ("torch.optim.lr_scheduler.LRScheduler", "torch.optim.lr_scheduler.LambdaLR")}
"""Types of options that name a class whose first argument the run adds: the bases of such classes."""


@dataclass(frozen=True)
class Kind:
    """The values that an option takes.

    Attributes:
        scalars: of `int`, `float`, `bool`, `str` and `None`.
        choices: values of a `Literal`.
        classes: paths of classes, any subclass of which may be named.
        values: of a mapping from free names.
        known: false where there may be values of other kinds.

    Example:
        `Task | None` is `Kind(scalars=("None",), classes=("atmanrl.tasks.base.Task",))`.
    """

    scalars: tuple[str, ...] = ()
    choices: tuple[object, ...] = ()
    classes: tuple[str, ...] = ()
    values: Kind | None = None
    known: bool = True

    def __or__(self, other: Kind) -> Kind:
        return Kind(
            self.scalars + other.scalars,
            self.choices + other.choices,
            self.classes + other.classes,
            self.values or other.values,
            self.known and other.known,
        )

    @property
    def class_names(self) -> dict[str, str]:
        """The concrete classes that may be named, by name."""
        named = {
            name: path
            for base in self.classes
            for name, path in subclasses(base).items()
            if not base.startswith("atmanrl.") or _descends(path, base)  # and is not called like one by chance
        }
        own = {path.rpartition(".")[2]: path for path in self.classes}
        return {name: path for name, path in sorted({**own, **named}.items()) if not is_abstract(path)}


UNKNOWN = Kind(known=False)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a constructor.

    Attributes:
        name: of the parameter.
        kind: of its values.
        default: in Python, as the source has it; None where there is none.
        doc: its description.

    Example:
        `Parameter("group_size", Kind(scalars=("int",)), "8", "rollouts of each problem.")`
    """

    name: str
    kind: Kind
    default: str | None
    doc: str = ""


@dataclass(frozen=True)
class Signature:
    """A constructor.

    Attributes:
        path: of the class.
        doc: first sentence of the class.
        parameters: by name.
        known: false where it may take more than these.

    Example:
        `Signature("atmanrl.tasks.gsm8k.GSM8K", "GSM8K's problems.", {"path": Parameter(...)})`
    """

    path: str
    doc: str = ""
    parameters: dict[str, Parameter] = field(default_factory=dict)
    known: bool = True

    @property
    def name(self) -> str:
        """The class's own name."""
        return self.path.rpartition(".")[2]

    def defaults(self) -> dict[str, object]:
        """Return the defaults that are values of their own: numbers, texts, lists of them."""
        module = self.path.rpartition(".")[0]
        named = {name: each for name, each in self.parameters.items() if each.default is not None}
        values = {name: constant(module, each.default) for name, each in named.items()}
        return {name: value for name, value in values.items() if value is None or value != named[name].default}


@cache
def signature(path: str) -> Signature:
    """Return what a class takes; nothing is known of classes beyond `source.PACKAGES`."""
    definition = find(path)
    if definition is None or not isinstance(definition.node, ast.ClassDef):
        return Signature(path, known=False)
    node = definition.node
    docs = parse(ast.get_docstring(node) or "")
    described = {each.arg_name: " ".join((each.description or "").split()) for each in docs.params}
    summary = " ".join((docs.short_description or "").split())
    constructor = next(
        (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None
    )
    if constructor is not None:
        parameters, known = _of_function(constructor, definition, described), not _takes_more(constructor)
        return Signature(definition.path, summary, parameters, known)
    inherited = [signature(each) for each in bases(definition)]
    parameters = {name: each for base in inherited for name, each in base.parameters.items()}
    if any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
        parameters |= {each.name: each for each in (_of_field(each, definition, described) for each in fields)}
        return Signature(definition.path, summary, parameters)
    known = bool(inherited) and all(base.known for base in inherited)
    return Signature(definition.path, summary, parameters, known)


def signature_of(module: str, function: ast.FunctionDef) -> Signature:
    """Return what a function of a module takes."""
    parameters = _of_function(function, Definition(module, function.name, ast.Constant(None)), {})
    return Signature(f"{module}.{function.name}", "", parameters, not _takes_more(function))


@cache
def options_of(path: str, function: str) -> tuple[str, ...]:
    """Return the names of a method's parameters, `self` left out; none where it is unknown."""
    definition = find(path)
    if definition is None or not isinstance(definition.node, ast.ClassDef):
        return ()
    methods = [each for each in definition.node.body if isinstance(each, ast.FunctionDef) and each.name == function]
    return tuple(name for each in methods for name in _of_function(each, definition, {}))


@cache
def is_abstract(path: str) -> bool:
    """Whether a class has methods that a subclass must define, as far as its own source says."""
    definition = find(path)
    node = None if definition is None else definition.node
    return isinstance(node, ast.ClassDef) and any(
        "abstractmethod" in ast.unparse(decorator)
        for each in node.body
        if isinstance(each, ast.FunctionDef)
        for decorator in each.decorator_list
    )


def constant(module: str, default: str | None) -> object:
    """Return a default's value; the text of the source itself where it is none that can be read."""
    try:
        return ast.literal_eval(default or "None")
    except (ValueError, SyntaxError):
        definition = find(f"{module}.{default}")
        named = (
            None if definition is None or isinstance(definition.node, ast.ClassDef) else ast.unparse(definition.node)
        )
        return default if named is None else constant(module, named)


def _of_function(function: ast.FunctionDef, owner: Definition, described: dict[str, str]) -> dict[str, Parameter]:
    positional = function.args.args
    defaults = [None] * (len(positional) - len(function.args.defaults)) + list(function.args.defaults)
    pairs = [
        *zip(positional, defaults, strict=True),
        *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
    ]
    own = parse(ast.get_docstring(function) or "").params
    described = described | {each.arg_name: " ".join((each.description or "").split()) for each in own}
    return {
        argument.arg: Parameter(
            argument.arg, kind_of(argument.annotation, owner.module), None if default is None else ast.unparse(default),
            described.get(argument.arg, ""),
        )
        for argument, default in pairs
        if argument.arg != "self"
    }  # fmt: skip


def _of_field(node: ast.AnnAssign, owner: Definition, described: dict[str, str]) -> Parameter:
    name = ast.unparse(node.target)
    return Parameter(
        name,
        kind_of(node.annotation, owner.module),
        None if node.value is None else ast.unparse(node.value),
        described.get(name, ""),
    )


def _takes_more(function: ast.FunctionDef) -> bool:
    return function.args.vararg is not None or function.args.kwarg is not None


def bases(definition: Definition) -> list[str]:
    """Return the paths of a class's bases, as far as they are known."""
    assert isinstance(definition.node, ast.ClassDef)
    named = [find(f"{definition.module}.{ast.unparse(base).partition('[')[0]}") for base in definition.node.bases]
    return [each.path for each in named if each is not None]


@cache
def _descends(path: str, base: str) -> bool:
    definition = find(path)
    return definition is not None and (
        definition.path == base or any(_descends(each, base) for each in bases(definition))
    )


def kind_of(node: ast.expr | None, module: str) -> Kind:
    """Return the kind that an annotation describes, as a module has it."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return kind_of(node.left, module) | kind_of(node.right, module)
    if isinstance(node, ast.Constant):
        return Kind(scalars=("None",)) if node.value is None else UNKNOWN
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        name, inner = node.value.id, node.slice
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if name == "Literal":
            constants = tuple(each.value for each in parts if isinstance(each, ast.Constant))
            others = [kind_of(each, module) for each in parts if not isinstance(each, ast.Constant)]
            return reduce(or_, others, Kind(choices=constants))
        if name in _UNIONS:
            kinds = [kind_of(each, module) for each in parts]
            whole = Kind(scalars=("None",)) if name == "Optional" else Kind()
            for each in kinds:
                whole |= each
            return whole
        return Kind(values=kind_of(parts[1], module)) if name == "dict" and len(parts) == 2 else UNKNOWN
    if isinstance(node, ast.Name) and node.id in _SCALARS:
        return Kind(scalars=(node.id,))
    if not isinstance(node, ast.Name | ast.Attribute):
        return UNKNOWN
    text = ast.unparse(node)
    if text in _CALLABLES:
        return Kind(classes=_CALLABLES[text])
    definition = find(f"{module}.{text}")
    if definition is None and isinstance(node, ast.Attribute):
        definition = _through_module(text, module)
    if definition is None:
        return UNKNOWN
    if isinstance(definition.node, ast.ClassDef):
        return Kind(classes=(definition.path,))
    return kind_of(definition.node, definition.module)


def _through_module(text: str, module: str) -> Definition | None:
    """Return what `masks.Shape` names, where `masks` is an imported module."""
    prefix, _, name = text.rpartition(".")
    source = read(module)
    return None if source is None or prefix not in source.imported else find(f"{source.imported[prefix]}.{name}")
