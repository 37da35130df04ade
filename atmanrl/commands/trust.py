"""Keep config files from running code that this very command has not allowed.

A run's folder may come from a stranger, and its `config.yaml` with it. So options that allow code count only where they are
typed, and a `class_path` must name a class, whose base jsonargparse checks: a function would be called with arguments of the
file's choice before anyone looks at what it returns.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from jsonargparse import set_parsing_settings as parsing_settings

from atmanrl.errors import UserError

CODE = {
    "trust_remote_code": (True, "code that comes with the model would run"),
    "weights_only": (False, "a pickled checkpoint may run code while it is read"),
}
"""Options that allow code: the value that does, and why it matters."""
COMMANDS = ("fit", "validate", "test", "predict")
"""Their names stand before the names of their options."""


def keep_data_as_data() -> None:
    """Instantiate no class that is named where any value may stand, as in the arguments of a reward function.

    Even an empty denylist has jsonargparse refuse paths that are known for running code (`os`, `subprocess`, ...).
    """
    parsing_settings(instantiate_subclass_spec_in_any=False, import_path_denylist=[])


def check_code(config: Any, typed: Sequence[str]) -> None:
    """Check a parsed configuration before anything of it is instantiated.

    Args:
        config: parsed by jsonargparse.
        typed: the arguments of this command.

    Raises:
        UserError: an option that allows code comes from a file, or a `class_path` names no class.
    """
    for path, value in _leaves(config, ()):
        name = path[-1]
        if name == "class_path" and isinstance(value, str):
            _check_class(".".join(path), value)
        elif name in CODE and value is CODE[name][0]:
            options = [".".join(part for part in path[start:] if part != "init_args") for start in (0, 1)]
            if not any(_is_typed(option, name, typed) for option in options):
                option = options[0] if len(path) == 1 or path[0] not in COMMANDS else options[1]
                raise UserError(
                    f"{option} is {str(value).lower()} in a config file, but {CODE[name][1]}: if you trust its author, "
                    f"type --{option}={str(value).lower()} in this command."
                )


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value that holds no others, with its keys; indices of lists are left out."""
    if isinstance(node, Namespace | dict):
        for key, inner in (vars(node) if isinstance(node, Namespace) else node).items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(node, list | tuple):
        for inner in node:
            yield from _leaves(inner, path)
    elif path:
        yield path, node


def _check_class(option: str, path: str) -> None:
    if "." not in path:
        return  # jsonargparse looks it up among the classes of the right base
    try:
        named = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError):
        return  # which the parser says, where it is meant as a class at all
    if not inspect.isclass(named):
        raise UserError(f"{option}: {path} is no class but a {type(named).__name__}; a class_path names a class.")


def _is_typed(option: str, name: str, typed: Sequence[str]) -> bool:
    """Whether the last argument that sets an option gives it the value that allows code."""
    allowed = False
    for place, argument in enumerate(typed):
        if not argument.startswith("--"):
            continue
        key, equals, text = argument[2:].partition("=")
        following = typed[place + 1] if place + 1 < len(typed) else ""
        text = text if equals else "true" if following.startswith("--") or not following else following
        key = ".".join(part for part in key.removesuffix("+").split(".") if part != "init_args")
        if key == option:
            allowed = _value(text) is CODE[name][0]
        elif option.startswith(f"{key}.") and re.search(rf"\b{name}\b", text) and not Path(text).is_file():
            allowed = True  # typed as a whole, as JSON or YAML
    return allowed


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
