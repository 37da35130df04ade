"""The options of `atmanrl probe` and `explain`, read from the source of the function that declares them to the parser."""

from __future__ import annotations

import ast
from functools import cache
from typing import NamedTuple

from atmanrl.commands.options.signatures import UNKNOWN, Kind, kind_of, signature_of
from atmanrl.commands.options.source import find, find_function

MODULES = {"explain": "atmanrl.commands.explain", "probe": "atmanrl.commands.probe.command"}
"""Where each command declares its options, in a function called `_parser`."""
FROM_PARSER = ("help", "help_all", "print_config")


class Declared(NamedTuple):
    """Options of a command.

    Attributes:
        kinds: of values, by name.
        needed: names that a command cannot do without.
        main: path of the function that carries the command out, with `options` that it checks.
        called: path of the function whose parameters some of them are; None where there is none.
        handed: names of its parameters that are no options by themselves.

    Example:
        `Declared({"model": Kind(scalars=("str",)), ...}, ("model", "prompt"), "atmanrl.commands.explain.main",
        "atmanrl.probe.explain.explain", ("model", "tokenizer", ...))`
    """

    kinds: dict[str, Kind]
    needed: tuple[str, ...]
    main: str
    called: str | None
    handed: tuple[str, ...]


@cache
def declared(command: str) -> Declared:
    """Return the options that a command declares."""
    module = MODULES[command]
    found = find_function(f"{module}._parser")
    assert found is not None
    kinds: dict[str, Kind] = dict.fromkeys(FROM_PARSER, UNKNOWN)
    needed: list[str] = []
    called, handed = None, tuple[str, ...]()
    for call in (node for node in ast.walk(found[1]) if isinstance(node, ast.Call)):
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        keywords = {each.arg: each.value for each in call.keywords}
        if method == "add_argument":
            texts = [str(each.value) for each in call.args if isinstance(each, ast.Constant)]
            name = next(each.removeprefix("--") for each in texts if each.startswith("--"))
            kinds[name] = _kind(keywords, module)
            needed += [name] if "required" in keywords else []
        elif method == "add_class_arguments":
            definition = find(f"{module}.{ast.unparse(call.args[0])}")
            kinds[ast.literal_eval(call.args[1])] = Kind(classes=(definition.path,)) if definition else UNKNOWN
        elif method == "add_function_arguments":
            function = find_function(f"{module}.{ast.unparse(call.args[0])}")
            assert function is not None
            takes, skipped = signature_of(*function), ast.literal_eval(keywords["skip"])
            kinds |= {name: each.kind for name, each in takes.parameters.items() if name not in skipped}
            called, handed = takes.path, tuple(skipped)
    return Declared(kinds, tuple(needed), f"{module}.main", called, handed)


def _kind(keywords: dict[str | None, ast.expr], module: str) -> Kind:
    if "type" in keywords:
        return kind_of(keywords["type"], module)
    return Kind(scalars=("bool",)) if ast.unparse(keywords["action"]) == "ActionYesNo" else UNKNOWN
