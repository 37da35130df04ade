"""The paper's Table 1: what training did to the chains of thought, one row a method, against a baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from atmanrl.errors import UserError
from atmanrl.files import written_aside

Row = dict[str, float]
"""The figures of one method, the keys of `FIGURES`; NaN where a figure is not defined."""

FIGURES = {
    "tokens_per_cot": "tokens / CoT",
    "numbers_pct": "numbers %",
    "stop_words_pct": "stop words %",
    "symbols_pct": "symbols %",
    "pass_at_1": "pass@1 %",
    "pass_at_4": "pass@4 %",
}
"""Key in `eval/test.json` -> column title. Shares are in per cent of the CoT's tokens, pass@k is from 0 to 1."""

WARM_START = "warm start"
"""Name of the row for the policy that every method started from."""


class ReportError(UserError):
    """A run cannot be reported; the message names the file and says what to do."""


def load_row(run: Path) -> Row:
    """Reads the six figures from a run's `eval/test.json`; other keys there are ignored, null is NaN.

    Args:
        run: the run's folder.

    Raises:
        ReportError: the file is missing, is not a JSON object, or lacks a figure.
    """
    path = run / "eval" / "test.json"
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path} does not exist: run `atmanrl test` on this run first") from None
    except ValueError as error:
        raise ReportError(f"{path} is not JSON: {error}") from error
    if not isinstance(figures, dict):
        raise ReportError(f"{path} must hold a JSON object, not a {type(figures).__name__}")
    missing = [key for key in FIGURES if key not in figures]
    if missing:
        raise ReportError(f"{path} lacks {', '.join(missing)}: run `atmanrl test` again")
    return {key: _number(figures[key], key, path) for key in FIGURES}


def _number(value: object, key: str, path: Path) -> float:
    if value is None:
        return math.nan
    # JSON's true is an int to Python.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReportError(f"{path}: {key} must be a number, got {value!r}")
    return float(value)


def render(rows: Mapping[str, Row], baseline: str = "baseline") -> Table:
    """Table 1 for the terminal: metrics as columns, methods as rows in the order given.

    Behind each figure stands its change against the baseline in parentheses: relative, in per cent, for length and
    shares (`41.2 (-28.1 %)`); the difference in points for pass@k (`94.0 (-4.0 pts)`). The baseline's own row, and
    the one named `warm start` (where the methods began, so no result of theirs), show figures alone.

    Args:
        rows: method -> figures, as from `load_row`.
        baseline: the row that the others are compared with.

    Raises:
        ReportError: there is no row of that name.
    """
    if baseline not in rows:
        raise ReportError(f"no row '{baseline}' to compare with; there are: {', '.join(rows) or 'none'}")
    table = Table()
    table.add_column("method", no_wrap=True)
    for title in FIGURES.values():
        table.add_column(title, justify="right")
    for method, row in rows.items():
        reference = None if method in (baseline, WARM_START) else rows[baseline]
        cells = [_cell(key, row[key], reference[key] if reference else None) for key in FIGURES]
        table.add_row(method, *cells, style="dim" if method == WARM_START else None)
    return table


def _cell(key: str, value: float, reference: float | None) -> str:
    """One figure, with its change where there is a reference to compare with."""
    share = key.startswith("pass_at_")
    shown = "–" if math.isnan(value) else f"{100 * value if share else value:.1f}"
    if reference is None or math.isnan(value) or math.isnan(reference):
        return shown
    if share:
        return f"{shown} ({100 * (value - reference):+.1f} pts)"
    # Nothing is a percentage of zero.
    return f"{shown} ({100 * (value / reference - 1):+.1f} %)" if reference else f"{shown} (–)"


def write_json(rows: Mapping[str, Row], path: Path) -> None:
    """Writes the rows as an indented JSON object, NaN as null; atomically, so that a reader never sees half a file.

    Args:
        rows: method -> figures.
        path: the file; its folder is made where it is missing.

    Raises:
        OSError: the file cannot be written; an older one is then left as it was.
    """
    strict = {
        method: {key: None if math.isnan(value) else value for key, value in row.items()}
        for method, row in rows.items()
    }
    with written_aside(path) as file:
        file.write(json.dumps(strict, indent=2, allow_nan=False) + "\n")
