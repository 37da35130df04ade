"""A sweep's file as plain values: YAML with the numbers of today, read so that no file costs time, memory or the stack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from atmanrl.errors import UserError
from atmanrl.io.jsonl import RowError, check, is_text

MOST_BYTES = 1 << 20
"""Of a file."""

MOST_DEPTH = 32
"""Of lists and mappings within each other."""

TOO_DEEP = f"brackets more than {MOST_DEPTH} deep; a sweep's file needs a few."
_DEEP = re.compile(rf"(?:[\[{{]\s*){{{MOST_DEPTH + 1}}}")

MOST_VALUES = 100_000
"""In a file, with those that its aliases repeat."""


class SweepError(UserError):
    """A sweep cannot be used; the message names the file and the key."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: for YAML 1.1 `1e-6` is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
               r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"),
    list("-+0123456789."),
)  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """The keys and values of a file: texts, finite numbers, truth values, null, and lists and mappings of these.

    Raises:
        SweepError: the file cannot be read or is not YAML, is too large, too deep or repeats itself without end, or holds
            something else (a date, a set, binary data, a number beyond all range).
    """
    try:
        text = path.read_bytes()
        if len(text) > MOST_BYTES:
            raise RowError(f"it has {len(text)} bytes, and {MOST_BYTES} are the most.")
        values = parse(text.decode())
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise SweepError(f"{path} is not YAML: {short(' '.join(str(error).split()), 300)}.") from error
    except ValueError as error:  # whole numbers of thousands of digits, days that are in no month
        said = str(error) if isinstance(error, RowError) else f"a value that cannot be read ({short(str(error))})."
        raise SweepError(f"{path}: {said}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SweepError(f"{path}: a sweep's file holds keys such as method, metric and parameters.")
    return values


def parse(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        YAMLError: it is not YAML.
        ValueError: it is too deep, too large or repeats itself, or holds what no option of a run can be.
    """
    _check_size(text)
    value = yaml.load(text, _Loader)  # noqa: S506 a safe loader with other numbers
    _check_plain(value)
    return value


def short(text: str, most: int = 80) -> str:
    """A text for a message, cut where it is long."""
    return text if len(text) <= most else text[: most - 3] + "..."


def shown(value: Any) -> str:
    """A value for a message."""
    return short(repr(value))


def _check_size(text: str) -> None:
    """Look at a file's events, of which there are no more than characters, before anything is made of them."""
    if _DEEP.search(text):  # before PyYAML, which takes quadratic time to read so many brackets
        raise RowError(TOO_DEEP)
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    count = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_nodes):
                raise RowError(f"the alias *{short(str(event.anchor))} stands within its own anchor.")
            count += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, count))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = count - before + 1
        if len(open_nodes) > MOST_DEPTH:
            raise RowError(TOO_DEEP)
        if count > MOST_VALUES:
            raise RowError(f"more than {MOST_VALUES} values, those counted that its aliases repeat.")


def _check_plain(value: Any) -> None:
    level = [value]
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                wrong = [key for key in item if not is_text(key) or "\0" in key]
                if wrong:
                    raise RowError(f"the key {shown(wrong[0])} is no text; put it into quotes.")
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif item is not None and not isinstance(item, bool | int | float | str):
                raise RowError(f"{shown(item)} is of type {type(item).__name__}; write a text in quotes, or a number.")
            elif isinstance(item, str) and "\0" in item:
                raise RowError(f"{shown(item)} holds a NUL, which no command takes.")
            elif not (isinstance(item, float) or item is None):
                check(item)  # .inf and .nan are values that an option may have
        level = below
