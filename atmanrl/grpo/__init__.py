"""GRPO: how the policy learns from rewarded rollouts."""

from atmanrl.grpo.advantages import group_advantages
from atmanrl.grpo.module import GRPOModule
from atmanrl.grpo.objective import clipped_objective

__all__ = ["GRPOModule", "clipped_objective", "group_advantages"]
