"""Held-out and test problems: what the GRPO module does in `validate`, `test` and `predict`."""

from __future__ import annotations

import math

import torch
from lightning import LightningModule

from atmanrl.metrics.pass_at_k import PassAtK
from atmanrl.policy import Policy
from atmanrl.rewards import Reward, score
from atmanrl.rewards.gate import in_order, without_policy
from atmanrl.rollouts.batch import Rollout, RolloutBatch


class EvaluatingModule(LightningModule):
    """Scores rollouts of held-out problems by the same rewards that train, and by pass@k.

    Args:
        policy: the model.
        rewards: by name.
        evaluate_all_rewards: whether evaluation also calls rewards that run the policy (the saliency reward).

    Raises:
        UserError: a reward is gated on one that is not there, or gates go in a circle.
    """

    def __init__(self, policy: Policy, rewards: dict[str, Reward], evaluate_all_rewards: bool) -> None:
        super().__init__()
        in_order(rewards)  # a gate on a reward that is not there is told before anything is sampled
        self.policy, self.rewards, self.evaluate_all_rewards = policy, rewards, evaluate_all_rewards
        self.pass_at_k: PassAtK | None = None

    def setup(self, stage: str) -> None:
        """Take over what the data module decides: samples in evaluation."""
        self.pass_at_k = PassAtK(sorted({1, self.trainer.datamodule.eval_samples}))  # type: ignore[attr-defined]

    def validation_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Score held-out problems."""
        self._evaluate(batch, "val/")

    def test_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Score test problems."""
        self._evaluate(batch, "test/")

    def predict_step(self, batch: RolloutBatch, batch_idx: int) -> list[Rollout]:
        """Rollouts with all their rewards."""
        score(self.rewards, batch, self.policy)
        return batch.rollouts

    def on_validation_epoch_end(self) -> None:
        """Log pass@k."""
        self._log_pass_at_k("val/")

    def on_test_epoch_end(self) -> None:
        """Log pass@k."""
        self._log_pass_at_k("test/")

    def _evaluate(self, batch: RolloutBatch, prefix: str) -> None:
        rewards = self.rewards if self.evaluate_all_rewards else without_policy(self.rewards)
        scores = score(rewards, batch, self.policy)
        figures = {f"rewards/{name}/mean": float(values.nanmean()) for name, values in scores.values.items()}
        figures |= scores.figures
        figures["tokens_per_cot"] = sum(r.parts.cot_length for r in batch.rollouts) / len(batch)
        figures["finished"] = sum(r.completion.finished for r in batch.rollouts) / len(batch)
        # a batch in which a figure is undefined (nothing solved, say) has no part in its mean
        known = {prefix + name: value for name, value in figures.items() if not math.isnan(value)}
        self.log_dict(known, batch_size=len(batch), on_epoch=True)
        assert self.pass_at_k is not None
        self.pass_at_k.update(torch.tensor([bool(r.right) for r in batch.rollouts]).view(-1, batch.group_size))

    def _log_pass_at_k(self, prefix: str) -> None:
        assert self.pass_at_k is not None
        self.log_dict({prefix + name: value for name, value in self.pass_at_k.compute().items()})
        self.pass_at_k.reset()
