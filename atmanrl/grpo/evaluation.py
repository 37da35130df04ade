"""`EvaluatingModule`: what `GRPOModule` does with held-out and test problems, in `validate`, `test` and `predict`."""

from __future__ import annotations

import math
from itertools import chain

from lightning import Callback, LightningModule

from atmanrl.distributed import all_gather, fail_together, inference_copy
from atmanrl.grpo.processes import weighted_means
from atmanrl.metrics.callback import MetricsCallback
from atmanrl.models.policy import Policy
from atmanrl.rewards import Reward, in_order, score, without_policy
from atmanrl.rollouts.batch import Rollout, RolloutBatch


class EvaluatingModule(LightningModule):
    """Scores rollouts of held-out problems by the same rewards that train; metrics come from a `MetricsCallback`.

    Args:
        policy: the model.
        rewards: by name.
        evaluate_all_rewards: whether evaluation also calls rewards that run the policy (the saliency reward).

    Raises:
        UserError: a reward is gated on one that is not there, or gates go in a circle.
    """

    def __init__(self, policy: Policy, rewards: dict[str, Reward], evaluate_all_rewards: bool) -> None:
        super().__init__()
        in_order(rewards)  # a gate on a reward that is not there is refused before anything is sampled
        self.policy, self.rewards, self.evaluate_all_rewards = policy, rewards, evaluate_all_rewards
        self.evaluated: list[tuple[dict[str, float], float]] = []  # metrics of this process's batches, with weights

    def configure_callbacks(self) -> list[Callback]:
        """Return a `MetricsCallback` unless the trainer has one, and on several processes a `FailTogether`."""
        measured = any(isinstance(callback, MetricsCallback) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [*fail_together(self.trainer), *([] if measured else [MetricsCallback()])]

    def validation_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Score held-out problems."""
        self._evaluate(batch, "val/")

    def test_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Score test problems."""
        self._evaluate(batch, "test/")

    def predict_step(self, batch: RolloutBatch, batch_idx: int) -> list[Rollout]:
        """Return the rollouts, with all their rewards."""
        with inference_copy(self.policy):
            score(self.rewards, batch, self.policy)
        return batch.rollouts

    def on_validation_epoch_end(self) -> None:
        """Log the means."""
        self._log_evaluation("val/")

    def on_test_epoch_end(self) -> None:
        """Log the means."""
        self._log_evaluation("test/")

    def _evaluate(self, batch: RolloutBatch, prefix: str) -> None:
        rewards = self.rewards if self.evaluate_all_rewards else without_policy(self.rewards)
        with inference_copy(self.policy):
            scores = score(rewards, batch, self.policy)
        for name, values in scores.values.items():
            known = int((~values.isnan()).sum())
            self.evaluated.append(({f"{prefix}rewards/{name}/mean": float(values.nanmean())}, known))
        self.evaluated.append(({prefix + name: value for name, value in scores.metrics.items()}, len(batch)))

    def _log_evaluation(self, prefix: str) -> None:
        """Log means over all processes; a metric that is undefined everywhere (nothing solved, say) is left out."""
        means = weighted_means(chain.from_iterable(all_gather(self.evaluated)))
        self.log_dict({name: value for name, value in means.items() if not math.isnan(value)})
        self.evaluated = []
