"""GRPO: how the policy learns from rewarded rollouts."""

from atmanrl.grpo.advantages import group_advantages
from atmanrl.grpo.credit import TokenCredit
from atmanrl.grpo.experience import Experience
from atmanrl.grpo.loss import Extreme, Loss, LossInputs, LossOutput, MinibatchCounts
from atmanrl.grpo.loss_clipped import ClippedLoss
from atmanrl.grpo.module import GRPOModule
from atmanrl.grpo.schedules import WarmupSchedule

__all__ = [
    "ClippedLoss",
    "Experience",
    "Extreme",
    "GRPOModule",
    "Loss",
    "LossInputs",
    "LossOutput",
    "MinibatchCounts",
    "TokenCredit",
    "WarmupSchedule",
    "group_advantages",
]
