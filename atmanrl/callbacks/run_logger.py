"""`metrics.csv` in the run's folder, which a restarted run goes on with."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, cast

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from atmanrl.files import written_aside


class RunWriter(ExperimentWriter):
    """Lightning's CSV writer, except that it adds to an older `metrics.csv` instead of deleting it."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.metrics_keys = next(csv.reader(file), [])


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
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            names, kept = rows.fieldnames or [], [row for row in rows if int(row["step"]) < update]
        with written_aside(path) as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(kept)
