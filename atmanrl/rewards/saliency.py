"""The saliency reward (Eq. 3), by the mask probe."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from atmanrl.policy import Policy
from atmanrl.probe import MaskProbe
from atmanrl.rewards.base import Reward
from atmanrl.rewards.gate import Gate
from atmanrl.rollouts.batch import RolloutBatch


class SaliencyReward(Reward):
    """How much the reasoning matters to the gold answer (Eq. 3).

    It abstains where there is no delimiter or no reasoning, and notes each token's saliency in the rollouts.

    Args:
        weight: factor in the total reward.
        probe: the mask probe, without a policy of its own.
        only_where: probes only rollouts in which another reward is high enough; elsewhere saliency adds nothing.
    """

    uses_policy: ClassVar[bool] = True

    def __init__(self, weight: float = 1.0, probe: MaskProbe | None = None, only_where: Gate | None = None) -> None:
        super().__init__(weight, only_where)
        self.probe = probe or MaskProbe()

    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """Saliency of each rollout, `[B]`; NaN where it abstains."""
        result = self.probe.solve(policy, batch)
        for rollout, saliency in zip(batch.rollouts, result.saliency, strict=True):
            rollout.saliency = saliency
        solved = torch.tensor([bool(rollout.right) for rollout in batch.rollouts], device=result.reward.device)
        self.figures = {
            **result.figures(),
            "saliency/solved": float(result.reward[solved].nanmean()),
            "saliency/unsolved": float(result.reward[~solved].nanmean()),
        }
        return result.reward
