"""`MetricsCallback`: runs all metrics in training, validation and test, and logs their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, TypeVar, get_args

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from atmanrl.distributed import inference_copy, meet
from atmanrl.errors import UserError
from atmanrl.metrics.base import RolloutMetric, Stage
from atmanrl.metrics.columns import Column
from atmanrl.metrics.conditions import Condition
from atmanrl.metrics.endings import CotLength, Finished
from atmanrl.metrics.majority import MajorityAtK
from atmanrl.metrics.pass_at_k import PassAtK
from atmanrl.metrics.ratio import fraction
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.rollouts.datamodule import RolloutDataModule

RESERVED = ("setting", "columns", "conditions")
"""Keys of `eval/*.json` that are not values of metrics."""

T = TypeVar("T")


class MetricsCallback(Callback):
    """Runs metrics on rollouts, each in its stages, and logs their values.

    In training a value belongs to one update and stands under the metric's own prefix; in evaluation it is over all
    problems, under `val/` and `test/`.

    Args:
        metrics: by name; those that are None are left out. Without this argument: pass@k, majority@k, the length of the
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
        """Start from copies that have counted nothing, one for each stage.

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
        """Return the columns of all metrics of a stage, by key.

        Raises:
            UserError: two metrics have a column of one key.
        """
        return self._joined(stage, lambda metric: metric.columns)

    def conditions(self, stage: Stage) -> dict[str, Condition]:
        """Return how reports speak of the settings of a stage's metrics, by key."""
        return self._joined(stage, lambda metric: metric.conditions)

    def setting(self, stage: Stage) -> dict[str, object]:
        """Return what the values of a stage depend on."""
        return self._joined(stage, lambda metric: metric.setting())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the values of the update's rollouts."""
        if isinstance(batch, RolloutBatch):
            self._update("training", pl_module, batch)
            self._log("training", pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count the rollouts, and note at each what it contributes."""
        self._update("validation", pl_module, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count the rollouts, and note at each what it contributes."""
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

        if stage != "training":
            for metric in running.values():
                _note(metric, batch)

    def _log(self, stage: Stage, pl_module: LightningModule) -> None:
        prefixes = {"validation": "val/", "test": "test/"}
        logged = {}
        meet()  # a metric adds up its counts over the processes
        for name, metric in self._running.get(stage, {}).items():
            if metric.update_called:
                prefix = prefixes.get(stage, metric.training_prefix)
                logged[name] = {prefix + key: value for key, value in _values(name, metric).items()}
                metric.reset()
        if logged:
            pl_module.log_dict(_disjoint(logged))

    def _joined(self, stage: Stage, part: Callable[[RolloutMetric], Mapping[str, T]]) -> dict[str, T]:
        return _disjoint({name: part(metric) for name, metric in self._running.get(stage, {}).items()})


def _note(metric: RolloutMetric, batch: RolloutBatch) -> None:
    """Note at each rollout what it adds to a metric; what a problem adds as a whole stands at its first one."""
    for key, contribution in metric.latest.items():
        pairs = [terms.tolist() for terms in fraction(contribution)]
        rollouts = batch.rollouts if len(pairs[0]) == len(batch) else [group[0] for group in batch.groups]
        for rollout, numerator, denominator in zip(rollouts, *pairs, strict=True):
            rollout.metrics[key] = numerator, denominator


def _values(name: str, metric: RolloutMetric) -> dict[str, Tensor]:
    """Compute a metric and check what it returns.

    Raises:
        UserError: it is no mapping of scalars, lacks a value that has a column, or uses a reserved key.
    """
    computed, where = metric.compute(), f"metrics.{name} ({type(metric).__name__}).compute()"
    if not isinstance(computed, Mapping):
        raise UserError(f"{where} returned a {type(computed).__name__}; it must return numbers by key.")
    values = {key: torch.as_tensor(value, device=metric.device) for key, value in computed.items()}
    for key, value in values.items():
        if value.numel() != 1 or key in RESERVED:
            raise UserError(
                f"{where} returned {key} of shape {list(value.shape)}; return a scalar, whose key is none of {RESERVED}."
            )
    if missing := [key for key in metric.columns if key not in values]:
        raise UserError(f"{where} returned no {missing[0]}, for which the metric has a column.")
    return values


def _disjoint(each: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    """Join the mappings of all metrics.

    Raises:
        UserError: two metrics have the same key in theirs.
    """
    joined: dict[str, T] = {}
    owners: dict[str, str] = {}
    for name, values in each.items():
        for key, value in values.items():
            if key in owners:
                raise UserError(
                    f"metrics.{owners[key]} and metrics.{name} both have {key}; set one of them to null, or rename it."
                )
            joined[key], owners[key] = value, name
    return joined
