"""Held-out and test problems: what the GRPO module does in `validate`, `test` and `predict`."""

from __future__ import annotations

import math

import torch
from lightning import Callback, LightningModule

from atmanrl.distributed import everyone, fail_together, inference_copy
from atmanrl.grpo.processes import weighted_means
from atmanrl.metrics.pass_at_k import PassAtK
from atmanrl.policy import Policy
from atmanrl.rewards import Reward, in_order, score, without_policy
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
        self.evaluated: list[tuple[dict[str, float], float]] = []  # figures of this process's batches, with weights

    def configure_callbacks(self) -> list[Callback]:
        """On several processes, one that ends all of them where one fails."""
        return fail_together(self.trainer)

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
        with inference_copy(self.policy):
            score(self.rewards, batch, self.policy)
        return batch.rollouts

    def on_validation_epoch_end(self) -> None:
        """Log the means and pass@k."""
        self._log_evaluation("val/")

    def on_test_epoch_end(self) -> None:
        """Log the means and pass@k."""
        self._log_evaluation("test/")

    def _evaluate(self, batch: RolloutBatch, prefix: str) -> None:
        rewards = self.rewards if self.evaluate_all_rewards else without_policy(self.rewards)
        with inference_copy(self.policy):
            scores = score(rewards, batch, self.policy)
        for name, values in scores.values.items():
            known = int((~values.isnan()).sum())
            self.evaluated.append(({f"{prefix}rewards/{name}/mean": float(values.nanmean())}, known))
        figures = scores.figures | {
            "tokens_per_cot": sum(r.parts.cot_length for r in batch.rollouts) / len(batch),
            "finished": sum(r.completion.finished for r in batch.rollouts) / len(batch),
        }
        self.evaluated.append(({prefix + name: value for name, value in figures.items()}, len(batch)))
        assert self.pass_at_k is not None
        self.pass_at_k.update(torch.tensor([bool(r.right) for r in batch.rollouts]).view(-1, batch.group_size))

    def _log_evaluation(self, prefix: str) -> None:
        """Log means over all processes; a figure that is undefined everywhere (nothing solved, say) is left out."""
        means = weighted_means(part for theirs in everyone(self.evaluated) for part in theirs)
        self.log_dict({name: value for name, value in means.items() if not math.isnan(value)})
        self.evaluated = []
        assert self.pass_at_k is not None
        self.log_dict({prefix + name: value for name, value in self.pass_at_k.compute().items()})
        self.pass_at_k.reset()
