"""Rewards: what a rollout is worth. A plugin point: subclass `Reward` in a module of your own."""

from atmanrl.rewards.base import Reward, Scores, fill_abstentions, score
from atmanrl.rewards.faults import RewardError
from atmanrl.rewards.format import FormatReward
from atmanrl.rewards.function import FunctionReward
from atmanrl.rewards.gate import Gate, in_order, without_policy
from atmanrl.rewards.length import LengthReward
from atmanrl.rewards.outcome import OutcomeReward
from atmanrl.rewards.saliency import SaliencyReward

__all__ = [
    "FormatReward",
    "FunctionReward",
    "Gate",
    "LengthReward",
    "OutcomeReward",
    "Reward",
    "RewardError",
    "SaliencyReward",
    "Scores",
    "fill_abstentions",
    "in_order",
    "score",
    "without_policy",
]
