"""Where options that an error names stand: as typed, or by their whole key in a config file."""

from __future__ import annotations

import re
from collections.abc import Iterator

from atmanrl.commands.options.sections import BASES, kinds
from atmanrl.commands.options.signatures import Kind, is_abstract, signature
from atmanrl.commands.options.source import find
from atmanrl.commands.options.typed import Node

_KEY = re.compile(r"(?<![\w.-])[a-z_]+(?:\.[a-z_]\w*)+(?![\w/]|\.\w)")

_TYPED = re.compile(r"\(in YAML, (--[^()\s]+)\)")
"""An option that a message meant as a key of YAML, and that was typed."""


def with_whole_keys(message: str, root: Node, command: str = "fit") -> str:
    """Return a message in which every option stands as whoever reads it wrote it, or would have to.

    Args:
        message: may name options as classes know them, `data.group_size` or `probe.init_value`.
        root: what the command sets, by `typed.read`.
        command: `fit`, ...

    Example:
        "data.group_size is 1" becomes "--data.group_size is 1" where it was typed, and "own.yaml: data.init_args.group_size
        is 1" where it stands in that file.
    """
    places = dict(_places(root, ()))

    def whole(match: re.Match[str]) -> str:
        path = tuple(match[0].split("."))
        named = [place for other, place in places.items() if other[-len(path) :] == path]
        if len(named) == 1:
            return named[0] if match.start() == 0 else named[0].rpartition(": ")[2]
        return _in_a_config(path, command)

    return _TYPED.sub(r"(\1)", _KEY.sub(whole, message))


def _places(node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, child in node.children.items():
        if child.place:
            yield (*path, name), child.place
        yield from _places(child, (*path, name))


def _in_a_config(path: tuple[str, ...], command: str) -> str:
    """Return the whole key of an option that nobody has set; what is no option stays as it is."""
    if path[0] not in BASES:
        return ".".join(path)
    kind: Kind | None = kinds(command)[path[0]]
    for name in path[1:]:
        candidates = [] if kind is None else [signature(each) for each in kind.class_names.values()]
        parameters = [each.parameters[name] for each in candidates if name in each.parameters]
        if kind is not None and kind.values is not None:
            kind = kind.values
        elif not parameters:
            return ".".join(path)
        else:
            kind = parameters[0].kind
    return ".".join(_with_structure(path, command))


def _with_structure(path: tuple[str, ...], command: str) -> Iterator[str]:
    kind = kinds(command)[path[0]]
    for name, following in zip(path, (*path[1:], None), strict=True):
        yield name
        if following is None:
            return
        if kind.values is not None:
            kind = kind.values
            continue
        if any(is_abstract(each) or each in BASES.values() or find(each) is None for each in kind.classes):
            yield "init_args"
        candidates = [signature(each) for each in kind.class_names.values()]
        kind = next((each.parameters[following].kind for each in candidates if following in each.parameters), Kind())
