"""`metrics.csv` in the run's folder, which a restarted run goes on with."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only


class RunLogger(CSVLogger):
    """Lightning's CSV logger, writing `metrics.csv` straight into the run's folder after every update.

    A row is an update (column `step`, counted from 1 at its end) or the evaluation after it.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(save_dir=folder, name="", version="", flush_logs_every_n_steps=1)

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self.save_dir)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: `config.yaml` holds them all."""

    @rank_zero_only
    def rewind(self, update: int) -> None:
        """Go on with an older `metrics.csv`: keep its rows up to `update`, which a restart does not repeat."""
        path = Path(self.log_dir) / "metrics.csv"
        if not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) < update]
        path.unlink()
        for row in rows:
            self.experiment.log_metrics(
                {name: float(value) for name, value in row.items() if value and name != "step"}, int(row["step"])
            )
        self.experiment.save()
