"""The paper's Table 1: what training did to the chains of thought, one row a method, against a baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atmanrl.io import escape
from atmanrl.io.files import atomic_write
from atmanrl.metrics.columns import Column
from atmanrl.metrics.conditions import Condition
from atmanrl.report.intervals import Floats, interval
from atmanrl.report.runs import ReportError, Values

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WARM_START = "warm start"
"""Name of the row for the policy that every method started from."""

Draws = Mapping[str, Mapping[str, Floats]]
"""Method -> metric -> its bootstrap draws, in the units of `Values`."""

Conditions = Mapping[str, tuple[Condition, Mapping[str, Sequence[str]]]]
"""By key, what the tests depend on and its values, as `runs.conditions_of` returns them."""


@dataclass(frozen=True)
class Cell:
    """One value as a table shows it, by its column's kind: what is from 0 to 1 in per cent.

    Example: `Cell(91.0, (88.6, 93.2), change=-2.8, change_interval=(-5.4, -0.2), points=True)`, shown as 91.0 (-2.8 pts).

    Attributes:
        value: NaN where the metric is not defined, or was not taken.
        interval: its bootstrap interval, None where there is none.
        change: against the baseline, in per cent of the baseline's value or in points. None for the baseline itself, the
            warm start, and where one of the two values is not defined; NaN where the baseline has zero.
        change_interval: the change's own bootstrap interval.
        points: whether the change is in points.
    """

    value: float
    interval: tuple[float, float] | None
    change: float | None
    change_interval: tuple[float, float] | None
    points: bool

    @property
    def shown(self) -> str:
        """The value."""
        return "–" if math.isnan(self.value) else f"{self.value:.1f}"

    @property
    def shown_change(self) -> str:
        """The change, as the paper prints it: `-36 %`, `-2.8 pts`; empty without one."""
        if self.change is None:
            return ""
        if math.isnan(self.change):
            return "–"
        # -0.3 would print as -0
        return f"{_signed(self.change, 1)} pts" if self.points else f"{_signed(self.change, 0)} %"

    @property
    def shown_interval(self) -> str:
        """The value's interval; empty without one."""
        return f"[{self.interval[0]:.1f}, {self.interval[1]:.1f}]" if self.interval else ""

    @property
    def shown_change_interval(self) -> str:
        """The change's interval, in the change's unit; empty without one."""
        if not self.change_interval:
            return ""
        low, high = (_signed(value, 1 if self.points else 0) for value in self.change_interval)
        return f"[{low}, {high}]"


@dataclass(frozen=True)
class Table1:
    """Rows of cells, one a method.

    Example: `Table1({"pass_at_1": Column("pass@1 %", True, "points")}, {"baseline": {"pass_at_1": cell}}, "baseline")`

    Attributes:
        columns: by key, the keys of every row.
        rows: method -> its cells.
        baseline: the row that others are compared with, None where nothing is compared.
        setting: what all tests depended on alike, as texts by key.
        captions: sentences of these conditions beneath the table.
    """

    columns: Mapping[str, Column]
    rows: Mapping[str, Mapping[str, Cell]]
    baseline: str | None
    setting: Mapping[str, str] = field(default_factory=dict)
    captions: Sequence[str] = ()

    @property
    def titles(self) -> list[str]:
        """The columns' heads, as lines of text."""
        return [escape.line(column.title) for column in self.columns.values()]

    @property
    def has_intervals(self) -> bool:
        """Whether any value has one."""
        return any(cell.interval for row in self.rows.values() for cell in row.values())


def build(
    values: Mapping[str, Values],
    baseline: str | None,
    columns: Mapping[str, Column],
    drawn: Draws | None = None,
    conditions: Conditions | None = None,
) -> Table1:
    """Build Table 1 of some methods.

    Args:
        values: method -> its metrics, as `load_values` returns them.
        baseline: the row that the others are compared with; None to compare nothing.
        columns: by key.
        drawn: bootstrap draws for the intervals, of as many methods and metrics as there are.
        conditions: what the tests depend on; those in which all agree stand in the table.

    Raises:
        ReportError: there is no row of that name.
    """
    if baseline is not None and baseline not in values:
        raise ReportError(f"no row '{baseline}' to compare with; there are: {', '.join(values) or 'none'}")
    drawn = drawn or {}
    rows: dict[str, dict[str, Cell]] = {}
    for method, row in values.items():
        reference = None if method in (baseline, WARM_START) else baseline
        cells = {}
        for key, column in columns.items():
            other = math.nan if reference is None else values[reference].get(key, math.nan)
            here = drawn.get(method, {}).get(key)
            there = drawn.get(reference, {}).get(key) if reference is not None else None
            cells[key] = _cell(column, row.get(key, math.nan), other, here, there)
        rows[method] = cells
    agreed = {
        key: (condition, next(iter(each))) for key, (condition, each) in (conditions or {}).items() if len(each) == 1
    }
    return Table1(
        columns, rows, baseline, {key: value for key, (_, value) in agreed.items()},
        [condition.caption.replace("{}", value) for condition, value in agreed.values() if condition.caption],
    )  # fmt: skip


def _cell(column: Column, value: float, other: float, here: Floats | None, there: Floats | None) -> Cell:
    points, unit = column.in_points, column.factor
    known = not math.isnan(value) and not math.isnan(other)
    change = _change(np.array([value]), np.array([other]), points) if known else None
    both = change is not None and math.isfinite(change[0]) and here is not None and there is not None
    return Cell(
        value=unit * value,
        interval=interval(unit * here) if here is not None and not math.isnan(value) else None,
        change=None if change is None else float(change[0]),
        change_interval=interval(_change(here, there, points)) if both and here is not None and there is not None else None,
        points=points,
    )  # fmt: skip


def _change(values: Floats, others: Floats, points: bool) -> Floats:
    """Changes in points or in per cent; nothing is a percentage of zero."""
    if points:
        return 100 * (values - others)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(others != 0, 100 * (values / others - 1), math.nan)


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    return text if float(text) else text.replace("-", "±").replace("+", "±")


def in_terminal(table1: Table1) -> Table:
    """Return Table 1 for the terminal: metrics as columns, methods as rows, or the other way round where that is narrower.

    Behind each value stands its change against the baseline in parentheses: in per cent (`41.2 (-28 %)`) or in points
    (`94.0 (-4.0 pts)`), as its column says; beneath it its interval. The baseline's own row, and the one named `warm
    start` (where the methods began, so no result of theirs), show values alone.
    """
    from rich.table import Table  # for the terminal alone; a machine that trains need not have it
    from rich.text import Text

    # a name is no markup
    names = {method: Text(escape.line(method), style="dim" if method == WARM_START else "") for method in table1.rows}
    cells = [
        [Text(title), *(_shown(row[key]) for row in table1.rows.values())]
        for key, title in zip(table1.columns, table1.titles, strict=True)
    ]
    head = [Text("method"), *names.values()]
    # what fits into a terminal of 80 cells
    turned = table1.has_intervals or len(cells) > 6
    lines = [head, *cells] if turned else list(zip(head, *cells, strict=True))
    table = Table(show_lines=table1.has_intervals)
    for place, title in enumerate(lines[0]):
        table.add_column(title, justify="right" if place else "left", no_wrap=not place, overflow="fold")
    for line in lines[1:]:
        table.add_row(*line, style=line[0].style)
    return table


def _shown(cell: Cell) -> Text:
    from rich.text import Text

    text = Text(f"{cell.shown} ({cell.shown_change})" if cell.shown_change else cell.shown)
    return text.append(f"\n{cell.shown_interval}", style="dim") if cell.shown_interval else text


def write_json(rows: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write rows as indented strict JSON, NaN as null; atomically, so that a reader never sees half a file.

    Args:
        rows: method -> metrics.
        path: the file; its folder is created where it is missing.

    Raises:
        OSError: the file cannot be written; an older one is then left as it was.
    """
    with atomic_write(path) as file:
        file.write(json.dumps(_strict(rows), indent=2, allow_nan=False) + "\n")


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
