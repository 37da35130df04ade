"""The plugin point `Reward`, and how several rewards make one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch


class RewardError(UserError):
    """A reward gave something that is no reward; the message names it."""


class Reward(ABC):
    """What a rollout is worth, in one respect.

    Subclass it in a module of your own and name the class in YAML by its `class_path`, under a name of its own in
    `model.rewards`; nothing needs to be registered.

    Args:
        weight: factor in the total reward.

    Attributes:
        uses_policy: whether it runs the policy again. Such rewards are left out of evaluation unless asked for.
        figures: what the last call wants logged, by full name.
    """

    uses_policy: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight
        self.figures: dict[str, float] = {}

    @abstractmethod
    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """One number `[B]` for each rollout; NaN where the reward abstains."""


@dataclass
class Scores:
    """Rewards of B rollouts.

    Attributes:
        values: each reward's `[B]` by name, as given (NaN where it abstained).
        total: `[B]` weighted sum, abstentions filled.
        figures: what the rewards want logged.
    """

    values: dict[str, Tensor]
    total: Tensor
    figures: dict[str, float]


def fill_abstentions(values: Tensor, group_size: int) -> Tensor:
    """Values `[B]` with NaN replaced by min(0, the group's lowest valid value), so that abstaining never pays."""
    groups = values.view(-1, group_size)
    lowest = groups.nan_to_num(nan=float("inf")).min(1, keepdim=True).values.clamp(max=0)
    return torch.where(groups.isnan(), lowest, groups).view(-1)


def score(rewards: Mapping[str, Reward], batch: RolloutBatch, policy: Policy) -> Scores:
    """Call every reward, note its values in the rollouts, and add them up by weight.

    Raises:
        RewardError: a reward gave another shape than `[B]`, or an infinite value.
    """
    total = torch.zeros(len(batch))
    values: dict[str, Tensor] = {}
    figures: dict[str, float] = {}
    for name, reward in rewards.items():
        given = reward(batch, policy).detach().to("cpu", torch.float32)
        if given.shape != (len(batch),):
            raise RewardError(f"reward {name!r} gave shape {list(given.shape)} for {len(batch)} rollouts.")
        if given.isinf().any():
            row = batch.rollouts[int(given.isinf().nonzero()[0, 0])].problem.id
            raise RewardError(f"reward {name!r} gave an infinite value for {row}.")
        values[name] = given
        total += fill_abstentions(reward.weight * given, batch.group_size)
        figures |= reward.figures
        for rollout, value in zip(batch.rollouts, given.tolist(), strict=True):
            rollout.rewards[name] = value
    return Scores(values, total, figures)
