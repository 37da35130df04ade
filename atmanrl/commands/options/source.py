"""Python modules as their source: what a name in a module stands for, without importing it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("atmanrl", "lightning")
"""Packages whose source is read; names of all others stay unknown."""
_CLASS = re.compile(r"^class (\w+)(?:\(([^)]*)\))?:", re.MULTILINE)


class Definition(NamedTuple):
    """A class, or the expression that a name is assigned.

    Attributes:
        module: that holds it.
        name: in that module.
        node: its syntax tree.

    Example:
        `Definition("atmanrl.tasks.gsm8k", "GSM8K", <ast.ClassDef>)`
    """

    module: str
    name: str
    node: ast.ClassDef | ast.expr

    @property
    def path(self) -> str:
        """The dotted path."""
        return f"{self.module}.{self.name}"


class Module(NamedTuple):
    """What a module defines and imports, by name.

    Example:
        `Module({"Policy": <ast.ClassDef>}, {"Task": "atmanrl.tasks.Task"}, {"read": <ast.FunctionDef>})`
    """

    defined: dict[str, ast.ClassDef | ast.expr]
    imported: dict[str, str]
    functions: dict[str, ast.FunctionDef]


@cache
def find(path: str) -> Definition | None:
    """Return the class or the assignment that a dotted path names, through any re-export; None where that is unknown."""
    module, _, name = path.rpartition(".")
    source = read(module) if module else None
    if source is None:
        return None
    if name in source.defined:
        return Definition(module, name, source.defined[name])
    return find(source.imported[name]) if name in source.imported else None


@cache
def find_function(path: str) -> tuple[str, ast.FunctionDef] | None:
    """Return the module and the syntax tree of the function that a dotted path names, as `find` does."""
    module, _, name = path.rpartition(".")
    source = read(module) if module else None
    if source is None:
        return None
    if name in source.functions:
        return module, source.functions[name]
    return find_function(source.imported[name]) if name in source.imported else None


@cache
def read(module: str) -> Module | None:
    """Return a module's names; None where it is not of `PACKAGES`, or does not exist."""
    file = _file(module)
    if file is None:
        return None
    defined: dict[str, ast.ClassDef | ast.expr] = {}
    imported: dict[str, str] = {}
    functions: dict[str, ast.FunctionDef] = {}
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.FunctionDef):
            functions[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            defined[node.targets[0].id] = node.value
        elif (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple)
        ):
            pairs = zip(node.targets[0].elts, node.value.elts, strict=False)
            defined |= {ast.unparse(name): value for name, value in pairs}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            defined[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [*package.split(".")[: len(package.split(".")) - node.level + 1], base]))
            imported |= {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
    return Module(defined, imported, functions)


def modules_of(package: str) -> Iterator[ast.Module]:
    """Yield the modules of a package as syntax trees, those of packages within it left out."""
    file = _file(package)
    for each in sorted(file.parent.glob("*.py")) if file is not None else ():
        yield ast.parse(each.read_bytes())


@cache
def subclasses(base: str) -> dict[str, str]:
    """Return the classes of this package that have a base class, directly or not, by name; abstract ones are included."""
    wanted, classes = {base.rpartition(".")[2]}, dict[str, str]()
    pairs = _all_classes()
    while True:
        more = {name: path for name, (path, bases) in pairs.items() if name not in wanted and bases & wanted}
        if not more:
            return classes
        wanted, classes = wanted | more.keys(), classes | more


@cache
def _all_classes() -> dict[str, tuple[str, set[str]]]:
    """Return the path and the bases' names of every class of this package, without a syntax tree: it is all files."""
    root = Path(__file__).parents[2]
    classes = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for name, bases in _CLASS.findall(file.read_text(encoding="utf-8")):
            names = {base.strip().partition("[")[0].rpartition(".")[2] for base in bases.split(",")}
            classes[name] = (f"{module}.{name}", names)
    return classes


def _file(module: str) -> Path | None:
    first, *rest = module.split(".")
    if first not in PACKAGES:
        return None
    spec = find_spec(first)  # of a package at the top, which is found without importing it
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], *rest)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
