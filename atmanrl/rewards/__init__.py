"""Rewards: what a rollout is worth. A plugin point: subclass `Reward` in a module of your own."""

from atmanrl.rewards.base import Reward, RewardError, Scores, fill_abstentions, score
from atmanrl.rewards.outcome import OutcomeReward
from atmanrl.rewards.saliency import SaliencyReward

__all__ = ["OutcomeReward", "Reward", "RewardError", "SaliencyReward", "Scores", "fill_abstentions", "score"]
