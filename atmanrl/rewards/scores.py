"""How several rewards make one: each is called, its values are noted in the rollouts, and all are added up by weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.rewards.base import Reward
from atmanrl.rewards.faults import checked
from atmanrl.rewards.order import in_order
from atmanrl.rollouts.batch import RolloutBatch


@dataclass(frozen=True)
class Scores:
    """Rewards of B rollouts.

    Attributes:
        values: each reward's `[B]` by name, unweighted (NaN where it abstained or its gate was shut).
        total: `[B]` weighted sum, abstentions filled, nothing added behind shut gates.
        metrics: the rewards' metrics, and of each gated one the share of rollouts in which it counts.

    Example:
        `Scores({"outcome": tensor([0., -1.])}, total=tensor([0., -1.]), metrics={})`
    """

    values: dict[str, Tensor]
    total: Tensor
    metrics: dict[str, float]


def fill_abstentions(values: Tensor, group_size: int) -> Tensor:
    """Replace NaN in `values [B]` by min(0, the group's lowest valid value), so that abstaining never pays."""
    groups = values.view(-1, group_size)
    lowest = groups.nan_to_num(nan=float("inf")).min(1, keepdim=True).values.clamp(max=0)
    return torch.where(groups.isnan(), lowest, groups).view(-1)


def score(rewards: Mapping[str, Reward], batch: RolloutBatch, policy: Policy) -> Scores:
    """Call every reward, note what it gives in the rollouts, and add the values up by weight.

    Raises:
        RewardError: a reward gave another shape than `[B]` or an infinite value, raised an exception, or took longer
            than its time limit.
        UserError: a gate on a reward that is not there.
    """
    total = torch.zeros(len(batch))
    values: dict[str, Tensor] = {}
    metrics: dict[str, float] = {}
    for name in in_order(rewards):
        reward = rewards[name]
        counts = torch.ones(len(batch), dtype=torch.bool)
        if (gate := reward.only_where) is not None:
            counts = values[gate.reward] >= gate.at_least
            metrics[f"rewards/{name}/counted"] = float(counts.float().mean())
        each = torch.full((len(batch),), float("nan"))
        factors = counts.float()
        if counts.any():
            part = batch if counts.all() else batch.part(counts.nonzero()[:, 0].tolist())
            output = checked(name, reward, part, policy)
            each[counts] = output.values
            if output.factors is not None:
                factors[counts] = output.factors
            metrics |= output.metrics
            for rollout, tokens in zip(part.rollouts, output.token_values or (), strict=False):
                if tokens is not None:
                    rollout.token_values[name] = list(tokens)
        values[name] = each
        # zeros behind a shut gate leave min(0, lowest) as it is, so they may stand there while abstentions are filled
        weighted = torch.where(factors > 0, reward.weight * factors * each, 0.0)
        total += fill_abstentions(weighted, batch.group_size)
        for rollout, value in zip(batch.rollouts, each.tolist(), strict=True):
            rollout.rewards[name] = value
    return Scores({name: values[name] for name in rewards}, total, metrics)
