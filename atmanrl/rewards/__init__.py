"""Rewards: what a rollout is worth. A plugin point: subclass `Reward` in a module of your own."""

from atmanrl.rewards.base import Reward, RewardOutput
from atmanrl.rewards.causal_importance import CausalImportanceReward
from atmanrl.rewards.faults import RewardError
from atmanrl.rewards.format import FormatReward
from atmanrl.rewards.function import FunctionReward
from atmanrl.rewards.gate import Gate
from atmanrl.rewards.gold_logprob import GoldLogprobReward
from atmanrl.rewards.length import LengthReward, RelativeLengthReward, TokenPriceReward
from atmanrl.rewards.order import in_order, without_policy
from atmanrl.rewards.outcome import OutcomeReward
from atmanrl.rewards.saliency import SaliencyReward
from atmanrl.rewards.scores import Scores, fill_abstentions, score

__all__ = [
    "CausalImportanceReward",
    "FormatReward",
    "FunctionReward",
    "Gate",
    "GoldLogprobReward",
    "LengthReward",
    "OutcomeReward",
    "RelativeLengthReward",
    "Reward",
    "RewardError",
    "RewardOutput",
    "SaliencyReward",
    "Scores",
    "TokenPriceReward",
    "fill_abstentions",
    "in_order",
    "score",
    "without_policy",
]
