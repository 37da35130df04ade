"""What a command sets, as a tree of values, from its config files and its arguments; nothing is checked here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from atmanrl.commands.options.errors import OptionError
from atmanrl.errors import did_you_mean
from atmanrl.shipped import config_file, configs

STRUCTURE = ("init_args", "dict_kwargs")
"""Keys of a config that stand between an object and its options, and that nobody types."""
CONFIG = ("-c", "--config")
WITHOUT_VALUE = ("-h", "--help", "--help_all", "--print_config")


@dataclass
class Node:
    """An option with all that was said about it.

    Attributes:
        place: how a message names it: the option as typed, or file and key.
        class_path: of the object, if any is named.
        class_place: where it is named.
        value: a scalar or a list, the last one that was given.
        children: options of the object, or members of a mapping.
        replaced: names of options that belong to a class which another one has taken the place of.

    Example:
        `Node("--model.policy.path", value="Qwen/Qwen2.5-0.5B")`
    """

    place: str = ""
    class_path: str | None = None
    class_place: str = ""
    value: Any = None
    children: dict[str, Node] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)

    def at(self, *path: str) -> Node | None:
        """Return the node at a path beneath this one; None where nothing was said about it."""
        node: Node | None = self
        for name in path:
            node = None if node is None else node.children.get(name)
        return node

    def walk(self) -> Iterator[Node]:
        """Yield this node and all beneath it."""
        yield self
        for child in self.children.values():
            yield from child.walk()

    def set(self, path: Sequence[str], value: Any, place: str) -> None:
        """Note a value at a path beneath this node."""
        if not path:
            self._set_here(value, place)
        elif path[0] in STRUCTURE:
            here = self.place
            self.set(path[1:], value, place)
            self.place = here
        elif path[0] == "class_path" and isinstance(value, str):
            self._name_class(value, place)
        else:
            # `--model=GRPOModule` names a class as soon as it has options
            self.children.setdefault(path[0], Node(place)).set(path[1:], value, place)

    def _set_here(self, value: Any, place: str) -> None:
        self.place = place
        if isinstance(value, dict):
            for key in sorted(value, key=lambda key: key != "class_path"):
                inside = place if place.startswith("--") else f"{place}{'' if place.endswith(': ') else '.'}{key}"
                self.set(str(key).split("."), value[key], inside)
            return
        self.value = value
        if isinstance(value, str):
            self._name_class(value, place)
        elif value is None:
            self.class_path, self.children = None, {}

    def _name_class(self, path: str, place: str) -> None:
        self.class_place = place
        if self.class_path is not None and self.class_path.rpartition(".")[2] != path.rpartition(".")[2]:
            self.replaced |= self.children.keys()
            self.children = {}
        self.class_path = path


def read(args: Sequence[str]) -> Node:
    """Return all that the arguments after a command's name set, those in config files included.

    Raises:
        OptionError: a config file does not exist or is no YAML.
    """
    root = Node()
    for option, text in pairs(args):
        if option in CONFIG:
            if text is not None:
                _add_config(root, text)
        elif option.startswith("--") and option not in WITHOUT_VALUE and not option.endswith(".help"):
            path = option[2:].removesuffix("+").split(".")
            if text is None:
                root.set([*path], None, option)  # the parser says that a value is missing
            else:
                root.set(path, [text] if option.endswith("+") else _value(text), option.removesuffix("+"))
    return root


def pairs(args: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield options as typed, with their texts; None where none follows."""
    rest = list(args)
    while rest:
        option, equals, text = rest.pop(0).partition("=")
        if equals or not option.startswith("-"):
            yield option, text if equals else None
        elif rest and not rest[0].startswith("--") and option not in WITHOUT_VALUE:
            yield option, rest.pop(0)
        else:
            yield option, None


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _add_config(root: Node, text: str) -> None:
    path = config_file(text)
    if os.path.isfile(path):
        content = Path(path).read_text(encoding="utf-8", errors="replace")
        inside = not os.path.relpath(path).startswith("..")
        place = f"{os.path.relpath(path) if inside else path}: "
    else:
        content, place = text, "--config: "
    try:
        config = yaml.safe_load(content)
    except (yaml.YAMLError, RecursionError):
        return  # the parser says where
    if isinstance(config, dict):
        root.set((), config, place)
    elif not os.path.isfile(path) and isinstance(config, str):
        names = [*configs(), *(str(file) for file in sorted(Path().glob("*.yaml"))[:50])]
        hint = did_you_mean(text, names) or f"`atmanrl configs` lists those that come along: {', '.join(configs())}."
        raise OptionError(f"--config: there is no file {text}; {hint}")
