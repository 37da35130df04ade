"""`eval/*.json`: the metrics of every evaluation, with what they depend on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from atmanrl.io.files import atomic_write
from atmanrl.metrics.base import Stage
from atmanrl.metrics.callback import MetricsCallback
from atmanrl.metrics.conditions import SAMPLING
from atmanrl.models.policy import Policy
from atmanrl.rollouts import RolloutDataModule


class EvaluationReport(Callback):
    """Writes `eval/validation_00060.json` during training, `eval/validate.json` and `eval/test.json` by the commands.

    Besides the values of all metrics a file holds the setting that they depend on. Their columns and conditions tell
    `table` and `report` how to show both without importing the metrics.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the metrics of held-out training problems."""
        if not trainer.sanity_checking:
            self._write(trainer, pl_module, "validation", evaluation_name(trainer))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the metrics of test problems."""
        self._write(trainer, pl_module, "test", "test")

    def _write(self, trainer: Trainer, pl_module: LightningModule, stage: Stage, name: str) -> None:
        prefix = "test/" if stage == "test" else "val/"
        values = {
            key.removeprefix(prefix): None if math.isnan(value) else float(value)
            for key, value in trainer.callback_metrics.items()
            if key.startswith(prefix)
        }
        data = getattr(trainer, "datamodule", None)
        if not trainer.is_global_zero or not values or not isinstance(data, RolloutDataModule):
            return
        metrics = next((c for c in trainer.callbacks if isinstance(c, MetricsCallback)), MetricsCallback({}))  # type: ignore[attr-defined]
        written = {
            **values,
            "columns": {key: column.to_json() for key, column in metrics.columns(stage).items()},
            "conditions": {
                key: condition.to_json() for key, condition in {**SAMPLING, **metrics.conditions(stage)}.items()
            },
            "setting": self._setting(trainer, pl_module, data, metrics.setting(stage)),
        }
        with atomic_write(Path(trainer.default_root_dir) / "eval" / f"{name}.json") as file:
            file.write(json.dumps(written, indent=2) + "\n")

    def _setting(
        self, trainer: Trainer, pl_module: LightningModule, data: RolloutDataModule, of_metrics: Mapping[str, object]
    ) -> dict[str, object]:
        policy = getattr(pl_module, "policy", None)
        return {
            "update": trainer.global_step,
            "policy": policy.path if isinstance(policy, Policy) else None,
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "task": type(data.task).__name__,
            "samples": data.eval_samples,
            **asdict(data.sampling),
            **data.splitter.noted,
            "seed": data.seed,
            **of_metrics,
            "versions": {name: version(name) for name in ("atmanrl", "torch", "transformers", "lightning", "spacy")},
        }


def evaluation_name(trainer: Trainer) -> str:
    """Return the name of a validation's files: by update during training, `validate` as a command of its own."""
    return f"validation_{trainer.global_step:05d}" if trainer.state.fn == "fit" else "validate"
