"""What a sweep found: `sweep.csv`, `sweep.png` and a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from atmanrl.files import written_aside
from atmanrl.sweep.space import Sweep

Rows = Sequence[dict[str, Any]]
SHOWN = ("test/tokens_per_cot", "test/pass_at_1", "test/pass_at_4")
"""Test figures that the table has room for; `sweep.csv` holds all."""


def write_csv(path: Path, rows: Rows) -> None:
    """All trials with all their figures; failed ones with their error."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names.sort(key=("seconds", "folder", "error").__contains__)  # these three stand last
    with written_aside(path) as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def table(sweep: Sweep, rows: Rows, best: int | None) -> Table:
    """The trials, the best one marked."""
    shown = [name for name in SHOWN if name != sweep.metric and any(name in row for row in rows)]
    found = Table()
    for name in ("trial", *(parameter.rsplit(".", 1)[-1] for parameter in sweep.parameters), sweep.metric, *shown):
        found.add_column(name, justify="right")
    found.add_column("seconds", justify="right")
    for row in rows:
        value = row.get(sweep.metric)
        cells = [str(row["trial"]), *(str(row.get(name, "")) for name in sweep.parameters)]
        cells.append("failed" if value is None else f"{value:.4g}{' *' if row['trial'] == best else ''}")
        cells += [f"{row[name]:.4g}" if name in row else "" for name in shown]
        found.add_row(*cells, str(row["seconds"]), style="bold" if row["trial"] == best else None)
    return found


def draw(path: Path, sweep: Sweep, rows: Rows, best: int | None) -> bool:
    """The metric over each parameter; False if matplotlib is not there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    done = [row for row in rows if row.get(sweep.metric) is not None]
    figure = Figure(figsize=(4.2 * len(sweep.parameters), 3.4), layout="constrained")
    for place, name in enumerate(sweep.parameters, start=1):
        axes = figure.add_subplot(1, len(sweep.parameters), place)
        values = [row[name] for row in done]
        numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        labels = sorted(set(map(str, values)))
        across = values if numeric else [labels.index(str(v)) for v in values]
        marked = ["tab:orange" if row["trial"] == best else "tab:blue" for row in done]
        axes.scatter(across, [row[sweep.metric] for row in done], c=marked, s=36)
        if not numeric:
            axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel(name, fontsize=8)
        axes.grid(alpha=0.3)
        if place == 1:
            axes.set_ylabel(f"{sweep.metric} ({sweep.goal})", fontsize=8)
    aside = path.with_name(path.name + ".part")
    figure.savefig(aside, dpi=150, format="png")
    aside.replace(path)
    return True
