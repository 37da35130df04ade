"""Check options by the signatures of the classes that take them, before anything is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence

from atmanrl.commands.moved import moved, renamed
from atmanrl.commands.options.errors import OptionError
from atmanrl.commands.options.guards import refusal
from atmanrl.commands.options.keys import with_whole_keys
from atmanrl.commands.options.machine import machine_refusal
from atmanrl.commands.options.sections import BASES, DEFAULTS, OBJECTS, TRAINER, kinds
from atmanrl.commands.options.signatures import UNKNOWN, Kind, Signature, is_abstract, signature
from atmanrl.commands.options.source import PACKAGES, find, subclasses
from atmanrl.commands.options.trainer import check_trainer
from atmanrl.commands.options.typed import Node
from atmanrl.commands.options.values import fits, taken_as
from atmanrl.errors import UserError, did_you_mean, nearest


class Check:
    """One check of a command's options.

    What is not known from the source is left to the parser: classes of other packages with their options, and short names
    where a user's own modules are named too, which may bring classes along.

    Args:
        command: `fit`, ...
        args: after the command's name.
        root: what they set.

    Raises:
        OptionError: an option that no class takes, a class that does not exist, a value of another type, or, by
            `complete`, a needed option that is missing.
    """

    def __init__(self, command: str, args: Sequence[str], root: Node) -> None:
        self.command, self.args, self.root = command, args, root
        self._objects: list[tuple[Node, Signature]] = []
        named = [node.class_path for node in root.walk() if node.class_path and _is_dotted(node.class_path)]
        self.only_ours = all(path.split(".")[0] in (*PACKAGES, "torch") for path in named)
        top = kinds(command)
        for name, node in root.children.items():
            if name not in top:
                if not any(known.startswith(name) for known in top):  # which the parser takes as abbreviations
                    self._refuse_name(name, node, (), f"`atmanrl {command}`", list(top))
                continue
            self._check(node, top[name], (name,))

    def complete(self) -> None:
        """Check that nothing is missing that a class needs."""
        for name in DEFAULTS:
            self._complete(self.root.children[name], Kind(classes=(BASES[name],)), (name,))
        data = self.root.at("data")
        if data is not None and data.class_path == DEFAULTS["data"] and not {"task", "traces"} & {
            *data.children, *data.replaced
        }:  # fmt: skip
            tasks = ", ".join(Kind(classes=("atmanrl.tasks.base.Task",)).class_names)
            raise OptionError(
                f"--data.task is missing, what is asked: give --data.task=NAME, one of {tasks}, or one of your own by its "
                "class path; or --config, such as --config laptop."
            )

    def check_values(self) -> None:
        """Check values by what the constructors that take them refuse, as far as their source tells.

        Raises:
            UserError: the constructor's own, in which options stand as they were typed.
        """
        for node, takes in self._objects:
            values = takes.defaults()
            for name, child in node.children.items():
                values.pop(name, None)
                kind = takes.parameters[name].kind if name in takes.parameters else UNKNOWN
                if not child.children and not (child.class_path and kind.classes):
                    values.update((name, each) for each in taken_as(child.value, kind))
            if takes.path == TRAINER:
                check_trainer(values)  # before Lightning's own guards, which advise on what a run cannot have
            typed = {name: child.value for name, child in node.children.items()}
            machine = takes.path == TRAINER and self.only_ours  # other packages may register names of their own
            message = (machine_refusal(typed) if machine else None) or refusal(takes.path, values)
            if message is not None:
                raise UserError(with_whole_keys(message, self.root, self.command))

    def _check(self, node: Node, kind: Kind, path: tuple[str, ...]) -> None:
        if not kind.known:
            return
        if isinstance(node.value, str) and (
            node.value.endswith((".yaml", ".yml", ".json")) or os.path.isfile(node.value)
        ):
            return  # the option's value stands in that file
        if node.class_path is not None and kind.classes and "str" not in kind.scalars:
            self._check_class(node, kind, node.class_path)
        elif node.value is not None and not node.children:
            self._check_value(node, kind)
        if kind.values is not None:
            for name, child in node.children.items():
                self._check_member(name, child, kind.values, (*path, name), node)
        elif kind.classes and node.children:
            self._check_options(node, kind, path)

    def _check_options(self, node: Node, kind: Kind, path: tuple[str, ...]) -> None:
        takes = self._signature(node, kind)
        if takes is None:
            return
        self._objects.append((node, takes))
        for name, child in node.children.items():
            if name in takes.parameters:
                self._check(child, takes.parameters[name].kind, (*path, name))
            elif takes.known and not (path[0] in OBJECTS and any(p.startswith(name) for p in takes.parameters)):
                self._refuse_name(name, child, path, takes.name, list(takes.parameters))

    def _check_member(self, name: str, child: Node, kind: Kind, path: tuple[str, ...], mapping: Node) -> None:
        if child.children and child.class_path is None and kind.classes and self._signature(child, kind) is None:
            others = [other for other, node in mapping.children.items() if node.class_path and other != name]
            near = nearest(name, others)
            place = f"--{'.'.join(path)}"
            hint = f"did you mean {_renamed(child, name, near)}? " if near else ""
            raise OptionError(
                f"{_deepest(child).place}: {'.'.join(path[:-1])} has no {name!r}; {hint}A new one is added by "
                f"{place}=CLASS, one of {', '.join(kind.class_names)}."
            )
        self._check(child, kind, path)

    def _signature(self, node: Node, kind: Kind) -> Signature | None:
        """Return what the object at a node takes; None where that is unknown."""
        if node.class_path is None:
            own = kind.classes[0] if len(kind.classes) == 1 else None
            return None if own is None or is_abstract(own) or find(own) is None else signature(own)
        if "." in node.class_path:
            return signature(node.class_path) if find(node.class_path) is not None else None
        known = kind.class_names.get(node.class_path)
        return None if known is None else signature(known)

    def _check_value(self, node: Node, kind: Kind) -> None:
        value = node.value
        if kind.values is not None or kind.classes or isinstance(value, list) or "str" in kind.scalars:
            return
        if value in kind.choices or fits(value, kind.scalars):
            return
        if kind.choices:
            names = [str(choice) for choice in kind.choices]
            hint = did_you_mean(str(value), names) or ""
            raise OptionError(f"{node.place}: {value!r} is none of {', '.join(names)}{'; ' if hint else '.'}{hint}")
        wanted = " or ".join(_NAMES[name] for name in kind.scalars if name != "None")
        raise OptionError(f"{node.place}: {value!r} is no {wanted}.")

    def _check_class(self, node: Node, kind: Kind, name: str) -> None:
        names = kind.class_names
        place, own = (
            node.class_place,
            [path.rpartition(".")[2] for path in kind.classes],
        )  # of which the parser says that they are abstract
        if "." in name or name in (*names, *kind.choices, *own) or not self.only_ours:
            return
        hint = did_you_mean(
            name,
            [*map(str, kind.choices), *names],
            f"{place}=" if place.startswith("--") and node.value == name else "",
        )
        if (
            hint is None
            and not all(path.startswith("atmanrl.") for path in kind.classes)
            and own[0] not in _OF_LIGHTNING
        ):
            return
        known = ", ".join([*map(str, kind.choices), *(each for each in names if not subclasses(names[each]))])
        raise OptionError(
            f"{place}: there is no {own[0]} {name!r}; "
            + (hint or f"there are {known}. One of your own is named with its module, as in mine.{name}.")
        )

    def _refuse_name(self, name: str, node: Node, path: tuple[str, ...], taker: str, names: Sequence[str]) -> None:
        place = _deepest(node).place
        typed = [self.command, *self.args]
        earlier = moved(f"Option {name!r} is not accepted", typed) if path == ("model",) else None
        earlier = earlier or renamed(f"option {'.'.join((*path, name))!r}")
        for child in node.children:
            earlier = earlier or renamed(f"option {'.'.join((*path, name, child))!r}")
        if earlier is not None:
            raise OptionError(earlier)
        near = nearest(name, names)
        hint = f"did you mean {_renamed(node, name, near)}?" if near else f"its options are {', '.join(sorted(names))}."
        raise OptionError(f"{place}: {taker} has no option {name!r}; {hint}")

    def _complete(self, node: Node, kind: Kind, path: tuple[str, ...]) -> None:
        takes = self._signature(node, Kind(classes=kind.classes))
        if takes is None:
            return
        for name, parameter in takes.parameters.items():
            child = node.children.get(name)
            if child is None and parameter.default is None and name not in node.replaced and parameter.kind.known:
                if parameter.kind.classes and not is_abstract(parameter.kind.classes[0]):
                    self._complete(Node(), parameter.kind, (*path, name))
                    continue
                option = f"--{'.'.join((*path, name))}"
                needed_for = parameter.doc.partition(". ")[0].rstrip(".")
                choices = parameter.kind.class_names
                which = f", one of {', '.join(choices)}" if choices else ""
                raise OptionError(
                    f"{option} is missing, which {takes.name} needs: {needed_for}. Give {option}=...{which}, or "
                    "--config."
                )
            if child is not None and parameter.kind.classes and not child.value:
                self._complete(child, parameter.kind, (*path, name))


_OF_LIGHTNING = tuple(path.rpartition(".")[2] for path in BASES.values())
_NAMES = {"int": "whole number", "float": "number", "bool": "truth value (true, false)", "None": "null"}


def _is_dotted(path: str) -> bool:
    """Whether a text is a dotted path, and not the name of a file."""
    return "." in path and path.replace(".", "_").isidentifier() and not os.path.exists(path)


def _deepest(node: Node) -> Node:
    """Return the option as it was typed, of which a wrong name may be but the beginning."""
    while node.place.startswith("--") and len(node.children) == 1:
        (node,) = node.children.values()
    return node


def _renamed(node: Node, name: str, near: str) -> str:
    """Return the place of a node with one of its names replaced, without the file."""
    place = _deepest(node).place.rpartition(": ")[2]
    parts = place.split(".")
    at = next((i for i, part in enumerate(parts) if part.removeprefix("--") == name), len(parts) - 1)
    dashes = "--" if parts[at].startswith("--") else ""
    return ".".join([*parts[:at], f"{dashes}{near}", *parts[at + 1 :]])
