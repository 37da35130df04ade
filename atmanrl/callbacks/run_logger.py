"""`metrics.csv` in the run's folder, and how a restarted run goes on with that folder."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.io.files import atomic_write

_OF_UPDATE = re.compile(r"rollouts/update_(\d+)\.jsonl|eval/validation_(\d+)\.jsonl?")
"""The files of a run that belong to an update; a user's own beside them stay."""


_BEYOND = ""
"""The column of values beyond the last named one."""


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return columns and rows; a last line without its end was torn by a kill and is left out.

    Raises:
        UserError: the file was changed so that it is no log of a run.
    """
    complete, _, _ = path.read_bytes().decode("utf-8", errors="replace").rpartition("\n")
    try:
        reader = csv.DictReader(complete.splitlines(), restkey=_BEYOND)
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{path} is no CSV file that can be read ({error}); restore it, or move it away.") from error
    for number, row in enumerate(rows, start=2):
        if _BEYOND in row or None in row.values() or not re.fullmatch(r"[0-9]{1,15}", row.get("step", "")):
            raise UserError(f"{path}, row {number}: not a row of this log; repair it, or remove it.")
    return list(reader.fieldnames or []), rows


def _write(path: Path, names: list[str], rows: list[dict[str, str]]) -> None:
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


class RunLogger(Logger):
    """Writes `metrics.csv` into the run's folder, and adds to an older one there.

    A row is an update, or the evaluation after it; `step` counts updates from 0, as Lightning does. Lightning's own
    `CSVLogger` deletes an older file, and leaves it empty for a moment where a new column comes.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """Nothing: a run is called by its folder."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: a folder holds one run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Do nothing: `config.yaml` holds them all."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row; a name or a text that a spreadsheet would calculate is kept from it."""
        plain = {n: v.item() if isinstance(v, Tensor) else v for n, v in metrics.items()}
        row = {escape.csv_cell(name): escape.csv_cell(value) for name, value in plain.items()} | {"step": step}
        if self._columns is None:
            self._columns = _rows(self.path)[0] if self.path.exists() else []
        new = row.keys() - set(self._columns)
        if new or not self.path.exists():
            self._columns = sorted([*self._columns, *new])
            _write(self.path, self._columns, _rows(self.path)[1] if self.path.exists() else [])
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    @rank_zero_only
    def rewind(self, update: int) -> None:
        """Drop the rows of an older `metrics.csv` that a run restarted at `update` will write again."""
        if not self.path.exists():
            return
        columns, rows = _rows(self.path)
        kept = [row for row in rows if int(row["step"]) < update]
        # a column that comes later comes again then, as in a run that was never interrupted
        self._columns = [name for name in columns if any(row[name] for row in kept)]
        if kept:
            _write(self.path, self._columns, kept)
        else:
            self.path.unlink()


def drop_updates_beyond(folder: Path, update: int) -> None:
    """Remove the rollouts and evaluations of a run's folder that a run restarted at `update` will write again."""
    for path in [*folder.glob("rollouts/*"), *folder.glob("eval/*")]:
        number = _OF_UPDATE.fullmatch(path.relative_to(folder).as_posix())
        if number and int(number[1] or number[2]) > update:
            path.unlink()
