"""What happened over training, read from a run's `metrics.csv`."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atmanrl.report.intervals import Floats
from atmanrl.report.runs import ReportError

PANELS = {"accuracy": "right answers, %", "cot/mean_length": "tokens per chain of thought"}
"""Figure 2's panels: column of `metrics.csv` -> title."""

PERCENT = ("accuracy",)
"""Columns from 0 to 1 that are shown in per cent."""


@dataclass(frozen=True)
class Curve:
    """One column over the updates of a run: updates counted from 1, and the value of each.

    Example: `Curve(updates=np.array([1.0, 2.0]), values=np.array([72.5, 74.0]))`
    """

    updates: Floats
    values: Floats

    @property
    def window(self) -> int:
        """Updates that the smoothed curve averages over: an odd number, about a tenth of all."""
        return max(3, 2 * (len(self.values) // 20) + 1)

    def smoothed(self) -> Floats:
        """Return the mean over a window centred on each update; at the ends over as much of it as there is."""
        half = self.window // 2
        total = np.concatenate([[0.0], np.cumsum(self.values)])
        at = np.arange(len(self.values))
        low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(self.values))
        return (total[high] - total[low]) / (high - low)


def read_curves(run: Path) -> tuple[Mapping[str, Curve], list[str]]:
    """Read the columns of `PANELS` that a run has, and note what was passed over.

    A last row that is half written, as a run under way or a killed one may leave it, is passed over with a note.

    Raises:
        ReportError: another row is damaged.
    """
    path = run / "metrics.csv"
    if not path.exists():
        return {}, []
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is not UTF-8 (byte {error.start + 1}); restore it, or remove it.") from error
    notes = []
    whole, _, rest = text.rpartition("\n")
    try:
        rows = list(csv.reader(whole.splitlines()))
    except csv.Error as error:
        raise ReportError(f"{path} cannot be read as CSV ({error}); restore it, or remove it.") from error
    if rest.strip():
        notes.append(f"The last row of {path} is half written and was passed over.")
    if not rows:
        return {}, notes
    header = rows[0]
    points_of: dict[str, dict[float, float]] = {name: {} for name in PANELS if name in header}
    for number, row in enumerate(rows[1:], start=2):
        try:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} values for {len(header)} columns")
            cells = dict(zip(header, row, strict=True))
            # the log counts updates from 0; a file without that column has one row an update
            update = float(cells["step"]) + 1 if cells.get("step") else float(number - 1)
            if not math.isfinite(update):
                raise ValueError(f"step is {cells['step']}")
            for name, points in points_of.items():
                if cells[name] and math.isfinite(value := float(cells[name])):
                    points[update] = value
        except ValueError as error:
            if number == len(rows):
                notes.append(f"The last row of {path} is half written and was passed over.")
                continue
            raise ReportError(f"{path}, line {number}: {error}; repair that line, or remove it.") from error
    curves = {}
    for name, points in points_of.items():
        if points:
            unit = 100.0 if name in PERCENT else 1.0
            updates = np.array(sorted(points))
            curves[name] = Curve(updates, np.array([unit * points[update] for update in updates]))
    return curves, notes
