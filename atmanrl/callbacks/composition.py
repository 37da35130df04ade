"""Token composition of the reasoning, during training and in evaluation."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer

from atmanrl.metrics.composition import TokenComposition
from atmanrl.rollouts import RolloutBatch


class CompositionCallback(Callback):
    """Logs the shares of numbers, stop words and symbols among the spaCy tokens of the reasoning, in per cent.

    Args:
        pipeline: name or path of a spaCy pipeline; None counts by lexical rules, without a download.
    """

    def __init__(self, pipeline: str | None = None) -> None:
        self.pipeline = pipeline
        self.training = TokenComposition(pipeline)
        self.evaluation = TokenComposition(pipeline)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the update's own shares."""
        if isinstance(batch, RolloutBatch):
            self._on(pl_module, self.training).update([r.parts.cot for r in batch.rollouts])
            pl_module.log_dict({f"cot/{name}": value for name, value in self.training.compute().items()})
            self.training.reset()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count."""
        if isinstance(batch, RolloutBatch):
            self._on(pl_module, self.evaluation).update([r.parts.cot for r in batch.rollouts])

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the shares over all held-out rollouts."""
        self._log(pl_module, "val/")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the shares over all test rollouts."""
        self._log(pl_module, "test/")

    def _on(self, pl_module: LightningModule, metric: TokenComposition) -> TokenComposition:
        """On the device of the process group, where the counts of several processes meet (NCCL takes no other)."""
        return metric.to(pl_module.device)

    def _log(self, pl_module: LightningModule, prefix: str) -> None:
        if self.evaluation.update_called:
            pl_module.log_dict({prefix + name: value for name, value in self.evaluation.compute().items()})
            self.evaluation.reset()
