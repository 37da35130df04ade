"""The plugin point `Reward`, and how several rewards make one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.policy import Policy
from atmanrl.rewards.faults import RewardError, described, guarded
from atmanrl.rewards.gate import Gate, in_order
from atmanrl.rollouts.batch import RolloutBatch


class Reward(ABC):
    """What a rollout is worth, in one respect.

    Subclass it in a module of your own and name the class in YAML by its `class_path`, under a name of its own in
    `model.rewards`; nothing needs to be registered.

    Args:
        weight: factor in the total reward.
        only_where: counts only in rollouts where another reward is high enough; None counts everywhere.
        timeout_s: seconds that one call may take; None sets no limit (see `faults.time_limit`).

    Attributes:
        uses_policy: whether it runs the policy again. Such rewards are left out of evaluation unless asked for.
        figures: what the last call wants logged, by full name.

    Raises:
        UserError: a time limit that is no time.
    """

    uses_policy: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0, only_where: Gate | None = None, timeout_s: float | None = None) -> None:
        if timeout_s is not None and timeout_s <= 0:
            raise UserError(f"{type(self).__name__}: timeout_s is {timeout_s}; give seconds above 0, or null.")
        self.weight = weight
        self.only_where = only_where
        self.timeout_s = timeout_s
        self.figures: dict[str, float] = {}

    @abstractmethod
    def __call__(self, batch: RolloutBatch, policy: Policy) -> Tensor:
        """One number `[B]` for each rollout; NaN where the reward abstains.

        A gated reward is given the rollouts that pass its gate alone, as groups of one.
        """

    def observe(self, batch: RolloutBatch) -> dict[str, float]:
        """Take note of an update's rollouts, once those of all processes are known; nothing by default.

        A reward that adapts while a policy is trained does so here: every process calls it once an update, with the same
        rollouts in the same order.

        Returns:
            What is to be logged of it, by full name.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep of the reward: numbers, texts, lists, dicts and tensors; nothing by default."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from what `state_dict` gave; nothing by default."""


@dataclass
class Scores:
    """Rewards of B rollouts.

    Attributes:
        values: each reward's `[B]` by name, as given (NaN where it abstained or its gate was shut).
        total: `[B]` weighted sum, abstentions filled, nothing added behind shut gates.
        figures: what the rewards want logged, and of each gated one the share of rollouts in which it counts.
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
        RewardError: a reward gave another shape than `[B]` or an infinite value, raised an exception, or took longer
            than its time limit.
        UserError: a gate on a reward that is not there.
    """
    total = torch.zeros(len(batch))
    values: dict[str, Tensor] = {}
    figures: dict[str, float] = {}
    for name in in_order(rewards):
        reward = rewards[name]
        counts = torch.ones(len(batch), dtype=torch.bool)
        if (gate := reward.only_where) is not None:
            counts = values[gate.reward] >= gate.at_least
            figures[f"rewards/{name}/counted"] = float(counts.float().mean())
        given = torch.full((len(batch),), float("nan"))
        if counts.any():
            part = batch if counts.all() else batch.part(counts.nonzero()[:, 0].tolist())
            given[counts] = _called(name, reward, part, policy)
            figures |= reward.figures
        values[name] = given
        # zeros behind a shut gate leave min(0, lowest) as it is, so they may stand there while abstentions are filled
        total += fill_abstentions(torch.where(counts, reward.weight * given, 0.0), batch.group_size)
        for rollout, value in zip(batch.rollouts, given.tolist(), strict=True):
            rollout.rewards[name] = value
    return Scores({name: values[name] for name in rewards}, total, figures)


def _called(name: str, reward: Reward, batch: RolloutBatch, policy: Policy) -> Tensor:
    """What a reward gives, checked."""
    given = guarded(name, reward, batch, policy).detach().to("cpu", torch.float32)
    if given.shape != (len(batch),):
        raise RewardError(f"reward {name!r} gave shape {list(given.shape)} for {len(batch)} rollouts.")
    if given.isinf().any():
        rollout = batch.rollouts[int(given.isinf().nonzero()[0, 0])]
        raise RewardError(f"reward {name!r} gave an infinite value {described(rollout)}")
    return given
