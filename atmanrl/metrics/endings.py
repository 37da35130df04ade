"""How long the reasoning is, and whether completions end by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atmanrl.metrics.base import RolloutMetric, Stage, ratio
from atmanrl.metrics.columns import COT_LENGTH
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch


class CotLength(RolloutMetric):
    """The mean length of the reasoning in the policy's own tokens, `tokens_per_cot`.

    Args:
        stages: when it runs; see `RolloutMetric`.
    """

    columns = COT_LENGTH
    tokens: Tensor
    rollouts: Tensor

    def __init__(self, stages: Sequence[Stage] | None = None) -> None:
        super().__init__(stages)
        for state in ("tokens", "rollouts"):
            self.add_state(state, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, batch: RolloutBatch, policy: Policy | None = None) -> None:
        """Count tokens."""
        self.tokens += sum(rollout.parts.cot_length for rollout in batch.rollouts)
        self.rollouts += len(batch)

    def compute(self) -> dict[str, Tensor]:
        """The mean over all rollouts."""
        return {"tokens_per_cot": ratio(self.tokens, self.rollouts)}


class Finished(RolloutMetric):
    """The share of completions that ended by themselves, `finished`; the others were cut off. No column of Table 1.

    Args:
        stages: when it runs; see `RolloutMetric`.
    """

    finished: Tensor
    rollouts: Tensor

    def __init__(self, stages: Sequence[Stage] | None = None) -> None:
        super().__init__(stages)
        for state in ("finished", "rollouts"):
            self.add_state(state, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, batch: RolloutBatch, policy: Policy | None = None) -> None:
        """Count completions."""
        self.finished += sum(rollout.completion.finished for rollout in batch.rollouts)
        self.rollouts += len(batch)

    def compute(self) -> dict[str, Tensor]:
        """The share of all completions."""
        return {"finished": ratio(self.finished, self.rollouts)}
