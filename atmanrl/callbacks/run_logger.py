"""`metrics.csv` in the run's folder, and how a restarted run goes on with that folder."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any, cast

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.io.files import atomic_write

_OF_UPDATE = re.compile(r"rollouts/update_(\d+)\.jsonl|eval/validation_(\d+)\.jsonl?")
"""The files of a run that belong to an update; a user's own beside them stay."""


class RunWriter(ExperimentWriter):
    """Lightning's CSV writer, except that it adds to an older `metrics.csv` and never leaves it empty for a moment."""

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """Take a row; a name or a text that a spreadsheet would calculate is kept from it."""
        super().log_metrics({escape.csv_cell(name): escape.csv_cell(v) for name, v in metrics_dict.items()}, step)

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.exists():
            self.metrics_keys = _rows(path)[0]

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        _write(path, fieldnames, _rows(path)[1])


_BEYOND = ""
"""The column of values beyond the last named one."""


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows; a last line without its end was torn by a kill and is left out.

    Raises:
        UserError: the file was changed so that it is no log of a run.
    """
    whole, _, _ = path.read_bytes().decode("utf-8", errors="replace").rpartition("\n")
    try:
        reader = csv.DictReader(whole.splitlines(), restkey=_BEYOND)
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


class RunLogger(CSVLogger):
    """Writes `metrics.csv` straight into the run's folder after every update.

    A row is an update, or the evaluation after it; `step` counts updates from 0, as Lightning does.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(save_dir=folder, name="", version="", flush_logs_every_n_steps=1)

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self.save_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> RunWriter:
        """What writes the file."""
        if self._experiment is None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = RunWriter(self.log_dir)
        return cast(RunWriter, self._experiment)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: `config.yaml` holds them all."""

    @rank_zero_only
    def rewind(self, update: int) -> None:
        """Drop the rows of an older `metrics.csv` that a run restarted at `update` will write again."""
        path = Path(self.log_dir) / "metrics.csv"
        if not path.exists():
            return
        names, rows = _rows(path)
        kept = [row for row in rows if int(row["step"]) < update]
        # a column that comes later comes again then, as in a run that was never interrupted
        names = [name for name in names if any(row[name] for row in kept)]
        self.experiment.metrics_keys = names
        if kept:
            _write(path, names, kept)
        else:
            path.unlink()


def drop_updates_beyond(folder: Path, update: int) -> None:
    """Remove the rollouts and evaluations of a run's folder that a run restarted at `update` will write again."""
    for path in [*folder.glob("rollouts/*"), *folder.glob("eval/*")]:
        number = _OF_UPDATE.fullmatch(path.relative_to(folder).as_posix())
        if number and int(number[1] or number[2]) > update:
            path.unlink()
