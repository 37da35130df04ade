"""How long the reasoning is, and whether completions end by themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from atmanrl.metrics.columns import COT_LENGTH
from atmanrl.metrics.ratio import RatioMetric
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch


class CotLength(RatioMetric):
    """The mean length of the reasoning in the policy's own tokens, `tokens_per_cot`.

    Args:
        stages: when it runs; see `RolloutMetric`.
    """

    columns = COT_LENGTH

    def contributions(self, batch: RolloutBatch, policy: Policy | None = None) -> dict[str, Tensor]:
        """Return each rollout's tokens."""
        return {"tokens_per_cot": torch.tensor([rollout.parts.cot_length for rollout in batch.rollouts])}


class Finished(RatioMetric):
    """The share of completions that ended by themselves, `finished`; the others were cut off. No column of Table 1.

    Args:
        stages: when it runs; see `RolloutMetric`.
    """

    @property
    def keys(self) -> tuple[str, ...]:
        """`finished` alone."""
        return ("finished",)

    def contributions(self, batch: RolloutBatch, policy: Policy | None = None) -> dict[str, Tensor]:
        """Return whether each completion ended by itself."""
        return {"finished": torch.tensor([rollout.completion.finished for rollout in batch.rollouts])}
