"""Table 1 as Markdown, as LaTeX and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atmanrl.io import escape
from atmanrl.report.intervals import LEVEL, RESAMPLES, SEED
from atmanrl.report.table1 import Table1


def caption(table1: Table1) -> str:
    """Return what stands beneath the table."""
    parts = []
    if table1.baseline is not None and len(table1.rows) > 1:
        parts.append(f"Signed values: the change against {table1.baseline}, in per cent of it or in points.")
    if table1.has_intervals:
        parts.append(f"In brackets: {LEVEL} % bootstrap intervals over problems ({RESAMPLES:,} draws, seed {SEED}).")
    return " ".join([*parts, *table1.captions])


def markdown(table1: Table1) -> str:
    """Return the table in GitHub's Markdown, with its caption."""
    lines = [
        "| " + " | ".join(["method", *map(escape.markdown, table1.titles)]) + " |",
        "|---" + "|---:" * len(table1.columns) + "|",
    ]
    for method, row in table1.rows.items():
        cells = []
        for cell in row.values():
            text = f"{cell.shown} ({cell.shown_change})" if cell.shown_change else cell.shown
            cells.append(text + (f"<br>{cell.shown_interval}" if cell.shown_interval else ""))
        lines.append("| " + " | ".join([escape.markdown(method), *cells]) + " |")
    return "\n".join([*lines, "", escape.markdown(caption(table1))]).rstrip() + "\n"


def latex(table1: Table1) -> str:
    """Return a `tabular` for the package booktabs, intervals in a line of their own beneath the values."""
    lines = ["% needs \\usepackage{booktabs}"]
    lines += [f"% {escape.line(text)}" for text in [caption(table1)] if text]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table1.columns)}}}", r"\toprule"]
    lines += [" & ".join(["method", *map(escape.latex, table1.titles)]) + r" \\", r"\midrule"]
    for method, row in table1.rows.items():
        # braces: a bracket right after \\ would be taken for its argument
        cells = ["{" + escape.latex(method) + "}"]
        for cell in row.values():
            change = _latex_number(cell.shown_change)
            cells.append(f"{_latex_number(cell.shown)} ({change})" if change else _latex_number(cell.shown))
        lines.append(" & ".join(cells) + r" \\")
        if any(cell.interval for cell in row.values()):
            shown = [rf"{{\scriptsize {cell.shown_interval}}}" if cell.interval else "" for cell in row.values()]
            lines.append(" & ".join(["", *shown]).strip() + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_json(table1: Table1) -> dict[str, Any]:
    """Return the table's numbers, unrounded and in the units that it shows, with what the intervals depend on."""
    return {
        "baseline": table1.baseline,
        "setting": table1.setting,
        "units": {key: column.shown_unit for key, column in table1.columns.items()},
        "changes": {key: "points" if column.in_points else "%" for key, column in table1.columns.items()},
        "higher_is_better": {key: column.higher_is_better for key, column in table1.columns.items()},
        "intervals": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "over": "problems"},
        "rows": {method: {key: _cell(cell) for key, cell in row.items()} for method, row in table1.rows.items()},
    }


def _cell(cell: Any) -> Mapping[str, float | None]:
    low, high = cell.interval or (None, None)
    change_low, change_high = cell.change_interval or (None, None)
    return {
        "value": cell.value, "low": low, "high": high, "change": cell.change, "change_low": change_low,
        "change_high": change_high,
    }  # fmt: skip


def _latex_number(text: str) -> str:
    """A value or a change: a minus sign, and a thin space before the unit."""
    return escape.latex(text).replace("-", "$-$", 1 if text[:1] == "-" else 0).replace(r" \%", r"\,\%")
