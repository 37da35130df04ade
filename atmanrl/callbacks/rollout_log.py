"""`RolloutLog`: the rollouts of every update and of every evaluation, as JSONL in one schema."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from atmanrl.callbacks.evaluation import evaluation_name
from atmanrl.distributed import all_gather
from atmanrl.grpo.experience import experience_of
from atmanrl.rollouts import Rollout, RolloutBatch, traces


class RolloutLog(Callback):
    """Writes `rollouts/update_00012.jsonl`, `eval/*.jsonl` and `predictions.jsonl` (see `rollouts.traces`).

    An update that is replayed after a restart replaces its own file.

    Args:
        every_n_updates: how often training rollouts are written; 0 never.
        evaluation: whether the rollouts of evaluations are written.
    """

    def __init__(self, every_n_updates: int = 1, evaluation: bool = True) -> None:
        self.every_n_updates, self.evaluation = every_n_updates, evaluation
        self.seen: list[Rollout] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the update's rollouts, those of all processes."""
        update, experience = trainer.global_step, experience_of(outputs)
        if experience is not None and self.every_n_updates and update % self.every_n_updates == 0:
            self._write(trainer, experience.rollouts, f"rollouts/update_{update:05d}")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Collect the batch's rollouts."""
        if isinstance(batch, RolloutBatch) and self.evaluation and not trainer.sanity_checking:
            self.seen += batch.rollouts

    on_test_batch_end = on_validation_batch_end

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Collect the batch's rollouts."""
        if isinstance(batch, RolloutBatch):
            self.seen += batch.rollouts

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the held-out rollouts."""
        self._write_seen(trainer, f"eval/{evaluation_name(trainer)}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the test rollouts."""
        self._write_seen(trainer, "eval/test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the predictions."""
        self._write_seen(trainer, "predictions")

    def _write_seen(self, trainer: Trainer, name: str) -> None:
        """Write one file, in the order of the problems: each process has answered a block of them."""
        if self.seen:
            self._write(trainer, list(chain.from_iterable(all_gather(self.seen))), name)
            self.seen = []

    def _write(self, trainer: Trainer, rollouts: list[Rollout], name: str) -> None:
        if trainer.is_global_zero:
            traces.write(rollouts, Path(trainer.default_root_dir) / f"{name}.jsonl")
