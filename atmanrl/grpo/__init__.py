"""GRPO: how the policy learns from rewarded rollouts."""

from atmanrl.grpo.advantages import group_advantages
from atmanrl.grpo.module import GRPOModule
from atmanrl.grpo.objective import clipped_objective
from atmanrl.grpo.schedules import WarmupSchedule

__all__ = ["GRPOModule", "WarmupSchedule", "clipped_objective", "group_advantages"]
