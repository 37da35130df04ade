"""`MetricsCallback`: runs all metrics in training, validation and test, and logs what they give."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, TypeVar, get_args

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from atmanrl.distributed import inference_copy
from atmanrl.errors import UserError
from atmanrl.metrics.base import RolloutMetric, Stage
from atmanrl.metrics.columns import Column
from atmanrl.metrics.endings import CotLength, Finished
from atmanrl.metrics.majority import MajorityAtK
from atmanrl.metrics.pass_at_k import PassAtK
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.rollouts.datamodule import RolloutDataModule

RESERVED = ("setting", "columns")
"""Names of `eval/*.json` that are no values."""

T = TypeVar("T")


class MetricsCallback(Callback):
    """Runs metrics on rollouts, each in the stages that it is meant for, and logs their values.

    In training a value belongs to one update and stands under the metric's own prefix; in evaluation it is over all
    problems, under `val/` and `test/`.

    Args:
        metrics: by name; those that are None are left out. None altogether takes pass@k, majority@k, the length of the
            reasoning and the share of completions that ended.
    """

    def __init__(self, metrics: Mapping[str, RolloutMetric | None] | None = None) -> None:
        if metrics is None:
            metrics = {
                "tokens_per_cot": CotLength(), "pass_at_k": PassAtK(), "majority_at_k": MajorityAtK(),
                "finished": Finished(),
            }  # fmt: skip
        self.metrics = {name: metric for name, metric in metrics.items() if metric is not None}
        self._running: dict[Stage, dict[str, RolloutMetric]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin with copies that have counted nothing, one for each stage.

        Raises:
            UserError: two metrics have a column of one key.
        """
        data = getattr(trainer, "datamodule", None)
        self._running = {}
        if not isinstance(data, RolloutDataModule):
            return
        for each in get_args(Stage):
            running = {name: deepcopy(metric) for name, metric in self.metrics.items() if each in metric.stages}
            for metric in running.values():
                metric.prepare(data.task, data.group_size if each == "training" else data.eval_samples)
            self._running[each] = running
            self.columns(each)

    def columns(self, stage: Stage) -> dict[str, Column]:
        """Key -> column of all metrics of a stage.

        Raises:
            UserError: two metrics have a column of one key.
        """
        return _joined({name: metric.columns for name, metric in self._running.get(stage, {}).items()})

    def setting(self, stage: Stage) -> dict[str, object]:
        """What the values of a stage depend on."""
        return _joined({name: metric.setting() for name, metric in self._running.get(stage, {}).items()})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the update's own values."""
        if isinstance(batch, RolloutBatch):
            self._update("training", pl_module, batch)
            self._log("training", pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count."""
        self._update("validation", pl_module, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count."""
        self._update("test", pl_module, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the values over all held-out rollouts."""
        self._log("validation", pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the values over all test rollouts."""
        self._log("test", pl_module)

    def _update(self, stage: Stage, pl_module: LightningModule, batch: Any) -> None:
        running = self._running.get(stage, {})
        if not isinstance(batch, RolloutBatch) or not running:
            return
        policy = pl_module.policy if any(metric.uses_policy for metric in running.values()) else None
        assert policy is None or isinstance(policy, Policy)
        with torch.no_grad(), nullcontext() if policy is None else inference_copy(policy):
            for name, metric in running.items():
                try:
                    # on the device of the process group, where the counts of several processes meet (NCCL takes no other)
                    metric.to(pl_module.device).update(batch, *[policy] * metric.uses_policy)
                except Exception as error:
                    error.add_note(f"This happened in metrics.{name}, a {type(metric).__name__}.")
                    raise

    def _log(self, stage: Stage, pl_module: LightningModule) -> None:
        logged = {}
        for name, metric in self._running.get(stage, {}).items():
            if not metric.update_called:
                continue
            prefix = {"training": metric.training_prefix, "validation": "val/", "test": "test/"}[stage]
            logged[name] = {prefix + key: value for key, value in _values(name, metric).items()}
            metric.reset()
        if logged:
            pl_module.log_dict(_joined(logged))


def _values(name: str, metric: RolloutMetric) -> dict[str, Tensor]:
    """What a metric computes, looked at.

    Raises:
        UserError: it is no mapping of scalars, lacks a value that has a column, or takes a reserved name.
    """
    found, where = metric.compute(), f"metrics.{name} ({type(metric).__name__}).compute()"
    if not isinstance(found, Mapping):
        raise UserError(f"{where} gave a {type(found).__name__}; it must give a mapping of names to numbers.")
    values = {key: torch.as_tensor(value, device=metric.device) for key, value in found.items()}
    for key, value in values.items():
        if value.numel() != 1 or key in RESERVED:
            raise UserError(f"{where} gave {key} of shape {list(value.shape)}; give a scalar, not named {RESERVED}.")
    if missing := [key for key in metric.columns if key not in values]:
        raise UserError(f"{where} gave no {missing[0]}, for which the metric has a column.")
    return values


def _joined(each: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    """The mappings of all metrics as one.

    Raises:
        UserError: two metrics have the same name in theirs.
    """
    found: dict[str, T] = {}
    owners: dict[str, str] = {}
    for name, values in each.items():
        for key, value in values.items():
            if key in owners:
                raise UserError(
                    f"metrics.{owners[key]} and metrics.{name} both have {key}; set one of them to null, or rename it."
                )
            found[key], owners[key] = value, name
    return found
