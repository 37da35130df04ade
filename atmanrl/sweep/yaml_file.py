"""A sweep's file as plain values: YAML with the numbers of today, read so that no file costs time, memory or the stack."""

from __future__ import annotations

import math
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

MOST_VALUES = 100_000
"""In a file, counting those again that its aliases repeat."""

TOO_MANY = f"more than {MOST_VALUES} values, those counted that its aliases repeat."


class SweepError(UserError):
    """A sweep cannot be used; the message names the file and the key."""


class _Overflow(float):
    """A number that is written in digits and beyond all range."""

    text: str


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: for YAML 1.1 `1e-6` is a text."""

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """Read a number; one beyond all range remembers how it is written."""
        number = super().construct_yaml_float(node)
        if not math.isinf(number) or "inf" in node.value.lower():
            return number
        overflow = _Overflow(number)
        overflow.text = node.value
        return overflow


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
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
    """Read a file's texts, numbers, truth values and nulls, and lists and mappings of these.

    Raises:
        SweepError: the file cannot be read or is not YAML, is too large, too deep or repeats itself without end, or holds
            something else (a date, a set, binary data, a number beyond all range).
    """
    if path.is_dir():
        raise SweepError(
            f"{path} is a folder; give a sweep's YAML file, or a shipped one such as sweeps/reward_weight."
        )
    try:
        text = path.read_bytes()
        if len(text) > MOST_BYTES:
            raise RowError(f"it has {len(text)} bytes, and {MOST_BYTES} are the most.")
        values = parse(text.decode())
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise SweepError(f"{path} is not YAML: {_short(' '.join(str(error).split()), 300)}.") from error
    except ValueError as error:  # whole numbers of thousands of digits, days that are in no month
        reason = str(error) if isinstance(error, RowError) else f"a value that cannot be read ({_short(str(error))})."
        raise SweepError(f"{path}: {reason}") from error
    if not isinstance(values, dict):
        raise SweepError(f"{path}: a sweep's file holds keys such as method, metric and parameters.")
    return values


def parse(text: str) -> Any:
    """Return the value that a YAML text stands for.

    Raises:
        YAMLError: it is not YAML.
        ValueError: it is too deep, too large or repeats itself, or holds what no option of a run can be.
    """
    depth = count = 0
    for event in yaml.parse(text, _Loader):  # which come one by one, before anything is built of them
        count += isinstance(event, yaml.NodeEvent)
        if count > MOST_VALUES:
            raise RowError(TOO_MANY)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise RowError(TOO_DEEP)
    value = yaml.load(text, _Loader)  # noqa: S506 a safe loader with other numbers
    _check(value, "", {})
    return value


def shown(value: Any) -> str:
    """Return a value for a message, cut where it is long."""
    return _short(repr(value))


def _short(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _check(value: Any, key: str, seen: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Refuse what no option of a run can be, by its key.

    Args:
        value: what stands there.
        key: its dotted path from the top of the file.
        seen: lists and mappings by identity, which aliases share; None within one.

    Returns:
        How many values there are, counting those again that aliases repeat, and how deep they are.
    """
    where = f"{_short(key)}: " if key else ""
    if not isinstance(value, dict | list):
        _check_scalar(value, where)
        return 1, 0
    if id(value) in seen:
        if (known := seen[id(value)]) is None:
            raise RowError(f"{where}an alias stands within its own anchor.")
        return known
    seen[id(value)] = None
    items = value.items() if isinstance(value, dict) else ((key, item) for item in value)
    size, depth = 1, 0
    for name, item in items:
        if isinstance(value, dict) and (not is_text(name) or "\0" in name):
            raise RowError(f"{where}the key {shown(name)} is no text; put it into quotes.")
        path = f"{key}.{name}".lstrip(".") if isinstance(value, dict) else key
        count, below = _check(item, path, seen)
        size, depth = size + count, max(depth, below + 1)
        if size > MOST_VALUES:
            raise RowError(f"{where}{TOO_MANY}")
    if depth > MOST_DEPTH:
        raise RowError(f"{where}{TOO_DEEP}")
    seen[id(value)] = size, depth
    return size, depth


def _check_scalar(value: Any, where: str) -> None:
    if isinstance(value, _Overflow):
        raise RowError(f"{where}{_short(value.text)} is a number beyond all range; give one up to 1.8e308.")
    if value is not None and not isinstance(value, bool | int | float | str):
        raise RowError(f"{where}{shown(value)} is of type {type(value).__name__}; write a text in quotes, or a number.")
    if isinstance(value, str) and "\0" in value:
        raise RowError(f"{where}{shown(value)} holds a NUL, which no command takes.")
    if not isinstance(value, float | None):  # .inf and .nan are values that an option may have
        try:
            check(value)
        except RowError as error:
            raise RowError(f"{where}{error}") from error
