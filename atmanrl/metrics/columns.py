"""How tables show a metric's values: `Column`. Without torch, so that `atmanrl table` and `report` start quickly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

Kind = Literal["share", "count", "per cent", "points"]
"""What a value is, which decides how it is shown and compared with the baseline's:

- `share`: from 0 to 1, shown in per cent; changes in per cent of the baseline's value.
- `points`: from 0 to 1, shown in per cent; changes in percentage points.
- `per cent`: from 0 to 100, shown as it is; changes in per cent of the baseline's value.
- `count`: any number, shown as it is; changes in per cent of the baseline's value.
"""


@dataclass(frozen=True)
class Recorded:
    """What evaluations record in `eval/*.json` about a value, besides the value."""

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read from a file of evaluation results; fields that this version does not know are passed over.

        Raises:
            ValueError: the first field is missing, or one is of the wrong type.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(value, dict) or names[0] not in value:
            raise ValueError(f"a {cls.__name__.lower()} must be an object with a {names[0]}, got {value!r}")
        return cls(**{name: value[name] for name in names if name in value})


@dataclass(frozen=True)
class Column(Recorded):
    """A column of Table 1.

    Example: `Column("pass@4 %", higher_is_better=True, kind="points")`.

    Attributes:
        title: the column's heading.
        higher_is_better: the direction; None where neither is better.
        kind: see `Kind`.
        unit: what a count counts, such as `tokens`.

    Raises:
        ValueError: there is no such kind, or the title is empty.
    """

    title: str
    higher_is_better: bool | None = None
    kind: Kind = "count"
    unit: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.title, str) or not self.title.strip() or not isinstance(self.unit, str):
            raise ValueError(f"a column's title and unit must be texts, the title not empty, got {self.title!r}")
        if self.higher_is_better not in (None, True, False):
            raise ValueError(f"higher_is_better must be true, false or null, got {self.higher_is_better!r}")
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")

    @property
    def in_points(self) -> bool:
        """Whether changes are differences in points."""
        return self.kind == "points"

    @property
    def factor(self) -> int:
        """The factor from a value to what is shown."""
        return 100 if self.kind in ("share", "points") else 1

    @property
    def shown_unit(self) -> str:
        """The unit of the values shown."""
        return (self.unit or "count") if self.kind == "count" else "%"

    @property
    def direction(self) -> str:
        """`higher is better`, `lower is better`, or empty."""
        return {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]


COT_LENGTH = {"tokens_per_cot": Column("tokens / CoT", None, "count", "tokens")}
COMPOSITION = {
    "numbers_pct": Column("numbers %", None, "per cent"),
    "stop_words_pct": Column("stop words %", None, "per cent"),
    "symbols_pct": Column("symbols %", None, "per cent"),
}
"""Shares of the tokens of the reasoning."""


def at_k(name: str, k: int) -> dict[str, Column]:
    """Return the column of pass@k (`name` "pass") or majority@k ("majority"), by its key."""
    return {f"{name}_at_{k}": Column(f"{name}@{k} %", True, "points")}


UNRECORDED = {**COT_LENGTH, **COMPOSITION, **at_k("pass", 1)}
"""What every test held before evaluations recorded their columns."""

_AT_K = re.compile(r"(pass|majority)_at_([1-9][0-9]*)")


def unrecorded(keys: Iterable[str]) -> dict[str, Column]:
    """Return the columns of an evaluation that recorded none: an older one."""
    matches = sorted({match.groups() for key in keys if (match := _AT_K.fullmatch(key))}, key=_by_number)
    columns = dict(UNRECORDED)
    for name in ("pass", "majority"):
        for which, k in matches:
            if which == name:
                columns |= at_k(name, int(k))
    return columns


def _by_number(match: tuple[str, ...]) -> int:
    return int(match[1])


def merged(each: Iterable[Mapping[str, Column]]) -> dict[str, Column]:
    """Return the columns of several evaluations in the order of their first appearance, those at k beside each other.

    Raises:
        ValueError: a column is of different kinds in two of them.
    """
    joined: dict[str, Column] = {}
    for columns in each:
        for key, column in columns.items():
            if joined.setdefault(key, column).kind != column.kind:
                raise ValueError(
                    f"{key} is a value of kind '{joined[key].kind}' in one and of '{column.kind}' in another"
                )
    stems = [_stem(key)[0] for key in joined]
    return dict(sorted(joined.items(), key=lambda item: (stems.index(_stem(item[0])[0]), _stem(item[0])[1])))


def _stem(key: str) -> tuple[str, int]:
    """`pass_at_4` as ("pass_at_", 4), others with 0."""
    match = re.fullmatch(r"(.*_at_)([0-9]+)", key)
    return (match[1], int(match[2])) if match else (key, 0)
