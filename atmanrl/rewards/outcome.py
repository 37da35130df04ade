"""The outcome reward (Eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.rewards.base import Reward
from atmanrl.rollouts.batch import RolloutBatch


class OutcomeReward(Reward):
    """0 where the answer is right, -1 where it is wrong or missing (Eq. 4). The task has judged it."""

    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """Outcome of each rollout, `[B]`."""
        return torch.tensor([0.0 if rollout.correct else -1.0 for rollout in batch.rollouts])
