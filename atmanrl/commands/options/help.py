"""`--help` on one screen, and `--data.help` for the options of one object, with defaults from the source."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from atmanrl.commands.options.errors import OptionError
from atmanrl.commands.options.screens import SCREENS, Entry
from atmanrl.commands.options.sections import DEFAULTS, defaults_of, kinds
from atmanrl.commands.options.signatures import Kind, Signature, constant, is_abstract, signature
from atmanrl.commands.options.source import find, subclasses
from atmanrl.commands.options.typed import Node, pairs, read
from atmanrl.errors import did_you_mean
from atmanrl.shipped import configs

ALL = "--help_all"
PLAIN = ("explain", "probe")
"""Commands whose options have no config of a run beneath them."""
WIDTH = 118


def help_text(command: str, args: Sequence[str]) -> str | None:
    """Return the help that the arguments ask for; None where they ask for none, or only the parser has it.

    Raises:
        OptionError: an option without a place is asked for.
    """
    if command in PLAIN:
        return _plain(command) if {"-h", "--help"} & set(args) else None
    for option, text in pairs(args):
        if option.endswith(".help") and option.startswith("--"):
            return _of_object(command, args, option[2:].removesuffix(".help").split("."), text)
    if not {"-h", "--help"} & set(args):
        return None
    root = read([each for each in args if each not in ("-h", "--help")])
    about, *entries = SCREENS[command]
    rows = [_row(entry, root, command) for entry in entries if isinstance(entry, Entry)]
    example = "laptop --trainer.max_steps=20" if command == "fit" else "laptop --model.policy.path=runs/laptop/policy"
    shipped = ", ".join(name for name in configs() if "/" not in name)
    config = textwrap.wrap(
        f"--config=NAME  a YAML file, or one that comes along: {shipped}", WIDTH, initial_indent="  ",
        subsequent_indent=" " * 17,
    )  # fmt: skip
    values = "the config's value" if any(option in ("-c", "--config") for option, _ in pairs(args)) else "the default"
    return "\n".join([
        f"usage: atmanrl {command} [--config NAME] [--OPTION=VALUE ...]", "", f"{about}", "",
        *config, "",
        f"Options that people change, with an example and, in brackets, {values}:", "", *rows, "",
        f"  atmanrl {command} --config {example}", "",
        f"  atmanrl {command} --data.task.help      a choice and its options; so for every other option that has some",
        f"  atmanrl {command} --help_all            every option, Lightning's included",
        f"  atmanrl {command} --config laptop --print_config   every value",
    ])  # fmt: skip


def _plain(command: str) -> str:
    about, *entries = SCREENS[command]
    rows = [_line(entry, str(entry.default)) for entry in entries if isinstance(entry, Entry)]
    return "\n".join([
        f"usage: atmanrl {command} [--OPTION=VALUE ...]", "", f"{about}", "",
        "Options that people change, with an example and, in brackets, the default:", "", *rows, "",
        f"  atmanrl {command} --help_all   every option",
    ])  # fmt: skip


def _row(entry: Entry, root: Node, command: str) -> str:
    path = entry.example[2:].partition("=")[0].split(".")
    value = _shown(root.at(*path)) or entry.default or _default_of(command, path)
    return _line(entry, value)


def _line(entry: Entry, value: str) -> str:
    left = f"  {entry.example}"
    gap = " " * (45 - len(left)) if len(left) < 45 else f"\n{' ' * 45}"
    return f"{left}{gap} [{value}] {entry.about}"


def _shown(node: Node | None) -> str | None:
    """Return what a command sets an option to."""
    if node is None or (node.value is None and node.class_path is None):
        return None
    return str(node.class_path or node.value).rpartition("." if node.class_path else "\0")[2]


def _default_of(command: str, path: Sequence[str]) -> str:
    kind: Kind | None = kinds(command)[path[0]]
    default: object = None
    class_path = DEFAULTS.get(path[0])
    for name in path[1:]:
        takes = signature(kind.class_names[class_path] if kind and class_path else (kind.classes[0] if kind else ""))
        parameter = takes.parameters[name]
        kind, class_path = parameter.kind, None
        default = constant(takes.path.rpartition(".")[0], parameter.default)
    return str(default)


def _of_object(command: str, args: Sequence[str], path: list[str], chosen: str | None) -> str | None:
    """Return the options of one object, or the objects among which there is a choice."""
    root = read([each for each in args if not each.partition("=")[0].endswith(".help") and each != chosen])
    for name, class_path in defaults_of(root).items():
        root.set((name,), class_path, "")
    kind, node = kinds(command).get(path[0]), root.at(path[0])
    if kind is None:
        hint = did_you_mean(path[0], kinds(command), "--", ".help") or ""
        raise OptionError(f"--{'.'.join(path)}.help: there is no option {path[0]!r}; {hint}")
    for depth, name in enumerate(path[1:], start=1):
        if kind.values is not None:
            kind = kind.values
        else:
            takes = _taken(kind, node)
            if takes is None:
                return None
            if name not in takes.parameters:
                before = f"--{'.'.join(path[:depth])}."
                hint = (
                    did_you_mean(name, takes.parameters, before, ".help") or f"options: {', '.join(takes.parameters)}."
                )
                raise OptionError(f"--{'.'.join(path)}.help: {takes.name} has no option {name!r}; {hint}")
            kind = takes.parameters[name].kind
        node = None if node is None else node.at(name)
    if chosen is not None:
        node = Node(class_path=chosen)
    takes = _taken(kind, node)
    option = f"--{'.'.join(path)}"
    if takes is not None and takes.known:
        return _options(takes, option)
    named = {name: each for name, each in kind.class_names.items() if not subclasses(each)}
    return _choice(option, named) if named and chosen is None else None


def _taken(kind: Kind, node: Node | None) -> Signature | None:
    """Return what the object at an option takes, by the class that is named or the only one there is."""
    if node is not None and node.class_path:
        path = node.class_path if "." in node.class_path else kind.class_names.get(node.class_path, "")
        return signature(path) if find(path) is not None else None
    return signature(kind.classes[0]) if len(kind.classes) == 1 and _is_all(kind) else None


def _is_all(kind: Kind) -> bool:
    return find(kind.classes[0]) is not None and not is_abstract(kind.classes[0])


def _options(takes: Signature, option: str) -> str:
    lines = [f"{option}: {takes.name} ({takes.path})", *textwrap.wrap(takes.doc, WIDTH), ""]
    for parameter in takes.parameters.values():
        default = "needed" if parameter.default is None else constant(takes.path.rpartition(".")[0], parameter.default)
        head = f"  {option}.{parameter.name}  [{'null' if default is None else default}]"
        lines += [
            head,
            *textwrap.wrap(
                _about(parameter.doc, parameter.kind), WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
            ),
        ]
    return "\n".join(lines)


def _about(doc: str, kind: Kind) -> str:
    names = [name for name, path in kind.class_names.items() if not subclasses(path)]
    more = [f"One of {', '.join(map(str, kind.choices))}."] if kind.choices and not kind.classes else []
    if len(names) > 1 and kind.known:
        more.append(f"Classes: {', '.join(names)}.")
    return " ".join([doc, *more])


def _choice(option: str, named: dict[str, str]) -> str:
    rows = [f"  {name:<24} {signature(path).doc}" for name, path in named.items()]
    return "\n".join(
        [
            f"{option}: one of",
            *rows,
            "",
            f"{option}.help=NAME lists the options of one; yours is named with its module.",
        ]
    )
