"""A sweep's results: `sweep.csv`, `sweep.png` and a table."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from atmanrl.io import escape
from atmanrl.io.files import atomic_file, atomic_write
from atmanrl.sweep.space import Range, Sweep

if TYPE_CHECKING:
    from atmanrl.sweep.study import Study

Rows = Sequence[dict[str, Any]]
SHOWN = ("test/tokens_per_cot", "test/pass_at_1", "test/pass_at_4")
"""Test metrics that table and plot have room for; `sweep.csv` holds all."""

DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 4)), (0, (8, 4)))
MOST_LINES = len(DASHES)
"""With more values of the other parameters, a plot has dots alone."""


def rows(study: Study) -> Rows:
    """Return the rows of `sweep.csv`, one a trial.

    Example:
        `[{"trial": 0, "state": "done", "weight": 10.0, "val/pass_at_1": 0.75, "test/pass_at_1": 0.74, "seconds": 61.2,
        "folder": "runs/sweeps/reward_weight/trial_0000", "error": ""}]`
    """
    table = []
    for trial in study.finished():
        tested = {n: v for n, v in trial.user_attrs.get("figures", {}).items() if n.startswith("test/")}
        table.append({
            "trial": trial.number, "state": "done" if trial.state.name == "COMPLETE" else "failed",
            **study.values(trial), study.sweep.metric: trial.value, **tested,
            "seconds": trial.user_attrs.get("seconds"), "folder": str(study.folder(trial.number)),
            "error": trial.user_attrs.get("error", ""),
        })  # fmt: skip
    return table


def write_csv(path: Path, rows: Rows) -> None:
    """Write all trials with all their metrics; failed ones with their error."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names.sort(key=("seconds", "folder", "error").__contains__)  # these three stand last
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, names)
        # a name is a cell, too
        writer.writerow({name: escape.csv_cell(name) for name in names})
        writer.writerows({name: escape.csv_cell(cell) for name, cell in row.items()} for row in rows)


def metric_names(sweep: Sweep, rows: Rows) -> list[str]:
    """Return the metrics of tables and plots: the sweep's, then those of `SHOWN` that some trial has."""
    return [sweep.metric, *(name for name in SHOWN if name != sweep.metric and any(name in row for row in rows))]


def table(sweep: Sweep, rows: Rows, best: Collection[int]) -> Table:
    """Return the trials as a table; a star marks the best, or all of them that tie."""
    shown = metric_names(sweep, rows)
    trials = Table(box=SIMPLE_HEAD, padding=(0, 1))
    parameters = [parameter.rsplit(".", 1)[-1] for parameter in sweep.parameters]
    for name in ("trial", *parameters, *shown, "seconds"):
        # a title cut short would not tell pass@1 from pass@4
        trials.add_column(
            Text(escape.terminal(name).replace("/", "/\n").replace("_", " ")), justify="right", overflow="fold"
        )
    for row in rows:
        cells = [str(row["trial"]), *(str(row.get(name, "")) for name in sweep.parameters)]
        for name in shown:
            value = row.get(name)
            missing = "failed" if name == sweep.metric else ""
            cells.append(missing if value is None else f"{value:.4g}")
        if row["trial"] in best:
            cells[1 + len(parameters)] += " *"
        trials.add_row(
            *(Text(escape.terminal(cell)) for cell in (*cells, str(row["seconds"]))),
            style="bold" if row["trial"] in best else None,
        )
    return trials


def draw(path: Path, sweep: Sweep, rows: Rows, best: Collection[int]) -> bool:
    """Draw each metric over each parameter, the best trials in orange; return False if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    done = [row for row in rows if row.get(sweep.metric) is not None]
    shown = metric_names(sweep, done)
    figure = Figure(figsize=(3.4 * len(shown), 3.0 * len(sweep.parameters)), layout="constrained")
    grid = figure.subplots(len(sweep.parameters), len(shown), squeeze=False)
    for (parameter, space), line in zip(sweep.parameters.items(), grid, strict=True):
        for name, axes in zip(shown, line, strict=True):
            _scatter(axes, [row for row in done if name in row], sweep, parameter, name, best)
            if isinstance(space, Range) and space.log:
                axes.set_xscale("log")
            axes.set_xlabel(escape.figure(parameter), fontsize=8)
            axes.set_title(escape.figure(f"{name} ({sweep.goal})" if name == sweep.metric else name), fontsize=9)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    return True


def _scatter(axes: Any, rows: Rows, sweep: Sweep, parameter: str, name: str, best: Collection[int]) -> None:
    """Draw a dot for each trial, and a line through the means of trials that share a value, for each value of the others."""
    values = [row[parameter] for row in rows]
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    labels = sorted(set(map(str, values)))
    groups: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        place = row[parameter] if numeric else labels.index(str(row[parameter]))
        others = ", ".join(f"{p.rsplit('.', 1)[-1]} = {row[p]}" for p in sweep.parameters if p != parameter)
        groups.setdefault(others, {}).setdefault(place, []).append(row[name])
        axes.scatter([place], [row[name]], color="tab:orange" if row["trial"] in best else "tab:blue", s=36, zorder=2)
    if len(groups) <= MOST_LINES:
        for number, (others, heights) in enumerate(groups.items()):
            places = sorted(heights)
            axes.plot(
                places, [mean(heights[place]) for place in places], color="tab:blue", linestyle=DASHES[number], linewidth=1,
                zorder=1, label=escape.figure(others),
            )  # fmt: skip
        if len(groups) > 1:
            axes.legend(fontsize=7, frameon=False)
    if not numeric:
        axes.set_xticks(range(len(labels)), [escape.figure(label) for label in labels])
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
